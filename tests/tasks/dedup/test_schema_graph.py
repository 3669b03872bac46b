"""The inverted index finds exactly the pairs that a look at every pair finds."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import DataFile
from tasks.dedup.schema_graph import NULL, class_pairs, compatible, kind_of, kinds_of, n_table_pairs, schema_classes

SCHEMA = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["int", "string", "null"]), max_size=5)


def fits(child: dict[str, str], parent: dict[str, str]) -> bool:
    return all(name in parent and compatible(kind, parent[name]) for name, kind in child.items())


@settings(deadline=None)
@given(st.lists(SCHEMA, max_size=12))
def test_pairs_are_those_of_the_slow_road(schemas: list[dict[str, str]]) -> None:
    classes = schema_classes(schemas)
    found = [
        (c, p)
        for child, parent in class_pairs(classes)
        for c in classes[child].members
        for p in classes[parent].members
        if c != p
    ]
    every = range(len(schemas))
    expected = {(c, p) for c in every for p in every if c != p and schemas[c] and schemas[p] and fits(schemas[c], schemas[p])}
    assert set(found) == expected
    assert len(found) == len(expected)
    assert sum(n_table_pairs(classes[c], classes[p]) for c, p in class_pairs(classes)) == len(expected)


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        (pa.int8(), pa.int64(), True),
        (pa.uint32(), pa.int64(), True),
        (pa.float32(), pa.float64(), True),
        (pa.decimal128(10, 2), pa.decimal128(38, 9), True),
        (pa.timestamp("ms"), pa.timestamp("us"), True),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Rome"), True),
        (pa.string(), pa.large_string(), True),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), True),
        (pa.null(), pa.date32(), True),
        (pa.int64(), pa.float64(), False),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), False),
        (pa.date32(), pa.timestamp("us"), False),
        (pa.int64(), pa.bool_(), False),
        (pa.string(), pa.binary(), False),
        (pa.decimal128(10, 0), pa.int64(), False),
        (pa.decimal128(10, 2), pa.float64(), False),
        (pa.float32(), pa.int32(), False),
        (pa.date32(), pa.date64(), True),
        (pa.time32("ms"), pa.time64("us"), True),
        (pa.time64("us"), pa.timestamp("us"), False),
        (pa.duration("s"), pa.duration("ns"), True),
        (pa.binary(4), pa.large_binary(), True),
        (pa.list_(pa.int64()), pa.list_(pa.string()), False),
        (pa.list_(pa.field("item", pa.int32())), pa.large_list(pa.field("element", pa.int64(), nullable=False)), True),
        (pa.list_(pa.timestamp("ms")), pa.list_(pa.timestamp("us")), True),
        (pa.list_(pa.timestamp("us", "UTC")), pa.list_(pa.timestamp("us")), False),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.large_string(), pa.int64()), True),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.float64()), False),
        (pa.struct([("x", pa.int8()), ("Y", pa.string())]), pa.struct([("y", pa.string()), ("X", pa.int64())]), True),
        (pa.struct([("x", pa.int64())]), pa.struct([("x", pa.float64())]), False),
        (pa.struct([("x", pa.int64())]), pa.struct([("x", pa.int64()), ("y", pa.int64())]), False),
        (pa.struct([("x", pa.int64())]), pa.list_(pa.int64()), False),
        (pa.struct([("a': int, 'b", pa.int64())]), pa.struct([("a", pa.int64()), ("b", pa.int64())]), False),
    ],
)
def test_kinds_that_meet(one: pa.DataType, other: pa.DataType, meets: bool) -> None:
    assert compatible(kind_of(one), kind_of(other)) is meets
    assert compatible(kind_of(other), kind_of(one)) is meets


# --- kinds of columns as their files have them ----------------------------------------------------------------------------------

FIELDS = [pa.field("Note", pa.string()), pa.field("n", pa.int64())]


def file_of(n_rows: int, **n_nulls: int | None) -> DataFile:
    stats: dict[str, dict[str, Any]] = {name: {"n_nulls": n} for name, n in n_nulls.items() if n is not None}
    return DataFile("part", n_rows, 1, "", stats)


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ([file_of(3, Note=3, n=0)], NULL),
        ([file_of(3, Note=3, n=0), file_of(2, Note=2, n=2), file_of(0)], NULL),
        ([file_of(3, Note=3, n=0), file_of(2, Note=1, n=0)], "string"),
        ([file_of(3, Note=3, n=0), file_of(2, Note=None, n=0)], "string"),  # the log does not say
        ([file_of(3, note=3, n=0)], "string"),  # nor does it of a column under this name
        ([file_of(3, Note=None)], "string"),
        ([file_of(0, Note=0)], "string"),
        ([], "string"),
    ],
)
def test_a_column_without_a_value_is_of_kind_null(files: list[DataFile], note: str) -> None:
    assert kinds_of(FIELDS, files) == {"note": note, "n": "int"}


COUNTS = st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3)), max_size=4)


@given(COUNTS)
def test_kind_null_is_never_said_of_a_column_that_may_hold_a_value(counts: list[tuple[int, int | None]]) -> None:
    files = [file_of(n_rows, n=None if n_nulls is None else min(n_nulls, n_rows)) for n_rows, n_nulls in counts]
    may_hold = any(n_rows and (n_nulls is None or n_nulls < n_rows) for n_rows, n_nulls in counts)
    is_null = kinds_of(FIELDS[1:], files)["n"] == NULL
    assert is_null == (not may_hold and any(n_rows for n_rows, _ in counts))


@pytest.mark.parametrize(
    "fields",
    [
        [("a", pa.int64()), ("A", pa.int64())],
        [("s", pa.struct([("x", pa.int64()), ("X", pa.int64())]))],
        [("s", pa.list_(pa.map_(pa.string(), pa.struct([("x", pa.int64()), ("X", pa.int64())]))))],
    ],
)
def test_names_that_differ_only_in_case_cannot_be_compared(fields: list[tuple[str, pa.DataType]]) -> None:
    assert kinds_of(list(pa.schema(fields)), [file_of(1)]) == {}
    assert kinds_of(list(pa.schema([("x", pa.struct([("x", pa.int64())]))])), []) != {}
