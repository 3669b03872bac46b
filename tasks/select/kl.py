"""Did selection move the pool towards the target? A held-out answer in a hash space of its own. Pure.

    kl_reduction = KL(target || raw) - KL(target || selected), in nats per n-gram

Row ids split the target and the pool into two keyed halves. Weights are fitted on the even half of both; with them, the odd half
of the pool is selected from, at the same fraction, temperature and noise; and the odd half of the target judges, its n-grams
hashed with another seed. So neither a row nor a hash collision that shaped the weights is in the measure. It is an estimate of
the method on this data: the selection itself is fitted on all rows of the sample. As many rows, chosen by the noise alone, are
the control: it comes out about 0 or a little below, for fewer rows make a poorer model of anything. The frequencies of a part are
smoothed towards those of all measured rows, so that a selection of few words measures as small, not as bad. At most some 8,192
pool rows are measured, a keyed sample, and of each its first 2,000 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from infra.ids import F64, I64, keyed_bits
from tasks.select.weights import Mask, cut_at, is_kept, keys_of

I32 = npt.NDArray[np.int32]
MEASURED_ROWS = 8_192
MEASURED_TOKENS = 2_000


@dataclass(frozen=True)
class Measured:
    """Held-out pool rows: their log weights by the even half's ratios, and their buckets in the space of the measure (CSR)."""

    row_ids: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    log_weights: F64 = field(default_factory=lambda: np.zeros(0))
    sizes: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    buckets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass(frozen=True)
class Divergences:
    """KL(target || ·) in nats per n-gram of all measured rows, of the selected ones, and of as many random ones."""

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


def divergences(rows: Measured, target: I64, *, keep_fraction: float, temperature: float, seed: int) -> Divergences:
    """What the held-out pool rows tell of the target: its n-gram counts in the space of the measure, shape (n_buckets,)."""
    keys = keys_of(rows.log_weights, rows.row_ids, temperature=temperature, seed=seed)
    noise = keys_of(rows.log_weights * 0.0, rows.row_ids, temperature=1.0, seed=seed)
    selected, random = (is_kept(k, rows.row_ids, cut_at(k, rows.row_ids, keep_fraction)) for k in (keys, noise))
    everything = _counts(rows, np.ones(len(rows.row_ids), np.bool_), len(target))
    raw = smoothed(everything, np.full(len(target), 1 / len(target)))
    return Divergences(
        raw=kl(target, raw),
        selected=kl(target, smoothed(_counts(rows, selected, len(target)), raw)),
        random=kl(target, smoothed(_counts(rows, random, len(target)), raw)),
    )


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
