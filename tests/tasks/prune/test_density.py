"""The allocation is exact: it equals a general solver's, and in whole rows no other allocation is better."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tasks.kernels.kmeans import UNIT, Centroids, squared_norms
from tasks.prune.density import cluster_quotas, complexities, rounded, separable_qp, shares


def loss(x: np.ndarray, wanted: np.ndarray) -> float:
    return float(0.5 * x @ x - wanted @ x)


@given(st.integers(1, 6), st.floats(0.01, 0.99), st.integers(0, 1 << 20))
@settings(max_examples=25)
def test_bisection_is_the_quadratic_programme(k: int, fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    upper = rng.integers(1, 40, k).astype(float)
    total = 0.0 if k == 0 else float(k + fraction * (upper.sum() - k))
    wanted = total * rng.dirichlet(np.ones(k))
    lower = np.ones(k)
    x = separable_qp(wanted, total, lower, upper)
    assert np.isclose(x.sum(), total) and (x >= lower - 1e-9).all() and (x <= upper + 1e-9).all()
    start = lower + (upper - lower) * fraction
    slow = minimize(
        loss,
        start,
        (wanted,),
        jac=lambda y, w: y - w,
        bounds=list(zip(lower, upper, strict=True)),
        constraints={"type": "eq", "fun": lambda y: y.sum() - total, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert loss(x, wanted) <= loss(slow.x, wanted) + 1e-6
    assert np.allclose(x, slow.x, atol=1e-3)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.data())
@settings(max_examples=60)
def test_no_whole_allocation_is_better(sizes: list[int], data: st.DataObject) -> None:
    size = np.array(sizes)
    n_keep = data.draw(st.integers(0, int(size.sum())))
    share = np.random.default_rng(data.draw(st.integers(0, 999))).dirichlet(np.ones(len(sizes)))
    quotas = cluster_quotas(share, size, n_keep)
    least = np.minimum(size, 1) if np.count_nonzero(size) <= n_keep else np.zeros_like(size)
    assert quotas.sum() == n_keep and (quotas <= size).all() and (quotas >= least).all()
    every = itertools.product(*(range(low, high + 1) for low, high in zip(least, size, strict=True)))
    best = min(loss(np.array(x, float), n_keep * share) for x in every if sum(x) == n_keep)
    assert loss(quotas.astype(float), n_keep * share) <= best + 1e-6


@given(st.integers(1, 400), st.floats(0.0, 1.0), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_quotas_sum_exactly(k: int, fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 500, k)
    n_keep = int(fraction * sizes.sum())
    quotas = cluster_quotas(rng.dirichlet(np.full(k, 0.1)), sizes, n_keep)
    assert quotas.sum() == n_keep and (quotas >= 0).all() and (quotas <= sizes).all()


def test_equal_remainders_go_to_the_smaller_index() -> None:
    assert rounded(np.array([1.5, 1.5, 1.0]), 4).tolist() == [2, 1, 1]


def test_more_than_there_is_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="cannot keep 4 of 3"):
        cluster_quotas(np.array([1.0]), np.array([3]), 4)


def test_shares_span_a_factor_of_ten() -> None:
    found = shares(np.array([0.1, 0.2, 0.4]))
    assert np.isclose(found.sum(), 1.0) and np.isclose(found[2] / found[0], 10.0)
    assert shares(np.array([0.3, 0.3])).tolist() == [0.5, 0.5]


def test_complexity_is_spread_times_width() -> None:
    """Against the plain formula: mean (1 - cos) to the centroid, times the mean over the other centroids (fewer than 20)."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((300, 16))
    points = np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)
    centroids = Centroids(points[:7] // 2, 0)
    labels = rng.integers(0, 7, 300)
    distances = ((points.astype(np.int64) - centroids.vectors[labels]) ** 2).sum(axis=1)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    x, c = unit(points.astype(float)), unit(centroids.vectors.astype(float))
    width = np.array([(1 - x[labels == j] @ c[j]).mean() for j in range(7)])
    spread = np.array([(1 - c @ c[j])[np.arange(7) != j].mean() for j in range(7)])
    assert np.allclose(complexities(squared_norms(points), labels, distances, centroids), width * spread, atol=1e-7)
