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

    `low` and `high` bound every value (LOWEST, HIGHEST where unknown; crossed where a file holds only NULLs); `known` says
    that both are values of a row; `n_nulls` is UNKNOWN where the log does not say; `solid` says that every row has a value
    within the box.
    """

    low: I64
    high: I64
    known: Bools
    n_nulls: I64
    solid: Bools
    n_rows: int


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
    for f, row in enumerate(rows):
        for j, bounds in enumerate(row):
            n_nulls[f, j] = bounds.n_nulls
            if bounds.all_null:
                low[f, j], high[f, j] = HIGHEST, LOWEST
            elif bounds.low is not None:
                low[f, j], high[f, j] = ranks[keys[j]][bounds.low], ranks[keys[j]][bounds.high]
                known[f, j] = True
    # A NaN lies in no box and no count: a float column never says where all of its rows are.
    countable = np.array([kind != "float" for _, kind in keys], np.bool_)
    return Boxes(low, high, known, n_nulls, known & (n_nulls == 0) & countable, n_rows)


# --- tables against tables -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extents:
    """Tables of one schema as single boxes, each array (n_tables, n_columns): as children (witnessed) and as parents
    (covering).
    """

    child_low: I64
    child_high: I64
    child_nulls: I64
    parent_low: I64
    parent_high: I64
    parent_nulls: I64
    n_rows: I64


def extents(boxes: Sequence[Boxes]) -> Extents:
    """The tables' own boxes from those of their files. A table needs at least one row."""

    def stack(of: Callable[[Boxes], I64]) -> I64:
        return np.stack([of(box) for box in boxes])

    return Extents(
        stack(lambda b: np.where(b.known, b.low, HIGHEST).min(0)),
        stack(lambda b: np.where(b.known, b.high, LOWEST).max(0)),
        stack(lambda b: np.maximum(b.n_nulls, 0).sum(0)),
        stack(lambda b: b.low.min(0)),
        stack(lambda b: b.high.max(0)),
        stack(lambda b: np.where((b.n_nulls == UNKNOWN).any(0), HIGHEST, b.n_nulls.sum(0))),
        np.array([box.n_rows for box in boxes], np.int64),
    )


def compare_extents(child: Extents, parent: Extents, columns: I64) -> Iterator[tuple[int, Bools, Bools]]:
    """For slices of the children: (first child, may be contained, may be contained as a multiset), bools (n_slice,
    n_parents).

    `columns` are the positions of the child's columns among the parent's.
    """
    low, high, nulls = parent.parent_low[:, columns], parent.parent_high[:, columns], parent.parent_nulls[:, columns]
    step = max(1, _CHUNK_CELLS // max(1, low.size))
    for start in range(0, len(child.n_rows), step):
        some = slice(start, start + step)
        child_nulls = child.child_nulls[some, None]
        within = (child.child_low[some, None] >= low) & (child.child_high[some, None] <= high)
        contained = (within & ((child_nulls == 0) | (nulls > 0))).all(2)
        counted = (child_nulls <= nulls).all(2) & (child.n_rows[some, None] <= parent.n_rows)
        yield start, contained, contained & counted


def has_witnesses(child: Boxes, parent: Boxes, columns: I64) -> bool:
    """Whether every child file's extremes may lie in a parent file whose box the child file's meets on all columns.

    A child file's minimum on a column is in some row; where other columns have a value in every row, that row's lies in the
    child file's box, and so must the parent's. False refutes the containment; True proves nothing.
    """
    low, high = parent.low[:, columns], parent.high[:, columns]
    for f in range(len(child.low)):
        meets = ((low <= child.high[f]) & (high >= child.low[f])) | ~child.solid[f]
        near = meets.all(1)
        near_low, near_high = low[near], high[near]
        for extreme in (child.low[f], child.high[f]):
            held = ((near_low <= extreme) & (near_high >= extreme)).any(0)
            if not (held | ~child.known[f]).all():
                return False
    return True
