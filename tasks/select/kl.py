"""Did selection move the pool towards its targets? A held-out answer in a hash space of its own. Pure.

    kl_reduction = KL(target || raw) - KL(target || selected), in nats per n-gram

Row ids split targets and pool into two keyed halves. Weights are fitted on the even half of both; with them, the odd half of the
pool is selected from, with the same budget, temperature and noise; and the odd half of each target judges, its n-grams hashed
with another seed. So neither a row nor a hash collision that shaped the weights is in the measure. It is an estimate of the
method on this data: the selection itself is fitted on all rows of the sample. Records that other steps dropped are in the raw
pool, but are not selected from.

The control is chosen by the noise alone, out of the same candidates and up to as many tokens as were selected: fewer words make
a poorer model of anything, so a selection of short documents must be compared with as few words. It comes out about 0 or a little
below. The frequencies of a part are smoothed towards those of all measured rows, so that a selection of few words measures as
small, not as bad. At most some 8,192 pool rows are measured, a keyed sample, and of each its first 2,000 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from infra.ids import F64, I64, keyed_bits
from tasks.select.budget import Budget, Candidates, Floors, Mask, Totals, admitted, fit_cuts, totals_of
from tasks.select.weights import keys_of, target_keys

I32 = npt.NDArray[np.int32]
MEASURED_ROWS = 8_192
MEASURED_TOKENS = 2_000


@dataclass(frozen=True)
class Measured:
    """Held-out pool rows: their log weights by the even half's ratios, (n,) or (n, R) towards R targets, and their buckets in the
    space of the measure (CSR)."""

    row_ids: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    log_weights: F64 = field(default_factory=lambda: np.zeros(0))
    sizes: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    buckets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass(frozen=True)
class Divergences:
    """KL(target || ·) in nats per n-gram of all measured rows, of the selected ones, and of random ones with as many tokens."""

    raw: float
    selected: float
    random: float


def is_odd(row_ids: I64) -> Mask:
    """Which rows are in the odd half, the one held out."""
    return (keyed_bits(row_ids, "select", "half") & np.uint64(1)).astype(np.bool_)


def joined(parts: list[Measured]) -> Measured:
    """All measured rows, one a row id, in the order of row ids."""
    parts = [part for part in parts if len(part.row_ids)] or [Measured()]
    ids = np.concatenate([part.row_ids for part in parts])
    sizes = np.concatenate([part.sizes for part in parts])
    starts = np.cumsum(sizes) - sizes
    ids, first = np.unique(ids, return_index=True)
    buckets = np.concatenate([part.buckets for part in parts])
    chosen = [buckets[starts[i] : starts[i] + sizes[i]] for i in first]
    weights = np.concatenate([part.log_weights for part in parts])[first]
    return Measured(ids, weights, sizes[first], np.concatenate([buckets[:0], *chosen]))


def held_out(
    rows: Measured,
    targets: Sequence[I64],
    budget: Budget,
    *,
    names: Sequence[str],
    candidates: Mask | None = None,
    totals: Totals | None = None,
    temperature: float,
    seed: int,
) -> list[Divergences]:
    """Of each target, what the held-out pool rows tell of it; its n-gram counts in the space of the measure are (n_buckets,).

    `candidates` says which rows no other step dropped (all); `totals` counts those of the whole pool, for budgets in numbers of
    rows or tokens. Floors are not looked at: rows carry no strata here.
    """
    n = len(rows.row_ids)
    weights = rows.log_weights if rows.log_weights.ndim == 2 else rows.log_weights[:, np.newaxis]
    open_ = np.ones(n, np.bool_) if candidates is None else candidates
    keys = target_keys(weights, rows.row_ids, names, temperature=temperature, seed=seed)
    asked = Candidates.of(rows.row_ids, np.where(open_[:, np.newaxis], keys, np.nan), (rows.sizes + 1) // 2)
    whole = (
        totals_of(asked) if totals is None else Totals(totals.n_records.sum(keepdims=True), totals.n_tokens.sum(keepdims=True))
    )
    selected = admitted(asked, fit_cuts(asked, whole, replace(budget, floors=Floors())))[0]
    random = _by_chance(asked, int(asked.n_tokens[selected].sum()), seed)
    n_buckets = len(targets[0])
    counts = [_counts(rows, which, n_buckets) for which in (np.ones(n, np.bool_), selected, random)]
    raw = smoothed(counts[0], np.full(n_buckets, 1 / n_buckets))
    parts = [raw, *(smoothed(part, raw) for part in counts[1:])]
    return [Divergences(*(kl(target, part) for part in parts)) for target in targets]


def _by_chance(asked: Candidates, n_tokens: int, seed: int) -> Mask:
    """Candidates chosen by the noise alone, up to so many tokens."""
    noise = keys_of(asked.keys[:, 0] * 0.0, asked.row_ids, temperature=1.0, seed=seed)
    rows = replace(asked, keys=noise[:, np.newaxis])
    return admitted(rows, fit_cuts(rows, totals_of(rows), Budget(n_tokens=n_tokens)))[0]


def mean_of(each: Sequence[Divergences]) -> Divergences:
    """The mean of all targets."""
    return Divergences(*(float(np.mean([getattr(one, name) for one in each])) for name in ("raw", "selected", "random")))


def smoothed(counts: I64, prior: F64) -> F64:
    """Frequencies under a Dirichlet prior that weighs one count a bucket: few counts say little more than the prior."""
    return (counts + len(counts) * prior) / (counts.sum() + len(counts))


def _counts(rows: Measured, which: Mask, n_buckets: int) -> I64:
    return np.bincount(rows.buckets[np.repeat(which, rows.sizes)], minlength=n_buckets)


def kl(target: I64, other: F64) -> float:
    """KL(target || other) in nats, of counts and of frequencies, both of shape (n_buckets,)."""
    p = target / target.sum()
    known = p > 0
    return float((p[known] * np.log(p[known] / other[known])).sum())
