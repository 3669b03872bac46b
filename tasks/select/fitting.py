"""What scores a pool: fitted once, on the keyed sample and on the targets, before every record is weighed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.cluster import Workers
from infra.columns import Look
from infra.ids import F64, I64, Keys, sample_level
from infra.lake import Lake
from tasks.select.counts import Counts, counted, hash_space
from tasks.select.frames import Fitted, Job, Scoring, drawn_content, drawn_scores
from tasks.select.parity import MIN_TOKENS, parity_ratios
from tasks.select.plan import SPACES, EmptyTarget, Plan, Source
from tasks.select.scored import Door
from tasks.select.scores import scale_of, score_bounds
from tasks.select.spaces import Rows as SpaceRows
from tasks.select.spaces import fit_space, joined_rows
from tasks.select.weights import log_ratios

_TARGET_ROWS = 20_000


@dataclass(frozen=True)
class Fit:
    """What was fitted, and what a record must pass. `counts` are those of n-grams, where they were taken; `held_out`: the ratios
    of what is measured were fitted on the other half of the rows."""

    fitted: Fitted
    scoring: Scoring
    door: Door
    counts: Counts | None = None
    held_out: bool = False


def fit(lake: Lake, workers: Workers, plan: Plan, jobs: Sequence[Job]) -> Fit:
    """Fit what the plan's method needs. Raises `EmptyTarget` for a target with nothing to compare with."""
    scoring, door = scoring_of(plan), _door(lake, workers, plan, jobs)
    method = plan.asked.method
    if method == "importance":
        counts = counted(lake, workers, plan)
        held_out = all(bool(target.sum(axis=1).all()) for target in counts.targets)
        ratios = ratios_of(plan, counts)
        return Fit(Fitted(ratios, half_ratios(plan, counts) if held_out else ratios), scoring, door, counts, held_out)
    if method in SPACES:
        return Fit(_points(lake, workers, plan), scoring, door)
    asked = plan.select.score
    if method == "score" and asked is not None and not door.is_bounded:
        return Fit(Fitted(scale=scale_of(_sampled_scores(lake, workers, plan, jobs), asked)), scoring, door)
    return Fit(Fitted(), scoring, door)


def scoring_of(plan: Plan) -> Scoring:
    return Scoring(
        n_targets=max(1, len(plan.targets)) if plan.compares else 1,
        n_strata=len(plan.strata),
        level=plan.level,
        measured_level=plan.measured_level,
        normalize=plan.select.normalize and not plan.is_parity,
        space=hash_space(plan),
        kl_seed=plan.kl_seed,
    )


# --- n-grams -------------------------------------------------------------------------------------------------------------------


def ratios_of(plan: Plan, counts: Counts) -> np.ndarray:
    """Log ratios of each bucket for each target (R, n_buckets), fitted on all counts."""
    return _ratios(plan, np.stack([target.sum(axis=0) for target in counts.targets]), counts.raw.sum(axis=0))


def half_ratios(plan: Plan, counts: Counts) -> np.ndarray:
    """The same, fitted on the even half of all rows."""
    return _ratios(plan, np.stack([target[0] for target in counts.targets]), counts.raw[0])


def _ratios(plan: Plan, targets: I64, raw: I64) -> np.ndarray:
    if plan.is_parity:
        return np.zeros(targets.shape) if not raw.sum() else parity_ratios(targets, raw)
    return np.stack([log_ratios(target, raw, smoothing=plan.select.smoothing) for target in targets])


# --- points --------------------------------------------------------------------------------------------------------------------


def _points(lake: Lake, workers: Workers, plan: Plan) -> Fitted:
    if not plan.pool:
        return Fitted()
    drawn = joined_rows(workers.map(drawn_content, plan.pool, lake.keys, plan.level))
    targets = {name: _target_rows(workers, plan, name, lake.keys) for name in plan.targets}
    look: Look = next(source.view.look for source in plan.pool if source.view is not None)
    space = fit_space(plan.asked.method, drawn, targets, plan.select, look)
    for name in space.silent:
        raise EmptyTarget(_empty(name, plan.dataset))
    return Fitted(points=space)


def _target_rows(workers: Workers, plan: Plan, name: str, keys: Keys) -> SpaceRows:
    """A sample of a target's records."""
    sources = plan.targets[name]
    if not sources:
        raise EmptyTarget(_empty(name, plan.dataset))
    return joined_rows(workers.map(drawn_content, sources, keys, target_level(sources)))


def _empty(name: str, dataset: str) -> str:
    return f"{name}, a target of dataset {dataset!r}, holds nothing to compare with. Name another target"


def target_level(sources: Sequence[Source]) -> int:
    """The level of the sample that stands for a target."""
    return sample_level(sum(source.part.file.n_rows for source in sources), _TARGET_ROWS)


# --- scores --------------------------------------------------------------------------------------------------------------------


def _door(lake: Lake, workers: Workers, plan: Plan, jobs: Sequence[Job]) -> Door:
    """What a record must pass: the reference's least length, or the bounds of a score."""
    asked = plan.select.score
    low = high = None
    if asked is not None and asked.threshold is not None:
        low, high = score_bounds(np.zeros(0), asked)
    elif asked is not None and asked.percentile is not None:
        low, high = score_bounds(_sampled_scores(lake, workers, plan, jobs), asked)
    return Door(
        min_tokens=MIN_TOKENS if plan.is_parity else 0,
        low=low,
        high=high,
        scored=plan.asked.method == "score",
        is_bounded=asked is not None and asked.is_bound,
    )


def _sampled_scores(lake: Lake, workers: Workers, plan: Plan, jobs: Sequence[Job]) -> F64:
    """The scores of the keyed sample, one a record."""
    found = workers.map(drawn_scores, jobs, lake.keys, plan.level)
    row_ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in found)])
    return np.concatenate([np.zeros(0), *(scores for _, scores in found)])[np.unique(row_ids, return_index=True)[1]]
