"""What every reader yields: a block of rows as the file has them, and the lines that are no rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.contracts import QUARANTINE

INVALID_UTF8 = "not UTF-8"
_RAW_BYTES = 8 << 20


@dataclass(frozen=True)
class Reject:
    """A line that is no row: its number from 1 (0: none can be told), the reason, the text as far as it is text."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Block:
    """Rows as their reader has them (a batch of text columns, a list of objects, a batch of typed columns) and the rejects among
    them.

    `is_wide`: some rows hold valid UTF-8 beyond ASCII. `lines`: the line in the raw file on which each row starts, from 1, int64
    (n_rows,); None where the format has no lines.
    """

    rows: Any
    n_rows: int
    rejects: tuple[Reject, ...] = ()
    is_wide: bool = False
    lines: npt.NDArray[np.int64] | None = None


def as_text(raw: bytes) -> str:
    """Bytes as text: UTF-8 where it is, else with \\xNN for what is not."""
    return raw.decode("utf-8", "backslashreplace")


def is_utf8(data: bytes | memoryview) -> bool:
    """Whether the bytes (less than 2 GiB) are valid UTF-8, at memory speed."""
    offsets = pa.py_buffer(np.array([0, len(data)], np.int32))
    try:
        pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def quarantine_batches(table: str, source: str, rejects: Sequence[Reject]) -> Iterator[pa.RecordBatch]:
    """Rejects as rows of the quarantine table, some megabytes at a time."""
    held, n_bytes = list[Reject](), 0
    for reject in rejects:
        held.append(reject)
        n_bytes += len(reject.raw)
        if n_bytes > _RAW_BYTES:
            yield _quarantine_batch(table, source, held)
            held, n_bytes = [], 0
    if held:
        yield _quarantine_batch(table, source, held)


def _quarantine_batch(table: str, source: str, rejects: Sequence[Reject]) -> pa.RecordBatch:
    rows = [{"table": table, "source": source, "line": r.line, "reason": r.reason, "raw": r.raw} for r in rejects]
    return pa.RecordBatch.from_pylist(rows, schema=QUARANTINE)
