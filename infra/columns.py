"""Columns by what can be compared of them: numbers, categories and pixels, and a table's columns as those. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import pyarrow as pa

Look = Literal["text", "pixels", "table"]

CONTENT = "content"


def is_pixels(kind: pa.DataType) -> bool:
    """Whether a column of that type is taken for images: lists of numbers of any length, or raw bytes."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = cast(Any, kind).value_type
        return pa.types.is_integer(inner) or pa.types.is_floating(inner)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def is_feature(kind: pa.DataType) -> bool:
    """Whether a column of that type can be part of a table embedding: numbers, times, booleans and texts."""
    known = (pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    inner = cast(Any, kind).value_type if pa.types.is_dictionary(kind) else kind
    return is_number(kind) or any(test(inner) for test in known)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of that type is a number to be scaled: numbers and times, not booleans."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_temporal(kind)


def as_features(batch: pa.RecordBatch, numbers: Sequence[str], words: Sequence[str]) -> pa.Table:
    """The named columns as float64 (times in their own unit) and as strings: what `fit_features` and `embed_table` take."""
    columns: dict[str, Any] = {name: _as_float(batch.column(name)) for name in numbers}
    columns.update({name: cast(Any, batch.column(name)).cast(pa.string()) for name in words})
    return pa.table(columns)


def _as_float(column: pa.Array[Any]) -> pa.Array[Any]:
    array = cast(Any, column)
    if pa.types.is_temporal(array.type) and not pa.types.is_interval(array.type):
        array = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return array.cast(pa.float64(), safe=False)
