"""Two passes over bytes at memory speed: where CSV records and fields end, and what kinds of values a column holds.

The record scanner is the state machine of RFC 4180: a quote opens only at the start of a field, two quotes inside are one, what
follows a closing quote belongs to the field, and \\n, \\r, \\r\\n all end a line. Blank lines and comments are no records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

# Kinds of values, one bit each; a column's mask is the union over its values.
NULL = 1  # an empty, unquoted field; a JSON null
WORD = 2  # '' in quotes, NA, N/A, null, NULL: NULL in a typed column, text in a text column
NAN = 4  # nan, NaN: not-a-number in a column of doubles, NULL in another typed column
BOOL = 8
INT = 16  # |value| < 2^53: a double holds it
BIG = 32  # any other int64
HUGE = 64  # an unsigned integer beyond int64
DOUBLE = 128
INF = 256
DATE = 512
STAMP = 1024  # date and time without a zone
INSTANT = 2048  # date and time in UTC
LIST = 4096
STRUCT = 8192
OTHER = 16384  # a type of Parquet's that no text spells
TEXT = 32768
PADDED = 65536  # blanks around a typed value
FREE = 131072  # read from text or JSON, where any type that holds the values will do

_MAX_DIGITS = 17  # as many as tell one double from every other
_INT_DIGITS = 19
_FEW_DIGITS = 15  # below 2^53 whatever they are


@dataclass(frozen=True)
class Records:
    """The complete records of a buffer: byte ranges [start, end), numbers of fields, and line numbers from the buffer's first
    line (0). The fields of record i end at field_ends[first_fields[i]:][:n_fields[i]], which holds -1 - end of those that
    begin with a quote.

    `consumed`: bytes up to the first record that is not complete; `n_lines`: line breaks before it; `quoted`: it ends inside
    quotes.
    """

    starts: I32
    ends: I32
    n_fields: I32
    lines: I32
    first_fields: I32
    field_ends: I32
    consumed: int
    n_lines: int
    quoted: bool


def records(data: bytes, delimiter: str, *, last: bool, quote: int = 34, comment: int = -1) -> Records:
    """Find the records of `data`; with `last`, what is left at the end is one too, unless its quote is still open.

    `quote`: the byte that quotes, -1 for none. `comment`: a record that begins with this byte is none, up to the end of its line;
    -1 for no such byte.
    """
    buffer, tail = np.frombuffer(data, np.uint8), _tail(data)
    n_lines, n_ends = _count(buffer, tail, ord(delimiter))
    rows, field_ends = np.empty((5, n_lines + 1), np.int32), np.empty(n_ends + 1, np.int32)
    n, consumed, n_lines, quoted = _scan(buffer, tail, ord(delimiter), quote, comment, last, rows, field_ends)
    starts, ends, n_fields, lines, first_fields = rows[:, :n]
    return Records(starts, ends, n_fields, lines, first_fields, field_ends, int(consumed), int(n_lines), bool(quoted))


def _tail(data: bytes) -> U8:
    """What is left behind the last whole word of 64 bytes, and zeros."""
    return np.frombuffer(data[len(data) // _WORD_BYTES * _WORD_BYTES :].ljust(_WORD_BYTES, b"\0"), np.uint8)


def occurrences(data: bytes, byte: int) -> int:
    """How often a byte stands in `data`: `bytes.count` takes ten times as long."""
    return int(_occurrences(np.frombuffer(data, np.uint8), _tail(data), byte))


def kinds_of(buffer: U8, starts: I32, ends: I32) -> int:
    """The union of the kinds of the values buffer[start:end], NULL where the end lies before the start; TEXT alone as soon as one
    value is text."""
    found = int(_classify(buffer, starts, ends))
    return TEXT if found & TEXT else found


# --- kernels ----------------------------------------------------------------------------------------------------------------

_WORD_BYTES = 64
in_llvm: Any = intrinsic  # what it makes takes no context: no checker knows that
_LF, _CR = 10, 13
_ONE = np.uint64(1)
_PLAIN, _QUOTED, _COMMENT = 0, 1, 2


@in_llvm
def _matches(_context: Any, data: Any, at: Any, byte: Any) -> Any:
    """A word whose bit k is set where data[at + k] == byte, for k < 64: one vector comparison."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        lanes = ir.VectorType(ir.IntType(8), _WORD_BYTES)
        nothing, places = ir.Constant(lanes, ir.Undefined), ir.VectorType(ir.IntType(32), _WORD_BYTES)
        found = builder.load(builder.bitcast(builder.gep(array.data, [arguments[1]]), lanes.as_pointer()), align=1)
        first = builder.insert_element(nothing, arguments[2], ir.Constant(ir.IntType(32), 0))
        wanted = builder.shuffle_vector(first, nothing, ir.Constant(places, [0] * _WORD_BYTES))
        return builder.bitcast(builder.icmp_unsigned("==", found, wanted), ir.IntType(_WORD_BYTES))

    return types.uint64(data, types.int64, types.uint8), code


@in_llvm
def first_bit(_context: Any, word: Any) -> Any:
    """The place of the lowest bit of a word that is not 0."""

    def code(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


@in_llvm
def _n_bits(_context: Any, word: Any) -> Any:
    def code(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), code


@njit(cache=True, nogil=True)
def _where(data: Any, tail: Any, base: int, byte: int) -> Any:
    """Where among the 64 bytes from `base` a byte stands."""
    size = len(data)
    if base + _WORD_BYTES <= size:
        return _matches(data, base, np.uint8(byte))
    return _matches(tail, 0, np.uint8(byte)) & ((_ONE << np.uint64(size - base)) - _ONE)


@njit(cache=True, nogil=True)
def _occurrences(data: Any, tail: Any, byte: int) -> int:
    n = 0
    for base in range(0, len(data), _WORD_BYTES):
        n += _n_bits(_where(data, tail, base, byte))
    return n


@njit(cache=True, nogil=True)
def _count(data: Any, tail: Any, delimiter: int) -> Any:
    """How many records, and how many fields, there are at most."""
    n_lines, n_delimiters = 0, 0
    for base in range(0, len(data), _WORD_BYTES):
        n_lines += _n_bits(_where(data, tail, base, _LF) | _where(data, tail, base, _CR))
        n_delimiters += _n_bits(_where(data, tail, base, delimiter))
    return n_lines, n_lines + n_delimiters


@njit(cache=True, nogil=True)
def _scan(data: Any, tail: Any, delimiter: int, quote: int, comment: int, last: bool, rows: Any, field_ends: Any) -> Any:
    """Walks from mark to mark, which are line ends and quotes; the delimiters between two of them are taken together. `rows`
    takes the first five arrays of `Records`."""
    size = len(data)
    n, n_ends, first, line, start, start_line, closed = 0, 0, 0, 0, 0, 0, -1
    state, opened = _state_at(data, 0, comment), -1  # opened: the field of this record that was last found to be quoted
    for base in range(0, size, _WORD_BYTES):
        delimiters = _where(data, tail, base, delimiter)
        marks = _where(data, tail, base, _LF) | _where(data, tail, base, _CR)
        if quote >= 0:
            marks |= _where(data, tail, base, quote)
        while marks:
            at, lowest = base + first_bit(marks), marks & (~marks + _ONE)
            marks ^= lowest
            before = delimiters & (lowest - _ONE)
            delimiters ^= before
            if state == _PLAIN:
                n_ends = _take(before, base, field_ends, n_ends)
            c = data[at]
            is_break = c in (_LF, _CR)
            if state == _QUOTED:
                if not is_break:
                    state, closed = _PLAIN, at
                elif c == _CR or data[at - 1] != _CR:
                    line += 1
            elif not is_break:
                if state == _PLAIN and (at == start or at == closed + 1 or data[at - 1] == delimiter):
                    state, opened = _QUOTED, _open(field_ends, opened, n_ends)
            elif c == _LF and at == start and at > 0 and data[at - 1] == _CR:
                start, state = at + 1, _state_at(data, at + 1, comment)
            elif c == _CR and at + 1 == size and not last:
                return n, start, start_line, False  # its \n may follow
            else:
                if at > start and state == _PLAIN:
                    field_ends[n_ends] = at
                    opened = _open(field_ends, opened, -1)
                    n, n_ends, first = _put(rows, n, start, at, first, n_ends + 1, start_line)
                line += 1
                start, start_line, state = at + 1, line, _state_at(data, at + 1, comment)
        if state == _PLAIN:
            n_ends = _take(delimiters, base, field_ends, n_ends)
    if last and start < size and state != _QUOTED:
        if state == _PLAIN:
            field_ends[n_ends] = size
            _open(field_ends, opened, -1)
            n, n_ends, first = _put(rows, n, start, size, first, n_ends + 1, start_line)
        start, start_line = size, line
    return n, start, start_line, state == _QUOTED


@njit(cache=True, nogil=True)
def _state_at(data: Any, start: int, comment: int) -> int:
    return _COMMENT if comment >= 0 and start < len(data) and data[start] == comment else _PLAIN


@njit(cache=True, nogil=True)
def _take(delimiters: Any, base: int, field_ends: Any, n_ends: int) -> int:
    while delimiters:
        field_ends[n_ends] = base + first_bit(delimiters)
        n_ends += 1
        delimiters &= delimiters - _ONE
    return n_ends


@njit(cache=True, nogil=True)
def _open(field_ends: Any, opened: int, field: int) -> int:
    """Marks the end of the quoted field before this one, which is known by now."""
    if opened >= 0 and opened != field:
        field_ends[opened] = -1 - field_ends[opened]
    return field


@njit(cache=True, nogil=True)
def _put(rows: Any, n: int, start: int, end: int, first: int, n_ends: int, line: int) -> Any:
    rows[0, n], rows[1, n], rows[2, n], rows[3, n], rows[4, n] = start, end, n_ends - first, line, first
    return n + 1, n_ends, n_ends


@njit(cache=True, nogil=True)
def _classify(data: Any, starts: Any, ends: Any) -> int:
    mask = 0
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        if end < start:
            mask |= NULL
            continue
        at, n_digits, n_whole = start, 0, -1
        negative = start < end and data[start] == 45
        if negative:
            at += 1
        first = at
        while at < end:
            if 48 <= data[at] <= 57:
                n_digits += 1
            elif data[at] == 46 and n_whole < 0:
                n_whole = n_digits
            else:
                break
            at += 1
        if n_whole < 0:
            n_whole = n_digits
        # Plain numbers of few digits are told here: they are most values, and a call costs more than they do.
        if at == end and 0 < n_digits <= _FEW_DIGITS and (n_whole < 2 or data[first] != 48):
            mask |= INT if end - first == n_digits and not (negative and data[first] == 48) else DOUBLE
        else:
            mask |= kind_at(data, start, end)
            if mask & TEXT:
                break
    return mask


@njit(cache=True, nogil=True)
def kind_at(data: Any, start: int, end: int) -> int:
    low, high = start, end
    while low < high and (data[low] == 32 or data[low] == 9):
        low += 1
    while high > low and (data[high - 1] == 32 or data[high - 1] == 9):
        high -= 1
    if low == high:
        return WORD if start == end else TEXT
    kind = _word(data, low, high)
    if kind == TEXT:
        kind = moment_at(data, low, high) if high - low >= 10 and data[low + 4] == 45 else _number(data, low, high)
    return kind | PADDED if (low != start or high != end) and kind != TEXT else kind


_WORDS = ("NA", "N/A", "null", "NULL")
_NANS = ("nan", "NaN")
NULL_WORDS = pa.array(["", *_WORDS])
NAN_WORDS = pa.array(list(_NANS))
_MAX_WORD = 8


def _packed(*words: str) -> npt.NDArray[np.uint64]:
    """Words of up to eight bytes as numbers, the first byte lowest."""
    return np.array([int.from_bytes(word.encode(), "little") for word in words], np.uint64)


_NULL_PACKED = _packed(*_WORDS)
_NAN_PACKED = _packed(*_NANS)
_BOOL_PACKED = _packed("true", "false", "True", "False", "TRUE", "FALSE")
_INF_PACKED = _packed("inf", "-inf", "Inf", "-Inf", "Infinity")


@njit(cache=True, nogil=True)
def _word(data: Any, low: int, high: int) -> int:
    first = data[low + 1] if data[low] == 45 and high - low > 1 else data[low]
    if first < 65 or high - low > _MAX_WORD:
        return TEXT
    word = np.uint64(0)
    for i in range(high - 1, low - 1, -1):
        word = word << np.uint64(8) | np.uint64(data[i])
    if _among(word, _NULL_PACKED):
        return WORD
    if _among(word, _NAN_PACKED):
        return NAN
    if _among(word, _BOOL_PACKED):
        return BOOL
    return INF if _among(word, _INF_PACKED) else TEXT


@njit(cache=True, nogil=True)
def _among(word: Any, words: Any) -> bool:
    for i in range(len(words)):  # noqa: SIM110  (Numba compiles no generators)
        if words[i] == word:
            return True
    return False


@njit(cache=True, nogil=True)
def _digits(data: Any, low: int, high: int) -> int:
    """How many digits stand at `low`."""
    i = low
    while i < high and 48 <= data[i] <= 57:
        i += 1
    return i - low


@njit(cache=True, nogil=True)
def _number(data: Any, low: int, high: int) -> int:
    i = low + 1 if data[low] == 45 else low
    n_whole = _digits(data, i, high)
    if n_whole > 1 and data[i] == 48:
        return TEXT  # 007 is a code, not a number
    if i + n_whole == high:
        return _integer(data, i, n_whole, i > low)
    return _double(data, i, n_whole, high)


@njit(cache=True, nogil=True)
def _integer(data: Any, low: int, n: int, negative: bool) -> int:
    if n == 0 or n > _INT_DIGITS:
        return TEXT
    value = np.uint64(0)
    for i in range(low, low + n):
        value = value * np.uint64(10) + np.uint64(data[i] - 48)
    if value == 0 and negative:
        return DOUBLE
    if value < np.uint64(1 << 53):
        return INT
    limit = np.uint64((1 << 63) - 1) + np.uint64(1 if negative else 0)
    return BIG if value <= limit else TEXT


@njit(cache=True, nogil=True)
def _double(data: Any, low: int, n_whole: int, high: int) -> int:
    """A decimal number that a double tells from every other of 17 digits, within its range; else TEXT."""
    i = low + n_whole
    n_part = 0
    if data[i] == 46:
        n_part = _digits(data, i + 1, high)
        i += 1 + n_part
    if n_whole + n_part == 0:
        return TEXT
    exponent = 0
    if i < high:
        if data[i] != 101 and data[i] != 69:
            return TEXT
        i += 1
        negative = i < high and data[i] == 45
        i += 1 if i < high and (data[i] == 45 or data[i] == 43) else 0
        n = _digits(data, i, high)
        if n == 0 or n > 4 or i + n != high:
            return TEXT
        for k in range(i, high):
            exponent = exponent * 10 + int(data[k]) - 48
        exponent = -exponent if negative else exponent
    return _fits(data, low, n_whole, n_part, exponent)


@njit(cache=True, nogil=True)
def _fits(data: Any, low: int, n_whole: int, n_part: int, exponent: int) -> int:
    first, last, place = -1, -1, 0
    for k in range(n_whole + n_part):
        at = low + k + (1 if k >= n_whole else 0)
        if data[at] != 48:
            first = k if first < 0 else first
            last = k
    if first < 0:
        return DOUBLE
    place = n_whole - 1 - first + exponent
    return DOUBLE if last - first < _MAX_DIGITS and -308 < place < 308 else TEXT


@njit(cache=True, nogil=True)
def two_digits(data: Any, at: int) -> int:
    """The number of two digits; -1 if they are not digits."""
    a, b = int(data[at]) - 48, int(data[at + 1]) - 48
    return a * 10 + b if 0 <= a <= 9 and 0 <= b <= 9 else -1


@njit(cache=True, nogil=True)
def moment_at(data: Any, low: int, high: int) -> int:
    """DATE (YYYY-MM-DD), STAMP (with [ T]HH:MM[:SS[.ffffff]]), INSTANT (with Z), or TEXT; proleptic Gregorian, years 1-9999."""
    century, rest, month, day = (
        two_digits(data, low),
        two_digits(data, low + 2),
        two_digits(data, low + 5),
        two_digits(data, low + 8),
    )
    if century < 0 or rest < 0 or data[low + 7] != 45 or not 1 <= month <= 12:
        return TEXT
    year = century * 100 + rest
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 29 if month == 2 and leap else 28 if month == 2 else 30 if month in (4, 6, 9, 11) else 31
    if year < 1 or not 1 <= day <= longest:
        return TEXT
    return DATE if high - low == 10 else _clock(data, low + 10, high)


@njit(cache=True, nogil=True)
def _clock(data: Any, low: int, high: int) -> int:
    kind = STAMP
    if data[high - 1] == 90:
        kind, high = INSTANT, high - 1
    n = high - low
    if (n != 6 and n < 9) or n == 10 or n > 16 or (data[low] != 32 and data[low] != 84) or data[low + 3] != 58:
        return TEXT
    hour, minute = two_digits(data, low + 1), two_digits(data, low + 4)
    if not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return TEXT
    if n >= 9 and (data[low + 6] != 58 or not 0 <= two_digits(data, low + 7) <= 59):
        return TEXT
    if n > 9 and (data[low + 9] != 46 or _digits(data, low + 10, high) != n - 10):
        return TEXT
    return kind
