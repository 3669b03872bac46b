"""Whether the columns of a damaged file are safe to read: offsets and indices that point out of the data must not be followed."""

from __future__ import annotations

import pyarrow as pa

from tasks.ingest.infer import unique_names
from tasks.ingest.streams import Unreadable


def column_names(schema: pa.Schema, form: str) -> list[str]:
    """The names of a file's columns, made unique. Raises `Unreadable` where one, or a field of a struct, is not UTF-8, and
    where there are none."""
    try:
        names = unique_names(schema.names)
        for field in schema:
            _read_names(field.type)
    except UnicodeDecodeError:
        raise Unreadable(f"the name of a column of the {form} file is not UTF-8") from None
    if not names:
        raise Unreadable(f"the {form} file has no columns")
    return names


def _read_names(kind: pa.DataType) -> None:
    """Read the names of all fields within a type, for the error that one may be."""
    for place in range(kind.num_fields):
        field = kind.field(place)
        _ = field.name
        _read_names(field.type)


def refuse_unsound(column: pa.Array, what: str) -> None:
    """Raise `Unreadable` where an array of `what` points out of its own data; text that is not UTF-8 is the rows' affair."""
    try:
        column.validate(full=True)
    except (pa.ArrowException, OSError):
        try:
            _as_bytes(column).validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"{what} is damaged: {type(error).__name__}") from None


def _as_bytes(column: pa.Array) -> pa.Array:
    """The same array with text as bytes."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary))
    return column.view(_bytes_type(column.type))


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_string(kind):
        return pa.binary()
    if t.is_large_string(kind):
        return pa.large_binary()
    if t.is_string_view(kind):
        return pa.binary_view()
    if t.is_list(kind):
        return pa.list_(_bytes_type(kind.value_type))
    if t.is_large_list(kind):
        return pa.large_list(_bytes_type(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([(field.name, _bytes_type(field.type)) for field in kind])
    return kind


def holds_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary's, or one of its parts is."""
    if pa.types.is_dictionary(kind):
        return True
    return any(holds_dictionary(kind.field(place).type) for place in range(kind.num_fields))
