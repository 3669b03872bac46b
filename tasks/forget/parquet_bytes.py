"""Bounds that Parquet keeps beside the cells: in the footer, in page headers and in the page index. Pure, over bytes.

pyarrow shows only the footer's, so the Thrift structures are read here (compact protocol, parquet-format 2.x). Values come back
as the physical type stores them: integers, floats, or text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"PAR1"
_BYTES = (6, 7)
_NUMBERS = {1: "<i", 2: "<q", 4: "<f", 5: "<d"}
_MAX_DEPTH = 64


class NotParquetError(ValueError):
    """The bytes are not what a Parquet file holds there."""


@dataclass(frozen=True)
class Bound:
    """One value that Parquet keeps about a column, and where: footer, page header or page index."""

    where: str
    column: str
    value: int | float | str


def bounds(file: BinaryIO) -> Iterator[Bound]:
    """All bounds of all columns of an open file. Memory: one column chunk. Raises `NotParquetError`."""
    for chunk in _chunks(_footer(file)):
        meta = chunk.get(3, {})
        column, kind = _column(meta), int(meta.get(1, -1))
        yield from _stated(meta.get(12), column, kind, "footer")
        yield from _page_index(file, chunk, column, kind)
        for statistics in _page_statistics(file, meta):
            yield from _stated(statistics, column, kind, "page header")


def n_blooms(file: BinaryIO) -> int:
    """How many column chunks have a Bloom filter: it can be asked for a known value, never listed."""
    return sum(14 in chunk.get(3, {}) for chunk in _chunks(_footer(file)))


def _chunks(footer: dict[int, Any]) -> Iterator[dict[int, Any]]:
    for group in footer.get(4, ()):
        yield from group.get(1, ())


def _column(meta: dict[int, Any]) -> str:
    return ".".join(_text(part) for part in meta.get(3, ()))


def _footer(file: BinaryIO) -> dict[int, Any]:
    file.seek(0, 2)
    size = file.tell()
    tail = _at(file, max(0, size - 8), 8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 8 > size:
        raise NotParquetError("no Parquet footer")
    return _decode(_at(file, size - 8 - length, length), 0)[0]


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _stated(statistics: Any, column: str, kind: int, where: str) -> Iterator[Bound]:
    """Minimum and maximum, in the old and the new fields of a Statistics structure."""
    for field in (1, 2, 5, 6):
        if statistics and isinstance(statistics.get(field), bytes):
            yield from _bound(statistics[field], column, kind, where)


def _bound(raw: bytes, column: str, kind: int, where: str) -> Iterator[Bound]:
    if kind in _BYTES:
        yield Bound(where, column, _text(raw))
    elif kind in _NUMBERS and len(raw) == struct.calcsize(_NUMBERS[kind]):
        yield Bound(where, column, struct.unpack(_NUMBERS[kind], raw)[0])


def _text(raw: Any) -> str:
    return bytes(raw).decode("utf-8", "surrogateescape")


def _page_index(file: BinaryIO, chunk: dict[int, Any], column: str, kind: int) -> Iterator[Bound]:
    offset, length = int(chunk.get(6, 0)), int(chunk.get(7, 0))
    if not offset or not length:
        return
    index = _decode(_at(file, offset, length), 0)[0]
    for field in (2, 3):
        for raw in index.get(field, ()):
            yield from _bound(raw, column, kind, "page index")


def _page_statistics(file: BinaryIO, meta: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The statistics in the page headers of one column chunk."""
    offset, length = int(meta.get(9, 0)), int(meta.get(7, 0))
    if meta.get(11):
        offset = min(offset, int(meta[11]))
    pages = _at(file, offset, length)
    place = 0
    while place < len(pages):
        header, place = _decode(pages, place)
        for page, field in ((5, 5), (8, 8)):
            found = header.get(page, {}).get(field)
            if found:
                yield found
        place += max(0, int(header.get(3, 0)))


# --- Thrift, compact protocol ---------------------------------------------------------------------------------------------------


def _decode(data: bytes, place: int) -> tuple[dict[int, Any], int]:
    """One structure as {field number: value}, and where it ends. Raises `NotParquetError`."""
    try:
        return _struct(data, place, 0)
    except (IndexError, struct.error) as error:
        raise NotParquetError("a Thrift structure ends too early") from error


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MAX_DEPTH:
        raise NotParquetError("Thrift structures are nested too deep")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[place]) != 0:
        place += 1
        if head >> 4:
            number += head >> 4
        else:
            zigzag, place = _varint(data, place)
            number = _signed(zigzag)
        fields[number], place = _value(data, place, head & 15, depth)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, place
    if kind == 3:
        return data[place], place + 1
    if kind in (4, 5, 6):
        number, place = _varint(data, place)
        return _signed(number), place
    if kind == 7:
        return struct.unpack_from("<d", data, place)[0], place + 8
    if kind == 8:
        length, place = _varint(data, place)
        return data[place : place + length], place + length
    if kind in (9, 10):
        return _list(data, place, depth + 1)
    if kind == 12:
        return _struct(data, place, depth + 1)
    raise NotParquetError(f"no Thrift type {kind} is expected here")


def _list(data: bytes, place: int, depth: int) -> tuple[list[Any], int]:
    head = data[place]
    place += 1
    length, kind = head >> 4, head & 15
    if length == 15:
        length, place = _varint(data, place)
    items: list[Any] = []
    for _ in range(length):
        if kind in (1, 2):
            item, place = data[place] == 1, place + 1
        else:
            item, place = _value(data, place, kind, depth)
        items.append(item)
    return items, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while data[place] & 0x80:
        number |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
    return number | data[place] << shift, place + 1


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
