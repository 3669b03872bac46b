"""How far the selection's method moves the pool towards each target, held out: the driver's part, see `tasks.select.kl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from infra.ids import I64
from tasks.select.budget import Budget, Totals
from tasks.select.fitting import Fit
from tasks.select.frames import Scored
from tasks.select.kl import Divergences, held_out, joined, mean_of
from tasks.select.plan import Plan


@dataclass(frozen=True)
class Verdict:
    """The mean of all targets as figures of the summary, and each target's own."""

    figures: dict[str, float | None]
    by_target: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


_NOTHING = Verdict(dict.fromkeys(("kl_raw", "kl_selected", "kl_random", "kl_reduction", "random_kl_reduction")))


def asked_rows(passes: Sequence[Scored]) -> I64:
    """The row ids of the records that are measured, sorted."""
    found = [rows.row_ids for one in passes for rows in one.measured]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def judge(plan: Plan, fitted: Fit, passes: Sequence[Scored], present: I64, budget: Budget, totals: Totals) -> Verdict:
    """The divergences from each target; `present` are the measured records that are candidates, `totals` counts the pool's."""
    rows = joined([rows for one in passes for rows in one.measured])
    if fitted.counts is None or not len(rows.row_ids):
        return _NOTHING
    found = held_out(
        rows,
        [halves[1] if fitted.held_out else halves.sum(axis=0) for halves in fitted.counts.judges],
        budget,
        names=tuple(plan.targets),
        candidates=np.isin(rows.row_ids, present),
        totals=totals,
        temperature=plan.temperature,
        seed=plan.select.seed,
    )
    return _verdict(dict(zip(plan.targets, found, strict=True)))


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
