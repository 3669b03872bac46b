"""Typed rows of raw files to data files of their tables."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from infra import layout
from infra.contracts import DataFile
from infra.files import SOURCE, source_key, source_number
from infra.ids import Keys
from infra.layout import Layout, table_schema
from infra.subjects import roots
from tasks.ingest.packs import Job

_SOURCE_FIELD = pa.field(SOURCE, pa.int64())


def data_files(
    job: Job, schema: pa.Schema, batches: Iterable[pa.RecordBatch], keys: Keys, *, mixed: bool = False
) -> tuple[DataFile, ...]:
    """Write the batches as data files of the job's table, which has the schema's columns and `row_id`; none if there is no row.
    With `mixed`, the batches say in the column `SOURCE` which raw file a row is from; else it is the job's. Memory: one file's
    rows, where they have to be put in order.
    """
    table = job.table
    private = (*roots(schema, table.subjects), *([table.text] if table.text else []))
    how = Layout(
        *(job.folder, job.raw.table, table_schema(schema), table.partition_by, table.subjects, private, job.raw.uri, mixed)
    )
    return layout.data_files(how, batches, keys)


def with_source(batch: pa.RecordBatch, uri: str) -> pa.RecordBatch:
    """The batch with the number of its raw file in the column `SOURCE`."""
    return batch.append_column(_SOURCE_FIELD, pa.repeat(pa.scalar(source_number(source_key(uri)), pa.int64()), batch.num_rows))
