"""From a typed batch to the rows of a table: row ids, suppression of erased subjects, order within a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import Digest, Keys
from infra.rowhash import row_hashes, row_ids
from infra.settings import SubjectSettings
from infra.subjects import subject_tokens

SORT_ROWS = 512 << 10
SORT_BYTES = 256 << 20
_ROW_ID = pa.field("row_id", pa.int64())


def subject_index(schema: pa.Schema, subject: SubjectSettings | None) -> int | None:
    """Which column holds the subject, by its exact name; None where the table has none."""
    return schema.names.index(subject.column) if subject is not None and subject.column in schema.names else None


def trimmed(batch: pa.RecordBatch, subject: SubjectSettings | None) -> pa.RecordBatch:
    """The batch with no blanks around the subjects' ids, where they are text: a column of numbers has none either, and an id must
    not change when its column becomes text."""
    index = subject_index(batch.schema, subject)
    if index is None or not pa.types.is_string(batch.schema.field(index).type):
        return batch
    return batch.set_column(index, batch.schema.field(index), pc.utf8_trim(batch.column(index), " \t"))


def suppress(
    batch: pa.RecordBatch, subject: SubjectSettings | None, keys: Keys, suppressed: frozenset[str]
) -> tuple[pa.RecordBatch, int]:
    """The batch without the rows of suppressed subjects (tokens), and how many those were."""
    index = subject_index(batch.schema, subject)
    if subject is None or index is None or not suppressed or batch.num_rows == 0:
        return batch, 0
    tokens = subject_tokens(batch.column(index), subject.kind, keys)
    kept = batch.filter(pc.invert(pc.is_in(tokens, value_set=pa.array(sorted(suppressed)))))
    return kept, batch.num_rows - kept.num_rows


@dataclass
class Tally:
    """The digest of the rows that were given their ids: they are hashed once, for both."""

    digest: Digest = field(default_factory=Digest)


def with_row_ids(batch: pa.RecordBatch, table: str, keys: Keys, tally: Tally) -> pa.RecordBatch:
    """The batch with `row_id` as its first column: a keyed hash of the table's name and the row's content."""
    hashes = row_hashes(batch, batch.schema.names, keys.row)
    tally.digest += Digest.of(hashes)
    ids = row_ids(table, hashes, keys.row)
    return batch.add_column(0, _ROW_ID, pa.array(ids))


def table_schema(user: pa.Schema) -> pa.Schema:
    """The schema of a records table: `row_id`, then the user's columns."""
    return user.insert(0, _ROW_ID)


def by_subject(batches: Iterable[pa.RecordBatch], subject: SubjectSettings | None, keys: Keys) -> Iterator[pa.RecordBatch]:
    """A small file's rows in the order of their subjects' tokens, so that erasing one subject rewrites few row groups; files of
    more than half a million rows or 256 MiB keep their order (memory)."""
    if subject is None:
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
    if held:
        yield _sorted(pa.Table.from_batches(held).combine_chunks().to_batches()[0], subject, keys)


def _sorted(batch: pa.RecordBatch, subject: SubjectSettings, keys: Keys) -> pa.RecordBatch:
    index = subject_index(batch.schema, subject)
    if index is None:
        return batch
    encoded = batch.column(index).dictionary_encode()
    tokens = subject_tokens(encoded, subject.kind, keys)
    ranks = pc.rank(tokens, sort_keys="ascending", tiebreaker="dense")
    return batch.take(pa.array(np.argsort(np.asarray(ranks), kind="stable")))


def stats_columns(user: pa.Schema, *, private: Iterable[str]) -> list[str]:
    """The columns whose bounds may go to the table's log: numbers and times that are not `private`."""
    hidden = set(private)
    return [f.name for f in user if f.name not in hidden and _has_bounds(f.type)]


def _has_bounds(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)
