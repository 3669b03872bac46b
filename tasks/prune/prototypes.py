"""Pruning by distance to the nearest prototype (Sorscher et al., "Beyond neural scaling laws", arXiv 2206.14486). Pure.

One threshold for all rows, but every class keeps at least half of its equal share: a class that the common threshold would
starve has a threshold of its own.
"""

from __future__ import annotations

import numpy as np

from infra.ids import I64
from tasks.prune.quotas import Thresholds, threshold_of


def class_floors(sizes: I64, n_keep: int) -> I64:
    """The fewest rows that each class keeps: half of an equal share, rounded up where all of them fit in, or all it has."""
    n_classes = max(1, int(np.count_nonzero(sizes)))
    half = -(-n_keep // (2 * n_classes))
    return np.minimum(sizes, half if half * n_classes <= n_keep else n_keep // (2 * n_classes))


def class_thresholds(ranks: I64, row_ids: I64, classes: I64, n_classes: int, n_keep: int) -> Thresholds:
    """Thresholds that keep exactly `n_keep` of the rows: one more than there are classes, the last for rows of no known class.

    `classes` runs from 0 to n_classes, where n_classes means none known; those rows have no floor.
    """
    order = np.lexsort((row_ids, -ranks))
    floors = np.append(class_floors(np.bincount(classes, minlength=n_classes + 1)[:n_classes], n_keep), 0)
    n_common = _common_rank(classes[order], floors, n_keep)
    counts = np.bincount(classes[order[:n_common]], minlength=n_classes + 1)
    common = threshold_of(ranks, row_ids, n_common)
    found = [_own(ranks, row_ids, classes == c, int(floors[c])) if floors[c] > counts[c] else common for c in range(len(floors))]
    return Thresholds(np.array([rank for rank, _ in found], np.int64), np.array([row_id for _, row_id in found], np.int64))


def _own(ranks: I64, row_ids: I64, members: np.ndarray, quota: int) -> tuple[int, int]:
    return threshold_of(ranks[members], row_ids[members], quota)


def _common_rank(ordered: I64, floors: I64, n_keep: int) -> int:
    """How many of the rows, best first, the common threshold takes so that they and the floors make n_keep.

    One row more adds one or none to the sum, so every number between the floors' sum and the number of rows is met.
    """
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        counts = np.bincount(ordered[:middle], minlength=len(floors))
        if np.maximum(counts, floors).sum() < n_keep:
            low = middle + 1
        else:
            high = middle
    return low
