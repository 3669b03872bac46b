"""Density-based pruning: complex clusters keep more (Abbas et al., "Effective pruning of web-scale datasets", arXiv
2401.04578). Pure.

A cluster's complexity is C_j = d_inter d_intra: the mean cosine distance to its 20 nearest centroids times that of its rows to
its own. With P = softmax(C / tau), quotas minimise 1/2 |x|^2 - (n P)' x under sum x = n and lower <= x <= upper. The programme
is separable, x_j = clip(n P_j + nu): one scalar, found by bisection over the breakpoints, so no solver and no missed budget.
tau is not scale-free in the paper; here it is chosen so that the largest P is `_CONTRAST` times the smallest.
"""

from __future__ import annotations

import numpy as np

from infra.ids import F64, I64
from tasks.kernels.kmeans import Centroids

_NEIGHBOURS = 20
_CONTRAST = 10.0
_FIXED = 1 << 30
_CHUNK = 1024


def complexities(norms: I64, labels: I64, distances: I64, centroids: Centroids) -> F64:
    """C_j of each cluster, float64 (k,), from the rows' squared norms, clusters and squared distances; 0 where a cluster is
    empty.
    """
    lengths = _squared_lengths(centroids)
    gaps = _cosine_gaps((norms + lengths[labels] - distances) / 2, norms, lengths[labels])
    sums = np.zeros(centroids.k, np.int64)
    np.add.at(sums, labels, gaps)
    counts = np.bincount(labels, minlength=centroids.k)
    return _spreads(centroids) * (sums / np.maximum(counts, 1)) / _FIXED


def _squared_lengths(centroids: Centroids) -> I64:
    return (centroids.vectors.astype(np.int64) ** 2).sum(axis=1)


def _cosine_gaps(dots: F64, left: I64, right: I64) -> I64:
    """1 - cos in fixed point, so that a cluster's mean owes nothing to the order of its rows; 1 where a vector is zero."""
    lengths = np.sqrt(left.astype(np.float64)) * np.sqrt(right.astype(np.float64))
    cosines = np.divide(dots, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.rint((1.0 - cosines) * _FIXED).astype(np.int64)


def _spreads(centroids: Centroids) -> F64:
    """d_inter: the mean of 1 - cos over the nearest other centroids, float64 (k,); 1 where there is no other."""
    n_near = min(_NEIGHBOURS, centroids.k - 1)
    if n_near < 1:
        return np.ones(centroids.k)
    vectors, lengths = centroids.vectors.astype(np.float64), _squared_lengths(centroids)
    spreads = np.empty(centroids.k)
    for low in range(0, centroids.k, _CHUNK):
        dots = vectors[low : low + _CHUNK] @ vectors.T  # integers under 2^53: exact
        gaps = _cosine_gaps(dots, lengths[low : low + _CHUNK, None], lengths[None, :])
        np.put_along_axis(gaps, np.arange(low, low + len(gaps))[:, None], np.iinfo(np.int64).max, axis=1)
        spreads[low : low + _CHUNK] = np.partition(gaps, n_near - 1, axis=1)[:, :n_near].sum(axis=1) / (n_near * _FIXED)
    return spreads


def shares(complexity: F64) -> F64:
    """P = softmax(C / tau) with the tau that makes max P / min P = 10; uniform where all clusters are alike."""
    spread = float(complexity.max() - complexity.min())
    if spread <= 0.0:
        return np.full(len(complexity), 1.0 / len(complexity))
    weights = np.exp((complexity - complexity.max()) * (np.log(_CONTRAST) / spread))
    return weights / weights.sum()


def cluster_quotas(share: F64, sizes: I64, n_keep: int) -> I64:
    """Whole rows to keep in each cluster, int64 (k,): they sum to n_keep, none exceeds its size, and each cluster that has
    rows keeps one where n_keep allows. Raises `ValueError` where n_keep is more than there are rows.
    """
    if not 0 <= n_keep <= sizes.sum():
        raise ValueError(f"cannot keep {n_keep} of {int(sizes.sum())} rows")
    lower = np.minimum(sizes, 1) if np.count_nonzero(sizes) <= n_keep else np.zeros_like(sizes)
    return rounded(separable_qp(n_keep * share, float(n_keep), lower.astype(np.float64), sizes.astype(np.float64)), n_keep)


def separable_qp(wanted: F64, total: float, lower: F64, upper: F64) -> F64:
    """The x that minimises 1/2 |x|^2 - wanted' x with sum x = total and lower <= x <= upper: x = clip(wanted + nu, lower,
    upper).
    """

    def at(nu: float) -> F64:
        return np.clip(wanted + nu, lower, upper)

    breaks = np.sort(np.concatenate([lower - wanted, upper - wanted]))
    low, high = 0, len(breaks) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(breaks[middle]).sum() <= total else (low, middle)
    start, end = at(breaks[low]), at(breaks[high])
    rise = end.sum() - start.sum()
    return start + (end - start) * ((total - start.sum()) / rise if rise > 0 else 0.0)


def rounded(x: F64, total: int) -> I64:
    """Whole numbers next to x that sum to `total`, by largest remainder; equal remainders go to the smaller index.

    Between whole bounds this is the integer optimum of `separable_qp` too: all free x_j pay the same for a step, less their
    remainder.
    """
    snapped = np.where(np.abs(x - np.rint(x)) < 1e-9 * np.maximum(1.0, np.abs(x)), np.rint(x), x)
    whole = np.floor(snapped).astype(np.int64)
    left = total - int(whole.sum())
    order = np.argsort(-(snapped - whole), kind="stable")
    whole[order[:left]] += 1
    return whole
