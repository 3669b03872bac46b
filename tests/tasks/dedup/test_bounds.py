"""No true containment is pruned, whatever the files and the types; false ones that the log can see are."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import DataFile
from tasks.dedup.bounds import Boxes, Ranks, bound_value, compare_extents, extents, has_witnesses, may_overlap

Row = tuple[Any, ...]
KINDS = {
    "int": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    "float": st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([-0.0, 0.0, 1.0]),
    "decimal": st.decimals(-(10**20), 10**20, places=2, allow_nan=False),
    "timestamp": st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=2))])),
    "local timestamp": st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2)),
    "date": st.dates(),
    "string": st.text("ab\u00e9\U0001f600", max_size=3),
    "bool": st.booleans(),
    "time[us]": st.times(),
}


def plain(value: Any) -> Any:
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    return value if isinstance(value, (int, float, str)) else str(value)


def file_of(rows: Sequence[Row], columns: Sequence[str], silent: Sequence[str]) -> DataFile:
    """The file as its writer describes it; `silent` columns have no statistics, and neither have those with a NaN or an
    infinity.
    """
    stats = dict[str, dict[str, Any]]()
    for j, name in enumerate(columns):
        values = [row[j] for row in rows if row[j] is not None]
        bounded = all(not isinstance(v, float) or np.isfinite(v) for v in values)
        if name not in silent:
            stats[name] = {"n_nulls": len(rows) - len(values)}
        if name not in silent and values and bounded:
            stats[name] |= {"min": plain(min(values)), "max": plain(max(values))}
    return DataFile("part", len(rows), 1, "", stats)


def boxes_of(tables: Sequence[Sequence[DataFile]], kinds: dict[str, str]) -> list[Boxes]:
    ranks = Ranks()
    for files in tables:
        ranks.add(files, {name: name for name in kinds}, kinds)
    return list(ranks.boxes())


def may_contain(child: Boxes, parent: Boxes) -> tuple[bool, bool]:
    columns = np.arange(child.low.shape[1])
    ((_, as_set, as_multiset),) = compare_extents(extents([child]), extents([parent]), columns)
    return bool(as_set[0, 0]) and has_witnesses(child, parent, columns), bool(as_multiset[0, 0])


def canonical(row: Row) -> Row:
    return tuple("NaN" if isinstance(v, float) and v != v else v for v in row)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, str], list[list[Row]], list[list[Row]], list[str]]:
    """(kinds, child files, parent files, silent columns): the child's rows are mostly the parent's."""
    kinds = {name: draw(st.sampled_from(sorted(KINDS))) for name in draw(st.sampled_from(["a", "ab", "abc"]))}
    row = st.tuples(*(st.none() | KINDS[kind] for kind in kinds.values()))
    parent = draw(st.lists(row, min_size=1, max_size=12))
    child = draw(st.lists(st.sampled_from(parent), min_size=1, max_size=12))
    if draw(st.booleans()):
        child.append(draw(row))

    def cut(rows: list[Row]) -> list[list[Row]]:
        places = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
        return [rows[a:b] for a, b in zip([0, *places], [*places, len(rows)], strict=True) if a < b]

    return kinds, cut(child), cut(parent), draw(st.lists(st.sampled_from(sorted(kinds)), max_size=1))


@settings(max_examples=400, deadline=None)
@given(pairs())
def test_no_true_containment_is_pruned(pair: tuple[dict[str, str], list[list[Row]], list[list[Row]], list[str]]) -> None:
    kinds, child_files, parent_files, silent = pair
    described = [[file_of(rows, list(kinds), silent) for rows in files] for files in (child_files, parent_files)]
    as_set, as_multiset = may_contain(*boxes_of(described, kinds))
    child, parent = (Counter(canonical(row) for rows in files for row in rows) for files in (child_files, parent_files))
    assert as_set or not set(child) <= set(parent)
    assert as_multiset or not child <= parent


def may_meet(child: Boxes, parent: Boxes) -> bool:
    ((_, may),) = may_overlap(extents([child]), extents([parent]), np.arange(child.low.shape[1]))
    return bool(may[0, 0])


@settings(max_examples=200, deadline=None)
@given(pairs(), st.booleans())
def test_tables_that_share_a_row_are_never_said_to_lie_apart(
    pair: tuple[dict[str, str], list[list[Row]], list[list[Row]], list[str]], one_row: bool
) -> None:
    kinds, child_files, parent_files, silent = pair
    child_files = [child_files[-1][-1:]] if one_row else child_files  # mostly a row of the parent, at times one of its own
    child, parent = boxes_of(
        [[file_of(rows, list(kinds), silent) for rows in files] for files in (child_files, parent_files)], kinds
    )
    ours, theirs = ({canonical(row) for rows in files for row in rows} for files in (child_files, parent_files))
    assert may_meet(child, parent) or not ours & theirs
    assert may_meet(parent, child) or not ours & theirs


def ints(*files: Sequence[Row], columns: str = "ab") -> list[DataFile]:
    return [file_of(rows, list(columns), []) for rows in files]


def decide(child: list[DataFile], parent: list[DataFile]) -> tuple[bool, bool]:
    return may_contain(*boxes_of([child, parent], {"a": "int", "b": "int"}))


def test_a_value_outside_the_parent_refutes() -> None:
    parent = ints([(0, 0), (9, 9)])
    assert decide(ints([(1, 1), (8, 8)]), parent) == (True, True)
    assert decide(ints([(1, 1), (8, 10)]), parent) == (False, False)


def test_a_null_needs_a_null_and_as_many_for_a_multiset() -> None:
    assert decide(ints([(1, None)]), ints([(1, 1), (2, 2)])) == (False, False)
    assert decide(ints([(1, None), (2, None)]), ints([(1, None), (2, 2), (2, 2)])) == (True, False)


def test_more_rows_refute_only_the_multiset() -> None:
    assert decide(ints([(1, 1)] * 3), ints([(1, 1)])) == (True, False)


def test_a_gap_between_the_parents_files_refutes() -> None:
    parent = ints([(0, 5), (10, 5)], [(20, 5), (30, 5)])
    assert decide(ints([(5, 5), (25, 5)]), parent)[0]
    assert not decide(ints([(15, 5), (25, 5)]), parent)[0]


def test_a_box_that_misses_on_another_column_is_no_witness() -> None:
    parent = ints([(0, 0), (10, 1)], [(0, 8), (10, 9)])
    assert not decide(ints([(4, 4), (5, 5)]), parent)[0]


def test_a_row_with_a_null_needs_no_box_there() -> None:
    assert decide(ints([(4, None), (5, 7)]), ints([(4, None)], [(5, 7)])) == (True, True)


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "child", "parent", "may"),
    [
        ("int", [1, 2], [3, 4], False),
        ("int", [1, 3], [3, 4], True),
        ("int", [1, None], [3, 4], False),  # the parent has no NULL that could be met
        ("int", [1, None], [3, None], True),
        ("int", [None, None], [3, 4], False),
        ("int", [None, None], [3, None], True),
        ("time[us]", [dt.time(1), None], [None, None], True),  # bounds are unknown
        ("time[us]", [dt.time(1)], [None, None], False),
        ("float", [1.0, 2.0], [3.0, 4.0], True),  # both may hold a NaN that no bound shows
        ("float", [NAN], [NAN, 3.0], True),
        ("float", [None, None], [3.0], False),
    ],
)
def test_which_tables_lie_apart(kind: str, child: list[Any], parent: list[Any], may: bool) -> None:
    files = [[file_of([(value,) for value in values], ["a"], [])] for values in (child, parent)]
    one, other = boxes_of(files, {"a": kind})
    assert may_meet(one, other) is may and may_meet(other, one) is may


def test_many_children_in_slices_are_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.dedup.bounds._CHUNK_CELLS", 8)
    together = extents(boxes_of([ints([(i, 5 - i), (i + 1, 5 - i)]) for i in range(7)], {"a": "int", "b": "int"}))
    columns = np.arange(2)
    slices = list(may_overlap(together, together, columns))
    assert [start for start, _ in slices] == list(range(7))
    whole = np.concatenate([may for _, may in slices])
    assert whole.tolist() == [[i == j for j in range(7)] for i in range(7)]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("2020-01-01T00:00:00.000001+00:00", "timestamp", 1577836800000001),
        ("2020-01-01T02:00:00.000001+02:00", "timestamp", 1577836800000001),
        ("2020-01-01T00:00:00.000001", "local timestamp", 1577836800000001),
        ("0001-01-01", "date", 1),
        ("1.10", "decimal", Decimal("1.1")),
        (2**53 + 1, "int", 2**53 + 1),
        (0.5, "int", None),
        (1.5, "decimal", None),
        ("NaN", "decimal", None),
        (float("nan"), "float", None),
        ("nonsense", "timestamp", None),
        ("12:00:00", "time64[us]", None),
        (7, "string", None),
        (None, "int", None),
    ],
)
def test_bounds_of_the_log(value: Any, kind: str, expected: Any) -> None:
    assert bound_value(value, kind) == expected
