"""Features are a function of the row alone, and equal rows have equal features."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.features import BadFeatures, Spec, encode, from_arrow, infer_spec, joined, label_texts, to_arrow

CELLS = st.tuples(
    st.none() | st.floats(width=64),
    st.none() | st.text(max_size=6),
    st.none() | st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
)
SCHEMA = pa.schema([("x", pa.float64()), ("c", pa.string()), ("d", pa.date32())])
SPEC = infer_spec("tabular", [SCHEMA], text=None, exclude=[])


def batch(rows: list[tuple]) -> pa.Table:
    return pa.table([pa.array(values, f.type) for values, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)], schema=SCHEMA)


@given(st.lists(CELLS, min_size=1, max_size=12), st.data())
def test_a_row_has_the_same_features_in_any_company(rows: list[tuple], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    pieces = [encode(batch(part), SPEC) for part in ([rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]) if part]
    whole = encode(batch(rows), SPEC).take(np.array(order))
    again = joined(pieces, SPEC)
    np.testing.assert_array_equal(again.dense, whole.dense)
    np.testing.assert_array_equal(again.tokens, whole.tokens)


@given(st.lists(st.text(alphabet="ab \u00e4", max_size=12), min_size=1, max_size=8))
def test_arrow_and_back(bodies: list[str]) -> None:
    spec = infer_spec("text", [], text="body", exclude=[])
    features = encode(pa.table({"body": bodies}), spec)
    back = from_arrow(pa.table(to_arrow(features)), spec)
    for ours, theirs in ((features.dense, back.dense), (features.tokens, back.tokens), (features.offsets, back.offsets)):
        np.testing.assert_array_equal(ours, theirs)


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_take_is_the_rows_one_by_one(bags: list[list[int]], data: st.DataObject) -> None:
    table = pa.table({"dense": pa.array([[float(i)] for i in range(len(bags))], pa.large_list(pa.float32())), "tokens": bags})
    features = from_arrow(table, Spec("tabular", ("n",), ("number",)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(bags) - 1), max_size=8)), np.intp)
    taken = features.take(rows)
    assert [taken.tokens[a:b].tolist() for a, b in zip(taken.offsets, taken.offsets[1:], strict=False)] == [bags[i] for i in rows]
    assert taken.dense[:, 0].tolist() == [float(i) for i in rows]


def test_values_that_are_one_to_the_row_hash_are_one_here() -> None:
    forms = [
        pa.array([7, 0]),
        pa.array([7.0, -0.0]),
        pa.array([Decimal("7.00"), Decimal("0")]),
        pa.array([7, 0]).dictionary_encode(),
    ]
    spec = Spec("tabular", ("x",), ("number",))
    dense = [encode(pa.table({"x": form}), spec).dense for form in forms]
    assert all(d.tobytes() == dense[0].tobytes() for d in dense)
    day = Spec("tabular", ("t",), ("instant",))
    when = pa.array([dt.datetime(2024, 5, 1)], pa.timestamp("us"))
    assert encode(pa.table({"t": when}), day).dense == encode(pa.table({"t": when.cast(pa.date32())}), day).dense


def test_numbers_by_eye() -> None:
    dense = encode(pa.table({"x": [0.0, np.e - 1, 1 - np.e, None]}), Spec("tabular", ("x",), ("number",))).dense
    np.testing.assert_allclose(dense[:, 0], [0.0, 1.0, -1.0, np.nan], atol=1e-6)


def test_null_is_a_token_of_its_own_in_each_column() -> None:
    table = pa.table({"a": ["x", None], "b": ["x", None]})
    tokens = encode(table, infer_spec("tabular", [table.schema], text=None, exclude=[])).tokens.reshape(2, 2)
    assert len(set(tokens.ravel().tolist())) == 4


def test_pixels_are_divided_by_the_image_s_own_largest() -> None:
    images = [[0.0, 8.0, 16.0, 4.0], [0.0, 127.5, 255.0, 63.75], None]
    schema = pa.schema([("p", pa.list_(pa.float64()))])
    spec = infer_spec("image", [schema], text=None, exclude=[], n_pixels=4)
    assert (spec.side, spec.channels) == (2, 1)
    dense = encode(pa.table({"p": images}, schema=schema), spec).dense
    assert dense.tolist() == [[0.0, 0.5, 1.0, 0.25], [0.0, 0.5, 1.0, 0.25], [0.0] * 4]
    with pytest.raises(BadFeatures, match="different lengths"):
        encode(pa.table({"p": [[1.0, 2.0]]}, schema=schema), spec)


def test_the_view_of_a_factory_follows_from_the_columns() -> None:
    pixels, plain = pa.schema([("p", pa.list_(pa.int64()))]), pa.schema([("x", pa.int64()), ("y", pa.binary())])
    assert infer_spec("a:b", [plain], text="body", exclude=[]).view == "text"
    assert infer_spec("a:b", [pixels], text=None, exclude=[], n_pixels=12) == Spec(
        "image", ("p",), ("pixels",), side=2, channels=3
    )
    assert infer_spec("a:b", [plain], text=None, exclude=[]).columns == ("x",)


def test_what_cannot_be_turned_into_features_is_refused() -> None:
    with pytest.raises(BadFeatures, match="text column"):
        infer_spec("text", [SCHEMA], text=None, exclude=[])
    with pytest.raises(BadFeatures, match="at least 64 columns"):
        infer_spec("image", [SCHEMA], text=None, exclude=[])
    with pytest.raises(BadFeatures, match="no column"):
        infer_spec("tabular", [SCHEMA], text=None, exclude=["x", "c", "d"])


def test_one_class_whatever_its_type() -> None:
    for labels in (pa.array([1, None]), pa.array([1.0, None]), pa.array(["1", None]), pa.array(["1", None]).dictionary_encode()):
        assert label_texts(labels).to_pylist() == ["1", None]
