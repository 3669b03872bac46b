"""k-means is a function of the set of rows: any order, cut, thread count or device gives the same bits."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tasks.kernels.kmeans import (
    UNIT,
    Centroids,
    Points,
    _lloyd,
    _lloyd_torch,
    _nearest_torch,
    _packed,
    assign,
    fit,
    squared_norms,
)


def sphere(n: int, d: int, seed: int) -> Points:
    """Points near a few directions, of norm `UNIT`."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((5, d))[rng.integers(0, 5, n)] + 0.7 * rng.standard_normal((n, d))
    return np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)


def ids(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 62, n)


def brute(points: Points, vectors: Points) -> tuple[np.ndarray, np.ndarray]:
    gaps = ((points[:, None, :].astype(np.int64) - vectors[None].astype(np.int64)) ** 2).sum(axis=2)
    return gaps.argmin(axis=1), gaps.min(axis=1)


small = st.integers(1, 60), st.integers(1, 70), st.integers(1, 12), st.integers(0, 1 << 20)


@given(*small)
@settings(max_examples=40, deadline=None)
def test_assign_is_the_exact_nearest(n: int, d: int, k: int, seed: int) -> None:
    points, vectors = sphere(n, d, seed), sphere(k, d, seed + 1)
    labels, distances = assign(points, Centroids(vectors, 0))
    slow_labels, slow_distances = brute(points, vectors)
    assert np.array_equal(labels, slow_labels)
    assert np.array_equal(distances, slow_distances)


@given(*small)
@settings(max_examples=30, deadline=None)
def test_order_of_rows_changes_no_bit(n: int, d: int, k: int, seed: int) -> None:
    points, row_ids = sphere(n, d, seed), ids(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    one, other = fit(points, row_ids, k, seed=seed), fit(points[order], row_ids[order], k, seed=seed)
    assert np.array_equal(one.vectors, other.vectors)


@given(st.integers(1, 200), st.integers(0, 1 << 20))
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_see_its_neighbours(cut: int, seed: int) -> None:
    points, centroids = sphere(200, 33, seed), Centroids(sphere(17, 33, seed + 1), 0)
    labels, distances = assign(points, centroids)
    parts = [assign(part, centroids) for part in (points[:cut], points[cut:])]
    assert np.array_equal(labels, np.concatenate([p[0] for p in parts]))
    assert np.array_equal(distances, np.concatenate([p[1] for p in parts]))


def test_threads_change_no_bit() -> None:
    points, row_ids = sphere(5000, 64, 3), ids(5000)
    with threadpool_limits(1):
        alone = fit(points, row_ids, 40, seed=1)
    with threadpool_limits(2):
        together = fit(points, row_ids, 40, seed=1)
    assert np.array_equal(alone.vectors, together.vectors)
    assert alone.n_iter == together.n_iter


def on_device(points: Points, centroids: Centroids, device: str) -> tuple[np.ndarray, np.ndarray]:
    norms = squared_norms(points)
    labels, best = _nearest_torch(points, _packed(centroids.vectors, int(norms.max())), device)
    return labels, norms - best


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 30), st.integers(0, 1 << 20))
@settings(max_examples=40, deadline=None)
def test_torch_and_numpy_fit_the_same_bits(n: int, d: int, k: int, seed: int) -> None:
    """Clusters that run empty among them: many rows are alike."""
    points = sphere(n, d, seed)[np.random.default_rng(seed).integers(0, n, 2 * n)]
    one, other = _lloyd(points, points[:k], 20), _lloyd_torch(points, points[:k], 20, "cpu")
    assert np.array_equal(one.vectors, other.vectors) and one.n_iter == other.n_iter


def twice(centroids: Points) -> Centroids:
    """Each centroid two times: every row has a tie."""
    return Centroids(np.concatenate([centroids, centroids]), 0)


def test_torch_and_numpy_agree_to_the_bit() -> None:
    points, centroids = sphere(3000, 64, 4), twice(sphere(50, 64, 5))
    for mine, theirs in zip(assign(points, centroids), on_device(points, centroids, "cpu"), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("precision", ["high", "medium", "highest"])
def test_whoever_rounds_products_gets_that_back(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        wanted = torch.backends.cuda.matmul.fp32_precision
        on_device(sphere(10, 8, 0), Centroids(sphere(3, 8, 1), 0), "cpu")
        assert torch.backends.cuda.matmul.fp32_precision == wanted
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_products_rounded_by_the_newer_setting_do_not_stop_it() -> None:
    """torch refuses to read its older TF32 setting once the newer one was used."""
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        on_device(sphere(10, 8, 0), Centroids(sphere(3, 8, 1), 0), "cpu")
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


@pytest.fixture(params=["highest", "high"])
def rounded(request: pytest.FixtureRequest) -> Iterator[str]:
    """A process in which somebody lets products round to TF32, and one where nobody does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (65_537, 64, 3), (20_000, 64, 257), (3000, 200, 5000), (70_000, 33, 64)])
def test_a_gpu_assigns_the_same_bits(n: int, d: int, k: int, rounded: str) -> None:
    points, centroids = sphere(n, d, 4), twice(sphere(k, d, 5))
    for mine, theirs in zip(assign(points, centroids), assign(points, centroids, device="cuda"), strict=True):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert rounded == torch.get_float32_matmul_precision()


@pytest.mark.gpu
@given(*small)
@settings(max_examples=40, deadline=None)
def test_a_gpu_finds_the_exact_nearest(n: int, d: int, k: int, seed: int) -> None:
    points, vectors = sphere(n, d, seed), sphere(k, d, seed + 1)
    for mine, slow in zip(assign(points, Centroids(vectors, 0), device="cuda"), brute(points, vectors), strict=True):
        assert np.array_equal(mine, slow)


@pytest.mark.gpu
@given(*small)
@settings(max_examples=20, deadline=None)
def test_a_gpu_fits_the_same_bits_in_any_order(n: int, d: int, k: int, seed: int) -> None:
    points, row_ids = sphere(n, d, seed), ids(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    here, there = fit(points, row_ids, k, seed=seed), fit(points[order], row_ids[order], k, seed=seed, device="cuda")
    assert np.array_equal(here.vectors, there.vectors) and here.n_iter == there.n_iter


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "k"), [(20_000, 100), (70_000, 2500), (60, 25)])
def test_a_gpu_fits_the_same_bits(n: int, k: int, rounded: str) -> None:
    del rounded
    points, row_ids = sphere(n, 64 if n > 60 else 3, 4), ids(n)
    here, there = (fit(points, row_ids, k, seed=0, device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(here.vectors, there.vectors) and here.n_iter == there.n_iter


def test_ties_go_to_the_smaller_index() -> None:
    labels, _ = assign(sphere(300, 8, 6), twice(sphere(9, 8, 7)))
    assert labels.max() < 9


def test_a_row_that_comes_twice_counts_once() -> None:
    points, row_ids = sphere(100, 16, 8), ids(100)
    again = fit(np.concatenate([points, points[:60]]), np.concatenate([row_ids, row_ids[:60]]), 7, seed=0)
    assert np.array_equal(fit(points, row_ids, 7, seed=0).vectors, again.vectors)


def test_seeding_does_not_move_when_another_row_goes() -> None:
    """A row that won no race can leave and every winner stays: nobody's draw depends on it."""
    points, row_ids = sphere(400, 16, 9), ids(400)
    seeds = fit(points, row_ids, 12, seed=2, n_iter=0).vectors
    losers = [i for i in range(400) if not (points[i] == seeds).all(axis=1).any()]
    for gone in losers[:25]:
        rest = np.delete(np.arange(400), gone)
        assert np.array_equal(fit(points[rest], row_ids[rest], 12, seed=2, n_iter=0).vectors, seeds)


def test_more_clusters_than_rows() -> None:
    points = np.repeat(sphere(4, 8, 1), 3, axis=0)
    centroids = fit(points, ids(12), 50, seed=0)
    assert centroids.k == len(np.unique(points, axis=0))
    assert assign(points, centroids)[1].max() == 0


def test_many_clusters_are_seeded_by_lot() -> None:
    points, row_ids = sphere(3000, 4, 2), ids(3000)
    order = np.random.default_rng(0).permutation(3000)
    one, other = (fit(points[o], row_ids[o], 2500, seed=0, n_iter=1) for o in (np.arange(3000), order))
    assert 2000 < one.k <= 2500
    assert np.array_equal(one.vectors, other.vectors)


def test_no_cluster_stays_empty_while_a_row_is_off_its_centroid() -> None:
    for seed in range(10):
        points = sphere(60, 3, seed)
        centroids = fit(points, ids(60, seed), 25, seed=seed, n_iter=40)
        labels, distances = assign(points, centroids)
        assert len(np.unique(labels)) == centroids.k or distances.max() == 0


def test_lloyd_never_gets_worse() -> None:
    points, row_ids = sphere(800, 32, 5), ids(800)
    inertias = [int(assign(points, fit(points, row_ids, 20, seed=0, n_iter=n))[1].sum()) for n in range(8)]
    slack = 800 * 32  # centroids are rounded to whole units
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(inertias))
    assert inertias[-1] < inertias[0]


def test_two_blobs() -> None:
    left, right = [[-1000, 0], [-1002, 0], [-1001, 3]], [[1000, 0], [1004, 0]]
    centroids = fit(np.array(left + right, np.int16), ids(5), 2, seed=0)
    assert sorted(centroids.vectors.tolist()) == [[-1001, 1], [1002, 0]]


def test_points_that_are_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="too long for exact float32"):
        fit(np.full((3, 64), 2000, np.int16), ids(3), 2, seed=0)


def test_nothing_to_assign_to_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        assign(sphere(3, 4, 0), Centroids(np.empty((0, 4), np.int16), 0))
    assert assign(np.empty((0, 4), np.int16), Centroids(np.empty((0, 4), np.int16), 0))[0].shape == (0,)
