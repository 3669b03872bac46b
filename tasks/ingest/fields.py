"""Fields of CSV records where they lie in the file's bytes: their kinds of values, and Arrow columns made straight from them.

Nothing is copied until the type of a column is known: integers and plain decimals are read from the bytes themselves, text is
gathered, and what is neither (dates, times, words for NULL) goes through text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from tasks.ingest import scan
from tasks.ingest.convert import from_text
from tasks.ingest.scan import Records
from tasks.ingest.values import Column, column_of, load_word, store_word

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

_WHOLE = scan.NULL | scan.INT


@dataclass(frozen=True)
class Fields:
    """Value i of column j is buffer[starts[j, i]:ends[j, i]], int32 (n_columns, n_rows); it is NULL where the end lies before the
    start. Quotes are off."""

    names: tuple[str, ...]
    buffer: U8
    starts: I32
    ends: I32
    _read: dict[int, Column] = field(default_factory=dict[int, Column], compare=False, repr=False)

    @property
    def num_rows(self) -> int:
        return self.starts.shape[1]

    @property
    def n_bytes(self) -> int:
        """What this holds in memory."""
        read = sum(column.n_bytes for column in self._read.values())
        return self.buffer.nbytes + self.starts.nbytes + self.ends.nbytes + read

    @property
    def columns(self) -> list[pa.StringArray]:
        """Every column as text."""
        return [self.text(place) for place in range(len(self.names))]

    def kinds(self, place: int) -> int:
        """The union of the kinds of a column's values (`tasks.ingest.scan`)."""
        return self._column(place).mask

    def _column(self, place: int) -> Column:
        """A column's kinds and values, read once for both."""
        if place not in self._read:
            self._read[place] = column_of(self.buffer, self.starts[place], self.ends[place])
        return self._read[place]

    def text(self, place: int) -> pa.StringArray:
        """A column as it is spelled. It must be valid UTF-8: that is not looked at here."""
        starts, ends, n = self.starts[place], self.ends[place], self.num_rows
        offsets, bitmap = np.empty(n + 1, np.int32), _bitmap(n)
        n_nulls = _lengths(starts, ends, offsets, bitmap)
        data = np.empty(offsets[n] + 8, np.uint8)
        _gather(self.buffer, starts, ends, offsets, data)
        valid = pa.py_buffer(bitmap) if n_nulls else None
        return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[n]]), valid, n_nulls)

    def typed(self, place: int, kind: pa.DataType, mask: int) -> pa.Array:
        """A column as `kind`, the type of a shape with this mask (`tasks.ingest.infer.type_of`)."""
        if pa.types.is_string(kind):
            return self.text(place)
        column = self._column(place)
        if column.values is None:
            return from_text(self.text(place), kind, mask)
        values = column.values if column.slow is None else self._completed(place, column.values, column.slow, mask)
        if values.type == kind:
            return values
        if pa.types.is_float64(kind) and not column.mask & ~_WHOLE:
            return values.cast(kind)
        return from_text(self.text(place), kind, mask)

    def _completed(self, place: int, values: pa.Array, slow: npt.NDArray[np.int64], mask: int) -> pa.Array:
        """A column of doubles with those that only their text tells."""
        some = Fields(("",), self.buffer, self.starts[place : place + 1, slow], self.ends[place : place + 1, slow])
        np.frombuffer(values.buffers()[1], np.float64)[slow] = from_text(some.text(0), values.type, mask).to_numpy()
        return values


def fields(data: bytes, found: Records, rows: npt.NDArray[np.int64], names: list[str], quote: int = 34) -> Fields:
    """The fields of some of the records of `data`: those at the places `rows`, each with as many fields as there are names.
    `quote`: the byte that quotes, as `found` was told; -1 for none."""
    buffer = np.frombuffer(data, np.uint8)
    starts, ends = (np.empty((len(names), len(rows)), np.int32) for _ in range(2))
    n_escaped = _place(buffer, found.starts, found.first_fields, found.field_ends, rows, quote, starts, ends)
    if n_escaped:
        buffer = np.concatenate([buffer, np.empty(n_escaped, np.uint8)])
        _unescape(buffer, len(data), quote, starts, ends)
        buffer.flags.writeable = False  # one signature for the kernels
    return Fields(tuple(names), buffer, starts, ends)


def no_rows(names: list[str]) -> Fields:
    """The columns of a file that has no record."""
    starts, ends = (np.empty((len(names), 0), np.int32) for _ in range(2))
    return Fields(tuple(names), np.frombuffer(bytes(1), np.uint8), starts, ends)


def _bitmap(n_rows: int) -> U8:
    return np.zeros((n_rows + 7) >> 3, np.uint8)


# --- kernels ----------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _place(
    data: Any, record_starts: Any, first_fields: Any, field_ends: Any, rows: Any, quote: int, starts: Any, ends: Any
) -> int:
    """Finds the fields of the records. Of those that need more than their outer quotes taken off, `starts` holds -1 - start and
    `ends` the end of the raw field; returns their bytes."""
    n_escaped = 0
    for i in range(len(rows)):
        at, first = record_starts[rows[i]], first_fields[rows[i]]
        for j in range(len(starts)):
            end = field_ends[first + j]
            if end < 0:
                end = -1 - end
                start, stop = _unquoted(data, at, end, quote)
                starts[j, i], ends[j, i] = start, stop
                if start < 0:
                    n_escaped += end - at
            else:
                starts[j, i] = at
                ends[j, i] = end if end > at else at - 1
            at = end + 1
    return n_escaped


@njit(cache=True, nogil=True)
def _unquoted(data: Any, at: int, end: int, quote: int) -> Any:
    closing = at + 1
    while data[closing] != quote:
        closing += 1
    return (at + 1, closing) if closing == end - 1 else (-1 - at, end)


@njit(cache=True, nogil=True)
def _unescape(buffer: Any, to: int, quote: int, starts: Any, ends: Any) -> None:
    """Writes quoted fields that hold quotes, or go on after them, from place `to` of the buffer: two quotes inside are one."""
    for j in range(len(starts)):
        for i in range(starts.shape[1]):
            if starts[j, i] >= 0:
                continue
            at, end, begin, inside = -starts[j, i], ends[j, i], to, True
            while at < end:
                if inside and buffer[at] == quote:
                    at += 1
                    inside = at < end and buffer[at] == quote
                    if not inside:
                        continue
                buffer[to] = buffer[at]
                to, at = to + 1, at + 1
            starts[j, i], ends[j, i] = begin, to


@njit(cache=True, nogil=True)
def _lengths(starts: Any, ends: Any, offsets: Any, bitmap: Any) -> int:
    """Arrow's offsets and validity of a column's values; returns how many are NULL."""
    n_nulls, total = 0, 0
    offsets[0] = 0
    for i in range(len(starts)):
        if ends[i] < starts[i]:
            n_nulls += 1
        else:
            bitmap[i >> 3] |= 1 << (i & 7)
            total += ends[i] - starts[i]
        offsets[i + 1] = total
    return n_nulls


@njit(cache=True, nogil=True)
def _gather(data: Any, starts: Any, ends: Any, offsets: Any, out: Any) -> None:
    """Eight bytes at a time: what is written too much lies where the next value goes, or in the eight bytes behind the last."""
    safe = len(data) - 8
    for i in range(len(starts)):
        to, end = offsets[i], ends[i]
        if end <= safe:
            for at in range(starts[i], end, 8):
                store_word(out, to, load_word(data, at))
                to += 8
        else:
            for at in range(starts[i], end):
                out[to] = data[at]
                to += 1
