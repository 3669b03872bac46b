"""CSV and TSV: blocks of fields. What is ragged, open-quoted or not in its encoding is set aside, record by record.

How a file is written is found out first (`tasks.ingest.dialect`). An empty unquoted field is NULL, "" is the empty text. Quoted
line breaks are data.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.settings import ReadSettings
from tasks.ingest.blocks import INVALID_UTF8, Block, Reject, as_text, is_utf8
from tasks.ingest.dialect import HEAD_BYTES, Dialect, HeaderIncomplete, detect
from tasks.ingest.fields import Fields, fields, no_rows
from tasks.ingest.infer import Shape, Shapes, text_shape
from tasks.ingest.normal import Spelled, normalised
from tasks.ingest.scan import Records, records
from tasks.ingest.streams import UTF8, Unreadable, recoded

MAX_RECORD_BYTES = 64 << 20
OPEN_QUOTE = "a quote is opened and never closed"
CUT_OFF = "cut off where the file is damaged"
_LINE_END = re.compile(rb"\r\n|\n|\r")


def opened(
    blocks: Iterator[bytes], options: ReadSettings, kind: str = "csv", encoding: str | None = None
) -> tuple[Dialect, Iterator[bytes]]:
    """The dialect of a file, and what follows its header in UTF-8, from the file's decompressed bytes. `encoding`, unless it is
    "utf-8", is taken instead of what the options say.

    Raises `Unreadable` if there is no header row that can be read, `ConfigError` for an option that cannot be meant.
    """
    if encoding is not None and encoding != UTF8:
        options = options.model_copy(update={"encoding": encoding})
    head, failure, size = b"", None, HEAD_BYTES
    while True:
        grown, failure = _peeked(head, blocks, size)
        whole = len(grown) < size
        try:
            dialect = detect(grown[:size], options, kind=kind, whole=whole)
            break
        except HeaderIncomplete:
            if size > MAX_RECORD_BYTES:
                raise
        head, size = grown, size * 8
    text = recoded(chain([grown], blocks), dialect.encoding)
    n_mark = len(codecs.BOM_UTF8) if dialect.encoding == UTF8 and grown.startswith(codecs.BOM_UTF8) else 0
    return dialect, _failing(_behind(text, dialect.header_bytes - n_mark), failure)


def read(
    blocks: Iterator[bytes],
    dialect: Dialect,
    options: ReadSettings | None = None,
    *,
    line: int | None = None,
    spelled: Collection[str] = (),
) -> Iterator[Block]:
    """The rows of what follows the header of a CSV in UTF-8 (or of a part of it that starts at a line), about a block at a time;
    one block without rows if there is no record. `line`: the number of the first line, by default that after the header.
    `options` say which values are NULL, and, but in the columns `spelled`, how numbers and days are written (`normal`).

    A record whose quote is still open at the end, or after 64 MiB, is given up: its first line is a reject for `OPEN_QUOTE`, and
    the lines after it are read as records again; what stands without a line end before damage is a reject. Memory: a few blocks,
    or the longest record.
    """
    read_as = partial(normalised, options=options or ReadSettings(), spelled=spelled)
    carry, line, is_empty = b"", dialect.header_lines + 1 if line is None else line, True
    while True:
        fresh, failure = _next(blocks)
        last = not fresh and failure is None
        data, carry = carry + fresh, b""
        while data:
            found = records(data, dialect.separator, last=last, quote=dialect.quote_byte, comment=dialect.comment_byte)
            if len(found.starts):
                is_empty = False
                yield _block(data, found, dialect, read_as, line)
            line += found.n_lines
            data = data[found.consumed :]
            if not (data and found.quoted and (last or len(data) > MAX_RECORD_BYTES)):
                carry = data
                break
            rejected, data = _first_line(data, line, dialect)
            yield Block(None, 0, (rejected,))
            line += 1
        if (last or failure is not None) and is_empty and dialect.names:
            yield Block(no_rows(list(dialect.names)), 0, lines=np.empty(0, np.int64))
        if failure is not None:
            if carry:  # where the damage cut it, nobody knows whether it is a whole record
                yield Block(None, 0, (Reject(line, CUT_OFF, _shown(carry, dialect)),))
            raise failure
        if last:
            return


def _next(blocks: Iterator[bytes]) -> tuple[bytes, Unreadable | None]:
    """The next block, empty at the end; a failure ends the file too, after what came before it was used."""
    try:
        return next(blocks, b""), None
    except Unreadable as failure:
        return b"", failure


def _peeked(head: bytes, blocks: Iterator[bytes], size: int) -> tuple[bytes, Unreadable | None]:
    """The first bytes of a stream: `size` or more, or all of them."""
    held, n_bytes = [head], len(head)
    while n_bytes < size:
        fresh, failure = _next(blocks)
        if not fresh:
            return b"".join(held), failure
        held.append(fresh)
        n_bytes += len(fresh)
    return b"".join(held), None


def _behind(blocks: Iterator[bytes], n_bytes: int) -> Iterator[bytes]:
    """The blocks without their first bytes."""
    for block in blocks:
        if n_bytes < len(block):
            yield block[n_bytes:]
        n_bytes = max(0, n_bytes - len(block))


def _failing(blocks: Iterator[bytes], failure: Unreadable | None) -> Iterator[bytes]:
    yield from blocks
    if failure is not None:
        raise failure


def _first_line(data: bytes, line: int, dialect: Dialect) -> tuple[Reject, bytes]:
    """Give up on the first line of a record whose quote is never closed; the lines after it are read as records again."""
    match = _LINE_END.search(data)
    end, following = match.span() if match else (len(data), len(data))
    return Reject(line, OPEN_QUOTE, _shown(data[:end], dialect)), data[following:]


def _block(data: bytes, found: Records, dialect: Dialect, read_as: Callable[[Fields], Fields | Spelled], line: int) -> Block:
    good = found.n_fields == len(dialect.names)
    rejects = [_ragged(data, found, int(i), line, dialect) for i in np.flatnonzero(~good)]
    body = b"" if data.isascii() else data[int(found.starts[0]) : found.consumed]
    if not is_utf8(body):
        rejects += _invalid(data, found, good, line, dialect)
    rows = np.flatnonzero(good)
    is_wide = not body.isascii() and (not rejects or any(not _raw(data, found, i).isascii() for i in rows.tolist()))
    values = fields(data, found, rows, list(dialect.names), dialect.quote_byte)
    rejects.sort(key=lambda reject: reject.line)
    return Block(read_as(values), len(rows), tuple(rejects), is_wide, line + found.lines[rows].astype(np.int64))


def _raw(data: bytes, found: Records, i: int) -> bytes:
    return data[int(found.starts[i]) : int(found.ends[i])]


def _invalid(data: bytes, found: Records, good: npt.NDArray[np.bool_], line: int, dialect: Dialect) -> list[Reject]:
    """The records that are not UTF-8, or were not in their own encoding; they are no longer good."""
    reason = INVALID_UTF8 if dialect.encoding == UTF8 else f"not {dialect.encoding}"
    rejects = list[Reject]()
    for i in np.flatnonzero(good).tolist():
        raw = _raw(data, found, i)
        if not is_utf8(raw):
            good[i] = False
            rejects.append(Reject(line + int(found.lines[i]), reason, _shown(raw, dialect)))
    return rejects


def _ragged(data: bytes, found: Records, i: int, line: int, dialect: Dialect) -> Reject:
    reason = f"{found.n_fields[i]} fields, the header has {len(dialect.names)}"
    if not dialect.header:
        reason = f"{found.n_fields[i]} fields, the first records have {len(dialect.names)}"
    return Reject(line + int(found.lines[i]), reason, _shown(_raw(data, found, i), dialect))


def _shown(raw: bytes, dialect: Dialect) -> str:
    """A record as text; in another encoding than UTF-8, \\xff only marks the bytes that are shown after it."""
    return as_text(raw if dialect.encoding == UTF8 else raw.replace(b"\xff", b""))


# --- types ------------------------------------------------------------------------------------------------------------------


def shapes(rows: Fields | Spelled) -> Shapes:
    """The shape of every column."""
    return {name: text_shape(rows.kinds(place)) for place, name in enumerate(rows.names)}


def typed(rows: Fields | Spelled, schema: pa.Schema, known: dict[str, Shape]) -> tuple[pa.RecordBatch, list[Reject]]:
    """The fields as columns of the schema's types. `known` holds the shapes, by lower-cased name, that the types were taken
    from."""
    places = {name.lower(): place for place, name in enumerate(rows.names)}
    arrays = list[pa.Array]()
    for field in schema:
        key = field.name.lower()
        place = places.get(key)
        arrays.append(pa.nulls(rows.num_rows, field.type) if place is None else rows.typed(place, field.type, known[key].mask))
    return pa.RecordBatch.from_arrays(arrays, schema=schema), []
