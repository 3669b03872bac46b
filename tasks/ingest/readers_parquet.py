"""Parquet: columns as they are, in types that Delta holds. A row whose text is not UTF-8, or whose value no type holds, is set
aside."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.ingest.blocks import INVALID_UTF8, Block, Reject
from tasks.ingest.convert import as_type, bad_text, json_text
from tasks.ingest.infer import Shape, Shapes, deltable, type_shape
from tasks.ingest.sound import column_names, holds_dictionary, refuse_unsound
from tasks.ingest.streams import Unreadable

_ROWS = 65_536
_BATCH_BYTES = 16 << 20
_TAIL_BYTES = 8  # the footer's length and the magic
_ARROW_TYPES = b"ARROW:schema"  # the footer's key for them
_NO_TYPES = b"lethe:schema"  # as long
_SMALL = 1 << 53
_INT64 = 1 << 63
_PER_MICROSECOND = 1000
_MICROSECONDS = (-62_135_596_800_000_000, 253_402_300_799_999_999)  # the years 1 to 9999
_DAYS = (-719_162, 2_932_896)


def opened(file: Any) -> pq.ParquetFile:
    """The Parquet file (one that can be read from any place), or `Unreadable`."""
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        if not any(_holds_fixed_lists(field.type) for field in parquet.schema_arrow):
            return parquet
        return pq.ParquetFile(pa.PythonFile(_WithoutArrowTypes(file), mode="r"), pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"not a Parquet file: {type(error).__name__}") from None
    except UnicodeDecodeError:
        raise Unreadable("the name of a column of the Parquet file is not UTF-8") from None


def _holds_fixed_lists(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return True
    return any(_holds_fixed_lists(kind.field(place).type) for place in range(kind.num_fields))


class _WithoutArrowTypes(io.RawIOBase):
    """A Parquet file whose footer does not tell Arrow's types. A list of fixed size is a list to Parquet; Arrow's reader stops
    at a NULL in one when it is told that it was written as such."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._n_bytes = file.seek(0, io.SEEK_END)
        file.seek(self._n_bytes - _TAIL_BYTES)
        footer_bytes = int.from_bytes(file.read(4), "little") + _TAIL_BYTES
        self._start = max(0, self._n_bytes - footer_bytes)
        file.seek(self._start)
        self._footer = file.read(footer_bytes).replace(_ARROW_TYPES, _NO_TYPES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        at = self._file.tell()
        data = self._file.read(len(buffer))
        if at + len(data) > self._start:
            head = data[: max(0, self._start - at)]
            data = head + self._footer[max(0, at - self._start) :][: len(data) - len(head)]
        buffer[: len(data)] = data
        return len(data)


def read(parquet: pq.ParquetFile) -> Iterator[Block]:
    """Batches of the file under unique column names; the first has no rows and tells the columns. Raises `Unreadable` at
    damage."""
    names = column_names(parquet.schema_arrow, "Parquet")
    yield _block([pa.nulls(0, field.type) for field in parquet.schema_arrow], names)
    try:
        for batch in parquet.iter_batches(_batch_rows(parquet), use_threads=False):
            for column in batch.columns:
                if holds_dictionary(column.type):  # Arrow trusts the indices of a page, and checks all else itself
                    refuse_unsound(column, "a page of the Parquet file")
            yield _block(batch.columns, names)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"the rest of the Parquet file cannot be read: {type(error).__name__}") from None


def _block(columns: list[pa.Array], names: list[str]) -> Block:
    rows = pa.RecordBatch.from_arrays([plain(column) for column in columns], names=names)
    return Block(rows, rows.num_rows)


def _batch_rows(parquet: pq.ParquetFile) -> int:
    """How many rows are some megabytes, by the size of the widest row group."""
    groups = [parquet.metadata.row_group(place) for place in range(parquet.metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, min(_ROWS, int(_BATCH_BYTES / max(1.0, widest))))


def plain(column: pa.Array) -> pa.Array:
    """The column in a type that Delta's are derived from: extensions as what they are stored as, views of lists as lists, small
    decimals as decimals."""
    kind = plain_type(column.type)
    if kind == column.type:
        return column
    if isinstance(column, pa.ExtensionArray):
        return plain(column.storage)
    return _without_views(column) if pa.types.is_list(kind) else column.cast(kind)


def _without_views(column: pa.Array) -> pa.Array:
    """A view of lists as lists."""
    sizes = np.asarray(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets), column.flatten(), mask=column.is_null())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of `plain`."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.list_(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def file_shapes(parquet: pq.ParquetFile) -> Shapes:
    """The shapes of the columns from the file's footer; only instants in nanoseconds are read."""
    names = column_names(parquet.schema_arrow, "Parquet")
    return {name: _shape(parquet, place) for place, name in enumerate(names)}


def _shape(parquet: pq.ParquetFile, place: int) -> Shape:
    field = parquet.schema_arrow.field(place)
    kind = deltable(plain_type(field.type))
    if pa.types.is_timestamp(field.type) and field.type.unit == "ns" and _whole_microseconds(parquet, place):
        kind = pa.timestamp("us", tz="UTC" if field.type.tz else None)
    if not pa.types.is_integer(field.type):
        return type_shape(kind)
    low, high = _bounds(parquet, field.name)
    if pa.types.is_uint64(field.type) and high is not None and high < _INT64:
        kind = pa.int64()
    small = low is not None and high is not None and low > -_SMALL and high < _SMALL
    return type_shape(kind, small=small)


def _bounds(parquet: pq.ParquetFile, name: str) -> tuple[int | None, int | None]:
    """The least and greatest value of a flat column by its row groups' statistics; None where one group does not tell."""
    lows, highs = list[int](), list[int]()
    metadata = parquet.metadata
    places = [i for i in range(metadata.num_columns) if parquet.schema.column(i).path == name]
    for group in range(metadata.num_row_groups):
        stats = metadata.row_group(group).column(places[0]).statistics if len(places) == 1 else None
        if stats is None or not (stats.has_min_max or stats.null_count == metadata.row_group(group).num_rows):
            return None, None
        if stats.has_min_max:
            lows.append(int(stats.min))
            highs.append(int(stats.max))
    return (min(lows), max(highs)) if lows else (0, 0)


def _whole_microseconds(parquet: pq.ParquetFile, place: int) -> bool:
    names = parquet.schema_arrow.names
    if names.count(names[place]) > 1:
        return False
    for batch in parquet.iter_batches(_ROWS, columns=[names[place]], use_threads=False):
        counts = np.asarray(pc.drop_null(batch.column(0)).cast(pa.int64()))
        if (counts % _PER_MICROSECOND).any():
            return False
    return True


def typed(rows: pa.RecordBatch, schema: pa.Schema, known: dict[str, Shape]) -> tuple[pa.RecordBatch, list[Reject]]:
    """The columns as the schema's types; absent ones are NULL. Rows with text that is not UTF-8, or with a value that its
    column's type does not hold, become rejects (line 0: Parquet has no lines). `known` is not needed: the types were taken from
    the files' own."""
    del known
    places = {name.lower(): place for place, name in enumerate(rows.schema.names)}
    arrays, unfit, reasons = list[pa.Array](), dict[str, pa.Array](), dict[int, str]()
    for field in schema:
        place = places.get(field.name.lower())
        column = pa.nulls(rows.num_rows, field.type) if place is None else rows.column(place)
        array, bad = _fitted(column, field.type)
        if bad:
            unfit[field.name] = column
        reasons |= dict.fromkeys(bad, f"a value of column {field.name!r} is no {field.type}")
        reasons |= dict.fromkeys(_out_of_years(array), f"a time in column {field.name!r} is not in the years 1 to 9999")
        reasons |= dict.fromkeys(bad_text(array), INVALID_UTF8)
        arrays.append(array)
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if not reasons:
        return batch, []
    keep = np.ones(rows.num_rows, np.bool_)
    keep[list(reasons)] = False
    rejects = [Reject(0, reason, _raw(batch, unfit, place)) for place, reason in sorted(reasons.items())]
    return batch.filter(pa.array(keep)), rejects


def _fitted(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """The column as `kind`, and the places of values that are lost in it and NULL now."""
    try:
        return as_type(column, kind), []
    except (ValueError, OverflowError):
        bad = _unfit(column, kind)
    gone = np.zeros(len(column), np.bool_)
    gone[bad] = True
    return as_type(column.take(pa.array(np.arange(len(column)), mask=gone)), kind), bad


def _unfit(column: pa.Array, kind: pa.DataType) -> list[int]:
    """The places of the values that cannot be made `kind`, by halving."""
    try:
        as_type(column, kind)
    except (ValueError, OverflowError):
        if len(column) == 1:
            return [0]
        half = len(column) // 2
        return _unfit(column.slice(0, half), kind) + [half + place for place in _unfit(column.slice(half), kind)]
    return []


def _out_of_years(array: pa.Array) -> list[int]:
    """The places of days and times that no calendar of Python's has: whoever reads them later would stop."""
    if pa.types.is_timestamp(array.type):
        first, last, counts = *_MICROSECONDS, array.cast(pa.int64())
    elif pa.types.is_date32(array.type):
        first, last, counts = *_DAYS, array.cast(pa.int32())
    else:
        return []
    out = pc.or_(pc.less(counts, first), pc.greater(counts, last))
    return np.flatnonzero(np.asarray(out.fill_null(False))).tolist()


def _raw(batch: pa.RecordBatch, unfit: dict[str, pa.Array], place: int) -> str:
    """A row as JSON text, from the file's own columns where their values did not fit."""
    columns = {name: unfit.get(name, batch.column(name)) for name in batch.schema.names}
    return json_text({name: _readable(column.slice(place, 1)) for name, column in columns.items()})


def _readable(one: pa.Array) -> Any:
    """One value as plain JSON, \\xNN for bytes that are no text."""
    if pa.types.is_string(one.type) and one.null_count == 0:
        return _bytes_of(one).decode("utf-8", "backslashreplace")
    if bad_text(one):
        return [_bytes_of(part).decode("utf-8", "backslashreplace") for part in _strings(one)]
    try:
        value: Any = one.to_pylist()[0]
    except (ValueError, OverflowError):  # Python has no such time; Arrow says at least its number
        return " ".join(one.to_string().split())
    return value


def _bytes_of(one: pa.StringArray) -> bytes:
    return b"".join(one.view(pa.binary()).to_pylist())


def _strings(array: pa.Array) -> Sequence[pa.StringArray]:
    """The string arrays inside a nested one."""
    if pa.types.is_string(array.type):
        return [array]
    if pa.types.is_list(array.type):
        return _strings(array.flatten())
    if pa.types.is_struct(array.type):
        return [found for part in array.flatten() for found in _strings(part)]
    return []
