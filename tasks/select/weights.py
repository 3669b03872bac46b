"""Importance weights of documents from n-gram counts, keyed noise, and what is told of them. Pure.

After Xie et al., "Data Selection for Language Models via Importance Resampling" (arXiv 2302.03169), with three changes. The
target's frequencies are smoothed towards the raw ones (Jelinek-Mercer), so that no ratio is below ln λ; weights are means per
token, so that short documents have no advantage; and the noise is keyed by the row id, so that an absent row changes no luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.ids import F64, I64, keyed_gumbel

SCALE = 1 << 24


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
    """Log weights of documents from sums of log ratios: the mean per token, or the sum; NaN where there is no token.

    `sums` are of shape (n,), or (n, R) for R targets, and so are the weights; `n_tokens` is of shape (n,).
    """
    n = n_tokens.reshape(-1, *(1,) * (sums.ndim - 1))
    total = np.where(n > 0, sums / SCALE, np.nan)
    return total / np.maximum(n, 1) if normalize else total


def keys_of(weights: F64, row_ids: I64, *, temperature: float, seed: int) -> F64:
    """Gumbel keys: the k largest are a sample of size k without replacement with probabilities ∝ exp(weight / temperature)."""
    return weights / temperature + keyed_gumbel(row_ids, "select", seed)


def target_keys(weights: F64, row_ids: I64, targets: Sequence[str], *, temperature: float, seed: int) -> F64:
    """Gumbel keys (n, R) of log weights (n, R) towards targets, by name: each has noise of its own.

    The first target's is that of a selection with one target, so that naming another one changes no luck.
    """
    parts = [("select", seed), *(("select", seed, name) for name in targets[1:])]
    noise = [keyed_gumbel(row_ids, *one) for one in parts[: weights.shape[1]]]
    return weights / temperature + np.stack(noise, axis=1)


def effective_sample_size(weights: F64, *, temperature: float) -> float:
    """(Σw)² / Σw² of the importance weights w = exp(log weight / temperature): how many documents a resampling draws on."""
    known = weights[~np.isnan(weights)]
    if not len(known):
        return 0.0
    with np.errstate(over="ignore"):
        w = np.exp((known - known.max()) / temperature)
    return float(w.sum() ** 2 / (w**2).sum())


def inclusion(weights: F64, threshold: float, *, temperature: float) -> F64:
    """How likely the key of each is above a threshold, over all noise: 1 - exp(-exp(log weight / temperature - threshold))."""
    return -np.expm1(-np.exp(np.minimum(weights[~np.isnan(weights)] / temperature - threshold, 700.0)))


def n_drawn_on(chances: F64) -> float:
    """(Σπ)² / Σπ² of inclusion probabilities π: of how many documents a selection is drawn. As many as it keeps, where nothing is
    left to the noise; all of them, where all is.

    What it keeps over this is the share of it that a selection with other noise keeps as well.
    """
    total = float((chances**2).sum())
    return float(chances.sum()) ** 2 / total if total else 0.0


def length_correlation(weights: F64, n_tokens: I64) -> float:
    """Pearson correlation of log weight and number of tokens; 0 where either is constant."""
    known = ~np.isnan(weights)
    x, y = weights[known], n_tokens[known].astype(np.float64)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
