"""The inverted index finds exactly the pairs that a look at every pair finds."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.schema_graph import class_pairs, compatible, kind_of, n_table_pairs, schema_classes

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
        (pa.list_(pa.int64()), pa.list_(pa.int64()), True),
        (pa.list_(pa.int64()), pa.list_(pa.string()), False),
    ],
)
def test_kinds_that_meet(one: pa.DataType, other: pa.DataType, meets: bool) -> None:
    assert compatible(kind_of(one), kind_of(other)) is meets
    assert compatible(kind_of(other), kind_of(one)) is meets
