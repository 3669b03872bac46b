"""Documents as lower-cased bytes with a byte of flags each, and the bounds of their words and lines: where signals start from.

A document is written once more in lower case, as UTF-8, beside one byte of flags for each of its bytes. The first byte of a
character has the flags of the character, the others `CONT` (and `SPACE`, within a space). Documents of pure ASCII take one loop,
all others one that decodes code points; both meet in the same bytes. Lower case is taken a code point at a time: Σ is σ wherever
it stands, and İ, whose lower case is two characters, is i. A byte that is not part of valid UTF-8 is one U+FFFD.
"""

from __future__ import annotations

import string
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint8, uint32, uint64

from tasks.kernels.tokens import U8, U32, code_point, compiled, eight_bytes, inlined, put_utf8

Bools = npt.NDArray[np.bool_]

UPPER, CASED, DIGIT, LOOK, ALPHA, SPACE, NEWLINE, CONT = 1, 2, 4, 8, 16, 32, 64, 128
"""A character is upper case; lower or title case; numeric; ASCII punctuation or of `MARKS`; alphabetic; a space; a line's end."""

ELLIPSIS, QUOTE, BULLETS = "\u2026", "\u201d", "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013"
MARKS = ELLIPSIS + QUOTE + BULLETS  # all of them three bytes of UTF-8, the first one 0xE2
REPLACEMENT = 0xFFFD
_LIMIT = SPACE | NEWLINE
_PLAIN = 0x40000  # from here on no code point has a case or a class
_CASED, _DIGIT, _LOOK, _ALPHA, _SPACE, _NEWLINE = (
    np.uint8(flag.bit_length() - 1) for flag in (CASED, DIGIT, LOOK, ALPHA, SPACE, NEWLINE)
)


def entries(points: range) -> U32:
    """Of each code point: its lower case shifted left by 8, plus its flags. Surrogates are U+FFFD."""
    chars = [chr(REPLACEMENT) if 0xD800 <= point < 0xE000 else chr(point) for point in points]
    is_upper, is_alpha, is_space = (_all(method, chars) for method in (str.isupper, str.isalpha, str.isspace))
    flags = is_upper * UPPER + is_alpha * ALPHA + is_space * SPACE + _all(str.isnumeric, chars) * DIGIT
    flags += (_all(str.islower, chars) | _all(str.istitle, chars) & ~is_upper) * CASED
    flags += _all((string.punctuation + MARKS).__contains__, chars) * LOOK
    flags[_all("\n".__eq__, chars)] = NEWLINE
    # Python lowers İ to i and a dot above.
    lower = "".join(low if len(low) == 1 else low[0] for low in map(str.lower, chars))
    codes = np.frombuffer(lower.encode("utf-32-le"), np.uint32)
    return (codes << np.uint32(8)) | flags.astype(np.uint32)


def _all(method: object, chars: list[str]) -> Bools:
    return np.fromiter(map(method, chars), np.bool_, len(chars))  # pyright: ignore[reportArgumentType]


@cache
def flag_table() -> U32:
    """`entries` of every code point, made once in a process, when the first document that is not ASCII comes."""
    rest = np.arange(_PLAIN, 0x110000, dtype=np.uint32) << np.uint32(8)
    return np.concatenate([entries(range(_PLAIN)), rest])


_ASCII = entries(range(128))
_FLAGS = np.concatenate([(_ASCII & 0xFF).astype(np.uint8), np.zeros(128, np.uint8)])
_LOWER = np.concatenate([(_ASCII >> 8).astype(np.uint8), np.arange(128, 256, dtype=np.uint8)])


@inlined
def signed(n: np.integer[Any]) -> int:
    """An unsigned integer as int64; `int` would leave it unsigned, and the sum of both kinds is a float."""
    return int64(n)  # pyright: ignore[reportReturnType]


# --- one document --------------------------------------------------------------------------------------------------------------


BLOCK = 1 << 14
_LANE = 64  # bytes that are classified at a time


@compiled
def block_end(data: U8, at: int, end: int) -> int:
    """Where a block of the text [at, end) ends: behind white space, about `BLOCK` bytes on, later if a word is longer."""
    if end - at <= BLOCK:
        return end
    stop = at + BLOCK
    while stop > at and _FLAGS[data[stop - 1]] & _LIMIT == 0:
        stop -= 1
    if stop == at:
        stop = at + BLOCK
        while stop < end and _FLAGS[data[stop - 1]] & _LIMIT == 0:
            stop += 1
    return stop


@compiled
def chars_room(n_bytes: int) -> tuple[U8, U8, U32]:
    """Working space for blocks of up to so many bytes: (low, flags, edges).

    A byte that is not UTF-8 becomes three, and both are read up to 16 bytes past the end.
    """
    n = (3 * n_bytes + 2 * _LANE) // 8 * 8
    return np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n_bytes + 2, np.uint32)


@inlined
def _classify_ascii(low: U8, flags: U8, size: int) -> np.uint8:
    """Lower case, in place, and flags of ASCII bytes, by arithmetic alone so that it runs in SIMD; returns the OR of all bytes.

    Whole lanes are taken, up to a lane behind the end: a short document costs no more than its lanes.
    """
    seen = uint8(0)
    for lane in range(uint64(0), uint64(size), uint64(_LANE)):
        for i in range(lane, lane + uint64(_LANE)):
            byte = low[i]
            seen |= byte
            upper = uint8(uint8(byte - uint8(65)) < uint8(26))
            lower = uint8(uint8(byte - uint8(97)) < uint8(26))
            digit = uint8(uint8(byte - uint8(48)) < uint8(10))
            graph = uint8(uint8(byte - uint8(33)) < uint8(94))
            line = uint8(byte == uint8(10))
            space = uint8((byte == uint8(32)) | (uint8(byte - uint8(9)) < uint8(5)) | (uint8(byte - uint8(28)) < uint8(4)))
            low[i] = uint8(byte | uint8(upper << uint8(5)))
            letter = uint8(upper | lower)
            other = uint8(uint8(graph ^ letter) ^ digit)
            flag = uint8(uint8(letter << _ALPHA) | upper)
            flag = uint8(flag | uint8(lower << _CASED))
            flag = uint8(flag | uint8(digit << _DIGIT))
            flag = uint8(flag | uint8(other << _LOOK))
            flag = uint8(flag | uint8(uint8(space ^ line) << _SPACE))
            flags[i] = uint8(flag | uint8(line << _NEWLINE))
    return seen


@inlined
def _scan_ascii(data: U8, at: int, size: int, low: U8, flags: U8, edges: U32) -> tuple[int, int]:
    eights = low.view(np.uint64)
    n_eights = uint64(size) >> uint64(3)
    for k in range(n_eights):
        eights[k] = eight_bytes(data, uint64(at) + k * uint64(8))
    for k in range(n_eights, n_eights + uint64(_LANE // 8)):
        eights[k] = 0
    for i in range(n_eights * uint64(8), uint64(size)):
        low[i] = data[uint64(at) + i]
    if _classify_ascii(low, flags, size) & uint8(0x80):
        return -1, 0
    n_edges = uint64(0)
    last = uint8(0xFF)
    for i in range(uint64(size)):
        kind = uint8(flags[i] & uint8(_LIMIT))
        edges[n_edges] = uint32(i)
        n_edges += uint64(kind != last)
        last = kind
    edges[n_edges] = uint32(size)
    return signed(n_edges), size


@compiled
def _scan_utf8(text: U8, table: U32, low: U8, flags: U8, edges: U32) -> tuple[int, int]:
    at, here, n_edges, n_chars = uint64(0), uint64(0), uint64(0), uint64(0)
    last = uint8(0xFF)
    while at < uint64(len(text)):
        byte = text[at]
        begin = here
        if byte < uint8(128):
            flag = _FLAGS[byte]
            low[here] = _LOWER[byte]
            flags[here] = flag
            here += uint64(1)
            at += uint64(1)
        else:
            point, n_bytes = code_point(text, signed(at))
            if point < 0 or 0xD800 <= point < 0xE000:
                point, n_bytes = REPLACEMENT, 1
            entry = table[point]
            flag = uint8(entry & uint32(0xFF))
            here = uint64(put_utf8(low, signed(here), signed(entry) >> 8))
            flags[begin] = flag
            for k in range(begin + uint64(1), here):
                flags[k] = uint8(CONT) | uint8(flag & uint8(SPACE))
            at += uint64(n_bytes)
        n_chars += uint64(1)
        kind = uint8(flag & uint8(_LIMIT))
        edges[n_edges] = begin
        n_edges += uint64(kind != last)
        last = kind
    edges[n_edges] = here
    return signed(n_edges), signed(n_chars)


@inlined
def scan(data: U8, at: int, size: int, table: U32, low: U8, flags: U8, edges: U32) -> tuple[int, int]:
    """Write a block's lower case, flags, and the places where words, spaces and line ends begin; return the number of such places
    (the block's end is one more, behind them) and of characters.
    """
    n_edges, n_chars = _scan_ascii(data, at, size, low, flags, edges)
    if n_edges < 0:
        return _scan_utf8(data[at : at + size], table, low, flags, edges)
    return n_edges, n_chars
