"""Runs of any size: kept in the lake's scratch, and searched by hash ranges in bounded memory.

A run in scratch is three columns of 64-bit words (first and second half of the hash, count), in the order of the hashes, so
that a range of hashes is three reads. What is larger than memory is cut into ranges: those of child and parent hold the same
rows, and what is counted of ranges adds up.
"""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from infra.contracts import LetheError
from infra.files import filesystem
from infra.ids import I64, U64
from tasks.dedup.exact import (
    N_RANGES,
    Counted,
    Run,
    certainly_over,
    count_within,
    found_counts,
    limit_of,
    merge_runs,
    range_starts,
    ranged,
    total,
)

ROW_BYTES = 24
JOB_BYTES = 256 << 20  # what one job reads, about: so that one large pair is work for several workers
_MIN_BYTES = 8 << 20  # less memory than this is not planned for
_MERGING = 3.5  # a child of several runs needs them, two steps of what they merge to, and what is found of it


class TornRun(LetheError):
    """A run in scratch is shorter than it was written."""


@dataclass(frozen=True)
class Spilled:
    """A run in the lake's scratch: its distinct rows, sorted. `starts`: where each of the 256 equal ranges of the first 64 bits
    begins, and the end of the last; `n_rows` counts copies.
    """

    uri: str
    n_rows: int
    starts: tuple[int, ...]

    @property
    def n_distinct(self) -> int:
        return self.starts[-1]


Runs = tuple[Run | Spilled, ...]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Search:
    """Children to be searched in one parent over a range of hashes, all over the same columns.

    The parent's runs may be those of several tables taken together. `pairs` are the positions of the pairs asked for, one a
    child; a child whose distinct rows are missing in more than `limits` or, certainly, in more than `limit_fraction` is left.
    """

    pairs: tuple[int, ...]
    children: tuple[Runs, ...]
    parent: Runs
    first_range: int
    last_range: int
    limits: tuple[int, ...]
    limit_fraction: float


# --- scratch -------------------------------------------------------------------------------------------------------------------


def spill(run: Run, scratch: str) -> Spilled:
    """Write a run to scratch under a name of its own."""
    uri = f"{scratch}/run-{uuid.uuid4().hex}.words"
    fs, path = filesystem(uri)
    with fs.open(path, "wb") as sink:
        for column in (run.low, run.high, run.counts):
            sink.write(np.ascontiguousarray(column).view(np.uint8).data)
    return Spilled(uri, run.n_rows, range_starts(run))


def load(run: Run | Spilled, first_range: int = 0, last_range: int = N_RANGES) -> Run:
    """A run, or the part of it whose first 8 bits lie in [first_range, last_range), wherever it lies."""
    if isinstance(run, Run):
        return ranged(run, first_range, last_range)
    start, end = run.starts[first_range], run.starts[last_range]
    if start == end:
        return merge_runs([])
    fs, path = filesystem(run.uri)
    with fs.open(path, "rb", cache_type="none") as source:
        low, high, counts = (_read(run, source, column * run.n_distinct + start, end - start) for column in range(3))
    return Run(low, high, counts.view(np.int64))


def _read(run: Spilled, source: Any, start: int, n: int) -> U64:
    words = np.empty(n, np.uint64)
    source.seek(8 * start)
    if source.readinto(words.view(np.uint8).data) != words.nbytes:
        raise TornRun(f"{run.uri} ends before its {run.n_distinct} rows do; it is scratch, scan again")
    return words


# --- planning ------------------------------------------------------------------------------------------------------------------


def searches(
    pairs: Sequence[tuple[Key, Key]], runs: Mapping[Key, Runs], *, memory_bytes: int, limit_fraction: float
) -> list[Search]:
    """The jobs that count every (child, parent): a parent is read once for all its children, and a job holds no more than
    `memory_bytes`. What is too much for that, or more than one worker's share, is cut into ranges of hashes.
    """
    memory_bytes = max(memory_bytes, _MIN_BYTES)
    groups = defaultdict[Key, list[int]](list)
    for position, (_, parent) in enumerate(pairs):
        groups[parent].append(position)
    jobs = list[Search]()
    for parent, positions in groups.items():
        for some in _batches(positions, lambda i: _held_bytes(runs[pairs[i][0]]), memory_bytes * N_RANGES // 4):
            children = tuple(runs[pairs[i][0]] for i in some)
            jobs += _cut(Search(tuple(some), children, runs[parent], 0, N_RANGES, (), limit_fraction), memory_bytes)
    return jobs


def _batches(positions: Iterable[int], size: Callable[[int], int], limit: int) -> Iterator[list[int]]:
    held, n_bytes = list[int](), 0
    for position in positions:
        more = size(position)
        if held and n_bytes + more > limit:
            yield held
            held, n_bytes = [], 0
        held.append(position)
        n_bytes += more
    yield held


def _cut(whole: Search, memory_bytes: int) -> Iterator[Search]:
    """A search as searches of ranges: as many as its memory and its share want."""
    held = sum(_held_bytes(child) for child in whole.children) + ROW_BYTES * max((r.n_distinct for r in whole.parent), default=0)
    read = ROW_BYTES * sum(run.n_distinct for runs in (*whole.children, whole.parent) for run in runs)
    n_cuts = min(N_RANGES, max(1, math.ceil(held / memory_bytes), math.ceil(read / JOB_BYTES)))
    bounds = [N_RANGES * i // n_cuts for i in range(n_cuts + 1)]
    limits = tuple(limit_of(sum(run.n_distinct for run in child), whole.limit_fraction) for child in whole.children)
    for first, last in pairwise(bounds):
        children = tuple(_sent(child, first, last) for child in whole.children)
        parent = _sent(whole.parent, first, last)
        yield Search(whole.pairs, children, parent, first, last, limits, whole.limit_fraction)


def _sent(runs: Runs, first_range: int, last_range: int) -> Runs:
    """Of runs in memory only what the job needs travels with it."""
    return tuple(ranged(run, first_range, last_range) if isinstance(run, Run) else run for run in runs)


def _held_bytes(runs: Runs) -> int:
    n_bytes = ROW_BYTES * sum(run.n_distinct for run in runs)
    return int(n_bytes * (_MERGING if len(runs) > 1 else 1.5))


# --- searching -----------------------------------------------------------------------------------------------------------------


def search(job: Search) -> list[Counted]:
    """Worker: what the parent lacks of each child within the job's ranges.

    The first range goes before the others: a child that lacks too much of it is read no further.
    """
    everyone = range(len(job.children))
    found = _count_range(job, everyone, job.first_range, job.first_range + 1)
    if job.first_range + 1 == job.last_range:
        return found
    found = [_left_early(job, i, found[i]) for i in everyone]
    still = [i for i in everyone if found[i].complete]
    for i, rest in zip(still, _count_range(job, still, job.first_range + 1, job.last_range), strict=True):
        found[i] = total((found[i], rest))
    return found


def _left_early(job: Search, i: int, found: Counted) -> Counted:
    is_over = certainly_over(found.n_missing_distinct, found.n_distinct, job.limits[i], job.limit_fraction)
    return replace(found, complete=False) if is_over else found


def _count_range(job: Search, some: Sequence[int], first: int, last: int) -> list[Counted]:
    """The counts of `some` children; nothing is read for none."""
    children = [merge_runs([load(run, first, last) for run in job.children[i]]) for i in some]
    if not children:
        return []
    parent = (load(run, first, last) for run in job.parent)
    limits = [job.limits[i] for i in some]
    return count_within(children, parent, n_runs=len(job.parent), limits=limits, limit_fraction=job.limit_fraction)


def totals(jobs: Sequence[Search], found: Sequence[Sequence[Counted]], n_pairs: int) -> list[Counted]:
    """What the jobs found, by the position of the pair."""
    parts: list[list[Counted]] = [[] for _ in range(n_pairs)]
    for job, counted in zip(jobs, found, strict=True):
        for pair, one in zip(job.pairs, counted, strict=True):
            parts[pair].append(one)
    return [total(some) for some in parts]


def found_in(child: Runs, parents: Sequence[Runs], first_range: int = 0, last_range: int = N_RANGES) -> tuple[Run, I64]:
    """The child's rows of a range of hashes, and how often each parent holds each of them, int64 (parents, rows)."""
    rows = merge_runs([load(run, first_range, last_range) for run in child])
    found = [found_counts(rows, (load(run, first_range, last_range) for run in parent)) for parent in parents]
    return rows, np.array(found, np.int64).reshape(len(parents), rows.n_distinct)
