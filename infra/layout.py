"""How the rows of a table lie in its data files: row ids, one partition a file, rows in the order of their subjects, files of a
bounded size, bounds of no private column in the log. Whoever writes records writes them through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import DataFile
from infra.files import SOURCE, Folder, write_part
from infra.ids import I64, Digest, Keys
from infra.rowhash import row_hashes, row_ids
from infra.settings import SubjectSettings
from infra.subjects import subject_ranks

ROW_ID = "row_id"
SORT_ROWS = 512 << 10
SORT_BYTES = 256 << 20
TARGET_ROWS = SORT_ROWS  # a file that is full can still be put in order
TARGET_BYTES = 128 << 20  # in memory: some tens of MiB on the disk


@dataclass(frozen=True)
class Layout:
    """Where and how rows are written: their table's name and schema (`row_id` among them, if rows get ids), the columns it is
    partitioned by, whose rows they are, the columns whose bounds no log may tell, and the uri of the raw file they are from. With
    `is_mixed` the batches say in the column `SOURCE` which raw file a row is from.
    """

    folder: Folder
    table: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    subjects: tuple[SubjectSettings, ...] = ()
    private: tuple[str, ...] = ()
    source: str = ""
    is_mixed: bool = False


def table_schema(user: pa.Schema) -> pa.Schema:
    """The schema of a records table: `row_id`, then the user's columns."""
    return user.insert(0, pa.field(ROW_ID, pa.int64()))


def data_files(layout: Layout, batches: Iterable[pa.RecordBatch], keys: Keys) -> tuple[DataFile, ...]:
    """Write batches of the user's columns as data files of a bounded size; none if there is no row. Memory: one file's rows,
    where they have to be put in order or are partitioned.
    """
    made = list[DataFile]()
    cut = _Cut(batches)
    while cut.has_more:
        for partition, part in _partitions(cut.chunk(), layout.partition_by):
            made.append(_data_file(layout, part, partition, keys))
    return tuple(made)


def _data_file(layout: Layout, batches: Iterable[pa.RecordBatch], partition: dict[str, str | None], keys: Keys) -> DataFile:
    tally = Tally()
    table = layout.table if ROW_ID in layout.schema.names else None
    return write_part(
        layout.folder,
        by_subject((identified(batch, table, keys, tally) for batch in batches), layout.subjects, keys),
        layout.schema,
        source=layout.source,
        stats=_told(layout),
        digest_of=lambda: tally.digest,
        mixed=layout.is_mixed,
        partition=partition,
    )


def _told(layout: Layout) -> list[str]:
    """The columns whose bounds may go to the table's log: numbers and times that are not private."""
    hidden = {ROW_ID, *(name.lower() for name in layout.private)}
    return [field.name for field in layout.schema if field.name.lower() not in hidden and _has_bounds(field.type)]


def _has_bounds(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)


# --- rows ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """The digest of the rows that were given their ids: they are hashed once, for both."""

    digest: Digest = field(default_factory=Digest)


def identified(batch: pa.RecordBatch, table: str | None, keys: Keys, tally: Tally) -> pa.RecordBatch:
    """The batch with `row_id` as its first column: a keyed hash of the table's name and the row's content, to which the hidden
    column `SOURCE` (what file a row came from) does not belong. Without a name the rows get no ids, and are counted all the same.
    """
    hashes = row_hashes(batch, [name for name in batch.schema.names if name != SOURCE], keys.row)
    tally.digest += Digest.of(hashes)
    return batch if table is None else batch.add_column(0, ROW_ID, pa.array(row_ids(table, hashes, keys.row)))


def by_subject(batches: Iterable[pa.RecordBatch], subjects: Sequence[SubjectSettings], keys: Keys) -> Iterator[pa.RecordBatch]:
    """A small file's rows in the order of their first subjects' tokens, so that erasing one subject rewrites few row groups;
    files of more than half a million rows or 256 MiB keep their order (memory)."""
    if not subjects:
        yield from batches
        return
    held, n_rows, n_bytes, stream = list[pa.RecordBatch](), 0, 0, iter(batches)
    for batch in stream:
        held.append(batch)
        n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
        if n_rows > SORT_ROWS or n_bytes > SORT_BYTES:
            yield from held
            yield from stream
            return
    if n_rows:
        whole = pa.Table.from_batches(held).combine_chunks().to_batches()[0]
        yield whole.take(pa.array(np.argsort(subject_ranks(whole, subjects[0], keys), kind="stable")))


class _Cut:
    """A stream of batches, cut where a data file is full."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = (batch for batch in batches if batch.num_rows)
        self._next = next(self._batches, None)

    @property
    def has_more(self) -> bool:
        return self._next is not None

    def chunk(self) -> Iterator[pa.RecordBatch]:
        """The batches of one file: at least one."""
        n_rows = n_bytes = 0
        while self._next is not None and n_rows < TARGET_ROWS and n_bytes < TARGET_BYTES:
            batch = self._next.slice(0, TARGET_ROWS - n_rows)
            rest = self._next.slice(batch.num_rows)
            self._next = rest if rest.num_rows else next(self._batches, None)
            n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
            yield batch


# --- partitions ---------------------------------------------------------------------------------------------------------------


def _partitions(
    batches: Iterator[pa.RecordBatch], columns: tuple[str, ...]
) -> Iterator[tuple[dict[str, str | None], Iterable[pa.RecordBatch]]]:
    """The rows by their values of the partition columns, in order of first appearance within a value."""
    if not columns:
        yield {}, batches
        return
    table = pa.Table.from_batches(batches).combine_chunks()
    # A file may lack a column that its table has: NULL there.
    known = {name: table.column(name) for name in columns if name in table.column_names}
    codes = _codes([column.combine_chunks() for column in known.values()], table.num_rows)
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    for places in np.split(order, ends):
        first = int(places[0])
        values = {name: partition_text(known[name][first].as_py()) if name in known else None for name in columns}
        yield values, table.take(pa.array(places)).to_batches()


def _codes(columns: list[pa.Array], n_rows: int) -> I64:
    """One number a row, equal where all the columns are."""
    codes = np.zeros(n_rows, np.int64)
    for column in columns:
        encoded = pc.dictionary_encode(column, null_encoding="encode")
        codes = codes * len(encoded.dictionary) + np.asarray(encoded.indices)
        _, codes = np.unique(codes, return_inverse=True)
    return codes


def partition_text(value: Any) -> str | None:
    """A value as Delta spells it in a path and in the log: ISO days and times, `true` and `false`, an empty text as NULL."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat(sep=" ") if hasattr(value, "hour") else str(value)
