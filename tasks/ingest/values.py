"""Values read straight from their bytes: what kinds they are and what they are, in one pass over a column, eight bytes at a time.

A pass stops at the first value that is not of its form, and says what that one is; nothing is rounded or guessed. The words of
eight digits are Lemire's (Number parsing at a gigabyte per second, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llvmlite import ir
from numba import njit, types

from tasks.ingest import scan
from tasks.ingest.scan import BIG, DATE, DOUBLE, INSTANT, INT, NULL, STAMP, TEXT, in_llvm, kind_at, moment_at, two_digits

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

_STOP = 1 << 30  # in a mask: the value of the last kind is not of the pass's form
_NUMBERS = INT | BIG
_MOMENTS = DATE | STAMP | INSTANT
_TYPES = {DATE: pa.date32(), STAMP: pa.timestamp("us"), INSTANT: pa.timestamp("us", tz="UTC")}


@dataclass(frozen=True)
class Column:
    """The union of the kinds of a column's values (`tasks.ingest.scan`), and the values, where one pass could read them: int64,
    float64, date32 or timestamps in microseconds. `slow`: places of doubles that are 0 here and have to be read from their
    text."""

    mask: int
    values: pa.Array | None = None
    slow: npt.NDArray[np.int64] | None = None

    @property
    def n_bytes(self) -> int:
        return 0 if self.values is None else self.values.nbytes


def column_of(buffer: U8, starts: I32, ends: I32) -> Column:
    """Read the values buffer[start:end], NULL where the end lies before the start. TEXT alone as soon as one value is text."""
    if len(buffer) < 8:  # the kernels load eight bytes
        buffer = np.frombuffer(buffer.tobytes().ljust(8, b"\0"), np.uint8)
    first = int(_first_kind(buffer, starts, ends))
    found = Column(first | _STOP)
    if first & _NUMBERS and not first & ~_NUMBERS:
        found = _integers_of(buffer, starts, ends)
    if first == DOUBLE or found.mask & (_STOP | DOUBLE) == _STOP | DOUBLE:
        found = _doubles_of(buffer, starts, ends)
    elif first in _TYPES:
        found = _moments_of(buffer, starts, ends, first)
    if found.mask & TEXT:
        return Column(TEXT)
    return Column(scan.kinds_of(buffer, starts, ends)) if found.mask & _STOP else found


def _integers_of(buffer: U8, starts: I32, ends: I32) -> Column:
    values, bitmap = np.empty(len(starts), np.int64), _all_valid(len(starts))
    mask, n_nulls = _integers(buffer, starts, ends, values, bitmap)
    return Column(mask, _array(pa.int64(), values, bitmap, n_nulls))


def _doubles_of(buffer: U8, starts: I32, ends: I32) -> Column:
    values, bitmap, slow = np.empty(len(starts), np.float64), _all_valid(len(starts)), np.empty(len(starts), np.int64)
    mask, n_nulls, n_slow = _doubles(buffer, starts, ends, values, bitmap, slow)
    return Column(mask, _array(pa.float64(), values, bitmap, n_nulls), slow[:n_slow].copy() if n_slow else None)


def _moments_of(buffer: U8, starts: I32, ends: I32, kind: int) -> Column:
    values, bitmap = np.empty(len(starts), np.int32 if kind == DATE else np.int64), _all_valid(len(starts))
    mask, n_nulls = _moments(buffer, starts, ends, kind, values, bitmap)
    return Column(mask, _array(_TYPES[kind], values, bitmap, n_nulls))


def _all_valid(n: int) -> U8:
    return np.full((n + 7) >> 3, 255, np.uint8)


def _array(kind: pa.DataType, values: npt.NDArray[Any], bitmap: U8, n_nulls: int) -> pa.Array:
    valid = pa.py_buffer(bitmap) if n_nulls else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)], n_nulls)


# --- words ------------------------------------------------------------------------------------------------------------------


def _pattern(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


# Numba turns uint64 with a plain int into float64, hence every small constant has a name.
_U0, _U1, _U3, _U8, _U10, _U16, _U32, _U64, _BYTE = (np.uint64(i) for i in (0, 1, 3, 8, 10, 16, 32, 64, 255))
_ALL, _TWO_53 = ~_U0, np.uint64(1 << 53)
_ZEROS, _DOTS = _pattern(b"00000000"), _pattern(b"........")
_HIGH, _LOW = _pattern(b"\x80" * 8), _pattern(b"\x01" * 8)
_OVER_9 = _pattern(b"\x76" * 8)  # added to a byte: its high bit is set from 10 on
_WORDS_10 = np.array([10**n for n in range(9)], np.uint64)
_PAIRS, _MUL_1, _MUL_2 = np.uint64(0x000000FF000000FF), np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)
# The words of YYYY-MM-, YY-MM-DD and HH:MM:SS: digits may be 0 to 9 over these, and what is between them nothing over them.
_YEAR, _OVER_YEAR = _pattern(b"0000-00-"), _pattern(b"\x76\x76\x76\x76\x7f\x76\x76\x7f")
_DAY, _CLOCK = _pattern(b"00-00-00"), _pattern(b"00:00:00")
_OVER_TWOS = _pattern(b"\x76\x76\x7f\x76\x76\x7f\x76\x76")


@in_llvm
def load_word(_context: Any, data: Any, at: Any) -> Any:
    """The eight bytes from data[at], the first one lowest; they must be there."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.int64), code


@in_llvm
def store_word(_context: Any, data: Any, at: Any, word: Any) -> Any:
    """Puts eight bytes at data[at]; there must be room."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), code


@njit(cache=True, nogil=True)
def _cut(word: Any, n_before: int, n: int) -> Any:
    """n bytes (1 to 8) of a word after those before them, and zeros."""
    return word >> (np.uint64(max(n_before, 0)) << _U3) & (_ALL >> (_U64 - (np.uint64(n) << _U3)))


@njit(cache=True, nogil=True)
def _digits(word: Any, n: int) -> Any:
    """The number of n digits (1 to 8), and whether they are digits."""
    shift = _U64 - (np.uint64(n) << _U3)
    x = (word << shift) ^ (_ZEROS << shift)
    pairs = x * _U10 + (x >> _U8)
    value = ((pairs & _PAIRS) * _MUL_1 + ((pairs >> _U16) & _PAIRS) * _MUL_2) >> _U32
    return value, ((x + _OVER_9) | x) & _HIGH == _U0


@njit(cache=True, nogil=True)
def _more_digits(low: Any, high: Any, n: int) -> Any:
    """The number of n digits (9 to 16), and whether they are digits."""
    value, good = _digits(low, 8)
    more, good_too = _digits(high, n - 8)
    return value * _WORDS_10[n - 8] + more, good and good_too


# --- kernels ----------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _first_kind(data: Any, starts: Any, ends: Any) -> int:
    """The kind of the first value that is not NULL; NULL if there is none."""
    for i in range(len(starts)):
        if ends[i] >= starts[i]:
            return kind_at(data, starts[i], ends[i])
    return NULL


@njit(cache=True, nogil=True)
def _integers(data: Any, starts: Any, ends: Any, values: Any, bitmap: Any) -> Any:
    """Decimal integers: their kinds and how many are NULL."""
    mask, n_nulls, safe = 0, 0, len(data) - 8  # safe: the last place from which eight bytes may be loaded
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        values[i] = 0
        if end < start:
            bitmap[i >> 3] &= ~(1 << (i & 7))
            n_nulls += 1
            continue
        negative = start < end and data[start] == 45
        at = start + 1 if negative else start
        n = end - at
        value, good = _U0, False
        if 1 <= n <= 16:
            low = _cut(load_word(data, min(at, safe)), at - safe, min(n, 8))
            high = _cut(load_word(data, min(at + 8, safe)), at + 8 - safe, n - 8) if n > 8 else _U0
            value, good = _digits(low, n) if n <= 8 else _more_digits(low, high, n)
        if good and (data[at] != 48 or (n == 1 and not negative)):
            mask |= INT if value < _TWO_53 else BIG
        else:
            kind = kind_at(data, start, end)
            mask |= kind
            if kind & ~(INT | BIG):
                return mask | _STOP, n_nulls
            value = _U0
            for k in range(at, end):
                value = value * _U10 + np.uint64(data[k] - 48)
        values[i] = np.int64(_U0 - value if negative else value)
    return mask | (NULL if n_nulls else 0), n_nulls


_POWERS = np.array([float(10**n) for n in range(16)])


@njit(cache=True, nogil=True)
def _doubles(data: Any, starts: Any, ends: Any, values: Any, bitmap: Any, slow: Any) -> Any:
    """Decimal numbers: their kinds, how many are NULL, and how many are in `slow`. Those of up to 15 digits and no exponent are
    integers and powers of ten that doubles hold exactly, so that one division rounds right (Clinger 1990)."""
    mask, n_nulls, n_slow, safe = 0, 0, 0, len(data) - 8
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        values[i] = 0.0
        if end < start:
            bitmap[i >> 3] &= ~(1 << (i & 7))
            n_nulls += 1
            continue
        negative = start < end and data[start] == 45
        at = start + 1 if negative else start
        value, n_part, good, n = _U0, -1, False, end - at
        if 1 <= n <= 16:
            low = _cut(load_word(data, min(at, safe)), at - safe, min(n, 8))
            high = _cut(load_word(data, min(at + 8, safe)), at + 8 - safe, n - 8) if n > 8 else _U0
            value, n_part, good = _fraction(low, high, n)
        n_whole = n - n_part - 1 if n_part >= 0 else n
        if good and (n_whole < 2 or data[at] != 48):
            number = np.float64(value) / _POWERS[n_part] if n_part > 0 else np.float64(value)
            values[i] = -number if negative else number
            mask |= DOUBLE if n_part >= 0 or (negative and value == _U0) else INT
            continue
        kind = kind_at(data, start, end)
        mask |= kind
        if kind & ~(INT | DOUBLE):
            return mask | _STOP, n_nulls, n_slow
        slow[n_slow] = i
        n_slow += 1
    return mask | (NULL if n_nulls else 0), n_nulls, n_slow


@njit(cache=True, nogil=True)
def _fraction(low: Any, high: Any, n: int) -> Any:
    """The digits of a number (n bytes in two words, up to 15 digits) as one integer, how many stand behind its point (-1: there
    is none), and whether it is that."""
    point = _point(low)
    if point < 8:
        low, high = _without(low, point) | high << np.uint64(56), high >> _U8
    else:
        point = 8 + _point(high)
        high = _without(high, point - 8) if point < 16 else high
    n_digits = n - 1 if point < 16 else n
    if n_digits < 1 or n_digits > 15:
        return _U0, -1, False
    n_part = n - 1 - point if point < 16 else -1
    value, good = _digits(low, n_digits) if n_digits <= 8 else _more_digits(low, high, n_digits)
    return value, n_part, good


@njit(cache=True, nogil=True)
def _point(word: Any) -> int:
    """The place of the first point in a word, 8 if there is none."""
    x = word ^ _DOTS
    found = (x - _LOW) & ~x & _HIGH
    return scan.first_bit(found) >> 3 if found else 8


@njit(cache=True, nogil=True)
def _without(word: Any, place: int) -> Any:
    """The word without the byte at a place; what is above it comes down."""
    below = (_U1 << (np.uint64(place) << _U3)) - _U1
    return (word & below) | ((word >> _U8) & ~below)


@njit(cache=True, nogil=True)
def _moments(data: Any, starts: Any, ends: Any, wanted: int, values: Any, bitmap: Any) -> Any:
    """Dates as days, or instants as microseconds, since 1970; their kinds and how many are NULL. All are of one kind."""
    n_nulls = 0
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        values[i] = 0
        if end < start:
            bitmap[i >> 3] &= ~(1 << (i & 7))
            n_nulls += 1
            continue
        n, kind, day, micros = end - start, TEXT, np.int64(_NO_DAY), np.int64(0)
        if n >= 10:
            day = _day(load_word(data, start), load_word(data, start + 2))
        if n == 10:
            kind = DATE
        elif n == 19 or (n == 20 and data[end - 1] == 90):
            kind, micros = STAMP if n == 19 else INSTANT, _clock(data[start + 10], load_word(data, start + 11))
        elif n > 10 and moment_at(data, start, end) == wanted:
            kind, micros = wanted, _micros(data, start + 11, end - 1 if wanted == INSTANT else end)
        if kind != wanted or day == _NO_DAY or micros < 0:
            return kind_at(data, start, end) | _STOP, n_nulls
        values[i] = day if kind == DATE else day * 86_400_000_000 + micros
    return wanted | (NULL if n_nulls else 0), n_nulls


_NO_DAY = -(1 << 40)


@njit(cache=True, nogil=True)
def _pair(x: Any, place: int) -> Any:
    """The number of the two digits at a place of a word of digits."""
    shifted = x >> (np.uint64(place) << _U3)
    return np.int64((shifted & _BYTE) * _U10 + (shifted >> _U8 & _BYTE))


@njit(cache=True, nogil=True)
def _day(low: Any, high: Any) -> int:
    """Days since 1970 of YYYY-MM- and YY-MM-DD in the proleptic Gregorian calendar, years 1 to 9999; else _NO_DAY."""
    x, y = low ^ _YEAR, high ^ _DAY
    if ((x + _OVER_YEAR) | x | (y + _OVER_TWOS) | y) & _HIGH:
        return _NO_DAY
    year, month, day = _pair(x, 0) * 100 + _pair(x, 2), _pair(x, 5), _pair(y, 6)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= _LENGTHS[month] + (1 if leap and month == 2 else 0):
        return _NO_DAY
    before = year - 1
    leaps = before // 4 - before // 100 + before // 400
    return before * 365 + leaps + _BEFORE[month] + (1 if leap and month > 2 else 0) + day - _EPOCH_DAY


_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_BEFORE = np.cumsum(_LENGTHS) - _LENGTHS
_EPOCH_DAY = 719_163  # 1970-01-01, counted from 0001-01-01 as 1


@njit(cache=True, nogil=True)
def _clock(between: int, word: Any) -> Any:
    """Microseconds of HH:MM:SS after a blank or a T; -1 if it is no time."""
    x = word ^ _CLOCK
    hour, minute, second = _pair(x, 0), _pair(x, 3), _pair(x, 6)
    if ((x + _OVER_TWOS) | x) & _HIGH or hour > 23 or minute > 59 or second > 59 or (between != 32 and between != 84):
        return -1
    return (hour * 3600 + minute * 60 + second) * 1_000_000


@njit(cache=True, nogil=True)
def _micros(data: Any, at: int, end: int) -> Any:
    """Microseconds of HH:MM[:SS[.ffffff]], which was looked at before."""
    seconds = two_digits(data, at) * 3600 + two_digits(data, at + 3) * 60
    if end > at + 6:
        seconds += two_digits(data, at + 6)
    micros, unit = np.int64(seconds) * 1_000_000, 100_000
    for i in range(at + 9, end):
        micros += (np.int64(data[i]) - 48) * unit
        unit //= 10
    return micros
