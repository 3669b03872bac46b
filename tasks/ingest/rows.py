"""From a typed batch to the rows of a table: subjects' ids without blanks around them, and nobody who was erased."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import Keys
from infra.mentions import mentioned
from infra.settings import SubjectSettings
from infra.subjects import Mask, concerned, roots
from tasks.ingest.blocks import Reject


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
