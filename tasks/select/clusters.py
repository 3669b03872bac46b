"""Importance resampling in cluster space: a record weighs what its cluster weighs. Pure.

After Grangier et al., "Task-Adaptive Pretrained Language Models via Clustered-Importance Sampling" (arXiv 2410.03735): the raw
records and each target are histograms over k-means clusters of the raw ones, and the log weight of a record is the log ratio of
its cluster, smoothed as that of n-grams is. Histograms are integers and distances exact, so no order changes a bit.
"""

from __future__ import annotations

import numpy as np

from infra.ids import F64, I64
from tasks.kernels.kmeans import Centroids, Points, assign, fit
from tasks.select.weights import SCALE


def fit_clusters(points: Points, row_ids: I64, k: int, *, seed: int, device: str = "cpu") -> Centroids:
    """Centroids of a sample's points (n, d); fewer than `k` where the sample has fewer distinct points."""
    return fit(points, row_ids, k, seed=seed, device=device)


def cluster_counts(points: Points, centroids: Centroids, *, device: str = "cpu") -> I64:
    """How many of the points are nearest to each centroid, int64 (k,)."""
    return np.bincount(assign(points, centroids, device=device)[0], minlength=centroids.k).astype(np.int64)


def cluster_log_weights(points: Points, centroids: Centroids, ratios: I64, *, device: str = "cpu") -> F64:
    """Log weights (n, R) of records: the log ratios of their clusters. `ratios` is int64 (R, k), see `weights.log_ratios`."""
    labels, _ = assign(points, centroids, device=device)
    return ratios.T[labels] / SCALE
