"""What is told of a selection: its counts, its shapes, and what the keyed sample says of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from infra.contracts import BELOW_THRESHOLD, KEPT
from infra.ids import F64
from tasks.select.advice import advised_fraction
from tasks.select.budget import Budget, Candidates, Cuts, Mask, Totals, admitted, fit_cuts
from tasks.select.decide import Decided, Rules, best, keys_by
from tasks.select.fitting import Fit
from tasks.select.plan import Plan
from tasks.select.report_figures import Shape, as_summary, seed_overlap, shape
from tasks.select.safety import Losses, check
from tasks.select.scored import Rows
from tasks.select.weights import effective_sample_size, inclusion, length_correlation, n_drawn_on


def losses_of(decided: Sequence[Decided]) -> Losses:
    """The losses of all ranges."""
    return reduce(add, (one.losses for one in decided), Losses())


def counts_of(decided: Sequence[Decided], losses: Losses) -> dict[str, Any]:
    """How many records ended how."""
    ends = losses.n_by_reason()
    return {
        "n_raw": sum(one.file.n_rows for one in decided),
        "n_kept": ends.get("kept", 0),
        "n_empty": ends.get("empty_text", 0),
        "n_tokens": sum(one.n_tokens for one in decided),
        "n_by_reason": ends,
        "n_by_signal": losses.n_by_signal(),
        "by_source": losses.by_source(),
    }


def warnings_of(plan: Plan, losses: Losses) -> list[str]:
    """Sentences on sources that lose much. Raises `SourceLost` where one loses more than it may."""
    asked = plan.select
    return [one.said for one in check(losses, asked.safety, plan.dataset, labels=plan.labels, floors=asked.floors)]


def budget_warnings(plan: Plan, losses: Losses, cuts: Cuts, n_sample: int) -> list[str]:
    """Sentences on a budget that is none; `n_sample` candidates are in the keyed sample."""
    ends, where = losses.n_by_reason(), f"datasets.{plan.dataset}.select"
    n_kept, n_below = ends.get(KEPT, 0), ends.get(BELOW_THRESHOLD, 0)
    said = {
        f"None of {n_below:,} candidates is kept: the first of them is more than the budget. Raise it in [{where}]": (
            n_below > 0 and n_kept == 0
        ),
        f"The floors alone are more than the budget, and were kept. Raise the budget or lower [{where}.floors]": cuts.exceeded,
        "All candidates are kept, for the keyed sample holds none of them. Raise lake.sample_rows, or set exact = true": (
            n_kept > 0 and n_sample == 0
        ),
    }
    return [sentence for sentence, holds in said.items() if holds]


def sample_figures(
    rows: Rows, strata: np.ndarray, totals: Totals, rules: Rules, budget: Budget, cuts: Cuts, planned_epochs: float | None = None
) -> dict[str, Any]:
    """What the sample's candidates say of the weights. `seed_overlap`: the share kept that another seed would keep as well;
    `n_drawn_on`: of how many of the sample the kept ones are drawn, all targets together."""
    ours, other = (
        Candidates(rows.row_ids, keys_by(rows, rules, seed=seed), rows.n_tokens, strata) for seed in (None, rules.seed + 1)
    )
    kept, again = admitted(ours, cuts)[0], admitted(other, fit_cuts(other, totals, budget))[0]
    first = rows.weights[:, 0]
    missed = [
        1 - inclusion(rows.weights[:, r], -np.inf if threshold is None else threshold, temperature=rules.temperature)
        for r, threshold in enumerate(cuts.thresholds)
    ]
    thresholds = [threshold for threshold in cuts.thresholds if threshold is not None]
    return {
        "n_sample": len(rows.row_ids),
        "threshold": min(thresholds) if thresholds else None,
        "thresholds": dict(zip(rules.targets, cuts.thresholds, strict=True)),
        "effective_sample_size": effective_sample_size(first, temperature=rules.temperature),
        "n_drawn_on": n_drawn_on(1 - np.prod(missed, axis=0)),
        "length_correlation": length_correlation(first, rows.n_tokens),
        "seed_overlap": seed_overlap(kept, again),
        "floors_exceed_budget": cuts.exceeded,
        **_advice(rows, kept, planned_epochs),
    }


def _advice(rows: Rows, kept: Mask, planned_epochs: float | None) -> dict[str, Any]:
    """The share of candidates' tokens that would train best in as many tokens as the planned epochs over what is kept now."""
    n_training_tokens = (planned_epochs or 0.0) * float(rows.n_tokens[kept].sum())
    if not n_training_tokens:
        return {}
    advice = advised_fraction(best(rows.weights), rows.n_tokens, n_training_tokens)
    return {"advised_keep_fraction": advice.fraction, "advised_epochs": advice.epochs}


def shapes_of(decided: Sequence[Decided], target: Shape | None, edges: F64) -> dict[str, Any]:
    """Histograms of lengths and weights: of all records, of those kept, and of the target's."""
    raw, selected = (reduce(add, (getattr(one, name) for one in decided), Shape()) for name in ("raw", "selected"))
    return as_summary(edges, raw=raw, selected=selected, target=target)


def by_target(plan: Plan, decided: Sequence[Decided], rules: Rules, kl: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What each target was given, and how near the selection came to it."""
    if not plan.compares:
        return {}
    total = sum(plan.asked.target.values())
    kept = np.sum([one.n_by_target for one in decided], axis=0) if decided else np.zeros(len(rules.targets), np.int64)
    return {
        name: {"share": share / total, "kept": int(n), **kl.get(name, {})}
        for (name, share), n in zip(plan.asked.target.items(), kept, strict=True)
    }


def target_shape(found: Sequence[tuple[np.ndarray, F64]], edges: F64) -> Shape | None:
    """The histograms of (tokens, log weights) of a sample of the targets' records."""
    shapes = [shape(n_tokens, weights, edges) for n_tokens, weights in found]
    return reduce(add, shapes) if shapes else None


def fit_figures(fit: Fit) -> dict[str, Any]:
    return {"n_counted_files": fit.counts.n_files if fit.counts else 0, "held_out": fit.held_out}
