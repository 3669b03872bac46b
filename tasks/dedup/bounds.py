"""Pruning by the log alone: no data is read, and no true containment is lost. Pure.

The log holds exact bounds and null counts of some columns of each file. They become ranks among all bounds of the same
column, so that a comparison is one of integers whatever the type. An unknown bound is minus or plus infinity on the parent's
side and no witness on the child's. Three necessary conditions: the child's extremes lie within the parent's; a child with
NULLs needs a parent with NULLs; and each child file's extremes, which exist in some row, need a parent file whose box holds
them (the file-box witness). Row and null counts refute only the multiset: a set may be contained in fewer rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.contracts import DataFile
from infra.ids import I64

Bools = npt.NDArray[np.bool_]
LOWEST, HIGHEST = -1, 1 << 40
UNKNOWN = -1
VALUES, BELOW, ABOVE, NULLS, GAP = "values", "below", "above", "nulls", "gap"
_CHUNK_CELLS = 1 << 22
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _instant(value: Any) -> int:
    moment = dt.datetime.fromisoformat(value)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)


def _decimal(value: Any) -> Decimal:
    number = Decimal(_only(value, str, int))
    return number if number.is_finite() else _refuse(value)


def _number(value: Any) -> int | float:
    return value if _only(value, int, float) == value else _refuse(value)


def _only(value: Any, *types: type) -> Any:
    return value if isinstance(value, types) else _refuse(value)


def _refuse(value: Any) -> Any:
    raise ValueError(type(value).__name__)


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: _only(value, int),
    "float": _number,
    "bool": lambda value: _only(value, bool),
    "decimal": _decimal,
    "date": lambda value: dt.date.fromisoformat(value).toordinal(),
    "timestamp": _instant,
    "local timestamp": _instant,
    "string": lambda value: _only(value, str),
}


def bound_value(value: Any, kind: str) -> Any:
    """A bound of the log as a value that compares as the column does; None where there is none that can be trusted."""
    reader = _READERS.get(kind)
    if value is None or reader is None:
        return None
    try:
        return reader(value)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        return None


@dataclass(frozen=True)
class Boxes:
    """The files of one table as boxes of ranks, each array (n_files, n_columns).

    `low` and `high` bound every value but NaN (LOWEST, HIGHEST where unknown; crossed where a file holds only NULLs); `known`
    says that both are values of a row; `n_nulls` is UNKNOWN where the log does not say; `closed` says that there is no NaN.
    """

    low: I64
    high: I64
    known: Bools
    n_nulls: I64
    closed: Bools
    n_rows: int

    @property
    def solid(self) -> Bools:
        """Whether every row has a value within the box, and the log says which."""
        return self.known & (self.n_nulls == 0) & self.closed


@dataclass(frozen=True)
class _Bounds:
    low: Any
    high: Any
    n_nulls: int
    all_null: bool


def _bounds_of(file: DataFile, column: str, kind: str) -> _Bounds:
    stats = file.stats.get(column, {})
    n_nulls = stats.get("n_nulls")
    low, high = bound_value(stats.get("min"), kind), bound_value(stats.get("max"), kind)
    if low is None or high is None:
        low = high = None
    return _Bounds(low, high, UNKNOWN if n_nulls is None else n_nulls, n_nulls == file.n_rows)


class Ranks:
    """Positions of all bounds of a column among each other, by (column, kind).

    Holds every table's bounds until they are ranked.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], set[Any]] = {}
        self._tables: list[tuple[list[list[_Bounds]], Sequence[tuple[str, str]], int]] = []

    def add(self, files: Sequence[DataFile], names: Mapping[str, str], kinds: Mapping[str, str]) -> None:
        """One table: its files, the names as written of its lower-case columns, and their kinds."""
        keys = sorted(kinds.items())
        rows = [[_bounds_of(file, names[name], kind) for name, kind in keys] for file in files if file.n_rows]
        for row in rows:
            for key, bounds in zip(keys, row, strict=True):
                if bounds.low is not None:
                    self._values.setdefault(key, set()).update((bounds.low, bounds.high))
        self._tables.append((rows, keys, sum(file.n_rows for file in files)))

    def boxes(self) -> Iterator[Boxes]:
        """The boxes of each table, in the order in which they were added; columns in order of their lower-case names."""
        ranks = {key: {value: rank for rank, value in enumerate(sorted(values))} for key, values in self._values.items()}
        for rows, keys, n_rows in self._tables:
            yield _boxes(rows, keys, ranks, n_rows)


def _boxes(
    rows: list[list[_Bounds]], keys: Sequence[tuple[str, str]], ranks: Mapping[tuple[str, str], Mapping[Any, int]], n_rows: int
) -> Boxes:
    shape = (len(rows), len(keys))
    low, high = np.full(shape, LOWEST, np.int64), np.full(shape, HIGHEST, np.int64)
    known, n_nulls = np.zeros(shape, np.bool_), np.full(shape, UNKNOWN, np.int64)
    # A NaN lies in no box and no count: a float column says that there is none only where it has no value at all.
    closed = np.zeros(shape, np.bool_) | np.array([kind != "float" for _, kind in keys], np.bool_)
    for f, row in enumerate(rows):
        for j, bounds in enumerate(row):
            n_nulls[f, j] = bounds.n_nulls
            if bounds.all_null:
                low[f, j], high[f, j], closed[f, j] = HIGHEST, LOWEST, True
            elif bounds.low is not None:
                low[f, j], high[f, j] = ranks[keys[j]][bounds.low], ranks[keys[j]][bounds.high]
                known[f, j] = True
    return Boxes(low, high, known, n_nulls, closed, n_rows)


# --- tables against tables -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extents:
    """Tables of one schema as single boxes, each array (n_tables, n_columns): as children (witnessed) and as parents
    (covering). `closed` says that there is no NaN.
    """

    child_low: I64
    child_high: I64
    child_nulls: I64
    parent_low: I64
    parent_high: I64
    parent_nulls: I64
    n_rows: I64
    closed: Bools


def extents(boxes: Sequence[Boxes]) -> Extents:
    """The tables' own boxes from those of their files. A table needs at least one row."""

    def stack(of: Callable[[Boxes], Any]) -> Any:
        return np.stack([of(box) for box in boxes])

    return Extents(
        stack(lambda b: np.where(b.known, b.low, HIGHEST).min(0)),
        stack(lambda b: np.where(b.known, b.high, LOWEST).max(0)),
        stack(lambda b: np.maximum(b.n_nulls, 0).sum(0)),
        stack(lambda b: b.low.min(0)),
        stack(lambda b: b.high.max(0)),
        stack(lambda b: np.where((b.n_nulls == UNKNOWN).any(0), HIGHEST, b.n_nulls.sum(0))),
        np.array([box.n_rows for box in boxes], np.int64),
        stack(lambda b: b.closed.all(0)),
    )


def compare_extents(child: Extents, parent: Extents, columns: I64) -> Iterator[tuple[int, Bools, Bools]]:
    """For slices of the children: (first child, may be contained, may be contained as a multiset), bools (n_slice,
    n_parents).

    `columns` are the positions of the child's columns among the parent's.
    """
    low, high, nulls = parent.parent_low[:, columns], parent.parent_high[:, columns], parent.parent_nulls[:, columns]
    for some in _slices(len(child.n_rows), low.size):
        child_nulls = child.child_nulls[some, None]
        within = (child.child_low[some, None] >= low) & (child.child_high[some, None] <= high)
        contained = (within & ((child_nulls == 0) | (nulls > 0))).all(2)
        counted = (child_nulls <= nulls).all(2) & (child.n_rows[some, None] <= parent.n_rows)
        yield some.start, contained, contained & counted


def may_overlap(child: Extents, parent: Extents, columns: I64) -> Iterator[tuple[int, Bools]]:
    """For slices of the children: (first child, whether some row of the child may be in the parent), bools (n_slice, n_parents).

    False is certain: on some column no value of the one can be in the other, and one of them has no NULL. A float column refutes
    only where one side has no value at all, for both may hold a NaN beside their boxes. `columns` as in `compare_extents`.
    """
    low, high, nulls = parent.parent_low[:, columns], parent.parent_high[:, columns], parent.parent_nulls[:, columns]
    empty, closed = low > high, parent.closed[:, columns]
    for some in _slices(len(child.n_rows), low.size):
        child_low, child_high, child_nulls = (
            child.parent_low[some, None],
            child.parent_high[some, None],
            child.parent_nulls[some, None],
        )
        apart = (child_low > high) | (child_high < low) | (child_low > child_high) | empty
        apart &= (child.closed[some, None] | closed) & ((child_nulls == 0) | (nulls == 0))
        yield some.start, ~apart.any(2)


def _slices(n: int, n_cells: int) -> Iterator[slice]:
    """Slices of n children that meet parents of `n_cells` cells in bounded memory."""
    step = max(1, _CHUNK_CELLS // max(1, n_cells))
    return (slice(start, start + step) for start in range(0, n, step))


@dataclass(frozen=True)
class Refutation:
    """Why a child is not in a parent: the position of the child's file some row of which cannot be there, that of the column, and
    `what` is wrong with it.
    """

    file: int
    column: int
    what: str


def outside(child: Boxes, parent: Boxes, columns: I64) -> Refutation | None:
    """What `compare_extents` finds against a containment: values where the parent has none, beyond its least or its greatest one,
    or NULLs that it lacks; None where it finds nothing.
    """
    ours, theirs = extents([child]), extents([parent])
    low, high, nulls = theirs.parent_low[0, columns], theirs.parent_high[0, columns], theirs.parent_nulls[0, columns]
    lowest, highest = np.where(child.known, child.low, HIGHEST), np.where(child.known, child.high, LOWEST)
    found: tuple[tuple[str, Bools, I64], ...] = (
        (VALUES, child.known.any(0) & (low > high), child.known.argmax(0)),
        (BELOW, ours.child_low[0] < low, lowest.argmin(0)),
        (ABOVE, ours.child_high[0] > high, highest.argmax(0)),
        (NULLS, (ours.child_nulls[0] > 0) & (nulls == 0), child.n_nulls.argmax(0)),
    )
    for what, refuted, files in found:
        if refuted.any():
            column = int(refuted.argmax())
            return Refutation(int(files[column]), column, what)
    return None


def has_witnesses(child: Boxes, parent: Boxes, columns: I64) -> bool:
    """Whether every child file's extremes may lie in a parent file whose box the child file's meets on all columns.

    A child file's minimum on a column is in some row; where other columns have a value in every row, that row's lies in the
    child file's box, and so must the parent's. False refutes the containment; True proves nothing.
    """
    return without_witness(child, parent, columns) is None


def without_witness(child: Boxes, parent: Boxes, columns: I64) -> Refutation | None:
    """An extreme of a child file that lies in no parent file, if there is one; see `has_witnesses`."""
    low, high = parent.low[:, columns], parent.high[:, columns]
    for f in range(len(child.low)):
        meets = ((low <= child.high[f]) & (high >= child.low[f])) | ~child.solid[f]
        near = meets.all(1)
        near_low, near_high = low[near], high[near]
        for extreme in (child.low[f], child.high[f]):
            held = ((near_low <= extreme) & (near_high >= extreme)).any(0) | ~child.known[f]
            if not held.all():
                return Refutation(f, int(held.argmin()), GAP)
    return None
