"""The nouns every stage shares: snapshots, files, lineage, and the Arrow schemas of Lethe's own tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

MIXED = "m"  # the source of a data file whose rows came from several raw files


class LetheError(Exception):
    """An error that a person can act on: it names the thing, the value and the way out. The CLI prints it and exits 1."""


class StaleSnapshot(LetheError):
    """A version that was read before is no longer in the lake."""


class UnknownTable(LetheError):
    """The lake holds no table of that name."""


class CommitConflict(LetheError):
    """Another writer changed what this commit was planned on; read again and plan again."""


@dataclass(frozen=True, order=True)
class Snapshot:
    """One version of one table. Equal digests mean equal rows, whatever the files, their order and their names."""

    table: str
    version: int
    digest: str
    n_rows: int

    @property
    def identity(self) -> tuple[str, str]:
        """What a stage depends on: the name and the rows, not the version number."""
        return (self.table, self.digest)


@dataclass(frozen=True)
class DataFile:
    """One immutable Parquet file of a table, as its writer described it.

    `path` is relative to the table's folder. `digest` is that of its rows (see `infra.ids.Digest`). `stats` holds exact bounds
    and null counts of the columns that carry no personal data: `{column: {"min", "max", "n_nulls"}}` in plain JSON values.
    `source` is the `source_key` of the raw file that the rows came from, where there is one, or `MIXED` where there are several.
    Digest and source travel in the file's name, so that the log alone tells them. `partition` holds the file's values of the
    table's partition columns as Delta spells them; the columns are in the file as well.
    """

    path: str
    n_rows: int
    n_bytes: int
    digest: str
    stats: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    source: str = ""
    partition: dict[str, str | None] = field(default_factory=dict[str, str | None])


@dataclass(frozen=True)
class Lineage:
    """Why a version exists. `key` digests the stage, its code, its parameters and the digests of its inputs."""

    stage: str
    key: str
    code: str
    inputs: tuple[Snapshot, ...] = ()
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


TIMESTAMP = pa.timestamp("us", tz="UTC")

SOURCES = _schema(
    table=pa.string(),
    uri=pa.string(),
    n_bytes=pa.int64(),
    modified=pa.string(),
    content_digest=pa.string(),
    columns=pa.string(),
    n_rows=pa.int64(),
    n_quarantined=pa.int64(),
    n_suppressed=pa.int64(),
    dialect=pa.string(),
    options=pa.string(),
    stopped=pa.string(),
)
QUARANTINE = _schema(table=pa.string(), source=pa.string(), line=pa.int64(), reason=pa.string(), raw=pa.large_string())
CONTAINMENT = _schema(
    child=pa.string(),
    parent=pa.string(),
    fraction=pa.float64(),
    set=pa.bool_(),
    multiset=pa.bool_(),
    exact=pa.bool_(),
    step=pa.string(),
    child_version=pa.int64(),
    parent_version=pa.int64(),
    n_residual=pa.int64(),
    error=pa.float64(),
    n_rows=pa.int64(),
    n_distinct=pa.int64(),
    n_missing=pa.int64(),
    child_digest=pa.string(),
    parent_digest=pa.string(),
    relation=pa.string(),
    question=pa.string(),
    asked=pa.list_(pa.string()),
    parents=pa.list_(pa.string()),
    columns=pa.list_(pa.list_(pa.string())),
)
PROFILES = _schema(
    table=pa.string(),
    file=pa.string(),
    what=pa.string(),
    columns=pa.string(),
    n_rows=pa.int64(),
    n_nulls=pa.int64(),
    threshold=pa.int64(),
    hashes=pa.list_(pa.int64()),
    log=pa.large_string(),
)
RETENTION = _schema(
    table=pa.string(),
    action=pa.string(),
    parents=pa.list_(pa.string()),
    n_bytes=pa.int64(),
    monthly_cost=pa.float64(),
    monthly_saving=pa.float64(),
    rebuild_s=pa.float64(),
    reason=pa.string(),
)
RECIPES = _schema(
    table=pa.string(),
    kind=pa.string(),
    recipe=pa.string(),
    parents=pa.list_(pa.string()),
    digest=pa.string(),
    n_rows=pa.int64(),
    n_bytes=pa.int64(),
    retired=TIMESTAMP,
)
NGRAM_COUNTS = _schema(table=pa.string(), file=pa.string(), counts=pa.list_(pa.int64()))
SELECTION = _schema(
    row_id=pa.int64(),
    keep=pa.bool_(),
    reason=pa.string(),
    log_weight=pa.float64(),
    key=pa.float64(),
    target=pa.string(),
    signal=pa.string(),
    value=pa.float64(),
    bound=pa.float64(),
    representative=pa.int64(),
    cuts=pa.list_(pa.int32()),
)
SIGNATURES = _schema(row_id=pa.int64(), n_words=pa.int64(), text_hash=pa.binary(), minhash=pa.binary())
CONTAMINATION = _schema(
    row_id=pa.int64(),
    table=pa.string(),
    gram=pa.int64(),
    word=pa.int32(),
    n_words=pa.int32(),
    begin=pa.int32(),
    end=pa.int32(),
    of_words=pa.int32(),
)
MODEL_SCORES = _schema(row_id=pa.int64(), score=pa.float64())
SCORES = _schema(row_id=pa.int64(), metric=pa.string(), score=pa.float64(), cluster=pa.int32())
TRAINING_SET = _schema(
    row_id=pa.int64(),
    shard=pa.int32(),
    slice=pa.int32(),
    keep=pa.bool_(),
    reason=pa.string(),
    control=pa.bool_(),
    cuts=pa.list_(pa.int32()),
)
REQUESTS = _schema(
    request_id=pa.string(), kind=pa.string(), subject=pa.string(), state=pa.string(), at=TIMESTAMP, detail=pa.string()
)
CERTIFICATES = _schema(request_id=pa.string(), issued=TIMESTAMP, envelope=pa.string())

# Reasons of a decision row: one word each, the same in every decision table.
KEPT = "kept"
BELOW_THRESHOLD = "below_threshold"
EMPTY_TEXT = "empty_text"
TOO_SHORT = "too_short"
NO_SCORE = "no_score"
FILTERED = "filtered"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
CONTAMINATED = "contaminated"
NOT_SELECTED = "not_selected"
PRUNED = "pruned"
HOLDOUT = "holdout"
