"""N-grams as the package `data-selection` 1.0.3 counts them: unigrams and bigrams in buckets int(sha256(n-gram)) mod n_buckets.

The reference implementation of Xie et al., "Data Selection for Language Models via Importance Resampling" (arXiv 2302.03169),
takes the tokens of `tokens`, joins neighbours by one space, and hashes each n-gram's UTF-8 with SHA-256. Counts here are equal to
its counts to the bit, log weights to the last digits (it adds floats in an order of its own, we add integers).

Most n-grams have been seen before: a table of 32 MiB, kept by the process, remembers their buckets under a 64-bit hash of the
tokens. Those it does not hold are hashed sixteen at a time, one in each lane of the processor's vectors, and take the slots of
others that stood there, so any number of distinct n-grams is served. An n-gram that the table does not hold passes for the one in
its slot where all compared bits agree: with a chance of 2^-41 at 10,000 buckets, 2^-39 at most.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint32, uint64

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
_LANES = 16
_STEP = 128  # tokens looked up together, so that their reads of the table overlap
_SLOTS = 1 << 22
_FILLED = np.uint64(1 << 63)  # set in every key, so that an empty slot, 0, is nobody's
_START = start_of(0)


# --- SHA-256, one message a lane ----------------------------------------------------------------------------------------------


def _primes(n: int) -> list[int]:
    found = list[int]()
    candidate = 2
    while len(found) < n:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _root_bits(n: int, power: int) -> int:
    """The first 32 bits behind the point of the `power`-th root of n: by Newton's steps in integers."""
    wanted = n << (32 * power)
    root = 1 << 40
    while (better := ((power - 1) * root + wanted // root ** (power - 1)) // power) < root:
        root = better
    return root & 0xFFFFFFFF


_K = np.array([_root_bits(prime, 3) for prime in _primes(64)], np.uint32)
_H = np.array([_root_bits(prime, 2) for prime in _primes(8)], np.uint32)


@compiled
def _turn(x: np.uint32, n: int) -> np.uint32:
    return uint32((x >> uint32(n)) | (x << uint32(32 - n)))


@compiled
def _round(
    a: np.uint32, b: np.uint32, c: np.uint32, d: np.uint32, e: np.uint32, f: np.uint32, g: np.uint32, h: np.uint32, key: np.uint32
) -> tuple[np.uint32, np.uint32]:
    """One round (FIPS 180-4, 6.2.2): the new values of d and h, which the next round sees as e and a."""
    mixed = uint32(h + (_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)) + ((e & f) ^ (~e & g)) + key)
    most = (a & b) ^ (a & c) ^ (b & c)
    return uint32(d + mixed), uint32(mixed + (_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)) + most)


@compiled
def _stretch(words: U32) -> None:
    """The message schedule: words 16 to 63 of each lane from its first 16; word t of lane l stands at t * _LANES + l."""
    for t in range(16 * _LANES, 64 * _LANES, _LANES):
        for i in range(t, t + _LANES):
            x, y = words[i - 15 * _LANES], words[i - 2 * _LANES]
            low = _turn(x, 7) ^ _turn(x, 18) ^ (x >> uint32(3))
            high = _turn(y, 17) ^ _turn(y, 19) ^ (y >> uint32(10))
            words[i] = uint32(words[i - 16 * _LANES] + low + words[i - 7 * _LANES] + high)


@compiled
def _compress(state: U32, work: U32, words: U32) -> None:
    """Absorb one block of 64 bytes in every lane; `words` holds it, and is overwritten from word 16 on."""
    _stretch(words)
    work[:] = state
    for t in range(0, 64, 8):
        k0, k1, k2, k3, k4, k5, k6, k7 = _K[t], _K[t + 1], _K[t + 2], _K[t + 3], _K[t + 4], _K[t + 5], _K[t + 6], _K[t + 7]
        at = t * _LANES
        for i in range(_LANES):
            a, b, c, d = work[i], work[i + _LANES], work[i + 2 * _LANES], work[i + 3 * _LANES]
            e, f, g, h = work[i + 4 * _LANES], work[i + 5 * _LANES], work[i + 6 * _LANES], work[i + 7 * _LANES]
            w = at + i
            d, h = _round(a, b, c, d, e, f, g, h, uint32(k0 + words[w]))
            c, g = _round(h, a, b, c, d, e, f, g, uint32(k1 + words[w + _LANES]))
            b, f = _round(g, h, a, b, c, d, e, f, uint32(k2 + words[w + 2 * _LANES]))
            a, e = _round(f, g, h, a, b, c, d, e, uint32(k3 + words[w + 3 * _LANES]))
            h, d = _round(e, f, g, h, a, b, c, d, uint32(k4 + words[w + 4 * _LANES]))
            g, c = _round(d, e, f, g, h, a, b, c, uint32(k5 + words[w + 5 * _LANES]))
            f, b = _round(c, d, e, f, g, h, a, b, uint32(k6 + words[w + 6 * _LANES]))
            e, a = _round(b, c, d, e, f, g, h, a, uint32(k7 + words[w + 7 * _LANES]))
            work[i], work[i + _LANES], work[i + 2 * _LANES], work[i + 3 * _LANES] = a, b, c, d
            work[i + 4 * _LANES], work[i + 5 * _LANES], work[i + 6 * _LANES], work[i + 7 * _LANES] = e, f, g, h
    for i in range(8 * _LANES):
        state[i] = uint32(state[i] + work[i])


# --- n-grams to buckets -------------------------------------------------------------------------------------------------------


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
def _slot(memo: U64, keys: U64, gram: int) -> np.uint64:
    return keys[gram] & uint64(len(memo) - 1)


class Lanes(NamedTuple):
    """Working space of sixteen hashes: which n-grams they are of, and SHA-256's."""

    grams: U32
    state: U32
    work: U32
    words: U32


@compiled
def _lanes() -> Lanes:
    return Lanes(
        np.empty(_LANES, np.uint32),
        np.empty(8 * _LANES, np.uint32),
        np.empty(8 * _LANES, np.uint32),
        np.zeros(64 * _LANES, np.uint32),
    )


@compiled
def _span(starts: U32, ends: U32, first: int, gram: int) -> tuple[int, int, int, int]:
    """Bounds of an n-gram's tokens. Number 2j is the pair that ends at token first + j; 2j + 1 that token, left side empty."""
    j = first + (gram >> 1)
    if gram & 1:
        return 0, 0, int(starts[j]), int(ends[j])
    return int(starts[j - 1]), int(ends[j - 1]), int(starts[j]), int(ends[j])


@compiled
def _put(words: U32, lane: int, low: U8, begin: int, end: int, at: int) -> None:
    """Bytes [begin, end) of the text into a lane's block, from byte `at` of the block on, as far as they fall into it."""
    for p in range(max(at, 0), min(at + end - begin, 64)):
        words[(p >> 2) * _LANES + lane] |= uint32(low[begin + p - at]) << uint32(24 - 8 * (p & 3))


@compiled
def _put_byte(words: U32, lane: int, byte: int, at: int) -> None:
    if 0 <= at < 64:
        words[(at >> 2) * _LANES + lane] |= uint32(byte) << uint32(24 - 8 * (at & 3))


@compiled
def _put_block(words: U32, lane: int, low: U8, span: tuple[int, int, int, int], block: int) -> bool:
    """One block of the padded message "token token" or "token"; whether it is the last one."""
    left, left_end, right, right_end = span
    for t in range(16):
        words[t * _LANES + lane] = 0
    at = -64 * block
    if left_end > left:
        _put(words, lane, low, left, left_end, at)
        at += left_end - left
        _put_byte(words, lane, 32, at)
        at += 1
    _put(words, lane, low, right, right_end, at)
    at += right_end - right
    _put_byte(words, lane, 0x80, at)
    if at >= 56:
        return False
    size = at + 64 * block
    words[14 * _LANES + lane] = uint32(size >> 29)
    words[15 * _LANES + lane] = uint32(size << 3)
    return True


@compiled
def _remainder(state: U32, lane: int, powers: U64, n_buckets: np.uint64) -> np.uint64:
    """A lane's digest, a number of 256 bits, modulo n_buckets."""
    total = uint64(0)
    for t in range(8):
        total += uint64(state[t * _LANES + lane]) * powers[t]
    return total % n_buckets


@compiled
def _hash_lanes(lanes: Lanes, n: int, low: U8, starts: U32, ends: U32, first: int, keys: U64, rule: Buckets, out: U32) -> None:
    """Buckets of the first n lanes' n-grams, into `out` and into the memo."""
    for t in range(8):
        lanes.state[t * _LANES : (t + 1) * _LANES] = _H[t]
    n_open, block = n, 0
    done = np.zeros(_LANES, np.bool_)
    while n_open:
        ends_here = np.zeros(_LANES, np.bool_)
        for lane in range(n):
            if not done[lane]:
                ends_here[lane] = _put_block(lanes.words, lane, low, _span(starts, ends, first, lanes.grams[lane]), block)
        _compress(lanes.state, lanes.work, lanes.words)
        for lane in range(n):
            if ends_here[lane]:
                gram = lanes.grams[lane]
                bucket = _remainder(lanes.state, lane, rule.powers, rule.n_buckets)
                out[gram] = bucket
                rule.memo[_slot(rule.memo, keys, gram)] = (keys[gram] & rule.compared) | bucket
                done[lane] = True
                n_open -= 1
        block += 1


@compiled
def _keys(words: U64, starts: U32, ends: U32, first: int, last: int, previous: np.uint64, keys: U64) -> np.uint64:
    """Keys of the n-grams that end at tokens [first, last): of the pair at 2j, of the token at 2j + 1; the last token's hash."""
    for j in range(last - first):
        at = uint64(starts[first + j])
        hashed = token_hash(words, at, uint64(ends[first + j]) - at, _START)
        keys[2 * j] = fold(previous * GOLDEN, hashed) | _FILLED
        keys[2 * j + 1] = hashed | _FILLED
        previous = hashed
    return previous


@compiled
def _look_up(
    lanes: Lanes, low: U8, starts: U32, ends: U32, first: int, begin: int, n: int, keys: U64, rule: Buckets, out: U32
) -> None:
    """Buckets of the n-grams [begin, n) that `keys` stand for, into `out`."""
    found = np.empty(2 * _STEP, np.uint64)
    missed = np.empty(2 * _STEP, np.uint32)
    for g in range(begin, n):
        found[g] = rule.memo[_slot(rule.memo, keys, g)]
    n_missed = uint64(0)
    for g in range(begin, n):
        out[g] = uint32(found[g] & ~rule.compared)
        missed[n_missed] = g
        n_missed += uint64(((found[g] ^ keys[g]) & rule.compared) != 0)
    n_lanes = 0
    for k in range(n_missed):
        g = missed[k]
        entry = rule.memo[_slot(rule.memo, keys, g)]
        if (entry ^ keys[g]) & rule.compared == 0:  # since then hashed, in a group before this one
            out[g] = uint32(entry & ~rule.compared)
            continue
        lanes.grams[n_lanes] = g
        n_lanes += 1
        if n_lanes == _LANES:
            _hash_lanes(lanes, n_lanes, low, starts, ends, first, keys, rule, out)
            n_lanes = 0
    if n_lanes:
        _hash_lanes(lanes, n_lanes, low, starts, ends, first, keys, rule, out)


# --- one array ----------------------------------------------------------------------------------------------------------------


@compiled
def _run(
    data: U8, begins: I64, sizes: I64, table: U32, rule: Buckets, counts: I64, ratios: I64, sums: I64, n_tokens: I64
) -> None:
    """One pass over documents. `n_tokens` is always written, and is negative for a document that was left out.

    Where `counts` is not empty, it gains 1 for each n-gram; row d of `sums` gains, for each n-gram of document d, a row of
    `ratios`, which has as many columns.
    """
    capacity = 1 << 14
    low, kinds, edges, starts, ends, _ = room(capacity)
    lanes = _lanes()
    keys, buckets = np.empty(2 * _STEP, np.uint64), np.empty(2 * _STEP, np.uint32)
    for d in range(len(begins)):
        size = sizes[d]
        if size > capacity:
            capacity = size + size // 2
            low, kinds, edges, starts, ends, _ = room(capacity)
        n = split(data[begins[d] : begins[d] + size], table, low, kinds, edges, starts, ends)
        n_tokens[d] = n
        previous = uint64(0)
        for first in range(0, n, _STEP):
            last = min(first + _STEP, n)
            begin = 1 if first == 0 else 0  # no pair ends at the first token
            previous = _keys(low.view(np.uint64), starts, ends, first, last, previous, keys)
            _look_up(lanes, low, starts, ends, first, begin, 2 * (last - first), keys, rule, buckets)
            for g in range(begin, 2 * (last - first)):
                if len(counts):
                    counts[buckets[g]] += 1
                for r in range(sums.shape[1]):
                    sums[d, r] += ratios[buckets[g], r]


# --- Arrow in, NumPy out -------------------------------------------------------------------------------------------------------


def count_parity(array: pa.Array | pa.ChunkedArray, *, n_buckets: int) -> I64:
    """How often the n-grams of all documents fall into each bucket, int64 of shape (n_buckets,)."""
    counts = np.zeros(n_buckets, np.int64)
    for texts in text_chunks(array):
        _visit(texts, rule_of(n_buckets), counts, np.zeros((n_buckets, 0), np.int64))
    return counts


def score_parity(array: pa.Array | pa.ChunkedArray, ratios: F64) -> tuple[F64, I64]:
    """Log weights, Σ ratios[bucket] over the n-grams of each document, and its number of tokens, int64 of shape (n,).

    `ratios` are log ratios of shape (n_buckets,) or, of several targets, (R, n_buckets); log weights are of shape (n,) or (n, R).
    A document of no token weighs 0. Sums are exact to 2^-61 a term and owe nothing to the order of the n-grams, for documents of
    up to 2^29 tokens. Raises ValueError where a ratio lies outside of [-32, 32] (ln 1e-8 is -18.4).
    """
    fixed = _fixed(np.atleast_2d(ratios))
    parts = [_visit(texts, rule_of(len(fixed)), np.zeros(0, np.int64), fixed) for texts in text_chunks(array)]
    sums = np.concatenate([np.zeros((0, fixed.shape[1]), np.int64), *(part for part, _ in parts)])
    n_tokens = np.concatenate([np.zeros(0, np.int64), *(part for _, part in parts)])
    weights = _floats(sums)
    return weights.reshape(len(weights)) if np.ndim(ratios) == 1 else weights, n_tokens


_COARSE, _FINE = 28, 60  # binary places of the two integers that a ratio is the sum of


def _fixed(ratios: F64) -> I64:
    """(R, n_buckets) ratios as pairs of integers, coarse and fine, int64 of shape (n_buckets, 2R)."""
    if not np.all(np.abs(ratios) <= 32):
        raise ValueError("a log ratio lies outside of [-32, 32], or is not a number")
    coarse = np.rint(np.ldexp(ratios, _COARSE))
    fine = np.rint(np.ldexp(ratios - np.ldexp(coarse, -_COARSE), _FINE))
    return np.ascontiguousarray(np.stack([coarse, fine], axis=-1).swapaxes(0, 1).reshape(ratios.shape[1], -1), np.int64)


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
    return Buckets(np.zeros(_SLOTS, np.uint64), compared, np.uint64(n_buckets), powers)


def _visit(texts: Texts, rule: Buckets, counts: I64, ratios: I64) -> tuple[I64, I64]:
    """Count documents' n-grams into `counts` or add up their ratios: (sums, n_tokens)."""
    sums = np.zeros((len(texts.sizes), ratios.shape[1]), np.int64)
    n_tokens = np.zeros(len(texts.sizes), np.int64)

    def run(some: Texts, places: I64, table: U32) -> I64:
        part, n = np.zeros((len(places), ratios.shape[1]), np.int64), np.zeros(len(places), np.int64)
        _run(some.data, some.begins, some.sizes, table, rule, counts, ratios, part, n)
        sums[places], n_tokens[places] = part, n
        return n

    in_passes(texts, run)
    return sums, n_tokens
