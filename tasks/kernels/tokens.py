"""Text columns as tokens: one pass over Arrow's string buffers, for every kernel that looks at words.

A document's tokens are those of WordPunct, `\\w+|[^\\w\\s]+` on the lower-cased text, each hashed with a seed to 64 bits. A NULL
is an empty document.

A kernel writes a document once more in lower case, as UTF-8, and notes where its tokens begin and end; the hash then reads those
bytes, eight at a time. Documents of pure ASCII take a loop without branches, all others one that decodes code points; both meet
in the same bytes, so a token has one hash wherever it stands. What the second loop cannot lower by table (U+0130, whose lower
case is two characters, U+03A3, whose lower case depends on its neighbours, and invalid UTF-8) Python lowers beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt
from llvmlite.ir import FunctionType, VoidType
from numba import types, uint8, uint64
from numba.core import cgutils
from numba.extending import intrinsic

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Machine code, kept on disk between processes."""
    return cast(_F, numba.njit(function, cache=True, nogil=True))


def inlined(function: _F) -> _F:
    """As `compiled`, and part of whatever calls it: arrays cost a call more than a short document takes."""
    return cast(_F, numba.njit(function, cache=True, nogil=True, forceinline=True))


# --- characters ----------------------------------------------------------------------------------------------------------------

SPACE, WORD, PUNCT, FOREIGN = 0, 1, 2, 4
_SIGMA = 0x3A3


@cache
def unicode_table() -> U32:
    """Of every code point: its lower case shifted left by 3, plus its class; `FOREIGN` where no table can lower it.

    Taken from this interpreter's `re` and `str.lower`, once in a process, when the first document that is not ASCII comes.
    """
    lower = [chr(point).lower() for point in range(0x110000)]
    classes = np.full(0x110000, PUNCT, np.uint32)
    classes[0xD800:0xE000] = FOREIGN
    classes[_SIGMA] = FOREIGN
    for point in (i for i, text in enumerate(lower) if len(text) != 1):
        lower[point] = chr(point)
        classes[point] = FOREIGN
    text = "".join(lower)
    for pattern, kind in ((r"\w+", WORD), (r"\s+", SPACE)):
        for match in re.finditer(pattern, text):
            part = classes[match.start() : match.end()]
            part[part != FOREIGN] = kind
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return (points << np.uint32(3)) | classes


# --- one document: its lower case and the edges of its tokens -----------------------------------------------------------------

NOT_ASCII, NOT_BY_TABLE = -1, -2


@compiled
def _classify_ascii(text: U8, low: U8, kinds: U8) -> np.uint8:
    """Lower case and class of ASCII bytes, by arithmetic alone so that it runs in SIMD; returns the OR of all bytes."""
    seen = uint8(0)
    for i in range(len(text)):
        byte = text[i]
        seen |= byte
        upper = uint8(uint8(byte - uint8(65)) < uint8(26))
        lower = uint8(byte | uint8(upper << uint8(5)))
        word = (uint8(lower - uint8(97)) < uint8(26)) | (uint8(byte - uint8(48)) < uint8(10)) | (byte == uint8(95))
        space = (byte == uint8(32)) | (uint8(byte - uint8(9)) < uint8(5)) | (uint8(byte - uint8(28)) < uint8(4))
        low[i] = lower
        kinds[i] = uint8(PUNCT) - uint8(word) - uint8(uint8(space) << uint8(1))
    return seen


@compiled
def split_ascii(text: U8, low: U8, kinds: U8, edges: U32, starts: U32, ends: U32) -> np.int64:
    """Lower-case a document into `low`, its tokens' bounds into `starts` and `ends`; return their number, or `NOT_ASCII`."""
    if _classify_ascii(text, low, kinds) & uint8(0x80):
        return np.int64(NOT_ASCII)
    n_edges = uint64(0)
    last = uint8(SPACE)
    for i in range(len(text)):
        edges[n_edges] = i
        n_edges += uint64(kinds[i] != last)
        last = kinds[i]
    edges[n_edges] = len(text)
    n_tokens = uint64(0)
    for k in range(n_edges):
        starts[n_tokens] = edges[k]
        ends[n_tokens] = edges[k + uint64(1)]
        n_tokens += uint64(kinds[edges[k]] != SPACE)
    return np.int64(n_tokens)  # a signed and an unsigned result would make a float


@compiled
def code_point(text: U8, at: int) -> tuple[int, int]:
    """The code point at a byte of UTF-8 and its length in bytes; (-1, 1) where the bytes are not valid UTF-8."""
    first = int(text[at])
    if first < 0x80:
        return first, 1
    n_bytes = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or first > 0xF4 or at + n_bytes > len(text):
        return -1, 1
    point = first & (0x7F >> n_bytes)
    for i in range(1, n_bytes):
        byte = int(text[at + i])
        if byte & 0xC0 != 0x80:
            return -1, 1
        point = (point << 6) | (byte & 0x3F)
    shortest = 0x80 if n_bytes == 2 else 0x800 if n_bytes == 3 else 0x10000
    return (point, n_bytes) if shortest <= point < 0x110000 else (-1, 1)


@compiled
def put_utf8(low: U8, at: int, point: int) -> int:
    """Write a code point as UTF-8; return the place behind it."""
    if point < 0x80:
        low[at] = point
        return at + 1
    n_bytes = 2 if point < 0x800 else 3 if point < 0x10000 else 4
    for i in range(n_bytes - 1, 0, -1):
        low[at + i] = 0x80 | (point & 0x3F)
        point >>= 6
    low[at] = ((0xF00 >> n_bytes) & 0xFF) | point
    return at + n_bytes


@compiled
def split_utf8(text: U8, table: U32, low: U8, starts: U32, ends: U32) -> int:
    """As `split_ascii`, for any document; return `NOT_BY_TABLE` where a character has to be lowered by Python."""
    at, here, n_tokens = 0, 0, 0
    last = SPACE
    while at < len(text):
        point, n_bytes = code_point(text, at)
        entry = table[point] if point >= 0 else FOREIGN
        kind = int(entry) & 7
        if kind == FOREIGN:
            return NOT_BY_TABLE
        if kind != last:
            if last != SPACE:
                ends[n_tokens - 1] = here
            if kind != SPACE:
                starts[n_tokens] = here
                n_tokens += 1
            last = kind
        here = put_utf8(low, here, int(entry) >> 3)
        at += n_bytes
    if last != SPACE:
        ends[n_tokens - 1] = here
    return n_tokens


@compiled
def split(text: U8, table: U32, low: U8, kinds: U8, edges: U32, starts: U32, ends: U32) -> int:
    """The number of a document's tokens, whose bounds in `low` it writes; without a table only documents of pure ASCII are taken,
    and a negative number says that one was left out."""
    if len(table) == 0:
        return int(split_ascii(text, low, kinds, edges, starts, ends))
    return split_utf8(text, table, low, starts, ends)


# --- the hash ------------------------------------------------------------------------------------------------------------------

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_THREE, _SEVEN, _EIGHT, _32, _63 = np.uint64(3), np.uint64(7), np.uint64(8), np.uint64(32), np.uint64(63)


@compiled
def fold(state: np.uint64, word: np.uint64) -> np.uint64:
    """Absorb eight bytes: a bijection of the state for each word, and of the word for each state."""
    x = (state ^ word) * GOLDEN
    return x ^ (x >> _32)


@intrinsic  # pyright: ignore[reportUntypedFunctionDecorator]
def _load(_: Any, words: Any, at: Any) -> Any:
    """Eight bytes from any byte on in one instruction; numba itself reads aligned ones alone."""

    def emit(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, eight = (target.get_value_type(kind).as_pointer() for kind in (types.uint8, types.uint64))
        first = builder.bitcast(target.make_array(signature.args[0])(target, builder, values[0]).data, byte)
        return builder.load(builder.bitcast(builder.gep(first, [values[1]]), eight), align=1)

    return types.uint64(words, at), emit


@intrinsic  # pyright: ignore[reportUntypedFunctionDecorator]
def _ones(_: Any, word: Any) -> Any:
    def emit(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(word), emit


@intrinsic  # pyright: ignore[reportUntypedFunctionDecorator]
def fetch(_: Any, array: Any, k: Any) -> Any:
    """Ask for an item of an array that is read soon, at a place that need not be there."""

    def emit(target: Any, builder: Any, signature: Any, values: Any) -> None:
        pointer, flag = (target.get_value_type(kind) for kind in (types.voidptr, types.int32))
        first = target.make_array(signature.args[0])(target, builder, values[0]).data
        item = builder.bitcast(builder.gep(first, [values[1]]), pointer)
        call = cgutils.get_or_insert_function(
            builder.module, FunctionType(VoidType(), [pointer, flag, flag, flag]), "llvm.prefetch.p0"
        )
        builder.call(call, [item, flag(0), flag(3), flag(1)])

    return types.void(array, k), emit


@inlined
def eight_bytes(words: U64 | U8, at: np.uint64) -> np.uint64:
    """The eight bytes from byte `at` on, the first one lowest, out of a buffer."""
    return _load(words, uint64(at))  # pyright: ignore[reportCallIssue]


@inlined
def n_ones(word: np.uint64) -> np.uint64:
    """The bits that are set."""
    return _ones(uint64(word))  # pyright: ignore[reportCallIssue]


@compiled
def token_hash(words: U64, at: np.uint64, size: np.uint64, start: np.uint64) -> np.uint64:
    """The 64-bit hash of the `size` > 0 bytes from byte `at` on: full words folded, the rest with zeros behind, then the size."""
    state = start
    left = size
    while left > _EIGHT:
        state = fold(state, eight_bytes(words, at))
        at += _EIGHT
        left -= _EIGHT
    rest = eight_bytes(words, at) & (_ALL >> ((_EIGHT - left) << _THREE))
    return fold(fold(state, rest), size)


# --- working space ------------------------------------------------------------------------------------------------------------


@compiled
def room(n_bytes: int) -> tuple[U8, U8, U32, U32, U32, U32]:
    """Working space for documents of up to so many bytes: (low, kinds, edges, starts, ends, buckets).

    Lower case takes up to one and a half times the bytes, and is read up to 16 bytes past its end.
    """
    low = np.zeros((2 * n_bytes + 64) // 8 * 8, np.uint8)
    n = n_bytes + 2
    return (
        low,
        np.empty(n, np.uint8),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(2 * n, np.uint32),
    )


# --- Arrow in ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Documents as bytes [begin, begin + size) of a buffer."""

    data: U8
    begins: I64
    sizes: I64

    def take(self, which: I64) -> Texts:
        return Texts(self.data, self.begins[which], self.sizes[which])


def start_of(seed: int) -> np.uint64:
    """The state that tokens start from: the seed, mixed by splitmix64."""
    x = (seed + int(GOLDEN)) & int(_ALL)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & int(_ALL)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & int(_ALL)
    return np.uint64(x ^ (x >> 31))


def in_passes(texts: Texts, run: Callable[[Texts, I64, U32], I64]) -> None:
    """Hand documents to a kernel until none is left out: those of pure ASCII, those lowered by table, those lowered by Python.

    `run(texts, places, table)` takes documents, their places in the column and the table (of length 0 at first), and returns a
    number a document: negative for one that it left out.
    """
    places = np.arange(len(texts.sizes))
    table = np.empty(0, np.uint32)
    while len(places):
        left = np.flatnonzero(run(texts, places, table) < 0)
        texts, places = texts.take(left), places[left]
        texts = texts if not len(table) or not len(left) else lowered(texts)
        table = unicode_table() if len(left) else table


def lowered(texts: Texts) -> Texts:
    """The same documents in lower case by `str.lower`; bytes that are not UTF-8 become U+FFFD."""
    raw = [texts.data[b : b + n].tobytes() for b, n in zip(texts.begins, texts.sizes, strict=True)]
    lower = [text.decode("utf-8", "replace").lower().encode() for text in raw]
    return texts_of(pa.array(lower, pa.large_binary()))


def text_chunks(array: pa.Array | pa.ChunkedArray) -> Iterator[Texts]:
    """The buffers of a text column, chunk by chunk, without copying the text; NULL as a document of size 0."""
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        yield texts_of(chunk)


def texts_of(array: pa.Array) -> Texts:
    if pt.is_dictionary(array.type) or pt.is_string_view(array.type) or pt.is_null(array.type):
        array = array.cast(pa.large_string())
    large = pt.is_large_string(array.type) or pt.is_large_binary(array.type)
    if not (large or pt.is_string(array.type) or pt.is_binary(array.type)):
        raise TypeError(f"n-grams are taken of text columns, not of {array.type}")
    buffers = array.buffers()
    if not len(array) or buffers[1] is None:
        return Texts(np.zeros(1, np.uint8), np.zeros(len(array), np.int64), np.zeros(len(array), np.int64))
    kind = np.int64 if large else np.int32
    offsets = np.frombuffer(buffers[1], kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    sizes = np.diff(offsets)
    if array.null_count:
        sizes[np.asarray(array.is_null())] = 0
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None and buffers[2].size else np.zeros(1, np.uint8)
    return Texts(data, offsets[:-1], sizes)
