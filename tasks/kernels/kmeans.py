"""k-means whose centroids are a function of the set of rows alone: not of their order, partitioning, threads, library or
device.

Points are integers (embeddings of norm about 1 in units of 1 / `UNIT`), carried through the GEMM in float32. A score 2<p, c> -
|c|^2 and each of its partial sums is then an integer under 2^24, which float32 holds without rounding, in any order, with or
without FMA. So a BLAS may split and block as it likes: scores are exact, ties are real ties and go to the smaller index, and a
row's distance cannot depend on the rows beside it. Sums of assigned points are int64, centroids are rounded by integer
division. Seeding is k-means++ (Arthur and Vassilvitskii, 2007) run as a race with draws keyed by row id: an absent row shifts
nobody's luck.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from infra.ids import keyed_bits, keyed_uniform

Points = npt.NDArray[np.int16]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])

UNIT = 2048
_EXACT = 1 << 24
_CHUNK_SCORES = 1 << 18
_STRIPE_ROWS = 1 << 13
_DEVICE_ROWS = 1 << 18
_DEVICE_SCORES = 1 << 26
_MAX_RACES = 2048
_RACE_DRAWS = 1 << 23


def _compiled(function: _F) -> _F:
    """Machine code, kept on disk between processes."""
    return cast(_F, numba.njit(function, cache=True, nogil=True))  # pyright: ignore


@dataclass(frozen=True)
class Centroids:
    """What a fit found. `vectors` is int16 of shape (k, d) in units of 1 / `UNIT`; k may be smaller than was asked for."""

    vectors: Points
    n_iter: int

    @property
    def k(self) -> int:
        return len(self.vectors)


def fit(points: Points, row_ids: I64, k: int, *, seed: int, n_iter: int = 20, device: str = "cpu") -> Centroids:
    """Lloyd's k-means of points (n, d) named by `row_ids` (n,), in at most `n_iter` iterations; it stops when no row moves.

    A row id that comes twice counts once. There are as many centroids as distinct points if those are fewer than `k`. A cluster
    that runs empty takes the row that lies farthest from its own centroid. Raises `ValueError` where points are too long to be
    exact.
    """
    if k < 1:
        raise ValueError(f"k = {k}: k-means needs at least one cluster")
    row_ids, first = np.unique(row_ids, return_index=True)
    points = np.ascontiguousarray(points[first])
    start = _seeded(points, row_ids, k, seed)
    return _lloyd(points, start, n_iter) if device == "cpu" else _lloyd_torch(points, start, n_iter, device)


def assign(points: Points, centroids: Centroids, *, device: str = "cpu") -> tuple[I32, I64]:
    """The nearest centroid of each row and the squared distance to it: labels int32 (n,), distances int64 (n,) in 1 / `UNIT`^2.

    Both are exact integers and functions of the row alone; among equally near centroids the smaller index wins.
    """
    if not len(points):
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    if not centroids.k:
        raise ValueError("there is no centroid to assign to: the fit saw no rows")
    norms = squared_norms(points)
    packed = _packed(centroids.vectors, int(norms.max()))
    labels, best = _nearest_numpy(points, packed) if device == "cpu" else _nearest_torch(points, packed, device)
    return labels, norms - best


# --- seeding -------------------------------------------------------------------------------------------------------------------


def _seeded(points: Points, row_ids: I64, k: int, seed: int) -> Points:
    """Up to k distinct points, drawn by k-means++ among a keyed lot of candidates; beyond `_MAX_RACES`, the lot itself."""
    if k > _MAX_RACES:
        chosen = points[_lot(row_ids, k, seed)]
        return chosen[np.sort(np.unique(chosen, axis=0, return_index=True)[1])]
    lot = _lot(row_ids, max(32 * k, _RACE_DRAWS // k), seed)
    return points[lot][_winners(points[lot], row_ids[lot], k, seed)]


def _lot(row_ids: I64, n: int, seed: int) -> I64:
    """Indices of the n rows with the smallest keyed bits, in order of row id."""
    if n >= len(row_ids):
        return np.arange(len(row_ids))
    return np.sort(np.argsort(keyed_bits(row_ids, "kmeans lot", seed), kind="stable")[:n])


def _winners(points: Points, row_ids: I64, k: int, seed: int) -> list[int]:
    """Indices of the rows that win k races; fewer where no other point is left.

    In a race a row arrives at time E / D^2: E exponential and keyed by (row id, race), D the row's distance to the nearest
    winner so far. The first to arrive is row i with probability D_i^2 / sum D^2, which is the rule of k-means++.
    """
    winners = list[int]()
    nearest = np.full(len(points), _EXACT, np.int64)
    for race in range(k):
        delays = -np.log(keyed_uniform(row_ids, "kmeans race", seed, race))
        arrivals = np.divide(delays, nearest, out=np.full(len(points), np.inf), where=nearest > 0)
        first = int(np.argmin(arrivals))
        if nearest[first] == 0:
            break
        winners.append(first)
        _approach(points, first, nearest)
    return winners


@_compiled
def _approach(points: Points, winner: int, nearest: I64) -> None:
    """Lower each row's squared distance to its nearest winner, now that there is one more."""
    for i in range(len(points)):
        distance = np.int32(0)
        for j in range(points.shape[1]):
            gap = np.int32(points[i, j]) - np.int32(points[winner, j])
            distance += gap * gap
        nearest[i] = min(nearest[i], distance)


# --- Lloyd ---------------------------------------------------------------------------------------------------------------------


def _lloyd(points: Points, centroids: Points, n_iter: int) -> Centroids:
    labels = np.full(len(points), -1, np.int32)
    for step in range(n_iter):
        found, distances = assign(points, Centroids(centroids, step))
        if np.array_equal(found, labels):
            return Centroids(centroids, step)
        labels = found
        centroids = _moved(points, labels, distances, centroids)
    return Centroids(centroids, n_iter)


def _moved(points: Points, labels: I32, distances: I64, centroids: Points) -> Points:
    return _placed(points, *_sums(points, labels, len(centroids)), lambda: distances, centroids)


def _placed(points: Points, sums: I64, counts: I64, distances: Callable[[], I64], centroids: Points) -> Points:
    """The rounded mean of each cluster's rows; an empty cluster gets the farthest row, or stays where no row is off its
    centroid.
    """
    held = np.maximum(counts, 1)[:, None]
    moved = np.where(counts[:, None] > 0, (2 * sums + held) // (2 * held), centroids)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        away = distances()
        farthest = np.argsort(-away, kind="stable")[: len(empty)]
        farthest = farthest[away[farthest] > 0]
        moved[empty[: len(farthest)]] = points[farthest]
    return moved.astype(np.int16)


@_compiled
def _sums(points: Points, labels: I32, k: int) -> tuple[I64, I64]:
    """Sum of the points of each cluster, int64 (k, d), and their number, int64 (k,)."""
    sums = np.zeros((k, points.shape[1]), np.int64)
    counts = np.zeros(k, np.int64)
    for i in range(len(points)):
        counts[labels[i]] += 1
        for j in range(points.shape[1]):
            sums[labels[i], j] += points[i, j]
    return sums, counts


# --- nearest centroid ----------------------------------------------------------------------------------------------------------


@_compiled
def squared_norms(points: Points) -> I64:
    """|p|^2 of each row, int64 (n,)."""
    norms = np.empty(len(points), np.int64)
    for i in range(len(points)):
        total = np.int64(0)
        for j in range(points.shape[1]):
            total += np.int32(points[i, j]) * np.int32(points[i, j])
        norms[i] = total
    return norms


def _packed(vectors: Points, longest: int) -> F32:
    """The right side of the GEMM, float32 (d + 1, k): 2c over -|c|^2, so that [p, 1] times it is the score 2<p, c> - |c|^2.

    `longest` is the largest squared norm of the points; by Cauchy-Schwarz every partial sum is at most 2|p||c| + |c|^2.
    """
    norms = squared_norms(vectors)
    widest = int(norms.max())
    if 2.0 * (longest * widest) ** 0.5 + widest > _EXACT:
        raise ValueError(f"points of norm {longest**0.5:.0f} are too long for exact float32 scores; scale them to {UNIT} or less")
    packed = np.empty((vectors.shape[1] + 1, len(vectors)), np.float32)
    packed[:-1] = 2 * vectors.T.astype(np.int32)
    packed[-1] = -norms
    return packed


def _nearest_numpy(points: Points, packed: F32) -> tuple[I32, I64]:
    """Index and value of each row's best score. One BLAS thread a stripe of rows: threads inside the small products would wait
    for each other."""
    labels, best = np.empty(len(points), np.int32), np.empty(len(points), np.int64)
    stripes = range(0, len(points), _STRIPE_ROWS)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, min(len(stripes), numba.get_num_threads()))) as pool:
        deque(pool.map(lambda low: _score_stripe(points, packed, labels, best, low), stripes), maxlen=0)
    return labels, best


def _score_stripe(points: Points, packed: F32, labels: I32, best: I64, start: int) -> None:
    """Score the rows of one stripe, in chunks whose scores stay in the cache."""
    n_chunk = max(64, _CHUNK_SCORES // packed.shape[1])
    rows = np.ones((n_chunk, len(packed)), np.float32)
    scores = np.empty((n_chunk, packed.shape[1]), np.float32)
    end = min(len(points), start + _STRIPE_ROWS)
    for low in range(start, end, n_chunk):
        high = min(low + n_chunk, end)
        m = high - low
        rows[:m, :-1] = points[low:high]
        np.dot(rows[:m], packed, out=scores[:m])
        found = scores[:m].argmax(axis=1)
        labels[low:high] = found
        best[low:high] = np.take_along_axis(scores[:m], found[:, None], axis=1)[:, 0]


# --- the same on a device ------------------------------------------------------------------------------------------------------


def _torch() -> Any:
    """Only for a device: importing it costs every worker seconds and memory."""
    return import_module("torch")


def _lloyd_torch(points: Points, centroids: Points, n_iter: int, device: str) -> Centroids:
    """As `_lloyd`, with the points and their labels on the device."""
    torch = _torch()
    norms = squared_norms(points)
    longest = int(norms.max(initial=0))
    rows, labels = _held(torch, points, device), None
    for step in range(n_iter if len(points) else 0):
        found, best = _scored(torch, rows, _packed(centroids, longest), device)
        if labels is not None and torch.equal(found, labels):
            return Centroids(centroids, step)
        labels = found
        sums, counts = _sums_torch(torch, rows, labels, len(centroids))
        centroids = _placed(points, sums, counts, partial(_away, norms, best), centroids)
    return Centroids(centroids, n_iter if len(points) else 0)


def _away(norms: I64, best: Any) -> I64:
    return norms - best.cpu().numpy()


def _held(torch: Any, points: Points, device: str) -> Any:
    """The points on the device where they leave half of it free, else as they are, to be sent there chunk by chunk."""
    rows = torch.from_numpy(points)
    fits = device == "cpu" or points.nbytes < torch.cuda.mem_get_info(device)[0] // 2
    return rows.to(device) if fits else rows


def _nearest_torch(points: Points, packed: F32, device: str) -> tuple[I32, I64]:
    """As `_nearest_numpy`, on a device."""
    torch = _torch()
    labels, best = _scored(torch, torch.from_numpy(points), packed, device)
    return labels.cpu().numpy(), best.cpu().numpy()


def _scored(torch: Any, points: Any, packed: F32, device: str) -> tuple[Any, Any]:
    """Index (int32) and value (int64) of each row's best score, on the device. `argmax` may return any of equal scores there,
    so the smallest index is sought."""
    n, k = len(points), packed.shape[1]
    right = torch.from_numpy(packed).to(device)
    order = torch.arange(k, device=device, dtype=torch.int32)
    labels = torch.empty(n, device=device, dtype=torch.int32)
    best = torch.empty(n, device=device, dtype=torch.int64)
    n_chunk = max(64, min(_DEVICE_ROWS, _DEVICE_SCORES // k))
    with _full_float32(torch):
        for low in range(0, n, n_chunk):
            rows = points[low : low + n_chunk].to(device).to(torch.float32)
            scores = torch.addmm(right[-1], rows, right[:-1])
            top = scores.amax(dim=1, keepdim=True)
            labels[low : low + n_chunk] = torch.where(scores == top, order, k).amin(dim=1)
            best[low : low + n_chunk] = top[:, 0].to(torch.int64)
    return labels, best


def _sums_torch(torch: Any, points: Any, labels: Any, k: int) -> tuple[I64, I64]:
    """As `_sums`. The order in which a device adds is nobody's business: integers."""
    sums = torch.zeros((k, points.shape[1]), device=labels.device, dtype=torch.int64)
    for low in range(0, len(points), _DEVICE_ROWS):
        rows = points[low : low + _DEVICE_ROWS].to(labels.device)
        sums.index_add_(0, labels[low : low + _DEVICE_ROWS], rows.to(torch.int64))
    return sums.cpu().numpy(), torch.bincount(labels, minlength=k).cpu().numpy()


@contextmanager
def _full_float32(torch: Any) -> Generator[None, None, None]:
    """TF32 keeps 11 bits and would round; whoever switched it on for training gets it back."""
    # The first product of a process settles how large cuBLAS's workspace is, and training after it counts on this size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before
