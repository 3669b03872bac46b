"""Drift: what widens joins in any order, what would turn a typed column into text does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest import scan
from tasks.ingest.drift import conflict
from tasks.ingest.infer import TEXT, Shape, Shapes, columns_of, deltable, join, text_shape, type_of, type_shape
from tasks.ingest.readers_jsonl import shape_of

KINDS = [scan.NULL, scan.BOOL, scan.INT, scan.BIG, scan.HUGE, scan.DOUBLE, scan.INF, scan.DATE, scan.STAMP, scan.INSTANT]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.just("x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcA"), inner, max_size=3),
    max_leaves=6,
)
PARQUET = st.sampled_from(
    [
        pa.int8(),
        pa.int64(),
        pa.float32(),
        pa.string(),
        pa.date32(),
        pa.decimal128(9, 2),
        pa.null(),
        pa.struct([("a", pa.int32())]),
    ]
)
SHAPES = st.one_of(
    st.sampled_from(KINDS).map(text_shape),
    st.just(TEXT),
    JSON.map(shape_of),
    PARQUET.map(lambda kind: type_shape(deltable(kind))),
)
FILES = st.lists(st.dictionaries(st.sampled_from(["a", "B", "b", "c"]), SHAPES, max_size=3), max_size=5)


def folded(files: Iterable[Shapes]) -> tuple[dict[str, Shape], list[Shapes]]:
    """What a table stands on after some files, and the files that were stopped."""
    known, stopped = dict[str, Shape](), list[Shapes]()
    for shapes in files:
        if conflict(known, shapes) is not None:
            stopped.append(shapes)
            continue
        for name, shape in columns_of([shapes]):
            known[name.lower()] = join(known.get(name.lower(), Shape()), shape)
    return known, stopped


def holds_text(kind: pa.DataType | None) -> bool:
    if kind is None or pa.types.is_string(kind):
        return kind is not None
    if pa.types.is_struct(kind):
        return any(holds_text(field.type) for field in kind)
    return pa.types.is_list(kind) and holds_text(kind.value_type)


def lost(before: pa.DataType | None, after: pa.DataType | None) -> bool:
    """Whether something typed became text, or text something else, at any depth."""
    if before is None or after is None or pa.types.is_string(before):
        return False
    if pa.types.is_struct(before) and pa.types.is_struct(after):
        return any(lost(field.type, after.field(field.name).type) for field in before)
    if pa.types.is_list(before) and pa.types.is_list(after):
        return lost(before.value_type, after.value_type)
    return pa.types.is_string(after)


@settings(max_examples=300)
@given(FILES, st.randoms(use_true_random=False))
def test_files_that_only_widen_are_never_stopped_in_any_order(files: list[Shapes], random: Any) -> None:
    whole: dict[str, Shape] = {name.lower(): shape for name, shape in columns_of(files)}
    random.shuffle(files)
    known, stopped = folded(files)
    if not any(holds_text(type_of(shape)) for shape in whole.values()):
        assert not stopped
    if not stopped:
        assert known == whole


@settings(max_examples=300)
@given(FILES)
def test_no_typed_column_ever_becomes_text(files: list[Shapes]) -> None:
    for n in range(len(files)):
        before, _ = folded(files[:n])
        after, _ = folded(files[: n + 1])
        assert not any(lost(type_of(shape), type_of(after[name])) for name, shape in before.items())


@given(FILES, SHAPES)
def test_a_file_is_stopped_only_where_it_would_cost_a_type(files: list[Shapes], shape: Shape) -> None:
    known, _ = folded(files)
    coming = {"a": shape}
    joined = join(known.get("a", Shape()), shape)
    is_lost = "a" in known and lost(type_of(known["a"]), type_of(joined))
    assert (conflict(known, coming) is not None) == is_lost
    assert conflict(known, coming, ["a"]) is None


def _joined(values: Sequence[Any]) -> Shape:
    return reduce(join, [shape_of(value) for value in values])


def test_the_message_names_both_types_and_the_option_that_decides() -> None:
    known = {"age": text_shape(scan.INT), "name": TEXT}
    assert conflict(known, {"Age": TEXT, "name": text_shape(scan.INT)}) == (
        "column 'Age' is int64 in the table and string in this file; "
        'to take both set tables.NAME.types.Age = "string", or drift = "text" for the whole table'
    )


def test_several_columns_are_named_up_to_five() -> None:
    known = {f"c{i}": text_shape(scan.DATE) for i in range(7)}
    said = conflict(known, dict.fromkeys(known, TEXT))
    assert said is not None
    assert said.count("is date in the table and string in this file") == 5
    assert said.endswith('and 2 more; to take both set drift = "text" for the whole table')


def test_fields_within_a_column_are_named_by_their_path() -> None:
    known = {"people": _joined([[{"age": 3}]])}
    said = conflict(known, {"people": _joined([[{"age": "three", "name": "x"}]])})
    assert said == (
        "column 'people[].age' is int64 in the table and string in this file; "
        'to take both set drift = "text" for the whole table'
    )
    assert conflict(known, {"people": _joined([[{"name": "x"}]])}) is None


@pytest.mark.parametrize(
    ("stands", "comes", "takes"),
    [
        (text_shape(scan.INT), text_shape(scan.DOUBLE), True),
        (text_shape(scan.INT | scan.BIG), text_shape(scan.DOUBLE), False),
        (text_shape(scan.INT | scan.BIG), text_shape(scan.HUGE), True),
        (text_shape(scan.DATE), text_shape(scan.STAMP), False),
        (text_shape(scan.NULL), TEXT, True),
        (TEXT, text_shape(scan.DATE), True),
        (type_shape(pa.int16()), type_shape(pa.int64()), True),
        (type_shape(pa.binary()), type_shape(pa.int64()), False),
        (_joined([{"a": 1}]), _joined([{"b": "x"}]), True),
        (_joined([{"a": 1}]), _joined([[1]]), False),
    ],
)
def test_what_joins_and_what_does_not(stands: Shape, comes: Shape, takes: bool) -> None:
    assert (conflict({"a b": stands}, {"a b": comes}) is None) == takes


def test_names_that_are_no_bare_keys_are_quoted() -> None:
    assert 'tables.NAME.types."a b" = "string"' in str(conflict({"a b": text_shape(scan.BOOL)}, {"a b": TEXT}))
