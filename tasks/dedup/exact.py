"""The exact check: 128-bit row hashes, sorted, counted and searched. Pure.

A run is a sorted list of distinct hashes with their counts. The search goes by the first 64 bits and confirms with the
second; a child is contained as a set when each of its hashes is in some run of the parent, and as a multiset when the runs
hold it often enough. Two different rows share a hash with probability 2^-128 a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from infra.ids import I64, U64

RUN_ROWS = 1 << 22


@dataclass(frozen=True)
class Run:
    """Distinct row hashes in ascending order: first and second 64 bits, and how many rows have each; arrays of one length."""

    low: U64
    high: U64
    counts: I64

    @property
    def n_bytes(self) -> int:
        return self.low.nbytes + self.high.nbytes + self.counts.nbytes


@dataclass(frozen=True)
class Verdict:
    """Whether a child is contained in a parent as a set and as a multiset."""

    set: bool
    multiset: bool


def run_of(hashes: U64) -> Run:
    """Sort and count row hashes, uint64 (n, 2)."""
    return _counted(hashes[:, 0], hashes[:, 1], np.ones(len(hashes), np.int64))


def merge_runs(runs: Sequence[Run]) -> Run:
    """One run that holds what the runs hold together."""
    if len(runs) == 1:
        return runs[0]
    nothing = Run(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
    parts = [nothing, *runs]
    return _counted(
        np.concatenate([r.low for r in parts]), np.concatenate([r.high for r in parts]), np.concatenate([r.counts for r in parts])
    )


def contained(children: Sequence[Run], parent: Iterable[Run], *, n_runs: int) -> list[Verdict]:
    """Search the children's hashes in the parent's runs, one run at a time.

    A parent of one run is left at the first hash it lacks, so a false pair costs next to nothing.
    """
    found = [np.zeros(len(child.low), np.int64) for child in children]
    for run in parent:
        for child, counts in zip(children, found, strict=True):
            _search(child.low, child.high, run.low, run.high, run.counts, counts, n_runs == 1)
    return [
        Verdict(bool((counts > 0).all()), bool((counts >= child.counts).all()))
        for child, counts in zip(children, found, strict=True)
    ]


def _counted(low: U64, high: U64, counts: I64) -> Run:
    order = np.argsort(low)
    if not _collapsible(low, high, order):
        order = np.lexsort((high, low))
    return Run(*_collapse(low, high, counts, order))


@njit(cache=True, nogil=True)
def _collapsible(low: U64, high: U64, order: I64) -> bool:
    """Whether an order by the first 64 bits is one by all 128: it is unless two hashes share the first 64 and not the rest."""
    for i in range(1, len(order)):
        a, b = order[i - 1], order[i]
        if low[a] == low[b] and high[a] != high[b]:
            return False
    return True


@njit(cache=True, nogil=True)
def _collapse(low: U64, high: U64, counts: I64, order: I64) -> tuple[U64, U64, I64]:
    out_low = np.empty(len(order), np.uint64)
    out_high = np.empty(len(order), np.uint64)
    out_counts = np.empty(len(order), np.int64)
    n = 0
    for i in order:
        if n and out_low[n - 1] == low[i] and out_high[n - 1] == high[i]:
            out_counts[n - 1] += counts[i]
        else:
            out_low[n], out_high[n], out_counts[n] = low[i], high[i], counts[i]
            n += 1
    return out_low[:n].copy(), out_high[:n].copy(), out_counts[:n].copy()


@njit(cache=True, nogil=True)
def _search(child_low: U64, child_high: U64, low: U64, high: U64, counts: I64, found: I64, stop: bool) -> bool:
    """Add to `found` how often the run holds each child hash; with `stop`, False at the first one that it does not hold.

    Both sides ascend, so the place in the run only moves forward: by doubling steps, then by halving the last one.
    """
    n = len(low)
    at = 0
    for i in range(len(child_low)):
        step = 1
        while at + step < n and low[at + step] < child_low[i]:
            at += step
            step <<= 1
        end = min(at + step, n)
        while at < end:
            middle = (at + end) >> 1
            if low[middle] < child_low[i]:
                at = middle + 1
            else:
                end = middle
        while at < n and low[at] == child_low[i] and high[at] < child_high[i]:
            at += 1
        if at < n and low[at] == child_low[i] and high[at] == child_high[i]:
            found[i] += counts[at]
        elif stop:
            return False
    return True
