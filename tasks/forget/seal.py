"""What an erasure is about to take away, sealed beside the lake's secret until it is certified.

After the rows are gone nothing else knows which they were: the residue scan needs their ids and hashes, and a run that was
killed half way needs the figures of the tables that it had finished. Its owner alone can read the file; it holds keyed hashes.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts import Snapshot
from infra.ids import I64, U64, Digest, key_of

_ROWS = pa.schema(
    [
        pa.field("table", pa.string()),
        pa.field("row_id", pa.int64()),
        pa.field("low", pa.uint64()),
        pa.field("high", pa.uint64()),
        pa.field("gone", pa.bool_()),
    ]
)
_META = b"lethe.seal"
NO_ROW_ID = -1


@dataclass(frozen=True)
class Entry:
    """One table that loses rows: by which rule, from which snapshot, in how many files, out of which raw files."""

    table: str
    how: str
    before: Snapshot
    n_files: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Seal:
    """The plan of one erasure. `rows` has a row for every copy; `gone` says that no copy of that row stays behind."""

    requests: tuple[str, ...]
    entries: tuple[Entry, ...]
    rows: pa.Table
    path: Path | None = None

    def of(self, table: str) -> pa.Table:
        """The rows that one table loses."""
        return self.rows.filter(pa.array([name == table for name in self.rows["table"].to_pylist()], pa.bool_()))


def lost_rows(table: str, row_ids: I64, hashes: U64, gone: np.ndarray) -> pa.Table:
    """Rows of a seal: ids int64 (n,), row hashes uint64 (n, 2), gone bool (n,)."""
    columns = [pa.array([table] * len(row_ids), pa.string()), pa.array(row_ids), pa.array(hashes[:, 0]), pa.array(hashes[:, 1])]
    return pa.table([*columns, pa.array(gone, pa.bool_())], schema=_ROWS)


def no_rows() -> pa.Table:
    """The rows of an erasure that finds nobody."""
    return _ROWS.empty_table()


def digest_of(rows: pa.Table) -> Digest:
    """The digest of sealed rows: what a table's digest loses."""
    return Digest.of(np.column_stack([np.asarray(rows["low"]), np.asarray(rows["high"])]).astype(np.uint64).reshape(-1, 2))


def save(folder: Path, seal: Seal) -> Path:
    """Write a seal (0600) under the name of its request, or of its batch; a plan of the same batch replaces the earlier one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = seal.requests[0] if len(seal.requests) == 1 else f"batch-{key_of(*sorted(seal.requests))[:16]}"
    document = {"requests": seal.requests, "entries": [asdict(entry) for entry in seal.entries]}
    table = seal.rows.replace_schema_metadata({_META: json.dumps(document).encode()})
    draft = folder / f"draft-{uuid.uuid4().hex}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        pq.write_table(table, sink)
        sink.flush()
        os.fsync(sink.fileno())
    return draft.replace(folder / f"{name}.parquet")


def load(folder: Path, request_ids: Collection[str]) -> list[Seal]:
    """The seals that concern any of the requests."""
    seals = [_read(path) for path in sorted(folder.glob("*.parquet"))] if folder.is_dir() else []
    return [seal for seal in seals if set(seal.requests) & set(request_ids)]


def _read(path: Path) -> Seal:
    table = pq.read_table(path)
    document = json.loads((table.schema.metadata or {})[_META])
    entries = tuple(_entry(**entry) for entry in document["entries"])
    return Seal(tuple(document["requests"]), entries, table.cast(_ROWS), path)


def _entry(table: str, how: str, before: dict[str, str | int], n_files: int, sources: list[str]) -> Entry:
    return Entry(table, how, Snapshot(**before), n_files, tuple(sources))  # pyright: ignore[reportArgumentType]


def drop(seals: Sequence[Seal], certified: Collection[str]) -> None:
    """Remove the seals of which every request is certified."""
    for seal in seals:
        if seal.path is not None and set(seal.requests) <= set(certified):
            seal.path.unlink(missing_ok=True)
