"""Typed rows to data files of a target size: row ids, order by subject, one file a partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import DataFile
from infra.files import SOURCE, source_key, source_number, write_part
from infra.ids import Keys
from infra.subjects import roots
from tasks.ingest import rows
from tasks.ingest.packs import Job

TARGET_ROWS = rows.SORT_ROWS  # a file that is full can still be put in order
TARGET_BYTES = 128 << 20  # in memory: some tens of MiB on the disk
_SOURCE_FIELD = pa.field(SOURCE, pa.int64())


def data_files(
    job: Job, schema: pa.Schema, batches: Iterable[pa.RecordBatch], keys: Keys, *, mixed: bool = False
) -> tuple[DataFile, ...]:
    """Write the batches as data files of the job's table; none if there is no row. With `mixed`, the batches say in the column
    `SOURCE` which raw file a row is from; else it is the job's. Memory: one file's rows, where they have to be put in order.
    """
    made = list[DataFile]()
    cut = _Cut(batches)
    while cut.has_more:
        for partition, part in _partitions(cut.chunk(), job.table.partition_by):
            made.append(_data_file(job, schema, part, keys, mixed=mixed, partition=partition))
    return tuple(made)


def with_source(batch: pa.RecordBatch, uri: str) -> pa.RecordBatch:
    """The batch with the number of its raw file in the column `SOURCE`."""
    return batch.append_column(_SOURCE_FIELD, pa.repeat(pa.scalar(source_number(source_key(uri)), pa.int64()), batch.num_rows))


def _data_file(
    job: Job,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    keys: Keys,
    *,
    mixed: bool,
    partition: dict[str, str | None],
) -> DataFile:
    tally = rows.Tally()
    identified = (rows.with_row_ids(batch, job.raw.table, keys, tally) for batch in batches)
    return write_part(
        job.folder,
        rows.by_subject(identified, job.table.subjects, keys),
        rows.table_schema(schema),
        source=job.raw.uri,
        stats=rows.stats_columns(schema, private=_private(job, schema)),
        digest_of=lambda: tally.digest,
        mixed=mixed,
        partition=partition,
    )


def _private(job: Job, schema: pa.Schema) -> list[str]:
    return [*roots(schema, job.table.subjects), *([job.table.text] if job.table.text else [])]


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


def _codes(columns: list[pa.Array], n_rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
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
