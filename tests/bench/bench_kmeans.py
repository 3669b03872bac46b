"""Seconds per Lloyd iteration, beside scikit-learn and (where it is installed) faiss: python -m tests.bench.bench_kmeans [n d k].

All start from the same rows and run the same number of iterations on the same points: unit vectors, ours in integers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from infra.ids import F64
from tasks.kernels.kmeans import UNIT, Centroids, Points, _moved, assign, fit  # pyright: ignore[reportPrivateUsage]
from tests.bench.harness import Options, Row, times

Clock = tuple[float, float]
N_ITER = 5


def unit_vectors(n: int, d: int, k: int) -> F64:
    """Three blobs a cluster, wide enough to touch."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((3 * k, d))[rng.integers(0, 3 * k, n)] + 0.8 * rng.standard_normal((n, d))
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def clocked(run: Callable[[int], Any], n_tries: int = 5) -> Clock:
    """(wall, CPU) seconds an iteration: the least for 1 + N_ITER of them less the least for one, so that set-up falls out."""
    walls, cpus = dict[int, float](), dict[int, float]()
    for _ in range(n_tries):
        for n_iter in (1, 1 + N_ITER):
            wall, cpu = time.perf_counter(), time.process_time()
            run(n_iter)
            walls[n_iter] = min(walls.get(n_iter, float("inf")), time.perf_counter() - wall)
            cpus[n_iter] = min(cpus.get(n_iter, float("inf")), time.process_time() - cpu)
    return (walls[1 + N_ITER] - walls[1]) / N_ITER, (cpus[1 + N_ITER] - cpus[1]) / N_ITER


def lloyd(points: Points, start: Points) -> Callable[[int], Points]:
    def run(n_iter: int) -> Points:
        vectors = start
        for step in range(n_iter):
            labels, distances = assign(points, Centroids(vectors, step))
            vectors = _moved(points, labels, distances, vectors)
        return vectors

    return run


def sklearn_lloyd(vectors: np.ndarray, start: np.ndarray) -> Callable[[int], Any]:
    make: Any = KMeans  # its types know `init` by name only
    return lambda n: make(len(start), init=start, n_init=1, max_iter=n, tol=0, algorithm="lloyd").fit(vectors)


def faiss_lloyd(vectors: np.ndarray, start: np.ndarray) -> Callable[[int], Any] | None:
    if importlib.util.find_spec("faiss") is None:
        return None
    faiss: Any = importlib.import_module("faiss")

    def run(n_iter: int) -> Any:
        job = faiss.Kmeans(vectors.shape[1], len(start), niter=n_iter, max_points_per_centroid=len(vectors), seed=0)
        job.train(vectors, init_centroids=start)
        return job

    return run


def inertia(vectors: F64, centroids: np.ndarray) -> float:
    """Mean squared distance to the nearest centroid, in the units of the vectors, by float64."""
    gaps = (centroids**2).sum(axis=1) - 2 * vectors @ centroids.T
    return float((gaps.min(axis=1) + (vectors**2).sum(axis=1)).mean())


def compared(n: int = 200_000, d: int = 64, k: int = 256) -> dict[str, Clock]:
    """(wall, CPU) seconds an iteration of each side; prints them with how good the centroids are."""
    exact = unit_vectors(n, d, k)
    points, vectors = np.rint(exact * UNIT).astype(np.int16), exact.astype(np.float32)
    start = points[:k]
    floats = (start / UNIT).astype(np.float32)
    runs = {"lethe": lloyd(points, start), "scikit-learn": sklearn_lloyd(vectors, floats), "faiss": faiss_lloyd(vectors, floats)}
    clocks = {name: clocked(run) for name, run in runs.items() if run is not None}
    ours, theirs = lloyd(points, start)(1 + N_ITER) / UNIT, sklearn_lloyd(vectors, floats)(1 + N_ITER).cluster_centers_
    inertias = {"lethe": inertia(exact[:20_000], ours), "scikit-learn": inertia(exact[:20_000], theirs.astype(np.float64))}
    print(f"k-means, N = {n}, d = {d}, k = {k}: an iteration, from the least of 5 runs")
    print(f"{'':14}{'wall s':>9}{'CPU s':>9}{'inertia':>10}")
    for name, (wall, cpu) in clocks.items():
        print(f"{name:14}{wall:9.3f}{cpu:9.3f}{inertias.get(name, float('nan')):10.5f}")
    began = time.perf_counter()
    fitted = fit(points, np.arange(n), k, seed=0)
    print(f"lethe, whole fit with seeding: {time.perf_counter() - began:.2f} s, {fitted.n_iter} iterations")
    return clocks


def rows(_: Options) -> list[Row]:
    clocks = compared()
    ours, theirs = clocks["lethe"], clocks["scikit-learn"]
    return [
        Row(f"k-means iteration, scikit-learn: {clock} s", f"{a:.3f}", f"{b:.3f}", times(b, a))
        for clock, a, b in zip(("wall", "CPU"), ours, theirs, strict=True)
    ]


if __name__ == "__main__":
    compared(*map(int, sys.argv[1:]))
