"""Arrow columns of one type as another, without loss: text to what it spells, types of Parquet to what Delta holds, values to
text."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingest import scan

_BYTES = (
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)


def from_text(column: pa.Array, kind: pa.DataType, mask: int) -> pa.Array:
    """A text column as `kind`, the type of a shape with this mask (`tasks.ingest.infer.type_of`). Empty quotes, NA, N/A, null,
    NULL are NULL in it, and NaN is where the type has none."""
    if pa.types.is_string(kind):
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    if mask & scan.PADDED:
        column = pc.utf8_trim(column, " \t")
    if mask & scan.WORD:
        column = _nulled(column, scan.NULL_WORDS)
    if mask & scan.NAN and not pa.types.is_floating(kind):
        column = _nulled(column, scan.NAN_WORDS)
    return pc.cast(column, kind)


def _nulled(column: pa.Array, words: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(column, value_set=words), pa.scalar(None, pa.string()), column)


def as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A typed column as `kind`; raises `pa.ArrowInvalid` if a value would be lost. Bytes become text unchecked: see
    `bad_text`."""
    if column.type == kind:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    if pa.types.is_dictionary(column.type):
        return as_type(column.dictionary_decode(), kind)
    if pa.types.is_run_end_encoded(column.type):
        return as_type(pc.run_end_decode(column), kind)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if pa.types.is_string(kind):
        return _to_text(column)
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    if pa.types.is_struct(kind) and pa.types.is_struct(column.type):
        return _struct(column, kind)
    if pa.types.is_list(kind) and (pa.types.is_nested(column.type.value_type) or _holds_nothing(column)):
        return pa.array(column.to_pylist(), kind)
    return column.cast(kind)


def _holds_nothing(lists: pa.ListArray) -> bool:
    values = lists.flatten()
    return values.null_count == len(values)


def _to_text(column: pa.Array) -> pa.Array:
    t, kind = pa.types, column.type
    if t.is_nested(kind) or t.is_interval(kind):
        return pa.array([None if v is None else json_text(v) for v in column.to_pylist()], pa.string())
    if any(is_one(kind) for is_one in _BYTES):
        return column.cast(pa.binary()).view(pa.string())
    return column.cast(pa.string())


def _struct(column: pa.StructArray, kind: pa.StructType) -> pa.Array:
    """A struct with the fields of `kind`; absent ones are NULL."""
    present = {column.type.field(i).name: i for i in range(column.type.num_fields)}
    parts = column.flatten()
    arrays = [as_type(parts[present[f.name]], f.type) if f.name in present else pa.nulls(len(column), f.type) for f in kind]
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=column.is_null())


def json_text(value: Any) -> str:
    """A value as compact JSON text with sorted keys; what JSON has no form for (times, decimals, bytes) as its text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_spelled)


def _spelled(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def bad_text(column: pa.Array) -> list[int]:
    """The places of values that are not valid UTF-8, in a column of strings or of nested strings."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return [place for place in range(len(column)) if not _is_valid(column.slice(place, 1))]
    return []


def _is_valid(one: pa.Array) -> bool:
    try:
        pa.concat_arrays([one]).take(pa.array([0])).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
