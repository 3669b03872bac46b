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
import pyarrow.parquet as pq

from infra.files import Part, filesystem, read_part
from infra.ids import I64

_SPAN = 1 << 63
_SPILL_GROUP = 16_384  # a range of many reads little more of a part than its own rows


def spill(scratch: str, table: pa.Table) -> str:
    """Write one part, sorted by `row_id`, into scratch; returns its uri. Runs in workers; a repeated run only leaves one more
    file.
    """
    uri = f"{scratch.rstrip('/')}/{uuid.uuid4().hex}.parquet"
    fs, path = filesystem(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    ordered = table.take(pa.array(np.argsort(np.asarray(table.column("row_id")), kind="stable")))
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    quick: dict[str, Any] = {"compression": "lz4", "use_dictionary": words or False, "write_statistics": ["row_id"]}
    with fs.open(path, "wb") as sink:
        pq.write_table(ordered, sink, row_group_size=_SPILL_GROUP, **quick)  # read back soon, and thrown away
    return uri


def ranges(n_rows: int, rows_per_range: int = 2_000_000, *, multiple: int = 1) -> list[tuple[int, int]]:
    """[lo, hi) intervals that cover all row ids, of about `rows_per_range` rows each (ids are uniform: they are hashes).

    Where there are several they are a multiple of a number, so that a few workers have as many each.
    """
    n_ranges = max(1, -(-n_rows // rows_per_range))
    if n_ranges > 1:
        n_ranges = -(-n_ranges // multiple) * multiple
    cuts = [_SPAN * i // n_ranges for i in range(n_ranges + 1)]
    return list(itertools.pairwise(cuts))


def merged(parts: Sequence[str], lo: int, hi: int, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of all parts with lo <= row_id < hi, one a row id, sorted by it; all columns, or those named, `row_id` among
    them."""
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
    local = uri.startswith("/")
    with pa.memory_map(path) if local else fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        # A worker is a core: other threads would take those of its neighbours.
        table = parquet.read_row_groups(_groups(parquet.metadata, lo, hi), columns=columns, use_threads=False)
    ids = np.asarray(table.column("row_id"))
    start, end = np.searchsorted(ids, np.int64(lo)), np.searchsorted(ids, np.int64(hi - 1), side="right")
    return table.slice(start, end - start)


def _groups(told: pq.FileMetaData, lo: int, hi: int) -> list[int]:
    """The row groups of a part that hold row ids of a range."""
    at = told.schema.names.index("row_id")
    bounds = [told.row_group(g).column(at).statistics for g in range(told.num_row_groups)]
    return [g for g, of in enumerate(bounds) if of is not None and of.has_min_max and of.min < hi and of.max >= lo]


def kept_ids(parts: Sequence[Part], column: str = "keep") -> I64:
    """Row ids of a decision table whose boolean column is true, sorted; 8 bytes a row."""
    found = [np.empty(0, np.int64)]
    for part in parts:
        for batch in read_part(part, ["row_id", column]):
            found.append(np.asarray(batch.column("row_id").filter(batch.column(column))))
    return np.sort(np.concatenate(found))
