"""Which windows of `n` words of text columns also stand in given texts: exact sets of hashed n-grams, with the bytes of each hit.

Words are `\\w+` of the lower-cased text: punctuation, case and space between words do not count, and the final sigma is a sigma.
Invalid UTF-8 separates words. Of a text's words the window (w_0 ... w_{n-1}) is hashed as Σ h(w_i)·B^(n-1-i) mod 2^64, mixed with
n; as prefix sums of the text, all windows of all lengths cost one multiplication each. Two different windows share a 64-bit hash
with probability 5e-20, so 1e10 windows of a pool against 1e6 n-grams make one false hit in 2,000 such runs.

A window is first looked up in a bitmap (at least 16 bits an n-gram, so that one stranger in 16 passes at most), then in an
open-addressed table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint64

from tasks.kernels.tokens import (
    FOREIGN,
    I32,
    I64,
    NOT_ASCII,
    U8,
    U32,
    U64,
    WORD,
    Texts,
    code_point,
    compiled,
    fold,
    in_passes,
    put_utf8,
    room,
    split_ascii,
    start_of,
    text_chunks,
    token_hash,
)

FEWEST_WORDS = 5
_BASE = np.uint64(0xD1342543DE82EF95)
_START = start_of(0)
_ONE, _SIX, _63 = np.uint64(1), np.uint64(6), np.uint64(63)
_SIGMA, _FINAL_SIGMA, _DOTTED_I = 0x3A3, 0x3C2, 0x130


# --- one document: its words, their hashes, and where they stand ---------------------------------------------------------------


@compiled
def _words_ascii(text: U8, low: U8, kinds: U8, edges: U32, starts: U32, ends: U32) -> int:
    """The number of a document's words, whose bounds it writes; `NOT_ASCII` where the document is left out."""
    n_tokens = np.int64(split_ascii(text, low, kinds, edges, starts, ends))
    if n_tokens < 0:
        return NOT_ASCII
    n_words = uint64(0)
    for i in range(n_tokens):
        at = starts[i]
        starts[n_words], ends[n_words] = at, ends[i]
        n_words += uint64(kinds[at] == WORD)
    return int(np.int64(n_words))


@compiled
def _lower(point: int, table: U32) -> tuple[int, bool]:
    """The lower case of a code point and whether it is part of a word, by the rules of this module."""
    if point in (_SIGMA, _FINAL_SIGMA):
        return 0x3C3, True
    entry = int(table[point]) if point >= 0 else FOREIGN
    return entry >> 3, entry & 7 == WORD


@compiled
def _words_utf8(text: U8, table: U32, low: U8, starts: U32, ends: U32, begins: U32, stops: U32) -> int:
    """As `_words_ascii` for any document: bounds in the lower-cased bytes (starts, ends) and in the text (begins, stops)."""
    at, here, n_words = 0, 0, 0
    inside = False
    while at < len(text):
        point, n_bytes = code_point(text, at)
        dotted = point == _DOTTED_I  # its lower case is an i and a combining dot, which is no part of a word
        lower, word = (0x69, True) if dotted else _lower(point, table)
        if word and not inside:
            starts[n_words], begins[n_words] = here, at
        elif inside and not word:
            ends[n_words], stops[n_words] = here, at
            n_words += 1
        inside = word
        here = put_utf8(low, here, lower) if word else here
        at += n_bytes
        if dotted:
            ends[n_words], stops[n_words] = here, at
            n_words += 1
            inside = False
    if inside:
        ends[n_words], stops[n_words] = here, at
        n_words += 1
    return n_words


@compiled
def _room_for(sizes: I64) -> tuple[U8, U8, U32, U32, U32, U32, U32, U64]:
    """Working space for the largest of some documents: (low, kinds, edges, starts, ends, begins, stops, sums)."""
    n_bytes = 0
    for size in sizes:
        n_bytes = max(n_bytes, size)
    low, kinds, edges, starts, ends, marks = room(n_bytes)
    half = len(marks) // 2
    return low, kinds, edges, starts, ends, marks[:half], marks[half:], np.empty(n_bytes + 1, np.uint64)


@compiled
def _sum_up(words: U64, starts: U32, ends: U32, n_words: int, sums: U64) -> None:
    """sums[j] is the polynomial of the hashes of the first j words."""
    total = uint64(0)
    sums[0] = total
    for j in range(n_words):
        at = uint64(starts[j])
        total = total * _BASE + token_hash(words, at, uint64(ends[j]) - at, _START)
        sums[j + 1] = total


@compiled
def _window(sums: U64, powers: U64, first: int, n: int) -> np.uint64:
    """The hash of n words from `first` on."""
    return fold(sums[first + n] - sums[first] * powers[n], uint64(n))


# --- passes over documents -----------------------------------------------------------------------------------------------------


@compiled
def _gather(
    data: U8, begins: I64, sizes: I64, table: U32, n: int, powers: U64, places: I64, hashes: U64, lengths: U8, n_grams: I64
) -> None:
    """The n-grams of each document: their number to `n_grams` (negative: left out) and, where `hashes` has room, themselves
    from `places` on. A text of fewer than n but at least `FEWEST_WORDS` words is one gram of its own length."""
    low, kinds, edges, starts, ends, firsts, lasts, sums = _room_for(sizes)
    for d in range(len(begins)):
        text = data[begins[d] : begins[d] + sizes[d]]
        if len(table) == 0:
            n_words = _words_ascii(text, low, kinds, edges, starts, ends)
        else:
            n_words = _words_utf8(text, table, low, starts, ends, firsts, lasts)
        length = min(n, n_words)
        n_grams[d] = n_words if n_words < 0 else n_words - length + 1 if length == n or length >= FEWEST_WORDS else 0
        if len(hashes) and n_grams[d] > 0:
            _sum_up(low.view(np.uint64), starts, ends, n_words, sums)
            for j in range(n_grams[d]):
                hashes[places[d] + j] = _window(sums, powers, j, length)
                lengths[places[d] + j] = length


@compiled
def _find(hashed: np.uint64, slots: I32, hashes: U64) -> int:
    """The index of a hash among `hashes`, -1 where it is not one of them."""
    mask = uint64(len(slots) - 1)
    slot = hashed & mask
    while slots[slot] >= 0:
        if hashes[slots[slot]] == hashed:
            return int(slots[slot])
        slot = (slot + _ONE) & mask
    return -1


@compiled
def _candidates(sums: U64, n_words: int, length: int, powers: U64, bits: U64, shift: np.uint64, out: U32) -> int:
    """The first words of the windows that the bitmap lets pass, without branches; returns their number."""
    n, power, found = uint64(length), powers[length], uint64(0)
    for j in range(uint64(max(0, n_words - length + 1))):
        bit = fold(sums[j + n] - sums[j] * power, n) >> shift
        out[found] = j
        found += (bits[bit >> _SIX] >> (bit & _63)) & _ONE
    return int(np.int64(found))


@compiled
def _fill_slots(hashes: U64, bits: U64, shift: np.uint64, slots: I32) -> None:
    mask = uint64(len(slots) - 1)
    for i in range(len(hashes)):
        bit = hashes[i] >> shift
        bits[bit >> _SIX] |= _ONE << (bit & _63)
        slot = hashes[i] & mask
        while slots[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot] = i


@compiled
def _search(
    data: U8,
    begins: I64,
    sizes: I64,
    table: U32,
    lengths: I64,
    powers: U64,
    bits: U64,
    shift: np.uint64,
    slots: I32,
    hashes: U64,
    places: I64,
    hits: I64,
    n_hits: I64,
    n_words: I64,
) -> None:
    """The hits of each document: their number to `n_hits` (negative: left out) and, where `hits` has room, from `places` on
    (gram, word, begin, end) of each."""
    low, kinds, edges, starts, ends, firsts, lasts, sums = _room_for(sizes)
    if len(table) == 0:
        firsts, lasts = starts, ends  # lower case has the same bounds
    for d in range(len(begins)):
        text = data[begins[d] : begins[d] + sizes[d]]
        if len(table) == 0:
            n = _words_ascii(text, low, kinds, edges, starts, ends)
        else:
            n = _words_utf8(text, table, low, starts, ends, firsts, lasts)
        n_words[d] = n
        n_hits[d] = min(n, 0)
        _sum_up(low.view(np.uint64), starts, ends, n, sums)
        for length in lengths:
            for i in range(_candidates(sums, n, length, powers, bits, shift, edges)):
                j = int(edges[i])
                gram = _find(_window(sums, powers, j, length), slots, hashes)
                if gram >= 0:
                    if len(hits):
                        hit = hits[places[d] + n_hits[d]]
                        hit[0], hit[1], hit[2], hit[3] = gram, j, firsts[j], lasts[j + length - 1]
                    n_hits[d] += 1


# --- Arrow in, NumPy out -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grams:
    """The distinct n-grams of evaluation texts: hashes in ascending order and the words of each, uint8.

    Those of fewer than `n` words are whole texts. `n_skipped` texts had words, but too few to say anything.
    """

    n: int
    hashes: U64
    n_words: U8
    n_skipped: int = 0

    @cached_property
    def lookup(self) -> tuple[U64, np.uint64, I32]:
        """(bitmap, shift from a hash to its bit, slots of the open-addressed table)."""
        width = max(10, (16 * len(self.hashes)).bit_length())
        bits = np.zeros(1 << (width - 6), np.uint64)
        slots = np.full(1 << max(4, (2 * len(self.hashes)).bit_length()), -1, np.int32)
        _fill_slots(self.hashes, bits, np.uint64(64 - width), slots)
        return bits, np.uint64(64 - width), slots

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "lookup"}


@dataclass(frozen=True, eq=False)
class Hits:
    """The windows of documents that are among given n-grams: those of document d are offsets[d] to offsets[d + 1].

    `grams` are indices into the n-grams, `words` the number of words before a window, `begins` and `ends` its bytes in the text
    as it is stored. `n_words` are the words of each document.
    """

    offsets: I64
    grams: I64
    words: I64
    begins: I64
    ends: I64
    n_words: I64


def gram_set(array: pa.Array | pa.ChunkedArray, *, n: int) -> Grams:
    """The n-grams of evaluation texts. Texts of fewer than `n` words count as a whole from `FEWEST_WORDS` words on."""
    if not 1 <= n <= 255:
        raise ValueError(f"n-grams have 1 to 255 words, not {n}")
    parts = [_grams_of(texts, n) for texts in text_chunks(array)]
    return joined_grams(parts, n=n)


def joined_grams(parts: Sequence[Grams], *, n: int) -> Grams:
    """The n-grams of all parts, each once."""
    hashes, first = np.unique(np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)]), return_index=True)
    n_words = np.concatenate([np.zeros(0, np.uint8), *(part.n_words for part in parts)])
    return Grams(n, hashes, n_words[first], sum(part.n_skipped for part in parts))


def _grams_of(texts: Texts, n: int) -> Grams:
    n_grams = np.zeros(len(texts.sizes), np.int64)
    powers = _powers(n)

    def fill(places: I64, hashes: U64, lengths: U8) -> None:
        def run(some: Texts, which: I64, table: U32) -> I64:
            found = np.zeros(len(which), np.int64)
            _gather(some.data, some.begins, some.sizes, table, n, powers, places[which], hashes, lengths, found)
            n_grams[which] = found
            return found

        in_passes(texts, run)

    fill(n_grams, np.empty(0, np.uint64), np.empty(0, np.uint8))
    offsets = _offsets(n_grams)
    hashes, lengths = np.empty(offsets[-1], np.uint64), np.empty(offsets[-1], np.uint8)
    if offsets[-1]:
        fill(offsets[:-1], hashes, lengths)
    return Grams(n, hashes, lengths, int(((n_grams == 0) & (texts.sizes > 0)).sum()))


def find_grams(array: pa.Array | pa.ChunkedArray, grams: Grams) -> Hits:
    """Every window of documents that is one of `grams`, and where it stands."""
    parts = [_hits_of(texts, grams) for texts in text_chunks(array)] or [_hits_of(Texts(np.zeros(1, np.uint8), *_NONE), grams)]
    offsets = _offsets(np.concatenate([np.diff(part.offsets) for part in parts]))
    columns = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("grams", "words", "begins", "ends", "n_words")
    )
    return Hits(offsets, *columns)


_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _hits_of(texts: Texts, grams: Grams) -> Hits:
    """Two passes: most documents have no hit, and those that have some are read again once there is room for them."""
    n_hits, n_words = np.zeros(len(texts.sizes), np.int64), np.zeros(len(texts.sizes), np.int64)
    lengths = np.unique(grams.n_words).astype(np.int64)
    powers = _powers(grams.n)

    def fill(some: Texts, docs: I64, spots: I64, hits: I64) -> None:
        def run(these: Texts, which: I64, table: U32) -> I64:
            found, words = np.zeros(len(which), np.int64), np.zeros(len(which), np.int64)
            _search(
                these.data, these.begins, these.sizes, table, lengths, powers, *grams.lookup, grams.hashes, spots[docs[which]],
                hits, found, words,
            )  # fmt: skip
            n_hits[docs[which]], n_words[docs[which]] = found, words
            return found

        in_passes(some, run)

    fill(texts, np.arange(len(n_hits)), n_hits, np.empty((0, 4), np.int64))
    offsets, docs = _offsets(n_hits), np.flatnonzero(n_hits)
    hits = np.empty((offsets[-1], 4), np.int64)
    if len(docs):
        fill(texts.take(docs), docs, offsets, hits)
    found, words, begins, ends = np.ascontiguousarray(hits.T)
    return Hits(offsets, found, words, begins, ends, n_words)


def _powers(n: int) -> U64:
    """B^0 .. B^n."""
    powers: npt.NDArray[np.uint64] = np.full(n + 1, _BASE, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _offsets(sizes: I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
