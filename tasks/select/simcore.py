"""SimCore: the records nearest to the centroids of the target, taken round by round. Pure.

After Kim et al., "Coreset Sampling from Open-Set for Fine-Grained Self-Supervised Learning" (arXiv 2303.11101). There, each
centroid of the target takes in every round the nearest record that no earlier round took, from the whole pool, until the records
of a round are on average less than `LIKE_FIRST` times as similar as those of the first one were.

Here the rounds are played on the keyed sample. What is kept of them is how far each centroid had to reach in each round, and the
round of any record, met or not, is the first in which some centroid reached as far as to it: a function of its own row. For the
records of the sample this is the round that took them (had an earlier reach covered one, it would have been taken then), so
with everything in the sample the order is the paper's; records at the same distance share the earliest round of theirs. The log
weight is minus the logarithm of the round. Where to stop is the budget's to say; how much the paper would have taken is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.columns import Look
from infra.ids import F64, I64
from tasks.kernels.kmeans import UNIT, Points, fit
from tasks.select.nearness import I32, on_sphere, squared_distances

LIKE_FIRST = 0.95
_MAX_DISTANCES = 1 << 24
_CHUNK_DISTANCES = 1 << 22


@dataclass(frozen=True)
class Reach:
    """What one target taught: its centroids int16 (k, d), and the squared distance that each reached in each round, (T, k).

    `similar_fraction` is the share of the sample that the paper's rule takes.
    """

    look: Look
    centroids: Points
    distances: I32
    similar_fraction: float

    @property
    def nbytes(self) -> int:
        return self.centroids.nbytes + self.distances.nbytes


def fit_simcore(
    points: Points, row_ids: I64, target: Points, target_ids: I64, k: int, *, look: Look, seed: int, device: str = "cpu"
) -> Reach:
    """The reach of a target's centroids into a sample of points (n, d), n >= 1.

    There are at most `k` centroids, and fewer where their distances to the sample would not fit into `_MAX_DISTANCES`.
    """
    k = max(1, min(k, _MAX_DISTANCES // len(points)))
    order = np.argsort(row_ids, kind="stable")
    centroids = on_sphere(fit(target, target_ids, k, seed=seed, device=device).vectors, look)
    away = np.ascontiguousarray(squared_distances(points[order], centroids, look).T)
    taken = rounds(away)
    distances = np.take_along_axis(away, taken.T, axis=1).T
    n_similar = len(np.unique(taken[: n_rounds(distances)]))
    return Reach(look, centroids, np.ascontiguousarray(distances), n_similar / len(points))


def rounds(away: I32) -> I64:
    """Which record each centroid takes in each round, int64 (T, k), of their squared distances (k, n).

    Two centroids may take the same record in a round; of records at the same distance the first is taken. Ends when every
    record is taken.
    """
    k, n = away.shape
    nearest = np.argsort(away, axis=1, kind="stable")
    every, at = np.arange(k), np.zeros(k, np.int64)
    gone = np.zeros(n, np.bool_)
    found = list[I64]()
    while True:
        chosen = nearest[every, at]
        while gone[chosen].any():
            at += gone[chosen]
            chosen = nearest[every, at]
        found.append(chosen)
        gone[chosen] = True
        if gone.all():
            return np.stack(found)


def n_rounds(distances: I32) -> int:
    """How many rounds pass before one is on average less than `LIKE_FIRST` times as similar as the first."""
    similar = (1 - distances / (2 * UNIT**2)).mean(axis=1)
    below = np.flatnonzero(similar < LIKE_FIRST * similar[0])
    return int(below[0]) if len(below) else len(distances)


def simcore_log_weights(points: Points, reach: Reach) -> F64:
    """-ln(round) of each record, float64 (n,); the records beyond all reach share the round after the last."""
    n_chunk = max(1, _CHUNK_DISTANCES // len(reach.centroids))
    parts = [_rounds_of(points[low : low + n_chunk], reach) for low in range(0, len(points), n_chunk)]
    return -np.log1p(np.concatenate([np.zeros(0, np.int64), *parts]))


def _rounds_of(points: Points, reach: Reach) -> npt.NDArray[np.int64]:
    """Rounds from 0 on."""
    away = squared_distances(points, reach.centroids, reach.look)
    first = np.full(len(points), len(reach.distances), np.int64)
    for c in range(len(reach.centroids)):
        # What a centroid reached never shrinks from round to round.
        np.minimum(first, np.searchsorted(reach.distances[:, c], away[:, c]), out=first)
    return first
