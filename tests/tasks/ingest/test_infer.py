"""Types of columns: kinds agree with a slow oracle, joins form a semilattice, no type loses a value."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import scan
from tasks.ingest.convert import from_text
from tasks.ingest.infer import (
    Shape,
    columns_of,
    deltable,
    from_json,
    join,
    join_all,
    text_shape,
    to_json,
    type_name,
    type_named,
    type_of,
    type_shape,
    unique_names,
)
from tasks.ingest.readers_jsonl import shape_of

CELLS = st.one_of(
    st.none(),
    st.text("0123456789-+.eE :TZNaAnultrfis/é\t", max_size=12),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(repr),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["", "NA", "N/A", "null", "NULL", "nan", "NaN", "true", "FALSE", "T", "007", "-0", " 12", "Inf", "1e400", "2021-02-29"]
    ),
)


def kinds_of(cells: Sequence[str | None]) -> int:
    """The kinds of values that lie one after the other; None is NULL."""
    raw = [b"" if cell is None else cell.encode() for cell in cells]
    ends = np.cumsum([len(cell) for cell in raw], dtype=np.int32)
    starts = ends - np.array([len(cell) for cell in raw], np.int32)
    ends = np.where([cell is None for cell in cells], starts - 1, ends).astype(np.int32)
    return scan.kinds_of(np.frombuffer(b"".join(raw) + b"\0", np.uint8), starts, ends)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcA"), inner, max_size=3)),
    max_leaves=8,
)
PARQUET = st.sampled_from(
    [pa.int8(), pa.int64(), pa.float32(), pa.string(), pa.binary(), pa.date32(), pa.decimal128(20, 0), pa.null()]
)
SHAPES = st.one_of(
    st.lists(CELLS, max_size=4).map(lambda cells: text_shape(kinds_of(cells))),
    JSON.map(shape_of),
    PARQUET.map(lambda kind: type_shape(deltable(kind))),
)


@given(SHAPES, SHAPES, SHAPES)
def test_joins_are_commutative_associative_and_idempotent(a: Shape, b: Shape, c: Shape) -> None:
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    assert type_of(join(a, b)) == type_of(join(b, a))


@given(st.lists(CELLS, max_size=12), st.randoms(use_true_random=False))
def test_a_column_has_one_type_however_it_is_cut(cells: list[str | None], chance: random.Random) -> None:
    whole = text_shape(kinds_of(cells))
    shuffled = chance.sample(cells, len(cells))
    cut = chance.randint(0, len(cells))
    halves = [{"x": text_shape(kinds_of(half))} for half in (shuffled[:cut], shuffled[cut:])]
    assert join_all(halves).get("x", Shape()) == whole


@given(st.lists(CELLS, min_size=1, max_size=8))
def test_typed_values_are_those_that_the_text_spells(cells: list[str | None]) -> None:
    shape = text_shape(kinds_of(cells))
    kind = type_of(shape) or pa.string()
    for cell, value in zip(cells, from_text(pa.array(cells, pa.string()), kind, shape.mask).to_pylist(), strict=True):
        assert same(value, spelled(cell, kind)), (cell, kind)


def spelled(cell: str | None, kind: pa.DataType) -> object:
    """The slow oracle: one cell as Python reads it."""
    if cell is None or pa.types.is_string(kind):
        return cell
    text = cell.strip(" \t")
    if text in ("", "NA", "N/A", "null", "NULL") or (text in ("nan", "NaN") and not pa.types.is_floating(kind)):
        return None
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text.lower()]
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_floating(kind):
        return float(text)
    return date.fromisoformat(text) if pa.types.is_date(kind) else datetime.fromisoformat(text)


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and a == b


@given(CELLS.filter(lambda cell: cell is not None))
def test_whole_numbers_are_integers_only_where_they_print_the_same(cell: str) -> None:
    kind = type_of(text_shape(kinds_of([cell])))
    canonical = re.fullmatch(r"[ \t]*(0|-?[1-9][0-9]*)[ \t]*", cell) is not None and -(2**63) <= int(cell) < 2**63
    assert (kind == pa.int64()) == canonical


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", None], pa.int64()),
        (["1", "2.5", "nan"], pa.float64()),
        (["9007199254740993", "2.5"], pa.string()),
        (["9223372036854775808"], pa.string()),
        (["007", "8"], pa.string()),
        (["+7"], pa.string()),
        (["0.12345678901234567890123"], pa.string()),
        (["true", "False", "NA"], pa.bool_()),
        (["true", "1"], pa.string()),
        (["2020-02-29", ""], pa.date32()),
        (["2021-02-29"], pa.string()),
        (["2020-02-29", "2020-02-29 10:00"], pa.string()),
        (["2020-02-29 10:00", "2020-02-29T10:00:00.5"], pa.timestamp("us")),
        (["2020-02-29T10:00:00Z"], pa.timestamp("us", tz="UTC")),
        (["2020-02-29T10:00:00+02:00"], pa.string()),
        (["NA", None], None),
        ([None], None),
    ],
)
def test_the_type_of_some_columns(cells: list[str | None], kind: pa.DataType | None) -> None:
    assert type_of(text_shape(kinds_of(cells))) == kind


@given(st.dictionaries(st.text(max_size=3), SHAPES, max_size=3))
def test_shapes_survive_the_ledger(shapes: dict[str, Shape]) -> None:
    assert from_json(to_json(shapes)) == shapes


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.decimal128(10, 2), pa.list_(pa.string()), pa.timestamp("us", tz="UTC"), pa.date32()]
)
def test_types_survive_the_ledger(kind: pa.DataType) -> None:
    assert type_named(type_name(kind)) == kind


@given(st.lists(st.sampled_from(["a", "A", "a ", "", " ", "a_2", "row_id", "ROW_ID", "b\nc"]), max_size=8))
def test_column_names_are_unique_whatever_their_case(raw: list[str]) -> None:
    names = unique_names(raw)
    assert len({name.lower() for name in names} | {"row_id"}) == len(raw) + 1
    assert all(name == " ".join(name.split()) != "" for name in names)


def test_column_names_by_eye() -> None:
    assert unique_names(["a", "A", "", "row_id"]) == ["a", "A_2", "column_3", "row_id_"]


def test_names_that_differ_in_case_are_one_column() -> None:
    small, large = Shape(scan.INT | scan.FREE), Shape(scan.DOUBLE | scan.FREE)
    assert columns_of([{"Age": small}, {"age": large}]) == [("Age", join(small, large))]
