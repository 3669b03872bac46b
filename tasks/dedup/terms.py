"""Conditions on single columns that all rows of a child meet, and which few of them pick exactly these rows. Pure.

What a column of the child holds gives the candidates: its range, its distinct values where they are few, NULL alone. A row of the
parents has one bit a candidate; rows of equal bits are counted and their hashes added up, so that one pass over the parents
gives the count and the fingerprint of every conjunction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from pyarrow import types as pt

from infra.ids import I64, U64, Digest
from tasks.dedup.recipes import Term

MAX_VALUES = 64
MAX_TERMS = 16
MAX_TOGETHER = 3
_PROBE_ROWS = 1024
_NAN = float("nan")
Mask = npt.NDArray[np.bool_]


# --- values that compare -------------------------------------------------------------------------------------------------------


def common_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which values of all widths and units of a kind compare exactly; None where a term may not hold such values."""
    if pt.is_boolean(kind) or pt.is_date32(kind):
        return kind
    if pt.is_integer(kind) and not pt.is_uint64(kind):
        return pa.int64()
    if pt.is_floating(kind):
        return pa.float64()
    if pt.is_string(kind) or pt.is_large_string(kind):
        return pa.large_string()
    if pt.is_timestamp(kind) and kind.unit == "us":  # the only unit that a Delta table has
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    return None


def _common(array: pa.Array) -> pa.Array | None:
    kind = common_type(array.type)
    if kind is None:
        return None
    values = array.cast(kind)
    return pc.add(values, 0.0) if pt.is_floating(kind) else values  # -0.0 becomes 0.0


def _split(values: pa.Array) -> tuple[pa.Array, bool]:
    """The values that have an order, NULLs left out, and whether any is NaN."""
    known = values.drop_null()
    if not pt.is_floating(known.type):
        return known, False
    ordered = known.filter(pc.invert(pc.is_nan(known)))
    return ordered, len(ordered) < len(known)


# --- what a child's column holds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extent:
    """What a column of some rows holds: the bounds of its numbers or times, its distinct values (`values` is None where they are
    more than MAX_VALUES, or may be in no term), NaN and NULLs; `kind` is the type in which they compare, None if in none.
    """

    kind: pa.DataType | None
    low: Any | None
    high: Any | None
    values: frozenset[Any] | None
    has_nan: bool
    n_nulls: int
    n_rows: int


def extent_of(array: pa.Array, before: Extent | None = None) -> Extent:
    """The extent of a piece of a column, joined with what came before it."""
    values = _common(array)
    if values is None:
        return join_extents(before, Extent(None, None, None, None, False, array.null_count, len(array)))
    ordered, has_nan = _split(values)
    low, high, distinct = _described(ordered, is_many=before is not None and before.values is None)
    return join_extents(before, Extent(values.type, low, high, distinct, has_nan, array.null_count, len(array)))


def _described(ordered: pa.Array, *, is_many: bool) -> tuple[Any | None, Any | None, frozenset[Any] | None]:
    try:
        low, high = _bounds(ordered)
        return low, high, None if is_many else _distinct(ordered)
    except (OverflowError, ValueError):  # a date or an instant that Python cannot write
        return None, None, None


def _bounds(ordered: pa.Array) -> tuple[Any | None, Any | None]:
    if pt.is_large_string(ordered.type) or pt.is_boolean(ordered.type):
        return None, None
    bounds = pc.min_max(ordered)
    return bounds["min"].as_py(), bounds["max"].as_py()


def _distinct(ordered: pa.Array) -> frozenset[Any] | None:
    if len(pc.unique(ordered.slice(0, _PROBE_ROWS))) > MAX_VALUES:
        return None
    found = pc.unique(ordered)
    return None if len(found) > MAX_VALUES else frozenset(found.to_pylist())


def join_extents(one: Extent | None, other: Extent) -> Extent:
    """What two sets of rows hold in a column together."""
    if one is None:
        return other
    values = None if one.values is None or other.values is None else one.values | other.values
    return Extent(
        one.kind,
        _outer(min, one.low, other.low),
        _outer(max, one.high, other.high),
        None if values is None or len(values) > MAX_VALUES else values,
        one.has_nan or other.has_nan,
        one.n_nulls + other.n_nulls,
        one.n_rows + other.n_rows,
    )


def _outer(pick: Callable[[Any, Any], Any], one: Any | None, other: Any | None) -> Any | None:
    return other if one is None else one if other is None else pick(one, other)


# --- the candidates ------------------------------------------------------------------------------------------------------------


def terms_of(column: str, extent: Extent) -> list[Term]:
    """The terms on the parents' `column` that all the child's rows meet; of equal ones, the shortest first."""
    nulls = extent.n_nulls > 0
    if extent.n_nulls == extent.n_rows:
        return [Term(column, nulls=True)]
    nan = (_NAN,) if extent.has_nan else ()
    values = _listed(extent, nan)
    some = [Term(column, values=values, nulls=nulls)] if values else []
    if extent.low is None or len(values) == 1:
        return some
    return [Term(column, extent.low, extent.high, nan or None, nulls), *some]


def _listed(extent: Extent, nan: tuple[Any, ...]) -> tuple[Any, ...]:
    """The distinct values in their order; none where they are too many to be listed, or hardly come twice: then they are ids,
    names or notes, and the rows are better told by their keyed hashes.
    """
    n_known = extent.n_rows - extent.n_nulls
    n_values = len(extent.values or ()) + len(nan)
    if extent.values is None or n_values > MAX_VALUES or 2 * n_values > n_known:
        return ()
    return (*sorted(extent.values), *nan)


def tightened(term: Term, extent: Extent | None) -> Term:
    """The narrowest term that still holds for rows which meet the term, of which `extent` tells; None: there is no such row."""
    if extent is None:
        return Term(term.column)
    values = [v for v in term.values or () if v in (extent.values or ()) or (v != v and extent.has_nan)]
    is_ranged = term.low is not None or term.high is not None
    bounds = (extent.low, extent.high) if is_ranged else (None, None)
    return Term(term.column, *bounds, tuple(values) or None, extent.n_nulls > 0)


def best_terms(terms: Sequence[Term], n_met: Sequence[int], n_rows: int) -> tuple[Term, ...]:
    """The terms that cut the parents' `n_rows` rows, the best of each column, at most MAX_TERMS; those that fewest rows meet
    first.
    """
    best = dict[str, Term]()
    for n, term in sorted(zip(n_met, terms, strict=True), key=lambda pair: pair[0]):
        if n < n_rows:
            best.setdefault(term.column, term)
    return tuple(best.values())[:MAX_TERMS]


# --- the rows that meet them ---------------------------------------------------------------------------------------------------


def meets(term: Term, array: pa.Array) -> Mask:
    """Which cells of the term's column meet it, bool (n,)."""
    met = np.zeros(len(array), np.bool_)
    if term.nulls:
        met |= _bools(array.is_null())
    if term.low is None and term.high is None and not term.values:
        return met
    values = _common(array)
    return met if values is None else met | _in_range(term, values) | _in_values(term, values)


def _in_range(term: Term, values: pa.Array) -> Mask:
    within = np.full(len(values), term.low is not None or term.high is not None)
    if term.low is not None:
        within &= _bools(pc.greater_equal(values, pa.scalar(term.low, values.type)))
    if term.high is not None:
        within &= _bools(pc.less_equal(values, pa.scalar(term.high, values.type)))
    return within


def _in_values(term: Term, values: pa.Array) -> Mask:
    wanted = [value for value in term.values or () if value == value]
    found = _bools(pc.is_in(values, pa.array(wanted, values.type)))
    return found | _bools(pc.is_nan(values)) if len(wanted) < len(term.values or ()) else found


def _bools(values: pa.Array) -> Mask:
    """Truths as NumPy has them; NULL is none."""
    return np.asarray(pc.fill_null(values, False))


# --- conjunctions --------------------------------------------------------------------------------------------------------------


def no_tally(n_terms: int) -> U64:
    """Sums a set of terms, uint64 (2^n_terms, 5): how many rows meet exactly these, and their hashes by 32-bit pieces."""
    return np.zeros((1 << n_terms, 5), np.uint64)


def add_to_tally(tally: U64, met: Sequence[Mask], hashes: U64) -> None:
    """Count rows with hashes, uint64 (n, 2), by the terms that they meet: bool (n,) each."""
    sets = np.zeros(len(hashes), np.int64)
    for place, mask in enumerate(met):
        sets |= mask.astype(np.int64) << place
    _add(sets, hashes, tally)


@njit(cache=True, nogil=True)
def _add(sets: I64, hashes: U64, tally: U64) -> None:
    for i in range(len(sets)):
        at = sets[i]
        tally[at, 0] += np.uint64(1)
        for lane in range(2):
            # Pieces of 32 bits: their sums are exact up to 2^32 rows.
            tally[at, 1 + 2 * lane] += hashes[i, lane] & np.uint64(0xFFFFFFFF)
            tally[at, 2 + 2 * lane] += hashes[i, lane] >> np.uint64(32)


def conjunction(tally: U64, target: Digest) -> tuple[int, ...] | None:
    """The positions of the fewest terms, at most MAX_TOGETHER, that exactly the rows of the target meet; None if none do."""
    sets = np.flatnonzero(tally[:, 0])
    sums = tally[sets]
    n_terms = len(tally).bit_length() - 1
    for n in range(1, MAX_TOGETHER + 1):
        for chosen in itertools.combinations(range(n_terms), n):
            wanted = sum(1 << place for place in chosen)
            met = sums[(sets & wanted) == wanted]
            if int(met[:, 0].sum()) == target.n_rows and _digest(met) == target:
                return chosen
    return None


def _digest(sums: U64) -> Digest:
    n_rows, *pieces = (int(piece) for piece in sums.sum(0, dtype=np.uint64))
    return sum((Digest(0, piece << (32 * place)) for place, piece in enumerate(pieces)), Digest(n_rows))
