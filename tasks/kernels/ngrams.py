"""Hashed unigrams and bigrams of text columns, in one pass over Arrow's string buffers.

A document's tokens are those of WordPunct, `\\w+|[^\\w\\s]+` on the lower-cased text; its n-grams are its tokens and its pairs of
neighbouring tokens, each hashed with a seed to 64 bits and from there to one of `n_buckets` buckets (Xie et al., "Data Selection
for Language Models via Importance Resampling", arXiv 2302.03169, with a hash of our own). A NULL is an empty document.

A kernel writes a document once more in lower case, as UTF-8, and notes where its tokens begin and end; the hash then reads those
bytes, eight at a time. Documents of pure ASCII take a loop without branches, all others one that decodes code points; both meet
in the same bytes, so a token has one hash wherever it stands. What the second loop cannot lower by table (U+0130, whose lower
case is two characters, U+03A3, whose lower case depends on its neighbours, and invalid UTF-8) Python lowers beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt
from numba import uint8, uint64

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    """Machine code, kept on disk between processes."""
    return cast(_F, numba.njit(function, cache=True, nogil=True))


# --- characters ----------------------------------------------------------------------------------------------------------------

_SPACE, _WORD, _PUNCT, _FOREIGN = 0, 1, 2, 4
_SIGMA = 0x3A3


@cache
def _unicode_table() -> U32:
    """Of every code point: its lower case shifted left by 3, plus its class; `_FOREIGN` where no table can lower it.

    Taken from this interpreter's `re` and `str.lower`, once in a process, when the first document that is not ASCII comes.
    """
    lowered = [chr(point).lower() for point in range(0x110000)]
    classes = np.full(0x110000, _PUNCT, np.uint32)
    classes[0xD800:0xE000] = _FOREIGN
    classes[_SIGMA] = _FOREIGN
    for point in (i for i, text in enumerate(lowered) if len(text) != 1):
        lowered[point] = chr(point)
        classes[point] = _FOREIGN
    text = "".join(lowered)
    for pattern, kind in ((r"\w+", _WORD), (r"\s+", _SPACE)):
        for match in re.finditer(pattern, text):
            part = classes[match.start() : match.end()]
            part[part != _FOREIGN] = kind
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return (points << np.uint32(3)) | classes


# --- one document: its lower case and the edges of its tokens -----------------------------------------------------------------

_NOT_ASCII, _NOT_BY_TABLE = -1, -2


@_compiled
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
        kinds[i] = uint8(_PUNCT) - uint8(word) - uint8(uint8(space) << uint8(1))
    return seen


@_compiled
def _split_ascii(text: U8, low: U8, kinds: U8, edges: U32, starts: U32, ends: U32) -> int:
    """Lower-case a document into `low`, its tokens' bounds into `starts` and `ends`; return their number, or `_NOT_ASCII`."""
    if _classify_ascii(text, low, kinds) & uint8(0x80):
        return _NOT_ASCII
    n_edges = uint64(0)
    last = uint8(_SPACE)
    for i in range(len(text)):
        edges[n_edges] = i
        n_edges += uint64(kinds[i] != last)
        last = kinds[i]
    edges[n_edges] = len(text)
    n_tokens = uint64(0)
    for k in range(n_edges):
        starts[n_tokens] = edges[k]
        ends[n_tokens] = edges[k + uint64(1)]
        n_tokens += uint64(kinds[edges[k]] != _SPACE)
    return int(n_tokens)


@_compiled
def _code_point(text: U8, at: int) -> tuple[int, int]:
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


@_compiled
def _put_utf8(low: U8, at: int, point: int) -> int:
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


@_compiled
def _split_utf8(text: U8, table: U32, low: U8, starts: U32, ends: U32) -> int:
    """As `_split_ascii`, for any document; return `_NOT_BY_TABLE` where a character has to be lowered by Python."""
    at, here, n_tokens = 0, 0, 0
    last = _SPACE
    while at < len(text):
        point, n_bytes = _code_point(text, at)
        entry = table[point] if point >= 0 else _FOREIGN
        kind = int(entry) & 7
        if kind == _FOREIGN:
            return _NOT_BY_TABLE
        if kind != last:
            if last != _SPACE:
                ends[n_tokens - 1] = here
            if kind != _SPACE:
                starts[n_tokens] = here
                n_tokens += 1
            last = kind
        here = _put_utf8(low, here, int(entry) >> 3)
        at += n_bytes
    if last != _SPACE:
        ends[n_tokens - 1] = here
    return n_tokens


# --- the hash ------------------------------------------------------------------------------------------------------------------

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_THREE, _SEVEN, _EIGHT, _32, _63 = np.uint64(3), np.uint64(7), np.uint64(8), np.uint64(32), np.uint64(63)


@_compiled
def _fold(state: np.uint64, word: np.uint64) -> np.uint64:
    """Absorb eight bytes: a bijection of the state for each word, and of the word for each state."""
    x = (state ^ word) * _GOLDEN
    return x ^ (x >> _32)


@_compiled
def _eight_bytes(words: U64, at: np.uint64) -> np.uint64:
    """The eight bytes from byte `at` on, the first one lowest, out of a buffer seen as aligned 64-bit words."""
    shift = (at & _SEVEN) << _THREE
    k = at >> _THREE
    return (words[k] >> shift) | ((words[k + uint64(1)] << uint64(1)) << (_63 - shift))


@_compiled
def _token_hash(words: U64, at: np.uint64, size: np.uint64, start: np.uint64) -> np.uint64:
    """The 64-bit hash of the `size` > 0 bytes from byte `at` on: full words folded, the rest with zeros behind, then the size."""
    state = start
    left = size
    while left > _EIGHT:
        state = _fold(state, _eight_bytes(words, at))
        at += _EIGHT
        left -= _EIGHT
    rest = _eight_bytes(words, at) & (_ALL >> ((_EIGHT - left) << _THREE))
    return _fold(_fold(state, rest), size)


@_compiled
def _bucket(hashed: np.uint64, n_buckets: np.uint64) -> np.uint64:
    return ((hashed >> _32) * n_buckets) >> _32


@_compiled
def _hash_tokens(words: U64, starts: U32, ends: U32, n_tokens: int, start: np.uint64, n_buckets: np.uint64, out: U32) -> None:
    """Buckets of a document's n-grams: the first token's, then of each token that of the pair it ends and its own.

    They stand at out[1:2 * n_tokens]; out[0] is scratch, so that the first token needs no branch.
    """
    previous = uint64(0)
    for j in range(n_tokens):
        at = uint64(starts[j])
        hashed = _token_hash(words, at, uint64(ends[j]) - at, start)
        out[2 * j] = _bucket(_fold(previous * _GOLDEN, hashed), n_buckets)
        out[2 * j + 1] = _bucket(hashed, n_buckets)
        previous = hashed


# --- one array -----------------------------------------------------------------------------------------------------------------

_TOKENS, _COUNT, _SCORE, _FILL = 0, 1, 2, 3


@_compiled
def _room(n_bytes: int) -> tuple[U8, U8, U32, U32, U32, U32]:
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


@_compiled
def _run(
    mode: int,
    data: U8,
    begins: I64,
    sizes: I64,
    table: U32,
    start: np.uint64,
    n_buckets: np.uint64,
    max_tokens: int,
    weights: I64,
    places: I64,
    sums: I64,
    n_tokens: I64,
    buckets: I32,
) -> None:
    """One pass over documents. `n_tokens` is always written, and is negative for a document that was left out.

    `_COUNT` adds 1 to weights[bucket] for each n-gram; `_SCORE` writes Σ weights[bucket] to `sums`; `_FILL` writes a document's
    buckets to `buckets` from its place on. Without a `table` (length 0), only documents of pure ASCII are taken.
    """
    capacity = 1 << 14
    low, kinds, edges, starts, ends, grams = _room(capacity)
    for d in range(len(begins)):
        size = sizes[d]
        if size > capacity:
            capacity = size + size // 2
            low, kinds, edges, starts, ends, grams = _room(capacity)
        text = data[begins[d] : begins[d] + size]
        if len(table) == 0:
            n = _split_ascii(text, low, kinds, edges, starts, ends)
        else:
            n = _split_utf8(text, table, low, starts, ends)
        n = min(n, max_tokens)
        n_tokens[d] = n
        if mode == _TOKENS or n <= 0:
            continue
        _hash_tokens(low.view(np.uint64), starts, ends, n, start, n_buckets, grams)
        if mode == _COUNT:
            for k in range(1, 2 * n):
                weights[grams[k]] += 1
        elif mode == _SCORE:
            total = 0
            for k in range(1, 2 * n):
                total += weights[grams[k]]
            sums[d] = total
        else:
            for k in range(1, 2 * n):
                buckets[places[d] + k - 1] = grams[k]


# --- Arrow in, NumPy out -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Texts:
    """Documents as bytes [begin, begin + size) of a buffer."""

    data: U8
    begins: I64
    sizes: I64

    def take(self, which: I64) -> _Texts:
        return _Texts(self.data, self.begins[which], self.sizes[which])


@dataclass(frozen=True)
class _Job:
    """What a pass does with the n-grams, see `_run`."""

    mode: int
    seed: int = 0
    n_buckets: int = 1
    max_tokens: int = 1 << 62
    weights: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    buckets: I32 = field(default_factory=lambda: np.empty(0, np.int32))


def count_ngrams(array: pa.Array | pa.ChunkedArray, *, n_buckets: int, seed: int) -> I64:
    """How often the n-grams of all documents fall into each bucket, int64 of shape (n_buckets,)."""
    job = _Job(_COUNT, seed, n_buckets, weights=np.zeros(n_buckets, np.int64))
    for texts in _texts(array):
        _visit(job, texts, np.zeros(len(texts.sizes), np.int64))
    return job.weights


def count_tokens(array: pa.Array | pa.ChunkedArray) -> I64:
    """Tokens of each document, int64 of shape (n,). One that has t > 0 tokens has 2t - 1 n-grams."""
    return _joined([_visit(_Job(_TOKENS), texts, np.zeros(len(texts.sizes), np.int64))[1] for texts in _texts(array)])


def score_ngrams(array: pa.Array | pa.ChunkedArray, ratios: I64, *, seed: int) -> tuple[I64, I64]:
    """Σ ratios[bucket] over the n-grams of each document, and its number of tokens; both int64 of shape (n,).

    `ratios` holds integers (fixed point), one a bucket: sums are exact and owe nothing to the order of the n-grams.
    """
    job = _Job(_SCORE, seed, len(ratios), weights=np.ascontiguousarray(ratios, np.int64))
    passes = [_visit(job, texts, np.zeros(len(texts.sizes), np.int64)) for texts in _texts(array)]
    return _joined([sums for sums, _ in passes]), _joined([n_tokens for _, n_tokens in passes])


def token_buckets(
    array: pa.Array | pa.ChunkedArray, *, n_buckets: int, seed: int, max_tokens: int | None = None
) -> tuple[I64, I32]:
    """The buckets of each document's n-grams, as offsets (n + 1,) into buckets (offsets[-1],): the bag of an embedding bag.

    Within a document they stand as: first token, then of every further token the pair it ends and itself.
    `max_tokens` keeps a document's first tokens only.
    """
    limit = 1 << 62 if max_tokens is None else max_tokens
    chunks = list(_texts(array))
    sizes = [_visit(_Job(_TOKENS, max_tokens=limit), texts, texts.begins)[1] for texts in chunks]
    n_grams = np.maximum(2 * _joined(sizes) - 1, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_grams)])
    job = _Job(_FILL, seed, n_buckets, limit, buckets=np.empty(offsets[-1], np.int32))
    done = 0
    for texts in chunks:
        _visit(job, texts, offsets[done : done + len(texts.sizes)])
        done += len(texts.sizes)
    return offsets, job.buckets


def _joined(parts: list[I64]) -> I64:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _visit(job: _Job, texts: _Texts, places: I64, table: U32 | None = None) -> tuple[I64, I64]:
    """(sums, n_tokens) of documents; what one pass leaves out goes to the next: ASCII, by table, lowered by Python."""
    known = np.empty(0, np.uint32) if table is None else table
    start = _start_of(job.seed)
    sums = np.zeros(len(texts.sizes), np.int64)
    n_tokens = np.zeros(len(texts.sizes), np.int64)
    _run(
        job.mode, texts.data, texts.begins, texts.sizes, known, start, np.uint64(job.n_buckets), job.max_tokens,
        job.weights, places, sums, n_tokens, job.buckets,
    )  # fmt: skip
    left = np.flatnonzero(n_tokens < 0)
    if len(left):
        rest = texts.take(left)
        sums[left], n_tokens[left] = _visit(job, rest if table is None else _lowered(rest), places[left], _unicode_table())
    return sums, n_tokens


def _start_of(seed: int) -> np.uint64:
    """The state that tokens start from: the seed, mixed by splitmix64."""
    x = (seed + int(_GOLDEN)) & int(_ALL)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & int(_ALL)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & int(_ALL)
    return np.uint64(x ^ (x >> 31))


def _lowered(texts: _Texts) -> _Texts:
    """The same documents in lower case by `str.lower`; bytes that are not UTF-8 become U+FFFD."""
    raw = [texts.data[b : b + n].tobytes() for b, n in zip(texts.begins, texts.sizes, strict=True)]
    lowered = [text.decode("utf-8", "replace").lower().encode() for text in raw]
    return next(_texts(pa.array(lowered, pa.large_binary())))


def _texts(array: pa.Array | pa.ChunkedArray) -> Iterator[_Texts]:
    """The buffers of a text column, chunk by chunk, without copying the text; NULL as a document of size 0."""
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        yield _texts_of(chunk)


def _texts_of(array: pa.Array) -> _Texts:
    if pt.is_dictionary(array.type) or pt.is_string_view(array.type) or pt.is_null(array.type):
        array = array.cast(pa.large_string())
    large = pt.is_large_string(array.type) or pt.is_large_binary(array.type)
    if not (large or pt.is_string(array.type) or pt.is_binary(array.type)):
        raise TypeError(f"n-grams are taken of text columns, not of {array.type}")
    buffers = array.buffers()
    if not len(array) or buffers[1] is None:
        return _Texts(np.zeros(1, np.uint8), np.zeros(len(array), np.int64), np.zeros(len(array), np.int64))
    kind = np.int64 if large else np.int32
    offsets = np.frombuffer(buffers[1], kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    sizes = np.diff(offsets)
    if array.null_count:
        sizes[np.asarray(array.is_null())] = 0
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None and buffers[2].size else np.zeros(1, np.uint8)
    return _Texts(data, offsets[:-1], sizes)
