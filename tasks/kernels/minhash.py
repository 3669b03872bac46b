"""Signatures of text columns, by which equal and nearly equal documents are found: one pass over Arrow's string buffers.

A document's words are the `\\w+` tokens of its lower case (see `tokens`): punctuation and white space are ignored. Its text hash
is of the sequence of words; its shingles are the runs of `shingle` words (all of its words, where it has fewer), each hashed to
64 bits; and each of its MinHash values equals another document's with the probability of the Jaccard similarity of their
shingles.

MinHash takes a hash of each shingle for each value (Broder, 1997). Here the values are bins (Dahlgaard, Knudsen and Thorup, "Fast
Similarity Sketching", FOCS 2017): in rounds, each shingle is thrown into one bin, and a bin holds the least shingle of the first
round that reached it. No bin is empty after about k ln k throws: a document of many words is done after one round, with one hash
a shingle. The estimate is as unbiased as MinHash's and its variance no larger.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import uint32, uint64

from tasks.kernels.tokens import (
    GOLDEN,
    I64,
    U8,
    U32,
    U64,
    WORD,
    Texts,
    code_point,
    compiled,
    fold,
    in_passes,
    room,
    split,
    start_of,
    text_chunks,
    token_hash,
)

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BASE = np.uint64(0xD6E8FEB86659FD93)  # of the polynomial over words; odd, and 3 modulo 4
_29, _32 = np.uint64(29), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_SECOND = np.uint64(0x5851F42D4C957F2D)  # where the second lane of a text hash starts from


@compiled
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _32)) * _M1
    x = (x ^ (x >> _29)) * _M2
    return x ^ (x >> _32)


# --- one document --------------------------------------------------------------------------------------------------------------


@compiled
def _keep_words(low: U8, kinds: U8, starts: U32, ends: U32, n_tokens: int, table: U32) -> int:
    """Move the bounds of words, which punctuation is not, to the front; returns their number. Without a table `kinds` tells."""
    n_words = 0
    for j in range(n_tokens):
        starts[n_words], ends[n_words] = starts[j], ends[j]
        if len(table) == 0:
            n_words += int(kinds[starts[j]] == WORD)
        else:
            point, _ = code_point(low, int(starts[j]))
            n_words += int(point >= 0 and int(table[point]) & 7 == WORD)
    return n_words


@compiled
def _hash_words(low: U8, starts: U32, ends: U32, n_words: int, start: np.uint64, out: U64) -> None:
    """The hashes of a document's words, in their order."""
    words = low.view(np.uint64)
    for j in range(n_words):
        at = uint64(starts[j])
        out[j] = token_hash(words, at, uint64(ends[j]) - at, start)


@compiled
def _hash_text(hashes: U64, n_words: int, start: np.uint64) -> tuple[np.uint64, np.uint64]:
    """128 bits of the sequence of words."""
    first, second = start, start ^ _SECOND
    for j in range(n_words):
        first = fold(first, hashes[j])
        second = fold(second, hashes[j] * _M1)
    return _mixed(fold(first, uint64(n_words))), _mixed(fold(second, uint64(n_words)))


@compiled
def _hash_shingles(hashes: U64, n_words: int, shingle: int) -> int:
    """Turn the hashes of words into those of shingles, in place (the first shingle comes last); returns their number.

    A shingle's is a polynomial of its words that rolls from one to the next, mixed.
    """
    size = min(n_words, shingle)
    rolling, power = uint64(0), uint64(1)
    for j in range(size):
        rolling = rolling * _BASE + hashes[j]
        power *= _BASE
    first = rolling
    for j in range(size, n_words):
        rolling = rolling * _BASE + hashes[j] - hashes[j - size] * power
        hashes[j - size] = _mixed(rolling)
    hashes[n_words - size] = _mixed(first)
    return n_words - size + 1


@compiled
def _throw(shingles: U64, n_shingles: int, at_round: int, bins: U64) -> None:
    """One round: each shingle into a bin, where the least one stays unless an earlier round filled it.

    From round `len(bins)` on, all shingles go to one bin, each round to the next: after twice as many none is empty.
    """
    n_bins = uint64(len(bins))
    salt = uint64(at_round) * GOLDEN
    high = uint64(at_round) << _32
    for j in range(n_shingles):
        x = shingles[j] + salt
        x = (x ^ (x >> _32)) * _M1
        k = ((x >> _32) * n_bins) >> _32 if at_round < len(bins) else uint64(at_round - len(bins))
        bins[k] = min(bins[k], high | ((x ^ (x >> _32)) & _LOW))


@compiled
def _sketch(shingles: U64, n_shingles: int, bins: U64, out: U32) -> None:
    bins[:] = _EMPTY
    for at_round in range(2 * len(bins)):
        _throw(shingles, n_shingles, at_round, bins)
        n_empty = 0
        for k in range(len(bins)):
            n_empty += int(bins[k] == _EMPTY)
        if n_empty == 0:
            break
    for k in range(len(bins)):
        out[k] = uint32(_mixed(bins[k]) >> _32)


# --- one array -----------------------------------------------------------------------------------------------------------------


@compiled
def _run(
    data: U8,
    begins: I64,
    sizes: I64,
    table: U32,
    start: np.uint64,
    shingle: int,
    places: I64,
    n_words: I64,
    text_hashes: U64,
    minhash: U32,
) -> I64:
    """One pass over documents, whose results go to their places. Returns a number a document, negative for one left out: without
    a `table` (length 0), only those of pure ASCII are taken."""
    taken = np.zeros(len(begins), np.int64)
    bins = np.empty(minhash.shape[1], np.uint64)
    capacity = 1 << 14
    low, kinds, edges, starts, ends, spare = room(capacity)
    for d in range(len(begins)):
        if sizes[d] > capacity:
            capacity = sizes[d] + sizes[d] // 2
            low, kinds, edges, starts, ends, spare = room(capacity)
        text = data[begins[d] : begins[d] + sizes[d]]
        taken[d] = split(text, table, low, kinds, edges, starts, ends)
        if taken[d] <= 0:
            continue
        at, hashes = places[d], spare.view(np.uint64)
        n = _keep_words(low, kinds, starts, ends, taken[d], table)
        _hash_words(low, starts, ends, n, start, hashes)
        n_words[at] = n
        if n > 0:
            text_hashes[at, 0], text_hashes[at, 1] = _hash_text(hashes, n, start)
        if n > 0 and len(bins) > 0:
            _sketch(hashes, _hash_shingles(hashes, n, shingle), bins, minhash[at])
    return taken


def signatures_of(array: pa.Array | pa.ChunkedArray, *, n_permutations: int, shingle: int, seed: int) -> tuple[I64, U64, U32]:
    """(n_words, text_hashes, minhash) of each document: int64 (n,), uint64 (n, 2), uint32 (n, n_permutations).

    Documents with the same words in the same order have the same text hash; the share of equal MinHash values of two documents
    estimates the Jaccard similarity of their shingles of `shingle` words. A document without a word (NULL too) has zeros
    everywhere, and no signature. With 0 permutations only the text hashes are made.
    """
    n_words = np.zeros(len(array), np.int64)
    text_hashes = np.zeros((len(array), 2), np.uint64)
    minhash = np.zeros((len(array), n_permutations), np.uint32)
    done = 0
    for texts in text_chunks(array):

        def run(some: Texts, places: I64, table: U32, first: int = done) -> I64:
            spots = places + first
            return _run(
                some.data, some.begins, some.sizes, table, start_of(seed), shingle, spots, n_words, text_hashes, minhash
            )  # fmt: skip

        in_passes(texts, run)
        done += len(texts.sizes)
    return n_words, text_hashes, minhash
