"""Values as a table's own habits write them, read as what they mean: words for NULL, decimal commas, days in local formats. Pure.

Every value is read by itself, so blocks and files cannot change what it means; and its spelling is kept beside what it is read
as, because a column that turns out to be text keeps its values as they are written. `null_strings` are NULL everywhere, also in
columns of text, beside the words that are NULL in typed columns anyway.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from infra.settings import ConfigError, ReadSettings
from tasks.ingest.fields import U8, Fields

_CLOCK = re.compile(r"%[HIMSfpXcsT]")
_NUMBER = re.compile(r"[-+]?\d*[.,]?\d*")
_MAX_MOMENT = 64  # bytes: no day or time is longer
_NO_NUMBER = b"?"


@dataclass(frozen=True)
class Spelled:
    """Fields that are read otherwise than they are spelled: `read` tells their kinds and values, `spelled` is what is kept of a
    column of text. To a reader, the same as `Fields`."""

    spelled: Fields
    read: Fields

    @property
    def names(self) -> tuple[str, ...]:
        return self.spelled.names

    @property
    def num_rows(self) -> int:
        return self.spelled.num_rows

    @property
    def n_bytes(self) -> int:
        return self.spelled.n_bytes + self.read.n_bytes

    @property
    def columns(self) -> list[pa.StringArray]:
        return self.spelled.columns

    def kinds(self, place: int) -> int:
        return self.read.kinds(place)

    def text(self, place: int) -> pa.StringArray:
        return self.spelled.text(place)

    def typed(self, place: int, kind: pa.DataType, mask: int) -> pa.Array:
        return (self.spelled if pa.types.is_string(kind) else self.read).typed(place, kind, mask)


def normalised(rows: Fields, options: ReadSettings, *, spelled: Collection[str] = ()) -> Fields | Spelled:
    """The fields as the options say they are to be read. In the columns `spelled` (any case: those of ids) only words for NULL
    are; columns with a type of their own (`options.types`) are read when that type is applied, see `normal_text`.

    With decimal_mark = ",", 1.234,56 is 1234.56, and dots stand between groups of three digits only: 1.5 is text. A value that
    one of the date_formats (Python's strptime, the first one that fits) reads is a day or a time, with %z in UTC; a plain number
    never is.
    """
    if options.null_strings:
        rows = _nulled(rows, [word.encode() for word in options.null_strings])
    kept = {name.lower() for name in (*options.types, *spelled)}
    places = [place for place, name in enumerate(rows.names) if name.lower() not in kept]
    read = _dated(rows, places, options.date_formats, numbers=False) if options.date_formats else rows
    if options.decimal_mark == ",":  # after the days: 31.12.2020 is no number
        read = _dotted(read, places)
    return rows if read is rows else Spelled(rows, read)


def normal_text(column: pa.StringArray, options: ReadSettings, *, moments: bool) -> pa.StringArray:
    """One column of text with its words for NULL, and with its days and times (`moments`: also where they are plain numbers), or
    else its numbers, as ISO 8601 and Python write them."""
    rows = _of_text(column)
    if options.null_strings:
        rows = _nulled(rows, [word.encode() for word in options.null_strings])
    if moments and options.date_formats:
        rows = _dated(rows, [0], options.date_formats, numbers=True)
    elif not moments and options.decimal_mark == ",":
        rows = _dotted(rows, [0])
    return rows.text(0)


def _of_text(column: pa.StringArray) -> Fields:
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    starts, ends = places[:-1].copy(), places[1:].copy()
    gone = np.asarray(column.is_null())
    ends[gone] = starts[gone] - 1
    buffer = np.frombuffer(data if data is not None and data.size else bytes(1), np.uint8)
    return Fields(("",), buffer, starts[np.newaxis], ends[np.newaxis])


# --- NULL -------------------------------------------------------------------------------------------------------------------


def _nulled(rows: Fields, words: Sequence[bytes]) -> Fields:
    ends = rows.ends.copy()
    for word in words:
        here = np.nonzero(rows.ends - rows.starts == len(word))
        starts = rows.starts[here]
        same = np.ones(len(starts), np.bool_)
        for place, byte in enumerate(word):
            same &= rows.buffer[starts + place] == byte
        found = tuple(axis[same] for axis in here)
        ends[found] = rows.starts[found] - 1
    return Fields(rows.names, rows.buffer, rows.starts, ends)


# --- numbers ----------------------------------------------------------------------------------------------------------------


def _dotted(rows: Fields, places: Sequence[int]) -> Fields:
    """Numbers with a decimal comma as numbers with a point; what is a number with a point becomes text."""
    starts, ends = rows.starts.copy(), rows.ends.copy()
    chosen = np.array(places, np.int64)
    n_bytes = len(_NO_NUMBER) + int(_n_marked(rows.buffer, starts, ends, chosen))
    buffer = np.concatenate([rows.buffer, np.zeros(n_bytes, np.uint8)])
    buffer[len(rows.buffer)] = _NO_NUMBER[0]
    if not _write_dotted(buffer, len(rows.buffer), starts, ends, chosen):
        return rows
    buffer.flags.writeable = False  # one signature for the kernels
    return Fields(rows.names, buffer, starts, ends)


@njit(cache=True, nogil=True)
def _n_marked(data: Any, starts: Any, ends: Any, places: Any) -> int:
    """How many bytes the values with a point or a comma have."""
    total = 0
    for j in places:
        for i in range(starts.shape[1]):
            for k in range(starts[j, i], ends[j, i]):
                if data[k] == 44 or data[k] == 46:
                    total += ends[j, i] - starts[j, i]
                    break
    return total


@njit(cache=True, nogil=True)
def _write_dotted(data: Any, to: int, starts: Any, ends: Any, places: Any) -> bool:
    """Writes the numbers with a decimal comma or groups from place `to` + 1 on; the byte at `to` stands for no number."""
    none, to, changed = to, to + 1, False
    for j in places:
        for i in range(starts.shape[1]):
            low, high, verdict = _verdict(data, starts[j, i], ends[j, i])
            if verdict == _PLAIN_VALUE:
                continue
            changed = True
            if verdict == _POINT_VALUE:
                starts[j, i], ends[j, i] = none, none + 1
                continue
            starts[j, i] = to
            for k in range(low, high):
                if data[k] != 46:
                    data[to] = 46 if data[k] == 44 else data[k]
                    to += 1
            ends[j, i] = to
    return changed


_PLAIN_VALUE, _POINT_VALUE, _COMMA_VALUE = 0, 1, 2


@njit(cache=True, nogil=True)
def _verdict(data: Any, low: int, high: int) -> Any:
    """Where the value lies without blanks around it; whether it is a number with a decimal comma or groups, looks like one with a
    point, or is anything else."""
    while low < high and (data[low] == 32 or data[low] == 9):
        low += 1
    while high > low and (data[high - 1] == 32 or data[high - 1] == 9):
        high -= 1
    n_points, n_commas = 0, 0
    for k in range(low, high):
        c = data[k]
        if c == 46:
            n_points += 1
        elif c == 44:
            n_commas += 1
        elif not (48 <= c <= 57 or c == 45 or c == 43 or c == 69 or c == 101):
            return low, high, _PLAIN_VALUE
    if n_points + n_commas == 0:
        return low, high, _PLAIN_VALUE
    return low, high, _COMMA_VALUE if _is_comma_number(data, low, high) else _POINT_VALUE if n_points else _PLAIN_VALUE


@njit(cache=True, nogil=True)
def _is_comma_number(data: Any, low: int, high: int) -> bool:
    i = low + 1 if low < high and data[low] == 45 else low
    end = _skipped(data, i, high)
    n_whole = end - i
    if end < high and data[end] == 46 and (n_whole == 0 or n_whole > 3):
        return False
    while end < high and data[end] == 46:
        if _skipped(data, end + 1, high) != end + 4:
            return False
        end += 4
    n_part = 0
    if end < high and data[end] == 44:
        n_part = _skipped(data, end + 1, high) - end - 1
        end += 1 + n_part
    if n_whole + n_part == 0:
        return False
    if end < high and (data[end] == 69 or data[end] == 101):
        end += 1
        end += 1 if end < high and (data[end] == 45 or data[end] == 43) else 0
        digits = _skipped(data, end, high)
        if digits == end:
            return False
        end = digits
    return end == high


@njit(cache=True, nogil=True)
def _skipped(data: Any, at: int, high: int) -> int:
    """The place behind the digits that stand at `at`."""
    while at < high and 48 <= data[at] <= 57:
        at += 1
    return at


# --- days and times ---------------------------------------------------------------------------------------------------------


def _dated(rows: Fields, places: Sequence[int], formats: tuple[str, ...], *, numbers: bool) -> Fields:
    """Values that a format reads, as ISO 8601; `numbers`: also those that are plain numbers."""
    pattern = _pattern(formats)
    starts, ends = rows.starts.copy(), rows.ends.copy()
    written, at = list[bytes](), len(rows.buffer)
    for place in places:
        for text, found in _distinct(rows, place, pattern):
            moment = _iso(text, formats, numbers)
            if moment is not None:
                starts[place, found], ends[place, found] = at, at + len(moment)
                written.append(moment)
                at += len(moment)
    if not written:
        return rows
    buffer: U8 = np.concatenate([rows.buffer, np.frombuffer(b"".join(written), np.uint8)])
    buffer.flags.writeable = False  # one signature for the kernels
    return Fields(rows.names, buffer, starts, ends)


def _distinct(rows: Fields, place: int, pattern: str) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """The different values of a column that are short and have the pattern, and where each stands."""
    n_bytes = rows.ends[place] - rows.starts[place]
    chosen = np.flatnonzero((n_bytes > 0) & (n_bytes <= _MAX_MOMENT))
    starts, ends = (np.ascontiguousarray(side[place : place + 1, chosen]) for side in (rows.starts, rows.ends))
    texts = Fields(("",), rows.buffer, starts, ends).text(0)
    fits = pc.match_substring_regex(texts, pattern)
    chosen, encoded = chosen[np.asarray(fits)], texts.filter(fits).dictionary_encode()
    if not len(chosen):
        return []
    codes = np.asarray(encoded.indices)
    order = np.argsort(codes, kind="stable")
    groups = np.split(chosen[order], np.flatnonzero(np.diff(codes[order])) + 1)
    return list(zip(encoded.dictionary.to_pylist(), groups, strict=True))


@cache
def _pattern(formats: tuple[str, ...]) -> str:
    """What a value must look like (RE2) for any of the formats to read it; most text is told apart by that at little cost.

    Raises `ConfigError` for a format that Python's strptime has no meaning for.
    """
    for form in formats:
        try:
            datetime.strptime(datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).strftime(form), form)
        except ValueError:
            raise ConfigError(f"date_formats: {form!r} is no format of Python's strptime. Write one like %d.%m.%Y") from None
    return f"(?i)^[ \\t]*(?:{'|'.join(map(_loose, formats))})[ \\t]*$"


def _loose(form: str) -> str:
    """A format as a pattern: numbers are digits, other directives anything, blanks any blanks, the rest itself."""
    parts = re.findall(r"%.|\s+|[^%\s]+", form)
    digits = {f"%{letter}": "[ 0-9]+" for letter in "dmyYHIMSfjUWwuVG"}
    return "".join(digits.get(p, ".+") if p[0] == "%" else r"\s+" if p.isspace() else re.escape(p) for p in parts)


def _iso(text: str, formats: tuple[str, ...], numbers: bool) -> bytes | None:
    text = text.strip(" \t")
    if not numbers and _NUMBER.fullmatch(text):
        return None
    for form in formats:
        try:
            moment = datetime.strptime(text, form)
            zone = "" if moment.tzinfo is None else "Z"
            moment = moment if not zone else moment.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            continue
        return (moment.isoformat() + zone if _CLOCK.search(form) else moment.date().isoformat()).encode()
    return None
