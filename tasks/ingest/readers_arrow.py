"""Arrow IPC, as files (Feather) and as streams: columns as they are, in types that Delta holds. Rows are typed as Parquet's
are: by `readers_parquet.typed`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingest.blocks import Block
from tasks.ingest.infer import Shape, Shapes, deltable, type_shape
from tasks.ingest.readers_parquet import plain
from tasks.ingest.sound import column_names, refuse_unsound
from tasks.ingest.streams import Unreadable

_ROWS = 65_536
_MAGIC = b"ARROW1"
_OLD_MAGIC = b"FEA1"
_STREAM_START = 8
_SMALL = 1 << 53
_INT64 = 1 << 63
_PER_MICROSECOND = 1000


def read(file: Any) -> Iterator[Block]:
    """Batches of a file that can be read from any place, under unique column names; the first has no rows and tells the columns.
    A file whose end is damaged is read as a stream, as far as it goes.

    Raises `Unreadable` at damage: also where offsets or indices point out of the data, so that nobody follows them.
    """
    reader, failure = _opened(file)
    names = column_names(reader.schema, "Arrow")
    yield _block([pa.nulls(0, field.type) for field in reader.schema], names)
    for batch in _batches(reader):
        for column in batch.columns:
            refuse_unsound(column, "a batch of the Arrow file")
        for start in range(0, batch.num_rows, _ROWS):
            yield _block(batch.slice(start, _ROWS).columns, names)
    if failure:
        raise Unreadable(failure)


def _opened(file: Any) -> tuple[Any, str]:
    """A reader of the batches, and what is wrong with the file nevertheless."""
    magic = file.read(len(_MAGIC))
    if magic.startswith(_OLD_MAGIC):
        raise Unreadable("Feather version 1 is not read. Write it again with pyarrow.feather.write_feather")
    failure = ""
    if magic == _MAGIC:
        try:
            file.seek(0)
            return pa.ipc.open_file(file), failure
        except (pa.ArrowException, OSError):
            failure = "the end of the Arrow file is damaged"
    try:
        file.seek(_STREAM_START if magic == _MAGIC else 0)
        return pa.ipc.open_stream(file), failure
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"not an Arrow file: {type(error).__name__}") from None


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    places = iter(range(reader.num_record_batches)) if isinstance(reader, pa.ipc.RecordBatchFileReader) else None
    while True:
        try:
            batch = reader.get_batch(next(places)) if places is not None else reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"the rest of the Arrow file cannot be read: {type(error).__name__}") from None
        yield batch


def _block(columns: list[pa.Array], names: list[str]) -> Block:
    rows = pa.RecordBatch.from_arrays([plain(column) for column in columns], names=names)
    return Block(rows, rows.num_rows)


# --- types ------------------------------------------------------------------------------------------------------------------


def shapes(rows: pa.RecordBatch) -> Shapes:
    """The shapes of a batch's columns, from their types and, for whole numbers and nanoseconds, from their values."""
    return {name: _shape(rows.column(place)) for place, name in enumerate(rows.schema.names)}


def _shape(column: pa.Array) -> Shape:
    kind = deltable(column.type)
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns" and _has_whole_microseconds(column):
        kind = pa.timestamp("us", tz="UTC" if column.type.tz else None)
    if not pa.types.is_integer(column.type):
        return type_shape(kind)
    bounds = pc.min_max(column).as_py()
    low, high = bounds["min"] or 0, bounds["max"] or 0
    if pa.types.is_uint64(column.type) and high < _INT64:
        kind = pa.int64()
    return type_shape(kind, small=low > -_SMALL and high < _SMALL)


def _has_whole_microseconds(column: pa.Array) -> bool:
    return not (np.asarray(pc.drop_null(column).cast(pa.int64())) % _PER_MICROSECOND).any()
