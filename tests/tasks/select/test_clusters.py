"""A record weighs what its cluster weighs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.kmeans import UNIT
from tasks.select.clusters import cluster_counts, cluster_log_weights, fit_clusters
from tasks.select.weights import SCALE, log_ratios

CENTRES = UNIT * np.eye(4)


def blobs(n: int, seed: int, among: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.rint(CENTRES[rng.choice(among, n)] * 0.9 + rng.normal(0, 40, (n, 4))).astype(np.int16)


@given(st.integers(1, 80), st.integers(0, 80), st.integers(0, 1 << 20))
@settings(max_examples=40)
def test_counts_of_parts_add_up_to_those_of_the_whole(n: int, cut: int, seed: int) -> None:
    points = blobs(n, seed)
    centroids = fit_clusters(points, np.arange(n), 4, seed=0)
    whole = cluster_counts(points, centroids)
    assert np.array_equal(whole, cluster_counts(points[:cut], centroids) + cluster_counts(points[cut:], centroids))
    assert whole.sum() == n


def test_records_of_the_target_s_cluster_weigh_most() -> None:
    """A quarter of the raw records lie in the one cluster of the target: 0.9 · 4 + 0.1 there, 0.1 elsewhere."""
    raw = np.rint(np.repeat(CENTRES, 250, axis=0) * 0.9).astype(np.int16)
    centroids = fit_clusters(raw, np.arange(1000), 4, seed=0)
    target = cluster_counts(blobs(50, 2, among=(2,)), centroids)
    ratios = log_ratios(target, cluster_counts(raw, centroids), smoothing=0.1)
    weights = cluster_log_weights(raw, centroids, np.stack([ratios, 2 * ratios]))
    assert weights.shape == (1000, 2)
    assert np.allclose(weights[500:750, 0], np.log(3.7), atol=1e-6)
    assert np.allclose(np.delete(weights[:, 0], slice(500, 750)), np.log(0.1), atol=1 / SCALE)
    assert np.array_equal(weights[:, 1], 2 * weights[:, 0])
