"""The per-file side of pruning: what a worker reads, embeds, spills and writes, in memory bounded by a row group.

Three passes: the keyed sample of each file goes to the driver; with the rule that was fitted there, each file's decisions are
spilled in order of row id; then ranges of row ids are merged into the output tables. Every function may run twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.cluster import n_gpus
from infra.contracts import HOLDOUT, KEPT, NOT_SELECTED, PRUNED, SCORES, TRAINING_SET, DataFile
from infra.decisions import kept_ids, merged, spill
from infra.files import Folder, Part, read_part, write_part
from infra.ids import I64, Digest, Keys, in_sample, keyed_uniform
from infra.spans import CUTS, Cuts, contents, read_cuts, without_cuts
from infra.subjects import row_places
from infra.views import Job, View, content_of
from tasks.kernels.embedding import Embedding, embed
from tasks.kernels.kmeans import UNIT
from tasks.prune.places import held_out, in_control, shard_digests, shards_and_slices
from tasks.prune.rules import Rule, apply_rule

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

REASONS = (KEPT, PRUNED, NOT_SELECTED, HOLDOUT)
_KEPT, _PRUNED, _NOT_SELECTED, _HOLDOUT = range(4)
_BATCH_ROWS = 65_536
_DECISIONS = pa.schema(
    [
        ("row_id", pa.int64()),
        ("shard", pa.int32()),
        ("slice", pa.int32()),
        ("reason", pa.int8()),
        ("control", pa.bool_()),
        ("distance", pa.int64()),
        ("cluster", pa.int32()),
        ("cuts", CUTS),
    ]
)


@dataclass(frozen=True)
class Chosen:
    """The selection decisions. Compared by digest, so that a worker reads them once and not once a file."""

    digest: str
    parts: tuple[Part, ...] = field(compare=False)


@dataclass(frozen=True, repr=False)
class Plan:
    """What is the same for every file."""

    keys: Keys
    chosen: Chosen | None
    method: str
    keep_fraction: float
    seed: int
    level: int
    holdout_fraction: float
    n_shards: int
    n_slices: int
    device: str

    @property
    def embeds(self) -> bool:
        return self.method in ("density", "prototypes")


@dataclass(frozen=True)
class Sample:
    """The keyed sample without held-out subjects: the ids of all its records, and what is known of the selected ones.

    `content` holds what is to be fitted and embedded: texts, images or features; row ids alone where the method embeds nothing.
    """

    pool_ids: I64
    row_ids: I64
    labels: pa.Array
    content: pa.Table


@dataclass(frozen=True)
class Fitted:
    """What the driver learnt from the sample. Methods that compare no records have neither embedding nor rule."""

    control_fraction: float
    embedding: Embedding | None = None
    rule: Rule | None = None

    @property
    def nbytes(self) -> int:
        return (self.embedding.nbytes if self.embedding else 0) + (self.rule.nbytes if self.rule else 0)


@dataclass(frozen=True)
class Written:
    """What one range of row ids became. `cluster_sizes` counts the records that were scored, by cluster."""

    training_set: DataFile | None
    scores: DataFile | None
    counts: dict[str, int]
    n_control: int
    cluster_sizes: I64
    digests: tuple[Digest, ...]


# --- first pass: the sample ----------------------------------------------------------------------------------------------------


def sample_part(job: Job, plan: Plan) -> Sample:
    """The sample of one file. Records that selection left out count for the size of the control alone."""
    return joined([_sampled(batch, job.view, plan) for batch in _batches(job, plan)])


def joined(samples: Sequence[Sample]) -> Sample:
    """Samples as one, sorted by row id. Copies of a record are met in several files and count once."""
    row_ids, first = np.unique(np.concatenate([s.row_ids for s in samples]), return_index=True)
    rows = pa.array(first)
    labels = pa.concat_arrays([s.labels for s in samples]).take(rows)
    content = pa.concat_tables([s.content for s in samples], promote_options="permissive").take(rows)
    return Sample(np.unique(np.concatenate([s.pool_ids for s in samples])), row_ids, labels, content)


def _batches(job: Job, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The batches of a file; an empty one to begin with, so that an empty file still has its columns."""
    columns = job.view.columns(embeds=plan.embeds)
    yield pa.RecordBatch.from_pylist([], pa.schema([job.part.schema.field(name) for name in columns]))
    yield from read_part(job.part, columns)


def _sampled(batch: pa.RecordBatch, view: View, plan: Plan) -> Sample:
    places, row_ids = row_places(batch, view.subject, plan.keys), _ids(batch)
    inside = in_sample(places, plan.level) & ~held_out(places, plan.holdout_fraction)
    chosen = inside & _selected(row_ids, plan.chosen)
    rows = batch.filter(pa.array(chosen))
    if plan.embeds:
        return Sample(row_ids[inside], row_ids[chosen], _labels(rows, view), _content(rows, view, plan))
    nobody = pa.nulls(rows.num_rows, pa.string())
    return Sample(row_ids[inside], row_ids[chosen], nobody, pa.table({"row_id": rows.column("row_id")}))


def _ids(batch: pa.RecordBatch) -> I64:
    return np.asarray(batch.column("row_id")).astype(np.int64, copy=False)


def _labels(rows: pa.RecordBatch, view: View) -> pa.Array:
    return pa.nulls(rows.num_rows, pa.string()) if view.label is None else rows.column(view.label).cast(pa.string())


def device_here(wanted: str) -> str:
    """Where this process computes distances. They are the same integers on either device: machines of a cluster may differ."""
    if wanted == "cpu" or n_gpus() == 0 or not import_module("torch").cuda.is_available():
        return "cpu"
    return "cuda"


@lru_cache(maxsize=1)
def _chosen_ids(chosen: Chosen) -> I64:
    return kept_ids(chosen.parts)


@lru_cache(maxsize=1)
def _chosen_cuts(chosen: Chosen) -> Cuts:
    return read_cuts(chosen.parts)


def _cuts(row_ids: I64, chosen: Chosen | None) -> pa.Array:
    """What selection cuts out of each record, kept or not: the random control trains on others."""
    return pa.nulls(len(row_ids), CUTS) if chosen is None else _chosen_cuts(chosen).of(row_ids)


def _content(rows: pa.RecordBatch, view: View, plan: Plan) -> pa.Table:
    """What an embedding sees of rows: no text that is cut."""
    cuts = _cuts(_ids(rows), plan.chosen) if view.look == "text" else None
    return content_of(without_cuts(rows, view.content, cuts), view)


def _selected(row_ids: I64, chosen: Chosen | None) -> Mask:
    if chosen is None:
        return np.ones(len(row_ids), np.bool_)
    ids = _chosen_ids(chosen)
    if not len(ids):
        return np.zeros(len(row_ids), np.bool_)
    return ids[np.minimum(np.searchsorted(ids, row_ids), len(ids) - 1)] == row_ids


# --- second pass: every record decides -----------------------------------------------------------------------------------------


def decide_part(job: Job, plan: Plan, fitted: Fitted, scratch: str) -> str:
    """Spill the decisions about one file's records; returns the uri of the spilled part."""
    return spill(scratch, pa.concat_tables([_decided(batch, job.view, plan, fitted) for batch in _batches(job, plan)]))


def _decided(batch: pa.RecordBatch, view: View, plan: Plan, fitted: Fitted) -> pa.Table:
    places, row_ids = row_places(batch, view.subject, plan.keys), _ids(batch)
    shards, slices = shards_and_slices(places, plan.n_shards, plan.n_slices)
    held = held_out(places, plan.holdout_fraction)
    reasons = np.where(held, _HOLDOUT, np.where(_selected(row_ids, plan.chosen), _KEPT, _NOT_SELECTED)).astype(np.int8)
    clusters, distances = np.full(len(row_ids), -1, np.int32), np.full(len(row_ids), -1, np.int64)
    asked = np.flatnonzero(reasons == _KEPT)
    if plan.method == "random":
        reasons[asked[keyed_uniform(row_ids[asked], "prune", plan.seed) > plan.keep_fraction]] = _PRUNED
    elif fitted.rule is not None:
        clusters[asked], distances[asked], keep = _ruled(batch.take(pa.array(asked)), view, plan, fitted)
        reasons[asked[~keep]] = _PRUNED
    control = in_control(row_ids, fitted.control_fraction, plan.seed) & ~held
    columns = [row_ids, shards, slices, reasons, control, distances, clusters]
    return pa.table([*(pa.array(column) for column in columns), _cuts(row_ids, plan.chosen)], schema=_DECISIONS)


def _ruled(rows: pa.RecordBatch, view: View, plan: Plan, fitted: Fitted) -> tuple[I32, I64, Mask]:
    """(cluster, squared distance, kept) of rows by what was fitted."""
    assert fitted.rule is not None and fitted.embedding is not None
    points = embed(fitted.embedding, _content(rows, view, plan))
    return apply_rule(fitted.rule, points, _ids(rows), _labels(rows, view), device=device_here(plan.device))


# --- third pass: ranges of row ids ---------------------------------------------------------------------------------------------


def write_range(
    bounds: tuple[int, int], spilled: Sequence[str], plan: Plan, n_clusters: int, folder: Folder, scores_folder: Folder
) -> Written:
    """Merge one range of row ids into a file of the training set and one of the scores; None for a file without rows."""
    table = merged(spilled, *bounds)
    row_ids, shards, reasons, clusters = (table.column(name).to_numpy() for name in ("row_id", "shard", "reason", "cluster"))
    kept = reasons == _KEPT
    trained = contents(row_ids, table.column("cuts").combine_chunks())
    scored = table.filter(pa.array(clusters >= 0))
    counts = np.bincount(reasons.astype(np.int64), minlength=len(REASONS))
    return Written(
        write_part(folder, _training_rows(table), TRAINING_SET, stats=("shard", "slice")) if table.num_rows else None,
        write_part(scores_folder, _score_rows(scored, plan.method), SCORES) if scored.num_rows else None,
        {reason: int(n) for reason, n in zip(REASONS, counts, strict=True)},
        int(table.column("control").to_numpy().sum()),
        np.bincount(clusters[clusters >= 0], minlength=n_clusters),
        tuple(shard_digests(trained[kept], shards[kept], plan.n_shards)),
    )


def _training_rows(table: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches(_BATCH_ROWS):
        reasons = batch.column("reason")
        columns = [
            *(batch.column(name) for name in ("row_id", "shard", "slice")),
            pa.array(np.asarray(reasons) == _KEPT),
            pa.array(REASONS, pa.string()).take(reasons),
            batch.column("control"),
            batch.column("cuts"),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=TRAINING_SET)


def _score_rows(table: pa.Table, method: str) -> Iterator[pa.RecordBatch]:
    """Scores are squared distances between embeddings, exact: integers over `UNIT`^2."""
    for batch in table.to_batches(_BATCH_ROWS):
        scores = np.asarray(batch.column("distance")).astype(np.float64) / UNIT**2
        columns = [batch.column("row_id"), pa.repeat(method, batch.num_rows), pa.array(scores), batch.column("cluster")]
        yield pa.RecordBatch.from_arrays(columns, schema=SCORES)
