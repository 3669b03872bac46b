"""How far the selection's method moves the pool towards each target, held out: the driver's part, see `tasks.select.kl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from infra.cluster import Workers
from infra.ids import I64
from infra.lake import Lake
from tasks.select.budget import Budget, Totals
from tasks.select.counts import HashSpace, count_file, total
from tasks.select.fitting import Fit
from tasks.select.frames import Scored
from tasks.select.kl import Divergences, held_out, joined, mean_of
from tasks.select.plan import Plan, Source


@dataclass(frozen=True)
class Verdict:
    """The mean of all targets as figures of the summary, and each target's own."""

    figures: dict[str, float | None]
    by_target: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


@dataclass(frozen=True)
class Judging:
    """What judging a selection needs beside its records."""

    lake: Lake
    workers: Workers
    plan: Plan
    fitted: Fit


_NOTHING = Verdict(dict.fromkeys(("kl_raw", "kl_selected", "kl_random", "kl_reduction", "random_kl_reduction")))


def asked_rows(passes: Sequence[Scored]) -> I64:
    """The row ids of the records that are measured, sorted."""
    found = [rows.row_ids for one in passes for rows in one.measured]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def judge(run: Judging, passes: Sequence[Scored], present: I64, budget: Budget, totals: Totals) -> Verdict:
    """The divergences from each target; `present` are the measured records that are candidates, `totals` counts the pool's."""
    plan, fitted = run.plan, run.fitted
    rows = joined([rows for one in passes for rows in one.measured])
    if fitted.counts is None or not len(rows.row_ids):
        return _NOTHING
    space = HashSpace(plan.select.n_buckets, plan.kl_seed)
    counts = [_counts(run, space, sources) for sources in plan.targets.values()]
    found = held_out(
        rows,
        [halves[1] if fitted.held_out else halves.sum(axis=0) for halves in counts],
        budget,
        names=tuple(plan.targets),
        candidates=np.isin(rows.row_ids, present),
        totals=totals,
        temperature=plan.temperature,
        seed=plan.select.seed,
    )
    return _verdict(dict(zip(plan.targets, found, strict=True)))


def _counts(run: Judging, space: HashSpace, sources: Sequence[Source]) -> I64:
    """N-gram counts of a target in the space of the measure, (2, n_buckets)."""
    return total(run.workers.map(count_file, [(source, 0) for source in sources], run.lake.keys, space), space.n_buckets)


def _verdict(found: dict[str, Divergences]) -> Verdict:
    mean = mean_of(list(found.values()))
    figures: dict[str, float | None] = {
        **_told(mean),
        "kl_reduction": mean.raw - mean.selected,
        "random_kl_reduction": mean.raw - mean.random,
    }
    return Verdict(figures, {name: _told(kl) for name, kl in found.items()})


def _told(kl: Divergences) -> dict[str, float]:
    return {"kl_raw": kl.raw, "kl_selected": kl.selected, "kl_random": kl.random}
