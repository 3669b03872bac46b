"""From a typed batch to the rows of a table: row ids, suppression of erased subjects, order within a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.files import SOURCE
from infra.ids import Digest, Keys
from infra.mentions import mentioned
from infra.rowhash import row_hashes, row_ids
from infra.settings import SubjectSettings
from infra.subjects import Mask, concerned, roots, subject_ranks
from tasks.ingest.blocks import Reject

SORT_ROWS = 512 << 10
SORT_BYTES = 256 << 20
_ROW_ID = pa.field("row_id", pa.int64())


def trimmed(batch: pa.RecordBatch, subjects: Sequence[SubjectSettings]) -> pa.RecordBatch:
    """The batch with no blanks around the subjects' ids, where they are columns of text: a column of numbers has none either, and
    an id must not change when its column becomes text. (What lies in lists and objects was text in the file already.)"""
    for name in roots(batch.schema, subjects):
        index = batch.schema.names.index(name)
        if pa.types.is_string(batch.schema.field(index).type):
            batch = batch.set_column(index, batch.schema.field(index), pc.utf8_trim(batch.column(index), " \t"))
    return batch


def suppress(
    batch: pa.RecordBatch, subjects: Sequence[SubjectSettings], keys: Keys, suppressed: frozenset[str]
) -> tuple[pa.RecordBatch, int]:
    """The batch without the rows that name a suppressed subject (tokens) in any subject column, and how many those were."""
    gone = suppressed_rows(batch, subjects, keys, suppressed)
    return (batch, 0) if gone is None else (batch.filter(pa.array(~gone)), int(gone.sum()))


def suppressed_rows(
    batch: pa.RecordBatch, subjects: Sequence[SubjectSettings], keys: Keys, suppressed: frozenset[str]
) -> Mask | None:
    """Which rows name a suppressed subject, bool (n,); None if no row does."""
    if not suppressed or not subjects or batch.num_rows == 0:
        return None
    gone = concerned(batch, subjects, {subject.kind: suppressed for subject in subjects}, keys)
    return gone if gone.any() else None


def suppress_rejects(
    rejects: Sequence[Reject], subjects: Sequence[SubjectSettings], keys: Keys, suppressed: frozenset[str]
) -> tuple[list[Reject], int]:
    """The rejects without those that name a suppressed subject, as an erasure would find them, and how many those were."""
    if not suppressed or not subjects or not rejects:
        return list(rejects), 0
    gone = mentioned([reject.raw for reject in rejects], subjects, {s.kind: suppressed for s in subjects}, keys)
    kept = [reject for reject, is_gone in zip(rejects, gone, strict=True) if not is_gone]
    return kept, len(rejects) - len(kept)


@dataclass
class Tally:
    """The digest of the rows that were given their ids: they are hashed once, for both."""

    digest: Digest = field(default_factory=Digest)


def with_row_ids(batch: pa.RecordBatch, table: str, keys: Keys, tally: Tally) -> pa.RecordBatch:
    """The batch with `row_id` as its first column: a keyed hash of the table's name and the row's content, to which the hidden
    column `SOURCE` (what file a row came from) does not belong."""
    hashes = row_hashes(batch, [name for name in batch.schema.names if name != SOURCE], keys.row)
    tally.digest += Digest.of(hashes)
    ids = row_ids(table, hashes, keys.row)
    return batch.add_column(0, _ROW_ID, pa.array(ids))


def table_schema(user: pa.Schema) -> pa.Schema:
    """The schema of a records table: `row_id`, then the user's columns."""
    return user.insert(0, _ROW_ID)


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


def stats_columns(user: pa.Schema, *, private: Iterable[str]) -> list[str]:
    """The columns whose bounds may go to the table's log: numbers and times that are not `private`."""
    hidden = set(private)
    return [f.name for f in user if f.name not in hidden and _has_bounds(f.type)]


def _has_bounds(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)
