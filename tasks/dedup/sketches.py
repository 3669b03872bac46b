"""FracMinHash sketches of sets of 64-bit hashes: what a set keeps below a bound. Pure.

A sketch holds all distinct hashes of its set up to its bound: 1 in `scale` of them, and the `floor` smallest at least. Below
the smaller of two bounds both sketches are complete, so a hash of the child that the parent lacks there refutes the
containment for certain, and the share that it lacks estimates the fraction without bias (Irber et al., "Lightweight
compositional analysis of metagenomes with FracMinHash", 2022). Sketches of files add up to the sketch of their table. Row
hashes of different column sets are different sets: the caller keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from infra.ids import I64, U64

ROW_SCALE, ROW_FLOOR = 1024, 256
COLUMN_SCALE, COLUMN_FLOOR = 4096, 64
WHOLE = np.uint64(2**64 - 1)
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_LOPSIDED = 16  # from this ratio of lengths on, steps over the longer side are doubled


@dataclass(frozen=True)
class Sketch:
    """All distinct hashes of a set that are at most `bound`, ascending; with the bound `WHOLE`, the set itself."""

    bound: np.uint64
    hashes: U64

    @property
    def is_whole(self) -> bool:
        return self.bound == WHOLE

    @property
    def n_bytes(self) -> int:
        return self.hashes.nbytes + 8


# --- making --------------------------------------------------------------------------------------------------------------------


def sketch_of(hashes: U64, *, scale: int, floor: int) -> Sketch:
    """The sketch of a set given in any order and with any repetition, uint64 (n,).

    The bound is 2^64 / `scale` or the `floor`-th smallest hash, whichever is larger; a set of fewer than `floor` is kept whole.
    """
    sketcher = Sketcher(scale=scale, floor=floor)
    sketcher.add(hashes)
    return sketcher.done()


class Sketcher:
    """A sketch under way: the same whatever the batches and their order.

    Holds at most 64 bytes for each hash of the sketch, and 4 `floor` words at least.
    """

    def __init__(self, *, scale: int, floor: int) -> None:
        self._low, self._floor = WHOLE // np.uint64(scale), floor
        self._limit = WHOLE
        self._slots = _slots(4 * floor)
        self._state = np.zeros(2, np.int64)  # how many slots are taken, whether the hash 0 was seen

    def add(self, hashes: U64) -> None:
        at = 0
        while (at := _take(hashes, at, self._limit, self._slots, self._state)) < len(hashes):
            self._rebuild()

    def done(self) -> Sketch:
        return _cut(self._held(), WHOLE, self._low, self._floor)

    def _held(self) -> U64:
        zero = np.zeros(int(self._state[1]), np.uint64)
        return np.concatenate([zero, np.sort(self._slots[self._slots > 0])])

    def _rebuild(self) -> None:
        kept = _cut(self._held(), WHOLE, self._low, self._floor)
        self._limit, self._slots = kept.bound, _slots(4 * max(len(kept.hashes), self._floor))
        self._state[0] = 0
        _take(kept.hashes, 0, self._limit, self._slots, self._state)


def merged(sketches: Sequence[Sketch]) -> Sketch:
    """The sketch of the union of the sets, up to the smallest of the bounds; of no set at all, the whole empty one."""
    if len(sketches) == 1:
        return sketches[0]
    bound = min((sketch.bound for sketch in sketches), default=WHOLE)
    parts = [np.zeros(0, np.uint64), *(_up_to(sketch.hashes, bound) for sketch in sketches)]
    return Sketch(bound, np.unique(np.concatenate(parts)))


def canonical(sketch: Sketch, *, scale: int, floor: int) -> Sketch:
    """A merged sketch cut to what `sketch_of` keeps of the union, so that nothing depends on how rows lie in files.

    Holds for parts that were sketched with this scale and floor.
    """
    return _cut(sketch.hashes, sketch.bound, WHOLE // np.uint64(scale), floor)


def _cut(hashes: U64, bound: np.uint64, low: np.uint64, floor: int) -> Sketch:
    """`hashes` ascend and are complete up to `bound`."""
    if len(hashes) < floor:
        return Sketch(bound, hashes)
    lower = min(bound, max(low, hashes[floor - 1]))
    return Sketch(lower, _up_to(hashes, lower).copy())


def _up_to(hashes: U64, bound: np.uint64) -> U64:
    return hashes[: int(np.searchsorted(hashes, bound, side="right"))]


def _slots(n: int) -> U64:
    return np.zeros(1 << max(4, n - 1).bit_length(), np.uint64)


@njit(cache=True, nogil=True)
def _take(hashes: U64, start: int, limit: np.uint64, slots: U64, state: I64) -> int:
    """Put hashes up to `limit` into the open table `slots` until it is half full; returns where it stopped."""
    mask, room = np.uint64(len(slots) - 1), len(slots) >> 1
    for i in range(start, len(hashes)):
        h = hashes[i]
        if h > limit:
            continue
        if h == np.uint64(0):
            state[1] = 1
            continue
        at = h & mask
        while slots[at] != np.uint64(0) and slots[at] != h:
            at = (at + np.uint64(1)) & mask
        if slots[at] == np.uint64(0):
            if state[0] == room:
                return i
            slots[at] = h
            state[0] += 1
    return len(hashes)


# --- keeping -------------------------------------------------------------------------------------------------------------------


def as_row(sketch: Sketch) -> tuple[int, I64]:
    """Threshold and hashes as `profiles` keeps them: the same 64 bits as int64, since Delta has no unsigned integers."""
    return int(sketch.bound.astype(np.int64)), sketch.hashes.view(np.int64)


def of_row(threshold: int, hashes: Sequence[int] | I64) -> Sketch:
    """The sketch that `as_row` wrote."""
    return Sketch(np.int64(threshold).astype(np.uint64), np.asarray(hashes, np.int64).view(np.uint64))


@dataclass(frozen=True)
class Packed:
    """Many sketches: the hashes of the i-th are `hashes[offsets[i]:offsets[i + 1]]`, up to `bounds[i]`."""

    offsets: I64
    hashes: U64
    bounds: U64

    def __len__(self) -> int:
        return len(self.bounds)

    def sketch(self, i: int) -> Sketch:
        return Sketch(self.bounds[i], self.hashes[self.offsets[i] : self.offsets[i + 1]])


def pack(sketches: Sequence[Sketch]) -> Packed:
    """The sketches in their order, as three arrays."""
    offsets = np.zeros(len(sketches) + 1, np.int64)
    np.cumsum([len(sketch.hashes) for sketch in sketches], out=offsets[1:])
    hashes = np.concatenate([np.zeros(0, np.uint64), *(sketch.hashes for sketch in sketches)])
    return Packed(offsets, hashes, np.array([sketch.bound for sketch in sketches], np.uint64))


def packed_rows(thresholds: I64, offsets: I64, hashes: I64) -> Packed:
    """Rows of `profiles` straight from an Arrow list column's offsets and values, without a copy of the hashes."""
    return Packed(np.asarray(offsets, np.int64), hashes.view(np.uint64), thresholds.view(np.uint64))


# --- comparing -----------------------------------------------------------------------------------------------------------------


def compare_pairs(children: Packed, parents: Packed, pairs: I64) -> tuple[I64, I64]:
    """For each (position of a child, position of a parent), int64 (n, 2): how many hashes of the child lie up to both bounds,
    and how many of those the parent lacks.
    """
    n_compared, n_missing = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    _compare(
        *(children.offsets, children.hashes, children.bounds),
        *(parents.offsets, parents.hashes, parents.bounds),
        *(np.ascontiguousarray(pairs, np.int64), n_compared, n_missing),
    )
    return n_compared, n_missing


def refuted(n_missing: I64) -> Bools:
    """Whether the containment is impossible: one missing hash proves it, and a true containment never misses one."""
    return n_missing > 0


def fraction_estimate(n_compared: I64, n_missing: I64) -> tuple[F64, F64]:
    """Estimates of the fraction of the child's set in the parent, and their standard errors.

    The error is half of Wilson's interval at one deviation, so that none or all missing never reads as certain; with nothing
    compared the answer is 0.5 ± 0.5. Where both sketches are whole the fraction is exact, whatever the error says.
    """
    n = np.maximum(n_compared, 1).astype(np.float64)
    fraction = np.where(n_compared > 0, 1.0 - n_missing / n, 0.5)
    error = np.sqrt(fraction * (1.0 - fraction) / n + 0.25 / n**2) / (1.0 + 1.0 / n)
    return fraction, np.where(n_compared > 0, error, 0.5)


@njit(cache=True, nogil=True)
def _compare(
    c_offsets: I64, c_hashes: U64, c_bounds: U64, p_offsets: I64, p_hashes: U64, p_bounds: U64, pairs: I64, n: I64, missing: I64
) -> None:
    for i in range(len(pairs)):
        c, p = pairs[i, 0], pairs[i, 1]
        bound = min(c_bounds[c], p_bounds[p])
        child = c_hashes[c_offsets[c] : c_offsets[c + 1]]
        parent = p_hashes[p_offsets[p] : p_offsets[p + 1]]
        child = child[: np.searchsorted(child, bound, side="right")]
        parent = parent[: np.searchsorted(parent, bound, side="right")]
        n[i] = len(child)
        missing[i] = len(child) - n_common(child, parent)


@njit(cache=True, nogil=True)
def n_common(one: U64, other: U64) -> int:
    """How many hashes two ascending lists of distinct ones share."""
    if len(one) > len(other):
        one, other = other, one
    if len(one) * _LOPSIDED < len(other):
        return _n_common_far(one, other)
    i, j, n = 0, 0, 0
    while i < len(one) and j < len(other):  # no branch on the data: it could not be foreseen
        a, b = one[i], other[j]
        n += a == b
        i += a <= b
        j += b <= a
    return n


@njit(cache=True, nogil=True)
def _n_common_far(few: U64, many: U64) -> int:
    at, n = 0, 0
    for h in few:
        step = 1
        while at + step < len(many) and many[at + step] < h:
            at += step
            step <<= 1
        end = min(at + step + 1, len(many))
        at += np.searchsorted(many[at:end], h)
        n += at < len(many) and many[at] == h
    return n
