"""Importance weights of documents from n-gram counts, keyed noise, and the cut that keeps a fraction. Pure.

After Xie et al., "Data Selection for Language Models via Importance Resampling" (arXiv 2302.03169), with three changes. The
target's frequencies are smoothed towards the raw ones (Jelinek-Mercer), so that no ratio is below ln λ; weights are means per
token, so that short documents have no advantage; and the noise is keyed by the row id, so that an absent row changes no luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.ids import F64, I64, keyed_gumbel

SCALE = 1 << 24
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """Where selection ends: a record is kept when its key is above `key`, or equal to it with a row id up to `row_id`."""

    key: float
    row_id: int


EVERYTHING = Cut(-math.inf, (1 << 63) - 1)


def log_ratios(target: I64, raw: I64, *, smoothing: float) -> I64:
    """ln(p'/q) of each bucket in units of 1/SCALE, int64: sums of them are exact in any order.

    `target` and `raw` are counts of shape (n_buckets,). q is the raw frequency with one more count in every bucket (rows outside
    the sample may fall into any); p' = (1 - λ)p + λq with λ = `smoothing`. ValueError if the target has no n-gram.
    """
    if not target.sum():
        raise ValueError("the target has no n-gram")
    p = target / target.sum()
    q = (raw + 1) / (raw.sum() + len(raw))
    return np.rint(np.log((1 - smoothing) * p / q + smoothing) * SCALE).astype(np.int64)


def log_weights(sums: I64, n_tokens: I64, *, normalize: bool) -> F64:
    """Log weights of documents from sums of log ratios: the mean per token, or the sum; NaN where there is no token."""
    total = np.where(n_tokens > 0, sums / SCALE, np.nan)
    return total / np.maximum(n_tokens, 1) if normalize else total


def keys_of(weights: F64, row_ids: I64, *, temperature: float, seed: int) -> F64:
    """Gumbel keys: the k largest are a sample of size k without replacement with probabilities ∝ exp(weight / temperature)."""
    return weights / temperature + keyed_gumbel(row_ids, "select", seed)


def cut_at(keys: F64, row_ids: I64, keep_fraction: float) -> Cut:
    """The cut that keeps the ceil(keep_fraction · n) largest keys of n records; NaN keys, those without text, do not count."""
    known = ~np.isnan(keys)
    k = n_to_keep(int(known.sum()), keep_fraction)
    if k >= known.sum():
        return EVERYTHING
    return nth(keys[known], row_ids[known], k)


def n_to_keep(n: int, keep_fraction: float) -> int:
    """ceil(keep_fraction · n), a product that floating point puts a hair above an integer counting as that integer."""
    return min(n, math.ceil(round(keep_fraction * n, 9)))


def nth(keys: F64, row_ids: I64, k: int) -> Cut:
    """The cut that keeps exactly the first k (k >= 1) in the order of falling keys, equal ones by rising row id."""
    order = np.lexsort((row_ids, -keys))
    last = order[k - 1]
    return Cut(float(keys[last]), int(row_ids[last]))


def is_kept(keys: F64, row_ids: I64, cut: Cut) -> Mask:
    """Which records lie within the cut; those without text never do."""
    return (keys > cut.key) | ((keys == cut.key) & (row_ids <= cut.row_id))


def effective_sample_size(weights: F64, *, temperature: float) -> float:
    """(Σw)² / Σw² of the importance weights w = exp(log weight / temperature): how many documents a resampling draws on."""
    scaled = weights[~np.isnan(weights)] / temperature
    if not len(scaled):
        return 0.0
    w = np.exp(scaled - scaled.max())
    return float(w.sum() ** 2 / (w**2).sum())


def length_correlation(weights: F64, n_tokens: I64) -> float:
    """Pearson correlation of log weight and number of tokens; 0 where either is constant."""
    known = ~np.isnan(weights)
    x, y = weights[known], n_tokens[known].astype(np.float64)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
