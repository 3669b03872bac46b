"""The rows that a recipe keeps by their hashes: searched, counted, and shared out among files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from infra.ids import I64, U64, Digest
from tasks.dedup.exact import Run

MEMBER_BYTES = 24
SCHEMA = pa.schema([pa.field("low", pa.int64()), pa.field("high", pa.int64()), pa.field("n", pa.int64())])
Mask = npt.NDArray[np.bool_]
Found = tuple[I64, I64]  # positions in a run, ascending, and how many rows of a file each of them has


def count_members(run: Run, hashes: U64, counts: I64) -> None:
    """Add to `counts`, int64 (members,), how many of the row hashes, uint64 (n, 2), each member has."""
    _count(run.low, run.high, hashes, counts)


def take_members(run: Run, left: I64, hashes: U64) -> Mask:
    """Which rows are members that are still wanted, bool (n,); `left`, how often each is, goes down."""
    taken = np.zeros(len(hashes), np.bool_)
    _take(run.low, run.high, left, hashes, taken)
    return taken


def found_of(counts: I64) -> Found:
    """The members that a file has, for which one number each is enough."""
    at = np.flatnonzero(counts)
    return at, counts[at]


def allot(found: Iterable[Found], wanted: I64) -> Iterator[Found]:
    """How many rows of each file are kept so that every member is kept as often as it is wanted; the first files serve first."""
    left = wanted.copy()
    for at, counts in found:
        kept = np.minimum(counts, left[at])
        left[at] -= kept
        yield at[kept > 0], kept[kept > 0]


def some_of(run: Run, at: I64, counts: I64) -> Run:
    """Members at ascending positions, with other counts."""
    return Run(run.low[at], run.high[at], counts)


def with_counts(run: Run, counts: I64) -> Run:
    """The members that are left with these counts, one each."""
    at, left = found_of(counts)
    return some_of(run, at, left)


def shards(run: Run, n_shards: int) -> list[Run]:
    """The run cut by the first bits of its hashes; `n_shards` is a power of two."""
    starts = np.array([(shard << 64) // n_shards for shard in range(n_shards)], np.uint64)
    edges = [*np.searchsorted(run.low, starts).tolist(), len(run.low)]
    return [Run(run.low[a:b], run.high[a:b], run.counts[a:b]) for a, b in pairwise(edges)]


def digest_of(run: Run) -> Digest:
    """The digest of the rows that the run stands for. Exact up to 2^32 rows."""
    n = run.counts.astype(np.uint64)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    pieces = [run.low & low, run.low >> half, run.high & low, run.high >> half]
    total = sum(int((piece * n).sum(dtype=np.uint64)) << (32 * place) for place, piece in enumerate(pieces))
    return Digest(int(n.sum()), 0) + Digest(0, total % (1 << 128))


def as_batch(run: Run) -> pa.RecordBatch:
    """The run as rows of a members table."""
    return pa.RecordBatch.from_arrays(
        [pa.array(column.view(np.int64)) for column in (run.low, run.high, run.counts)], schema=SCHEMA
    )


def of_batches(batches: Sequence[pa.RecordBatch]) -> Run:
    """The run that a file of a members table holds."""
    table = pa.Table.from_batches(batches, schema=SCHEMA)
    low, high, n = (np.ascontiguousarray(table.column(name).to_numpy()) for name in SCHEMA.names)
    return Run(low.view(np.uint64), high.view(np.uint64), n)


@njit(cache=True, nogil=True)
def _place(low: U64, high: U64, a: np.uint64, b: np.uint64) -> int:
    """Where the run has a hash; -1 where it does not."""
    start, end = 0, len(low)
    while start < end:
        middle = (start + end) >> 1
        if low[middle] < a or (low[middle] == a and high[middle] < b):
            start = middle + 1
        else:
            end = middle
    return start if start < len(low) and low[start] == a and high[start] == b else -1


@njit(cache=True, nogil=True)
def _count(low: U64, high: U64, hashes: U64, counts: I64) -> None:
    for i in range(len(hashes)):
        at = _place(low, high, hashes[i, 0], hashes[i, 1])
        if at >= 0:
            counts[at] += 1


@njit(cache=True, nogil=True)
def _take(low: U64, high: U64, left: I64, hashes: U64, taken: Mask) -> None:
    for i in range(len(hashes)):
        at = _place(low, high, hashes[i, 0], hashes[i, 1])
        if at >= 0 and left[at] > 0:
            left[at] -= 1
            taken[i] = True
