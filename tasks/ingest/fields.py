"""Fields of CSV records where they lie in the file's bytes: their kinds of values, and Arrow columns made straight from them.

Nothing is copied until the type of a column is known: integers and plain decimals are read from the bytes themselves, text is
gathered, and what is neither (dates, times, words for NULL) goes through text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from tasks.ingest import scan
from tasks.ingest.convert import from_text
from tasks.ingest.scan import Records

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

_INTEGERS = scan.NULL | scan.FREE | scan.INT | scan.BIG
_DOUBLES = scan.NULL | scan.FREE | scan.INT | scan.DOUBLE


@dataclass(frozen=True)
class Fields:
    """Value i of column j is buffer[starts[j, i]:ends[j, i]], int32 (n_columns, n_rows); it is NULL where the end lies before the
    start. Quotes are off."""

    names: tuple[str, ...]
    buffer: U8
    starts: I32
    ends: I32

    @property
    def num_rows(self) -> int:
        return self.starts.shape[1]

    @property
    def n_bytes(self) -> int:
        """What this holds in memory."""
        return self.buffer.nbytes + self.starts.nbytes + self.ends.nbytes

    @property
    def columns(self) -> list[pa.StringArray]:
        """Every column as text."""
        return [self.text(place) for place in range(len(self.names))]

    def kinds(self, place: int) -> int:
        """The union of the kinds of a column's values (`tasks.ingest.scan`)."""
        return scan.kinds_of(self.buffer, self.starts[place], self.ends[place])

    def text(self, place: int) -> pa.StringArray:
        """A column as it is spelled. It must be valid UTF-8: that is not looked at here."""
        starts, ends, n = self.starts[place], self.ends[place], self.num_rows
        offsets, bitmap = np.empty(n + 1, np.int32), _bitmap(n)
        n_nulls = _lengths(starts, ends, offsets, bitmap)
        data = np.empty(offsets[n], np.uint8)
        _gather(self.buffer, starts, ends, offsets, data)
        valid = pa.py_buffer(bitmap) if n_nulls else None
        return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data), valid, n_nulls)

    def typed(self, place: int, kind: pa.DataType, mask: int) -> pa.Array:
        """A column as `kind`, the type of a shape with this mask (`tasks.ingest.infer.type_of`)."""
        if pa.types.is_int64(kind) and not mask & ~_INTEGERS:
            return self._numbers(place, kind, np.empty(self.num_rows, np.int64), _integers)
        if pa.types.is_float64(kind) and not mask & ~_DOUBLES:
            exact = self._numbers(place, kind, np.empty(self.num_rows, np.float64), _doubles)
            if exact is not None:
                return exact
        return from_text(self.text(place), kind, mask)

    def _numbers(self, place: int, kind: pa.DataType, values: npt.NDArray[Any], parse: Any) -> Any:
        bitmap = _bitmap(len(values))
        n_nulls = parse(self.buffer, self.starts[place], self.ends[place], values, bitmap)
        if n_nulls < 0:
            return None
        valid = pa.py_buffer(bitmap) if n_nulls else None
        return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)], n_nulls)


def fields(data: bytes, found: Records, rows: npt.NDArray[np.int64], names: list[str]) -> Fields:
    """The fields of some of the records of `data`: those at the places `rows`, each with as many fields as there are names."""
    buffer = np.frombuffer(data, np.uint8)
    starts, ends = (np.empty((len(names), len(rows)), np.int32) for _ in range(2))
    n_escaped = _place(buffer, found.starts, found.first_fields, found.field_ends, rows, starts, ends)
    if n_escaped:
        buffer = np.concatenate([buffer, np.empty(n_escaped, np.uint8)])
        _unescape(buffer, len(data), starts, ends)
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
def _place(data: Any, record_starts: Any, first_fields: Any, field_ends: Any, rows: Any, starts: Any, ends: Any) -> int:
    """Finds the fields of the records. Of those that need more than their outer quotes taken off, `starts` holds -1 - start and
    `ends` the end of the raw field; returns their bytes."""
    n_escaped = 0
    for i in range(len(rows)):
        at, first = record_starts[rows[i]], first_fields[rows[i]]
        for j in range(len(starts)):
            end = field_ends[first + j]
            start, stop = at, end
            if at == end:
                stop = at - 1
            elif data[at] == 34:
                closing = at + 1
                while data[closing] != 34:
                    closing += 1
                if closing == end - 1:
                    start, stop = at + 1, closing
                else:
                    start = -1 - at
                    n_escaped += end - at
            starts[j, i], ends[j, i] = start, stop
            at = end + 1
    return n_escaped


@njit(cache=True, nogil=True)
def _unescape(buffer: Any, to: int, starts: Any, ends: Any) -> None:
    """Writes quoted fields that hold quotes, or go on after them, from place `to` of the buffer: two quotes inside are one."""
    for j in range(len(starts)):
        for i in range(starts.shape[1]):
            if starts[j, i] >= 0:
                continue
            at, end, begin, inside = -starts[j, i], ends[j, i], to, True
            while at < end:
                if inside and buffer[at] == 34:
                    at += 1
                    inside = at < end and buffer[at] == 34
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
    for i in range(len(starts)):
        to = offsets[i]
        for k in range(starts[i], ends[i]):
            out[to] = data[k]
            to += 1


@njit(cache=True, nogil=True)
def _integers(data: Any, starts: Any, ends: Any, values: Any, bitmap: Any) -> int:
    """Decimal integers within int64; returns how many are NULL."""
    n_nulls = 0
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        value = np.uint64(0)
        if end < start:
            n_nulls += 1
        else:
            bitmap[i >> 3] |= 1 << (i & 7)
            negative = data[start] == 45
            for k in range(start + 1 if negative else start, end):
                value = value * np.uint64(10) + np.uint64(data[k] - 48)
            value = np.uint64(0) - value if negative else value
        values[i] = np.int64(value)
    return n_nulls


_POWERS = np.array([float(10**n) for n in range(16)])


@njit(cache=True, nogil=True)
def _doubles(data: Any, starts: Any, ends: Any, values: Any, bitmap: Any) -> int:
    """Decimal numbers of up to 15 digits and no exponent: integers and powers of ten that doubles hold exactly, so that one
    division rounds right (Clinger 1990). Returns how many are NULL, or -1 where a number is not of that form."""
    n_nulls = 0
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        values[i] = 0.0
        if end < start:
            n_nulls += 1
            continue
        bitmap[i >> 3] |= 1 << (i & 7)
        negative = data[start] == 45
        first = start + 1 if negative else start
        value, point = np.int64(0), end
        for k in range(first, end):
            if data[k] == 46:
                point = k
            elif 48 <= data[k] <= 57:
                value = value * 10 + np.int64(data[k] - 48)
            else:
                return -1
        if end - first > 16 or (end - first == 16 and point == end):
            return -1
        number = np.float64(value) / _POWERS[end - point - 1] if point < end else np.float64(value)
        values[i] = -number if negative else number
    return n_nulls
