"""One decision a record, in bounded memory: workers spill parts sorted by row id, and ranges of row ids are merged one at a time.

Identical rows share a row id and may lie in several files; whatever is decided about a record is a function of its content, so
any of its copies will do and the first one met stands for all.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.files import Part, filesystem, read_part
from infra.ids import I64

_SPAN = 1 << 63
_SPILL_GROUP = 131_072


def spill(scratch: str, table: pa.Table) -> str:
    """Write one part, sorted by `row_id`, into scratch; returns its uri. Runs in workers; a repeated run only leaves one more
    file.
    """
    uri = f"{scratch.rstrip('/')}/{uuid.uuid4().hex}.parquet"
    fs, path = filesystem(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    ordered = table.take(pa.array(np.argsort(np.asarray(table.column("row_id")), kind="stable")))
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    quick: dict[str, Any] = {"compression": "lz4", "use_dictionary": words or False}  # read back soon, and thrown away
    with fs.open(path, "wb") as sink:
        pq.write_table(ordered, sink, row_group_size=_SPILL_GROUP, **quick)
    return uri


def ranges(n_rows: int, rows_per_range: int = 2_000_000) -> list[tuple[int, int]]:
    """[lo, hi) intervals that cover all row ids, of about `rows_per_range` rows each (ids are uniform: they are hashes)."""
    n_ranges = max(1, -(-n_rows // rows_per_range))
    cuts = [_SPAN * i // n_ranges for i in range(n_ranges + 1)]
    return list(itertools.pairwise(cuts))


def merged(parts: Sequence[str], lo: int, hi: int, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of all parts with lo <= row_id < hi, one a row id, sorted by it; all columns, or those named."""
    pieces = sliced(parts, lo, hi, columns=columns)
    if not pieces:
        raise ValueError("merged() needs at least one part")
    table = pa.concat_tables(pieces).combine_chunks()
    ids = np.asarray(table.column("row_id"))
    order = np.argsort(ids, kind="stable")  # parts are runs in order, which are merged and not sorted again
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[order][1:] != ids[order][:-1]
    return table.take(pa.array(order[first]))


def sliced(parts: Sequence[str], lo: int, hi: int, *, columns: Sequence[str] | None = None) -> list[pa.Table]:
    """The rows of each part with lo <= row_id < hi, copies and all."""
    return [_slice(uri, lo, hi, columns) for uri in parts]


def _slice(uri: str, lo: int, hi: int, columns: Sequence[str] | None) -> pa.Table:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        condition = (pc.field("row_id") >= lo) & (pc.field("row_id") <= hi - 1)
        return pq.read_table(file, columns=columns, filters=condition)


def kept_ids(parts: Sequence[Part], column: str = "keep") -> I64:
    """Row ids of a decision table whose boolean column is true, sorted; 8 bytes a row."""
    found = [np.empty(0, np.int64)]
    for part in parts:
        for batch in read_part(part, ["row_id", column]):
            found.append(np.asarray(batch.column("row_id").filter(batch.column(column))))
    return np.sort(np.concatenate(found))
