"""A rebuilt table's rows as data files like those that ingest writes: row ids, one partition a file, rows in order of their
subjects, bounds of no private column in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as pt

from infra.contracts import DataFile
from infra.files import Folder, write_part
from infra.ids import Keys
from infra.rowhash import row_hashes, row_ids
from infra.settings import SubjectSettings
from infra.subjects import subject_ranks
from tasks.dedup.recipes import ROW_ID

FILE_ROWS = 512 << 10
FILE_BYTES = 128 << 20


@dataclass(frozen=True)
class Layout:
    """Where and how the rows of a table are written: its name and schema (`row_id` included), and the raw file they are from."""

    folder: Folder
    table: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    subjects: tuple[SubjectSettings, ...]
    private: tuple[str, ...]
    source: str = ""


def write_files(layout: Layout, batches: Iterable[pa.RecordBatch], keys: Keys) -> list[DataFile]:
    """Write rows, given with the schema's user columns, as data files of a bounded size; their digests are of what is written.

    Memory: one file's rows.
    """
    return [
        _write(layout, part, partition, keys)
        for chunk in _chunks(batches)
        for partition, part in _partitions(chunk, layout.partition_by)
    ]


def _write(layout: Layout, rows: pa.Table, partition: dict[str, str | None], keys: Keys) -> DataFile:
    user = rows.column_names
    if layout.subjects:
        rows = rows.take(pa.array(np.argsort(subject_ranks(rows, layout.subjects[0], keys), kind="stable")))
    if ROW_ID in layout.schema.names:
        ids = row_ids(layout.table, row_hashes(rows, user, keys.row), keys.row)
        rows = rows.append_column(ROW_ID, pa.array(ids)).select(layout.schema.names)
    stats = [field.name for field in layout.schema if field.name in user and _is_told(layout, field)]
    batches = rows.to_batches()
    return write_part(
        layout.folder, batches, layout.schema, source=layout.source, stats=stats, digest_columns=user, partition=partition
    )


def _is_told(layout: Layout, field: pa.Field) -> bool:
    """Whether the log may tell a column's bounds."""
    kind = field.type
    has_bounds = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_date(kind) or pt.is_timestamp(kind)
    return has_bounds and field.name.lower() not in layout.private


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of one file at a time."""
    held, n_rows, n_bytes = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        if held and (n_rows + batch.num_rows > FILE_ROWS or n_bytes + batch.nbytes > FILE_BYTES):
            yield pa.Table.from_batches(held)
            held, n_rows, n_bytes = [], 0, 0
        if batch.num_rows:
            held.append(batch)
            n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
    if held:
        yield pa.Table.from_batches(held)


def _partitions(rows: pa.Table, columns: Sequence[str]) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    """The rows by their values of the partition columns, in order of first appearance."""
    if not columns:
        yield {}, rows
        return
    numbered = rows.select(columns).append_column("", pa.array(np.arange(rows.num_rows)))
    groups = numbered.group_by(list(columns), use_threads=False).aggregate([("", "list")])
    for group in groups.to_batches():
        for i in range(group.num_rows):
            values = {name: _spelled(group.column(name)[i].as_py()) for name in columns}
            yield values, rows.take(group.column("_list")[i].values)


def _spelled(value: Any) -> str | None:
    """A partition value as Delta spells it: ISO days and times, `true` and `false`, an empty text as NULL."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat(sep=" ") if hasattr(value, "hour") else str(value)
