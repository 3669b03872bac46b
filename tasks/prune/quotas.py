"""Thresholds that meet a quota on the sample, after which each row decides for itself. Pure.

Ranks are integers, the largest are kept first, and equal ranks go to the smaller row id: a decision is a function of a row's own
(rank, row id, group) and of the sample's thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from infra.ids import I64

Mask = npt.NDArray[np.bool_]
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Thresholds:
    """The last row that each group keeps: its rank and its row id, int64 (n_groups,)."""

    ranks: I64
    row_ids: I64


def n_to_keep(n_rows: int, keep_fraction: float) -> int:
    """How many of the sample's rows a fraction means: the nearest whole number, and one at least where there is one."""
    return min(n_rows, max(1, round(n_rows * keep_fraction)))


def threshold_of(ranks: I64, row_ids: I64, quota: int) -> tuple[int, int]:
    """(rank, row id) of the last of the `quota` first rows; one that keeps nothing, or everything, where the quota says so."""
    if quota <= 0:
        return int(_INT64.max), -1
    if quota >= len(ranks):
        return int(_INT64.min), int(_INT64.max)
    last = np.lexsort((row_ids, -ranks))[quota - 1]
    return int(ranks[last]), int(row_ids[last])


def thresholds_of(ranks: I64, row_ids: I64, groups: I64, quotas: I64) -> Thresholds:
    """Thresholds by which group g keeps `quotas[g]` of the rows given, all of which have a group in 0 .. len(quotas) - 1."""
    order = np.argsort(groups, kind="stable")
    edges = np.searchsorted(groups[order], np.arange(len(quotas) + 1))
    members = [order[low:high] for low, high in pairwise(edges)]
    found = [threshold_of(ranks[rows], row_ids[rows], int(quota)) for rows, quota in zip(members, quotas, strict=True)]
    return Thresholds(np.array([rank for rank, _ in found], np.int64), np.array([row_id for _, row_id in found], np.int64))


def within(ranks: I64, row_ids: I64, groups: I64, thresholds: Thresholds) -> Mask:
    """Which rows their group's threshold keeps."""
    bounds = thresholds.ranks[groups]
    return (ranks > bounds) | ((ranks == bounds) & (row_ids <= thresholds.row_ids[groups]))
