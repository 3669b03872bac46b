"""The exact check: 128-bit row hashes, sorted, counted and searched. Pure.

A run is a sorted list of distinct hashes with their counts. The search goes by the first 64 bits and confirms with the
second; a child is contained as a set when each of its hashes is in some run of the parent, and as a multiset when the runs
hold it often enough. Two different rows share a hash with probability 2^-128 a pair.

Row hashes are keyed, so the rows that a search meets first are a random sample of the child's: a search may stop as soon as
it is certain that too much is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from infra.ids import I64, U64
from tasks.dedup.sorting import merge_sorted, sort_hashes

RUN_ROWS = 1 << 22
Word = np.uint64
N_RANGES = 256
_SHIFT = np.uint64(56)  # a range is the first 8 bits of a hash
# A search that may stop at any row errs with a probability below 2^-64: Hoeffding's bound at 2^-96, over at most 2^32 rows.
_CERTAIN = 96 * float(np.log(2)) / 2


@dataclass(frozen=True)
class Run:
    """Distinct row hashes in ascending order: first and second 64 bits, and how many rows have each; arrays of one length."""

    low: U64
    high: U64
    counts: I64

    @property
    def n_distinct(self) -> int:
        return len(self.low)

    @property
    def n_rows(self) -> int:
        return int(self.counts.sum())

    @property
    def n_bytes(self) -> int:
        return self.low.nbytes + self.high.nbytes + self.counts.nbytes


_NOTHING = Run(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Counted:
    """What a parent lacks of a child: of `n_rows` rows, `n_distinct` of them distinct, it lacks `n_missing_distinct` distinct
    rows and `n_residual` rows with copies counted.

    Where not `complete` the search stopped early: something is missing, and more than was allowed; the counts are lower
    bounds, and the fraction no more than a hint.
    """

    n_rows: int
    n_distinct: int
    n_missing_distinct: int
    n_residual: int
    complete: bool = True

    @property
    def set(self) -> bool:
        return self.complete and self.n_missing_distinct == 0

    @property
    def multiset(self) -> bool:
        return self.complete and self.n_residual == 0

    @property
    def fraction(self) -> float:
        """The share of the child's distinct rows that the parent has; of no rows it has all."""
        return (self.n_distinct - self.n_missing_distinct) / self.n_distinct if self.n_distinct else 1.0


# --- runs ----------------------------------------------------------------------------------------------------------------------


def run_of(hashes: U64) -> Run:
    """Sort and count row hashes, uint64 (n, 2)."""
    return _trimmed(*sort_hashes(np.ascontiguousarray(hashes)))


def merge_runs(runs: Sequence[Run]) -> Run:
    """One run that holds what the runs hold together; two at a time, so that it needs little more than its own memory."""
    merged = [run for run in runs if run.n_distinct] or [*runs[:1]] or [_NOTHING]
    while len(merged) > 1:
        pairs = zip(merged[::2], merged[1::2], strict=False)
        merged = [*(_merged(a, b) for a, b in pairs), *merged[len(merged) // 2 * 2 :]]
    return merged[0]


def ranged(run: Run, first_range: int, last_range: int) -> Run:
    """The rows of a run whose first 8 bits lie in [first_range, last_range): a view."""
    start, end = (_start_of(run.low, number) for number in (first_range, last_range))
    return Run(run.low[start:end], run.high[start:end], run.counts[start:end])


def range_starts(run: Run) -> tuple[int, ...]:
    """Where each of the 256 ranges of a run starts, and where the last one ends."""
    firsts = np.arange(N_RANGES, dtype=np.uint64) << _SHIFT
    return (*np.searchsorted(run.low, firsts).tolist(), run.n_distinct)


def _start_of(low: U64, number: int) -> int:
    return len(low) if number >= N_RANGES else int(np.searchsorted(low, np.uint64(number) << _SHIFT))


def _merged(a: Run, b: Run) -> Run:
    return _trimmed(*merge_sorted(a.low, a.high, a.counts, b.low, b.high, b.counts))


def _trimmed(low: U64, high: U64, counts: I64, n: int) -> Run:
    """The first n rows; nothing holds the memory of the others."""
    return Run(low, high, counts) if n == len(low) else Run(low[:n].copy(), high[:n].copy(), counts[:n].copy())


# --- searching -----------------------------------------------------------------------------------------------------------------


def count(children: Sequence[Run], parent: Iterable[Run], *, n_runs: int, limit_fraction: float) -> list[Counted]:
    """What the parent's runs together lack of each child. `n_runs` says how many they are; one is held at a time.

    In a parent of one run the search stops once it is certain that more than `limit_fraction` of the child's distinct rows are
    missing: with 0.0 at the first one.
    """
    return count_within(
        children,
        parent,
        n_runs=n_runs,
        limits=[limit_of(child.n_distinct, limit_fraction) for child in children],
        limit_fraction=limit_fraction,
    )


def limit_of(n_distinct: int, limit_fraction: float) -> int:
    """How many of so many distinct rows may be missing."""
    return int(limit_fraction * n_distinct)


def count_within(
    children: Sequence[Run], parent: Iterable[Run], *, n_runs: int, limits: Sequence[int], limit_fraction: float
) -> list[Counted]:
    """As `count`, where the children may be parts of larger ones, which may lack `limits` rows each."""
    if n_runs == 1:
        run = next(iter(parent))
        return [_count_one(child, run, limit, limit_fraction) for child, limit in zip(children, limits, strict=True)]
    found = [np.zeros(child.n_distinct, np.int64) for child in children]
    for run in parent:
        for child, counts in zip(children, found, strict=True):
            _find(child.low, child.high, run.low, run.high, run.counts, counts)
    return [_left_over(child, counts) for child, counts in zip(children, found, strict=True)]


def found_counts(child: Run, parent: Iterable[Run]) -> I64:
    """How often the parent's runs together hold each of the child's distinct rows, int64 (n,)."""
    found = np.zeros(child.n_distinct, np.int64)
    for run in parent:
        _find(child.low, child.high, run.low, run.high, run.counts, found)
    return found


def total(parts: Iterable[Counted]) -> Counted:
    """What was counted of the parts of one child, such as its hash ranges, together."""
    some = [*parts]
    return Counted(
        sum(part.n_rows for part in some),
        sum(part.n_distinct for part in some),
        sum(part.n_missing_distinct for part in some),
        sum(part.n_residual for part in some),
        all(part.complete for part in some),
    )


def _count_one(child: Run, run: Run, limit: int, limit_fraction: float) -> Counted:
    missing, left, whole = _count(child.low, child.high, child.counts, run.low, run.high, run.counts, limit, limit_fraction)
    return Counted(child.n_rows, child.n_distinct, missing, left, whole)


def _left_over(child: Run, found: I64) -> Counted:
    missing, left = _left(child.counts, found)
    return Counted(child.n_rows, child.n_distinct, missing, left)


# --- kernels -------------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _place(low: U64, high: U64, at: int, end: int, wanted: Word, wanted_too: Word) -> int:
    """The first place from `at` on whose hash is not below the wanted one: by doubling steps, then by halving the last one."""
    step = 1
    while at + step < end and low[at + step] < wanted:
        at += step
        step <<= 1
    end_step = min(at + step, end)
    while at < end_step:
        middle = (at + end_step) >> 1
        if low[middle] < wanted:
            at = middle + 1
        else:
            end_step = middle
    while at < end and low[at] == wanted and high[at] < wanted_too:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _find(child_low: U64, child_high: U64, low: U64, high: U64, counts: I64, found: I64) -> None:
    """Add to `found` how often the run holds each child hash. Both sides ascend, so the place in the run only moves forward."""
    at, end = 0, len(low)
    for i in range(len(child_low)):
        at = _place(low, high, at, end, child_low[i], child_high[i])
        if at < end and low[at] == child_low[i] and high[at] == child_high[i]:
            found[i] += counts[at]


@njit(cache=True, nogil=True)
def _left(wanted: I64, found: I64) -> tuple[int, int]:
    """(distinct rows not found, rows not found with copies counted)."""
    n_missing = n_left = 0
    for i in range(len(wanted)):
        n_missing += found[i] == 0
        n_left += max(0, wanted[i] - found[i])
    return n_missing, n_left


@njit(cache=True, nogil=True)
def certainly_over(n_missing: int, n_seen: int, limit: int, limit_fraction: float) -> bool:
    """Whether more than `limit` distinct rows are missing, or so many of those seen that the share of all of them is certainly
    above `limit_fraction`.
    """
    return n_missing > limit or n_missing > limit_fraction * n_seen + np.sqrt(_CERTAIN * n_seen)


@njit(cache=True, nogil=True)
def _count(
    child_low: U64, child_high: U64, wanted: I64, low: U64, high: U64, counts: I64, limit: int, limit_fraction: float
) -> tuple[int, int, bool]:
    """(distinct rows missing, rows left over, whether the search came to its end) of a child in one run."""
    at, end = 0, len(low)
    n_missing = n_left = 0
    for i in range(len(child_low)):
        at = _place(low, high, at, end, child_low[i], child_high[i])
        if at < end and low[at] == child_low[i] and high[at] == child_high[i]:
            n_left += max(0, wanted[i] - counts[at])
            continue
        n_missing += 1
        n_left += wanted[i]
        if certainly_over(n_missing, i + 1, limit, limit_fraction):
            return n_missing, n_left, False
    return n_missing, n_left, True
