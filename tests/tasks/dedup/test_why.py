"""The answer of the log and of a count: right whenever it is given, with a witness and without a value."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import DataFile, Snapshot
from infra.files import Part
from tasks.dedup.exact import Counted
from tasks.dedup.scan import Facts
from tasks.dedup.schema_graph import kinds_of
from tasks.dedup.why import Why, why_by_count, why_by_log

Rows = Sequence[tuple[Any, ...]]
INTS = {"A": pa.int64(), "b": pa.int64()}


def plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def stats_of(rows: Rows, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = dict[str, dict[str, Any]]()
    for j, name in enumerate(names):
        values = [row[j] for row in rows if row[j] is not None]
        found[name] = {"n_nulls": len(rows) - len(values)}
        if values and not isinstance(values[0], str):
            found[name] |= {"min": plain(min(values)), "max": plain(max(values))}
    return found


def facts(name: str, kinds: Mapping[str, pa.DataType], *files: Rows) -> Facts:
    """What a log would say of a table whose files hold these rows; its digest stands for its rows."""
    schema = pa.schema([*kinds.items()])
    parts = [
        Part(
            f"/day=secret/{name}-{i}", DataFile(f"day=secret/{name}-{i}", len(rows), 1, "", stats_of(rows, schema.names)), schema
        )
        for i, rows in enumerate(files)
    ]
    rows = [row for some in files for row in some]
    lower = [name.lower() for name in schema.names]
    digest = str(sorted(str(sorted(zip(lower, row, strict=True))) for row in rows))
    known = kinds_of(list(schema), [part.file for part in parts])
    return Facts(name, Snapshot(name, 1, digest, len(rows)), tuple(parts), {n.lower(): n for n in schema.names}, known)


def by_log(child: Facts, parent: Facts) -> Why:
    found = why_by_log(child, parent)
    assert found is not None
    return found


# --- the log -------------------------------------------------------------------------------------------------------------------

CELL = st.none() | st.integers(0, 4)
FILES = st.lists(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=3), max_size=3)


@settings(max_examples=300, deadline=None)
@given(FILES, FILES, st.sampled_from([INTS, {"b": pa.int64(), "A": pa.int64(), "c": pa.string()}]))
def test_what_the_log_says_is_so(child: list[Rows], parent: list[Rows], wider: Mapping[str, pa.DataType]) -> None:
    names = [*wider]
    wide = [
        [tuple(dict(zip(("A", "b", "c"), (*row, "x"), strict=True))[name] for name in names) for row in rows] for rows in parent
    ]
    found = why_by_log(facts("child", INTS, *child), facts("parent", wider, *wide))
    ours, theirs = (Counter(row for rows in files for row in rows) for files in (child, parent))
    if found is not None:
        assert found.contained == (set(ours) <= set(theirs))
        assert found.multiset == (ours <= theirs)
        if found.file is not None:
            file = child[int(found.file.removeprefix("child-"))]
            assert any(row not in theirs for row in file)


OTHERS = [(1, 1), (9, 9)]


@pytest.mark.parametrize(
    ("child", "parent", "step", "text", "column", "file"),
    [
        (
            facts("child", INTS),
            facts("parent", INTS, OTHERS),
            "empty",
            "child has no rows: it is in every table, by accident",
            None,
            None,
        ),
        (facts("child", INTS, OTHERS), facts("parent", INTS), "empty", "parent has no rows", None, None),
        (
            facts("child", {"A": pa.int64(), "a": pa.int64()}, OTHERS),
            facts("parent", INTS, OTHERS),
            "schema",
            "the columns of child cannot be told apart: there are none, or names differ only in case",
            None,
            None,
        ),
        (
            facts("child", {**INTS, "C": pa.int64()}, [(1, 1, 1)]),
            facts("parent", INTS, OTHERS),
            "schema",
            "parent has no column 'C'",
            "C",
            None,
        ),
        (
            facts("child", INTS, OTHERS),
            facts("parent", {"a": pa.float64(), "B": pa.int64()}, [(1.0, 1)]),
            "schema",
            "column 'A' is int in child and float in parent, which have no value in common",
            "A",
            None,
        ),
        (
            facts("child", INTS, OTHERS),
            facts("parent", {"B": pa.int32(), "a": pa.int32()}, OTHERS),
            "fingerprint",
            "child and parent have the same columns and the same fingerprint: they are equal",
            None,
            None,
        ),
        (
            facts("child", INTS, OTHERS, OTHERS),
            facts("parent", INTS, OTHERS * 2),
            "fingerprint",
            "child and parent have the same columns and the same fingerprint: they are equal",
            None,
            None,
        ),
        (
            facts("child", INTS, [(1, 1)], [(1, 0), (2, 2)]),
            facts("parent", INTS, OTHERS),
            "bounds",
            "column 'b' of child, in file child-1, has values below the least one that parent has",
            "b",
            "child-1",
        ),
        (
            facts("child", INTS, [(1, 1)], [(10, 9), (2, 2)]),
            facts("parent", INTS, OTHERS),
            "bounds",
            "column 'A' of child, in file child-1, has values above the greatest one that parent has",
            "A",
            "child-1",
        ),
        (
            facts("child", INTS, OTHERS, [(None, 1)]),
            facts("parent", INTS, OTHERS),
            "bounds",
            "column 'A' of child, in file child-1, has NULLs, and parent has none",
            "A",
            "child-1",
        ),
        (
            facts("child", INTS, [(None, 1)], [(5, 1)]),
            facts("parent", INTS, [(None, 1), (None, 9)]),
            "bounds",
            "column 'A' of child, in file child-1, has values, and parent has none",
            "A",
            "child-1",
        ),
        (
            facts("child", INTS, OTHERS[:1], OTHERS),
            facts("parent", INTS, OTHERS, OTHERS[:1]),
            "fingerprint",
            "child and parent have the same columns and the same fingerprint: they are equal",
            None,
            None,
        ),
        (facts("child", INTS, OTHERS[:1]), facts("parent", INTS, OTHERS), None, None, None, None),
        (
            facts("child", INTS, OTHERS[:1], [(5, 5), (9, 9)]),
            facts("parent", INTS, OTHERS[:1], OTHERS[1:]),
            "witness",
            "column 'A' of child, in file child-1, has an extreme that lies in no file of parent",
            "A",
            "child-1",
        ),
    ],
)
def test_the_witness_of_the_log(
    child: Facts, parent: Facts, step: str | None, text: str | None, column: str | None, file: str | None
) -> None:
    found = why_by_log(child, parent)
    assert (found and (found.step, found.text, found.column, found.file)) == (step and (step, text, column, file))


def test_many_missing_columns_are_named_in_part() -> None:
    wide = facts("child", {f"c{i}": pa.int64() for i in range(9)}, [(0,) * 9])
    found = by_log(wide, facts("parent", {"c3": pa.int64()}, [(0,)]))
    assert found.text == "parent has no column 'c0', 'c1', 'c2' and 5 more"


# --- the count -----------------------------------------------------------------------------------------------------------------

PAIR = facts("child", INTS, OTHERS), facts("parent", INTS, OTHERS * 2)
ALL = Counted(5, 4, 0, 0)


@pytest.mark.parametrize(
    ("rows", "cells", "verdict", "column", "text"),
    [
        (
            Counted(5, 4, 0, 0),
            {"a": ALL, "b": ALL},
            (True, True),
            None,
            "every row of child is in parent, as often as it is in child",
        ),
        (
            Counted(5, 4, 0, 1),
            {"a": ALL, "b": ALL},
            (True, False),
            None,
            "every row of child is in parent, but 1 of 5 are copies too many",
        ),
        (
            Counted(5, 4, 2, 3),
            {"a": ALL, "b": Counted(5, 4, 1, 1)},
            (False, False),
            "b",
            "parent lacks 3 of the 5 rows of child (2 of 4 distinct ones); of these columns it has not all values: 'b' (75.0 %)",
        ),
        (
            Counted(5, 4, 2, 3),
            {"a": ALL, "b": ALL},
            (False, False),
            None,
            "parent lacks 3 of the 5 rows of child (2 of 4 distinct ones); "
            "parent has every value of every column, but not in one row",
        ),
        (
            Counted(9999, 9999, 1, 1),
            {"a": Counted(9999, 9999, 1, 1), "b": Counted(9999, 9999, 1, 1)},
            (False, False),
            "A",
            "parent lacks 1 of the 9,999 rows of child (1 of 9,999 distinct ones); "
            "of these columns it has not all values: 'A' (99.9 %), 'b' (99.9 %)",
        ),
    ],
)
def test_the_witness_of_a_count(
    rows: Counted, cells: dict[str, Counted], verdict: tuple[bool, bool], column: str | None, text: str
) -> None:
    found = why_by_count(*PAIR, rows, cells)
    assert (found.contained, found.multiset) == verdict
    assert (found.column, found.text) == (column, text)
    assert (found.n_rows, found.n_distinct) == (rows.n_residual, rows.n_missing_distinct)
    shares = [share for _, share in found.fractions]
    assert shares == sorted(shares) and {name for name, _ in found.fractions} == {"A", "b"}
