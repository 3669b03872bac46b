"""The door of pruning: snapshots of a pool and its selection in, one training set out.

Every record of the pool gets one row: kept or not and why, its shard and slice, and whether the random control of equal size
holds it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.columns import Look
from infra.contracts import HOLDOUT, KEPT, PRUNED, SCORES, TRAINING_SET, LetheError, Lineage, Snapshot
from infra.decisions import ranges
from infra.discretion import discreet
from infra.ids import Digest, sample_level
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import Settings
from infra.views import Job, View, views_of
from tasks.kernels.embedding import embed, fit_embedding
from tasks.prune.frames import Chosen, Fitted, Plan, Sample, Written, decide_part, device_here, joined, sample_part, write_range
from tasks.prune.places import rounded_fraction
from tasks.prune.quotas import n_to_keep
from tasks.prune.rules import fit_rule

_KERNELS = ("embed", "embedding", "kmeans", "ngrams", "tokens")
_CODE = ("tasks.prune", *(f"tasks.kernels.{name}" for name in _KERNELS), "infra.columns", "infra.spans", "infra.views")
_RECORDS = "records/"


class EmptySample(LetheError):
    """The keyed sample holds no record to learn from."""


@dataclass(frozen=True)
class PruneResult:
    """What pruning decided. `n_in` counts the records it had to decide on: selected and not held out."""

    dataset: str
    method: str
    n_in: int
    n_kept: int
    n_holdout: int
    n_control: int
    cluster_sizes: list[int]
    snapshot: Snapshot
    scores: Snapshot | None
    found: bool
    seconds: float


@task(name="prune", persist_result=False)
@discreet
def prune(
    settings: Settings,
    dataset: str,
    pool: tuple[Snapshot, ...],
    selection: Snapshot | None,
    *,
    scheduler: Scheduler = None,
) -> PruneResult:
    """Decide which records of a pool are trained on, and commit the decisions as `training_set/<dataset>`.

    Raises `NothingToEmbed` or `EmptySample` where the method has nothing to go by.
    """
    start = time.perf_counter()
    lake = Lake.open(settings)
    views = _views(settings, lake, dataset, pool)
    params = _params(settings, dataset, views)
    code = code_digest(*_CODE)
    inputs = (*pool, *([selection] if selection else ()))
    key = stage_key("prune", code, inputs, params)
    found = lake.reuse(f"training_set/{dataset}", key)
    if found is not None:
        summary = lake.lineage(found).summary
        return _result(dataset, summary, found, lake.reuse(f"scores/{dataset}", key), found=True, start=start)
    plan = _plan(settings, lake, dataset, pool, selection)
    jobs = [Job(part, views[snapshot.table]) for snapshot in pool for part in lake.parts(snapshot)]
    with connect(scheduler) as workers, lake.scratch() as scratch:
        written, summary = _pruned(settings, lake, dataset, jobs, plan, workers, scratch) if jobs else ([], _nothing(plan))
    lineage = Lineage("prune", key, code, inputs, params, summary)
    return _committed(lake, dataset, written, lineage, start, scored=plan.embeds)


def _views(settings: Settings, lake: Lake, dataset: str, pool: tuple[Snapshot, ...]) -> dict[str, View]:
    """The view of each pool table, by the name of its records table."""
    schemas = {snapshot.table.removeprefix(_RECORDS): lake.schema(snapshot) for snapshot in pool}
    embeds = settings.dataset(dataset).prune.method in ("density", "prototypes")
    views = views_of(settings, dataset, schemas, embeds=embeds)
    return {_RECORDS + table: view for table, view in views.items()}


def _params(settings: Settings, dataset: str, views: dict[str, View]) -> dict[str, Any]:
    """All that decides beside the inputs and the code, in plain JSON values."""
    asked = settings.dataset(dataset)
    n_shards, n_slices = settings.plan_of(dataset)
    roles = {t: [v.look, _whose(v), v.columns(embeds=True), v.label] for t, v in views.items()}
    return {
        **asked.prune.model_dump(),
        "holdout_fraction": asked.holdout_fraction,
        "sample_rows": settings.lake.sample_rows,
        "shards": n_shards,
        "slices": n_slices,
        "columns": roles,
    }


def _whose(view: View) -> list[str] | None:
    return [view.subject.kind, view.subject.column] if view.subject is not None else None


def _plan(settings: Settings, lake: Lake, dataset: str, pool: tuple[Snapshot, ...], selection: Snapshot | None) -> Plan:
    asked = settings.dataset(dataset)
    n_shards, n_slices = settings.plan_of(dataset)
    return Plan(
        keys=lake.keys,
        chosen=Chosen(selection.digest, tuple(lake.parts(selection))) if selection else None,
        method=asked.prune.method,
        keep_fraction=asked.prune.keep_fraction,
        seed=asked.prune.seed,
        level=sample_level(sum(snapshot.n_rows for snapshot in pool), settings.lake.sample_rows),
        holdout_fraction=asked.holdout_fraction,
        n_shards=n_shards,
        n_slices=n_slices,
        device=settings.cluster.device,
    )


# --- the work ------------------------------------------------------------------------------------------------------------------


def _pruned(
    settings: Settings, lake: Lake, dataset: str, jobs: list[Job], plan: Plan, workers: Workers, scratch: str
) -> tuple[list[Written], dict[str, Any]]:
    sample = joined(workers.map(sample_part, jobs, plan))
    fitted = _fitted(settings, dataset, sample, jobs[0].view.look, plan)
    spilled = workers.map(decide_part, jobs, plan, fitted, scratch)
    n_clusters = fitted.rule.centroids.k if fitted.rule else 0
    folders = lake.folder(f"training_set/{dataset}"), lake.folder(f"scores/{dataset}")
    cuts = ranges(sum(job.part.file.n_rows for job in jobs))
    written = workers.map(write_range, cuts, spilled, plan, n_clusters, *folders)
    return written, _summary(written, sample, plan, fitted)


def _fitted(settings: Settings, dataset: str, sample: Sample, look: Look, plan: Plan) -> Fitted:
    """What the sample teaches: no rule where nobody needs one, because nothing compares records or nothing is selected."""
    fraction = rounded_fraction(_n_expected(sample, plan), len(sample.pool_ids))
    if not plan.embeds or (not len(sample.row_ids) and plan.level == 0):
        return Fitted(fraction)
    if not len(sample.row_ids):
        raise EmptySample(
            f"datasets.{dataset}: none of the {len(sample.pool_ids)} sampled records is selected. "
            f"Raise lake.sample_rows above {settings.lake.sample_rows}"
        )
    asked = settings.dataset(dataset).prune
    embedding = fit_embedding(look, sample.content, sample.row_ids, seed=plan.seed)
    rule = fit_rule(
        embed(embedding, sample.content),
        sample.row_ids,
        sample.labels,
        method=plan.method,
        keep_fraction=plan.keep_fraction,
        hard=asked.keep == "hard",
        n_clusters=asked.n_clusters,
        seed=plan.seed,
        device=device_here(plan.device),
    )
    return Fitted(fraction, embedding, rule)


def _n_expected(sample: Sample, plan: Plan) -> int:
    """How many of the sample's records are kept."""
    return len(sample.row_ids) if plan.method == "none" else n_to_keep(len(sample.row_ids), plan.keep_fraction)


# --- what is said about it -----------------------------------------------------------------------------------------------------


def _summary(written: list[Written], sample: Sample, plan: Plan, fitted: Fitted) -> dict[str, Any]:
    counts = {reason: sum(w.counts[reason] for w in written) for reason in written[0].counts}
    digests = [sum((w.digests[shard] for w in written), Digest()) for shard in range(plan.n_shards)]
    return {
        "method": plan.method,
        "counts": counts,
        "n_in": counts[KEPT] + counts[PRUNED],
        "n_kept": counts[KEPT],
        "n_holdout": counts[HOLDOUT],
        "n_control": sum(w.n_control for w in written),
        "control_fraction": fitted.control_fraction,
        "cluster_sizes": [int(n) for n in np.sum([w.cluster_sizes for w in written], axis=0)],
        "n_sample": len(sample.row_ids),
        "sample_level": plan.level,
        "n_iter": fitted.rule.centroids.n_iter if fitted.rule else 0,
        "shard_digests": {str(shard): str(digest) for shard, digest in enumerate(digests)},
    }


def _nothing(plan: Plan) -> dict[str, Any]:
    """The summary of a pool without records, as erasing everybody in it leaves it."""
    counts = dict.fromkeys(("n_in", "n_kept", "n_holdout", "n_control", "n_sample", "n_iter"), 0)
    digests = {str(shard): str(Digest()) for shard in range(plan.n_shards)}
    return {"method": plan.method, **counts, "cluster_sizes": [], "sample_level": plan.level, "shard_digests": digests}


def _committed(lake: Lake, dataset: str, written: list[Written], lineage: Lineage, start: float, *, scored: bool) -> PruneResult:
    """Scores first: a training set that can be found has its scores beside it."""
    scores = None
    if scored:
        files = [w.scores for w in written if w.scores is not None]
        scores = lake.commit(f"scores/{dataset}", SCORES, files, lineage=lineage, overwrite=True)
    files = [w.training_set for w in written if w.training_set is not None]
    snapshot = lake.commit(f"training_set/{dataset}", TRAINING_SET, files, lineage=lineage, overwrite=True)
    return _result(dataset, lineage.summary, snapshot, scores, found=False, start=start)


def _result(
    dataset: str, summary: dict[str, Any], snapshot: Snapshot, scores: Snapshot | None, *, found: bool, start: float
) -> PruneResult:
    figures = {name: summary[name] for name in ("method", "n_in", "n_kept", "n_holdout", "n_control", "cluster_sizes")}
    return PruneResult(dataset, snapshot=snapshot, scores=scores, found=found, seconds=time.perf_counter() - start, **figures)
