"""CSV and TSV: blocks of fields. What is ragged, open-quoted or not UTF-8 is set aside, record by record.

A header row is required. An empty unquoted field is NULL, "" is the empty text. Quoted line breaks are data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.ingest.blocks import INVALID_UTF8, Block, Reject, as_text, is_utf8
from tasks.ingest.fields import Fields, fields, no_rows
from tasks.ingest.infer import Shape, Shapes, text_shape, unique_names
from tasks.ingest.scan import Records, records
from tasks.ingest.streams import Unreadable

MAX_RECORD_BYTES = 64 << 20
_SEPARATORS = ",\t;|"
_QUOTED = re.compile(rb'"[^"]*"')
_LINE_END = re.compile(rb"\r\n|\n|\r")
_OPEN_QUOTE = "a quote is opened and never closed"


@dataclass(frozen=True)
class _Layout:
    names: list[str]
    delimiter: str


def read(blocks: Iterator[bytes], *, delimiter: str | None = None) -> Iterator[Block]:
    """The fields of the records of a CSV in UTF-8, about a block at a time; one block without rows if there is no record.

    Raises `Unreadable` if there is no header row that can be read. Memory: a few blocks, or the longest record (at most 64 MiB).
    """
    layout: _Layout | None = None
    carry, line, is_empty = b"", 1, True
    while True:
        fresh, failure = _next(blocks)
        last = not fresh
        data, carry = carry + fresh, b""
        while data:
            found = records(data, layout.delimiter if layout else _separator(data, delimiter), last=last)
            if layout is None:
                layout, found = _header(data, found, delimiter, last=last)
            if layout is not None and len(found.starts):
                is_empty = False
                yield _block(data, found, layout, line)
            line += found.n_lines
            data = data[found.consumed :]
            if not (layout and data and found.quoted and (last or len(data) > MAX_RECORD_BYTES)):
                carry = data
                break
            rejected, data = _first_line(data, line)
            yield Block(None, 0, (rejected,))
            line += 1
        if last and layout is not None and is_empty:
            yield Block(no_rows(layout.names), 0)
        if failure is not None:
            raise failure
        if last:
            return


def _next(blocks: Iterator[bytes]) -> tuple[bytes, Unreadable | None]:
    """The next block, empty at the end; a failure ends the file too, after what came before it was used."""
    try:
        return next(blocks, b""), None
    except Unreadable as failure:
        return b"", failure


def _separator(data: bytes, delimiter: str | None) -> str:
    """The given one, or the one of , tab ; | that the header line has most of."""
    if delimiter is not None:
        return delimiter
    head = data[: 1 << 20].lstrip(b"\r\n")
    line = _first_line_of(head)
    if b'"' in line:  # a name may hold a separator or a line break
        line = _first_line_of(_QUOTED.sub(b"", head))
    return max(_SEPARATORS, key=lambda c: line.count(c.encode()))


def _first_line_of(text: bytes) -> bytes:
    match = _LINE_END.search(text)
    return text[: match.start()] if match else text


def _header(data: bytes, found: Records, delimiter: str | None, *, last: bool) -> tuple[_Layout | None, Records]:
    """The columns, and the records after the header; None while the header is not complete."""
    if not len(found.starts):
        if found.quoted and (last or len(data) > MAX_RECORD_BYTES):
            raise Unreadable("the header row opens a quote and never closes it")
        return None, found
    raw = data[int(found.starts[0]) : int(found.ends[0])]
    if b"\0" in raw:
        raise Unreadable("the header row holds NUL bytes: not a text file")
    separator = _separator(data, delimiter)
    names = unique_names([name or "" for name in split_record(as_text(raw), separator)])
    return _Layout(names, separator), _without_first(found)


def _without_first(found: Records) -> Records:
    arrays = (found.starts[1:], found.ends[1:], found.n_fields[1:], found.lines[1:], found.first_fields[1:])
    return Records(*arrays, found.field_ends, found.consumed, found.n_lines, found.quoted)


def _first_line(data: bytes, line: int) -> tuple[Reject, bytes]:
    """Give up on the first line of a record whose quote is never closed; the lines after it are read as records again."""
    match = _LINE_END.search(data)
    end, following = match.span() if match else (len(data), len(data))
    return Reject(line, _OPEN_QUOTE, as_text(data[:end])), data[following:]


def _block(data: bytes, found: Records, layout: _Layout, line: int) -> Block:
    good = found.n_fields == len(layout.names)
    rejects = [_ragged(data, found, int(i), line, len(layout.names)) for i in np.flatnonzero(~good)]
    body = b"" if data.isascii() else data[int(found.starts[0]) : found.consumed]
    if not is_utf8(body):
        rejects += _invalid(data, found, good, line)
    rows = np.flatnonzero(good)
    is_wide = not body.isascii() and (not rejects or any(not _raw(data, found, i).isascii() for i in rows.tolist()))
    return Block(fields(data, found, rows, layout.names), len(rows), tuple(sorted(rejects, key=lambda r: r.line)), is_wide)


def _raw(data: bytes, found: Records, i: int) -> bytes:
    return data[int(found.starts[i]) : int(found.ends[i])]


def _invalid(data: bytes, found: Records, good: npt.NDArray[np.bool_], line: int) -> list[Reject]:
    """The records that are not UTF-8; they are no longer good."""
    rejects = list[Reject]()
    for i in np.flatnonzero(good).tolist():
        raw = _raw(data, found, i)
        if not is_utf8(raw):
            good[i] = False
            rejects.append(Reject(line + int(found.lines[i]), INVALID_UTF8, as_text(raw)))
    return rejects


def _ragged(data: bytes, found: Records, i: int, line: int, n_columns: int) -> Reject:
    reason = f"{found.n_fields[i]} fields, the header has {n_columns}"
    return Reject(line + int(found.lines[i]), reason, as_text(_raw(data, found, i)))


def split_record(record: str, delimiter: str) -> list[str | None]:
    """The fields of one record, None for an empty unquoted one: the slow road that the kernels are held to."""
    fields = list[str | None]()
    i = 0
    while True:
        text, quoted = "", record[i : i + 1] == '"'
        if quoted:
            text, i = _inside_quotes(record, i + 1)
        end = record.find(delimiter, i)
        text += record[i : end if end >= 0 else len(record)]
        fields.append(text if text or quoted else None)
        if end < 0:
            return fields
        i = end + 1


def _inside_quotes(record: str, i: int) -> tuple[str, int]:
    """The text up to the closing quote, and the place after it."""
    text = ""
    while True:
        end = record.find('"', i)
        if end < 0:
            return text + record[i:], len(record)
        text += record[i:end]
        if record[end + 1 : end + 2] != '"':
            return text, end + 1
        text, i = text + '"', end + 2


# --- types ------------------------------------------------------------------------------------------------------------------


def shapes(rows: Fields) -> Shapes:
    """The shape of every column."""
    return {name: text_shape(rows.kinds(place)) for place, name in enumerate(rows.names)}


def typed(rows: Fields, schema: pa.Schema, known: dict[str, Shape]) -> tuple[pa.RecordBatch, list[Reject]]:
    """The fields as columns of the schema's types. `known` holds the shapes, by lower-cased name, that the types were taken
    from."""
    places = {name.lower(): place for place, name in enumerate(rows.names)}
    arrays = list[pa.Array]()
    for field in schema:
        key = field.name.lower()
        place = places.get(key)
        arrays.append(pa.nulls(rows.num_rows, field.type) if place is None else rows.typed(place, field.type, known[key].mask))
    return pa.RecordBatch.from_arrays(arrays, schema=schema), []
