"""N-grams as the package `data-selection` 1.0.3 counts them: unigrams and bigrams in buckets int(sha256(n-gram)) mod n_buckets.

The reference implementation of Xie et al., "Data Selection for Language Models via Importance Resampling" (arXiv 2302.03169),
takes the tokens of `tokens`, joins neighbours by one space, and hashes each n-gram's UTF-8 with SHA-256. Counts here are equal to
its counts to the bit, log weights to the last digits (it adds floats in an order of its own, we add integers).

Most n-grams have been seen before: a table of 32 MiB, kept by the process, remembers their buckets under a 64-bit hash of the
tokens, in one of the eight slots of a line of the processor's cache. Those it does not hold wait until as many are there as are
hashed at once, in documents after this one if need be, and take a free slot or that of another, so any number of distinct n-grams
is served. An n-gram that the table does not hold passes for one of its line where all compared bits agree: with a chance of 2^-38
at 10,000 buckets, 2^-36 at most.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint32, uint64

from tasks.kernels.sha256 import LANES, Lanes, absorb, begin_all, lanes_of_sha256, n_blocks, put_block, put_message, remainder
from tasks.kernels.tokens import (
    GOLDEN,
    U8,
    U32,
    U64,
    Texts,
    compiled,
    fold,
    in_passes,
    room,
    split,
    start_of,
    text_chunks,
    token_hash,
)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

MAX_BUCKETS = 1 << 24
_STEP = 256  # tokens looked up together, so that their reads of the table overlap
_SLOTS = 1 << 22
_LINE = 8  # slots that an n-gram may stand in
_FILLED = np.uint64(1 << 63)  # set in every key, so that an empty slot, 0, is nobody's
_START = start_of(0)


# --- what is remembered --------------------------------------------------------------------------------------------------------


class Buckets(NamedTuple):
    """The rule of the buckets, and what is remembered of it.

    `powers` are 2^224, 2^192 ... 1 modulo `n_buckets`; a filled slot of `memo` holds an n-gram's key, with its bucket in the bits
    outside of `compared`.
    """

    memo: U64
    compared: np.uint64
    n_buckets: np.uint64
    powers: U64


@compiled
def _slot(memo: U64, key: np.uint64) -> np.uint64:
    """Where an n-gram is looked for first; the rest of its line comes after."""
    return key & uint64(len(memo) - 1)


@compiled
def _of_line(memo: U64, compared: np.uint64, key: np.uint64) -> np.uint64:
    """What a slot of the key's line holds of it, 0 if none does."""
    line = _slot(memo, key) & ~uint64(_LINE - 1)
    held = uint64(0)
    for i in range(_LINE):
        entry = memo[line + uint64(i)]
        held = entry if (entry ^ key) & compared == 0 else held
    return held


@compiled
def _remember(memo: U64, key: np.uint64, entry: np.uint64) -> None:
    """Into a free slot of the line, its own before others, or into its own; an n-gram that waited twice comes twice."""
    own = _slot(memo, key)
    chosen = own
    for i in range(_LINE):
        slot = own ^ uint64(i)
        if memo[slot] == 0 or memo[slot] == entry:
            chosen = slot
            break
    memo[chosen] = entry


class Step(NamedTuple):
    """Working space of n-grams that are looked up together: keys, what stood in their slots, buckets, numbers of the missed."""

    keys: U64
    found: U64
    buckets: U32
    missed: U32


@compiled
def _step() -> Step:
    n = 2 * _STEP
    return Step(np.empty(n, np.uint64), np.empty(n, np.uint64), np.empty(n, np.uint32), np.empty(n, np.uint32))


@compiled
def _recall(rule: Buckets, step: Step, begin: int, end: int) -> int:
    """Buckets of the n-grams [begin, end), n_buckets for those that the memo does not hold; how many these are."""
    memo, compared, n_buckets, _ = rule
    keys, found, buckets, missed = step
    for g in range(uint64(begin), uint64(end)):
        found[g] = memo[_slot(memo, keys[g])]
    n = uint64(0)
    for g in range(uint64(begin), uint64(end)):
        buckets[g] = uint32(found[g] & ~compared)
        missed[n] = g
        n += uint64(((found[g] ^ keys[g]) & compared) != 0)
    n_missed = uint64(0)
    for k in range(n):
        g = missed[k]
        held = _of_line(memo, compared, uint64(keys[g]))
        buckets[g] = uint32(held & ~compared if held else n_buckets)
        missed[n_missed] = g
        n_missed += uint64(held == 0)
    return int(n_missed)


# --- what is added up ----------------------------------------------------------------------------------------------------------


class Totals(NamedTuple):
    """Where `counts` is not empty, it gains 1 for each n-gram; row d of `sums` gains, for each n-gram of document d, a row of
    `ratios`, which has as many columns. The last bucket, number n_buckets, is that of n-grams which wait: its ratios are 0."""

    counts: I64
    ratios: I64
    sums: I64


@compiled
def _add(totals: Totals, d: int, buckets: U32, begin: int, end: int) -> None:
    counts, ratios, sums = totals
    if len(counts):
        for g in range(uint64(begin), uint64(end)):
            counts[buckets[g]] += 1
    if sums.shape[1] == 2:  # of a single target: both stay in registers
        coarse, fine = 0, 0
        for g in range(uint64(begin), uint64(end)):
            coarse += ratios[buckets[g], 0]
            fine += ratios[buckets[g], 1]
        sums[d, 0] += coarse
        sums[d, 1] += fine
    elif sums.shape[1]:
        for g in range(begin, end):
            for r in range(sums.shape[1]):
                sums[d, r] += ratios[buckets[g], r]


# --- what is hashed ------------------------------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    """A document's lower case, as 64-bit words, and its tokens' bounds in it, as bytes."""

    words: U64
    starts: U32
    ends: U32


class Queue(NamedTuple):
    """N-grams that wait for a hash: their keys, documents, and padded messages, from block firsts[lane] to firsts[lane + 1].

    `waiting` holds a single number: how many wait.
    """

    waiting: I64
    keys: U64
    documents: I64
    firsts: I64
    padded: U64
    lanes: Lanes


@compiled
def _queue(n_words: int) -> Queue:
    """Room for a message of so many 64-bit words, or for shorter ones in all lanes."""
    none, firsts = np.zeros(1, np.int64), np.zeros(LANES + 1, np.int64)
    padded = np.empty(n_words + 16 * LANES, np.uint64)
    return Queue(none, np.empty(LANES, np.uint64), np.empty(LANES, np.int64), firsts, padded, lanes_of_sha256())


@compiled
def _span(starts: U32, ends: U32, first: int, gram: int) -> tuple[int, int, int, int]:
    """Bounds of an n-gram's tokens. Number 2j is the pair that ends at token first + j; 2j + 1 that token, left side empty."""
    j = first + (gram >> 1)
    right, right_end = int(starts[j]), int(ends[j])
    if gram & 1:
        return right, right, right, right_end
    return int(starts[j - 1]), int(ends[j - 1]), right, right_end


@compiled
def _hash_all(queue: Queue, rule: Buckets, totals: Totals) -> None:
    """Hash what waits, remember it, and count it or add up its ratios."""
    waiting, keys, documents, firsts, padded, lanes = queue
    memo, compared, n_buckets, powers = rule
    counts, ratios, sums = totals
    state, _, words = lanes
    message, n = padded.view(np.uint32), waiting[0]
    begin_all(state)
    block, n_open = 0, n
    while n_open:
        for lane in range(n):
            if firsts[lane] + block < firsts[lane + 1]:
                put_block(words, lane, message, 16 * (firsts[lane] + block))
        absorb(lanes)
        block += 1
        for lane in range(n):
            if firsts[lane] + block == firsts[lane + 1]:
                n_open -= 1
                bucket = remainder(state, lane, powers, n_buckets)
                _remember(memo, keys[lane], (keys[lane] & compared) | bucket)
                if len(counts):
                    counts[bucket] += 1
                for r in range(sums.shape[1]):
                    sums[documents[lane], r] += ratios[bucket, r]
    waiting[0] = 0


@compiled
def _enqueue(queue: Queue, step: Step, n_missed: int, d: int, tokens: Tokens, first: int, rule: Buckets, totals: Totals) -> None:
    """Let the missed n-grams of document d wait, and hash whenever all lanes are taken."""
    waiting, keys, documents, firsts, padded, _ = queue
    words, starts, ends = tokens
    step_keys, _, _, missed = step
    for k in range(n_missed):
        gram = missed[k]
        span = _span(starts, ends, first, gram)
        lane, size = waiting[0], n_blocks(span)
        if lane == LANES or 8 * (firsts[lane] + size) >= len(padded):
            _hash_all(queue, rule, totals)
            lane = 0
        firsts[lane + 1] = firsts[lane] + size
        put_message(padded, firsts[lane], firsts[lane + 1], words, span)
        keys[lane], documents[lane] = step_keys[gram], d
        waiting[0] = lane + 1


# --- one array ----------------------------------------------------------------------------------------------------------------


@compiled
def _keys(tokens: Tokens, first: int, last: int, previous: np.uint64, keys: U64) -> np.uint64:
    """Keys of the n-grams that end at tokens [first, last): of the pair at 2j, of the token at 2j + 1; the last token's hash."""
    words, starts, ends = tokens
    for j in range(last - first):
        at = uint64(starts[first + j])
        hashed = token_hash(words, at, uint64(ends[first + j]) - at, _START)
        keys[2 * j] = fold(previous * GOLDEN, hashed) | _FILLED
        keys[2 * j + 1] = hashed | _FILLED
        previous = hashed
    return previous


@compiled
def _run(data: U8, begins: I64, sizes: I64, table: U32, rule: Buckets, totals: Totals, n_tokens: I64) -> None:
    """One pass over documents. `n_tokens` is always written, and is negative for a document that was left out."""
    capacity = 1 << 14
    low, kinds, edges, starts, ends, _ = room(capacity)
    queue, step = _queue(len(low) >> 3), _step()
    for d in range(len(begins)):
        size = sizes[d]
        if size > capacity:
            _hash_all(queue, rule, totals)
            capacity = size + size // 2
            low, kinds, edges, starts, ends, _ = room(capacity)
            queue = _queue(len(low) >> 3)
        n = split(data[begins[d] : begins[d] + size], table, low, kinds, edges, starts, ends)
        n_tokens[d] = n
        tokens, previous = Tokens(low.view(np.uint64), starts, ends), uint64(0)
        for first in range(0, n, _STEP):
            last = min(first + _STEP, n)
            begin, end = int(first == 0), 2 * (last - first)  # no pair ends at the first token
            previous = _keys(tokens, first, last, previous, step.keys)
            n_missed = _recall(rule, step, begin, end)
            _add(totals, d, step.buckets, begin, end)
            if n_missed:
                _enqueue(queue, step, n_missed, d, tokens, first, rule, totals)
    _hash_all(queue, rule, totals)


# --- Arrow in, NumPy out -------------------------------------------------------------------------------------------------------


def count_parity(array: pa.Array | pa.ChunkedArray, *, n_buckets: int) -> I64:
    """How often the n-grams of all documents fall into each bucket, int64 of shape (n_buckets,)."""
    rule = rule_of(n_buckets)
    counts = np.zeros(n_buckets + 1, np.int64)
    for texts in text_chunks(array):
        _visit(texts, rule, counts, np.zeros((n_buckets + 1, 0), np.int64))
    return counts[:-1]


def score_parity(array: pa.Array | pa.ChunkedArray, ratios: F64) -> tuple[F64, I64]:
    """Log weights, Σ ratios[bucket] over the n-grams of each document, and its number of tokens, int64 of shape (n,).

    `ratios` are log ratios of shape (n_buckets,) or, of several targets, (R, n_buckets); log weights are of shape (n,) or (n, R).
    A document of no token weighs 0. Sums are exact to 2^-61 a term and owe nothing to the order of the n-grams, for documents of
    up to 2^29 tokens. Raises ValueError where a ratio lies outside of [-32, 32] (ln 1e-8 is -18.4).
    """
    fixed, rule = _fixed(np.atleast_2d(ratios)), rule_of(np.shape(ratios)[-1])
    parts = [_visit(texts, rule, np.zeros(0, np.int64), fixed) for texts in text_chunks(array)]
    sums = np.concatenate([np.zeros((0, fixed.shape[1]), np.int64), *(part for part, _ in parts)])
    n_tokens = np.concatenate([np.zeros(0, np.int64), *(part for _, part in parts)])
    weights = _floats(sums)
    return weights.reshape(len(weights)) if np.ndim(ratios) == 1 else weights, n_tokens


_COARSE, _FINE = 28, 60  # binary places of the two integers that a ratio is the sum of


def _fixed(ratios: F64) -> I64:
    """(R, n_buckets) ratios as pairs of integers, coarse and fine, int64 of shape (n_buckets + 1, 2R); the last row is 0."""
    if not np.all(np.abs(ratios) <= 32):
        raise ValueError("a log ratio lies outside of [-32, 32], or is not a number")
    coarse = np.rint(np.ldexp(ratios, _COARSE))
    fine = np.rint(np.ldexp(ratios - np.ldexp(coarse, -_COARSE), _FINE))
    pairs = np.stack([coarse, fine], axis=-1).swapaxes(0, 1).reshape(ratios.shape[1], -1)
    return np.pad(pairs, ((0, 1), (0, 0))).astype(np.int64, order="C")


def _floats(sums: I64) -> F64:
    coarse, fine = sums[:, 0::2], sums[:, 1::2]
    coarse = coarse + (fine >> (_FINE - _COARSE))
    rest = fine & ((1 << (_FINE - _COARSE)) - 1)
    return np.ldexp(coarse.astype(np.float64), -_COARSE) + np.ldexp(rest.astype(np.float64), -_FINE)


@lru_cache(maxsize=1)
def rule_of(n_buckets: int) -> Buckets:
    """The rule and its memo, which every call of this process shares; threads too: a slot is one word, read and written whole."""
    if not 1 <= n_buckets <= MAX_BUCKETS:
        raise ValueError(f"n_buckets is to lie in [1, {MAX_BUCKETS}], not to be {n_buckets}")
    bits = (n_buckets - 1).bit_length()
    powers = np.array([pow(2, 32 * (7 - t), n_buckets) for t in range(8)], np.uint64)
    compared = np.uint64(((1 << 64) - 1) >> bits << bits)
    slots = np.zeros(_SLOTS + _LINE, np.uint64)
    aligned = -(slots.ctypes.data >> 3) % _LINE
    return Buckets(slots[aligned : aligned + _SLOTS], compared, np.uint64(n_buckets), powers)


def _visit(texts: Texts, rule: Buckets, counts: I64, ratios: I64) -> tuple[I64, I64]:
    """Count documents' n-grams into `counts` or add up their ratios: (sums, n_tokens)."""
    sums = np.zeros((len(texts.sizes), ratios.shape[1]), np.int64)
    n_tokens = np.zeros(len(texts.sizes), np.int64)

    def run(some: Texts, places: I64, table: U32) -> I64:
        part, n = np.zeros((len(places), ratios.shape[1]), np.int64), np.zeros(len(places), np.int64)
        _run(some.data, some.begins, some.sizes, table, rule, Totals(counts, ratios, part), n)
        sums[places], n_tokens[places] = part, n
        return n

    in_passes(texts, run)
    return sums, n_tokens
