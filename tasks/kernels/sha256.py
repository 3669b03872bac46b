"""SHA-256 (FIPS 180-4) of many short messages at once, one in each lane of the processor's vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import uint32, uint64

from tasks.kernels.tokens import U32, U64, compiled, eight_bytes

LANES = 32  # two vectors of sixteen, so that one is computed while the other waits for its own last result


# --- messages -----------------------------------------------------------------------------------------------------------------

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled
def n_blocks(span: tuple[int, int, int, int]) -> int:
    """Blocks of 64 bytes that a message takes: its bytes, one that ends it, and eight of its size."""
    left, left_end, right, right_end = span
    return (left_end - left + int(left_end > left) + right_end - right + 9 + 63) >> 6


@compiled
def _swapped(x: np.uint64) -> np.uint64:
    """The eight bytes in the other order."""
    total = uint64(0)
    for i in range(0, 64, 8):
        total |= ((x >> uint64(i)) & uint64(0xFF)) << uint64(56 - i)
    return total


@compiled
def put_message(padded: U64, first: int, last: int, words: U64, span: tuple[int, int, int, int]) -> None:
    """The message "token token" or "token", padded as SHA-256 wants it, into blocks [first, last)."""
    for k in range(8 * first, 8 * last + 1):
        padded[k] = 0
    at = 64 * first
    left, left_end, right, right_end = span
    for start, end, mark in ((left, left_end, 0x20), (right, right_end, 0x80)):
        for begin in range(start, end, 8):
            n_bytes = min(end - begin, 8)
            eight = eight_bytes(words, uint64(begin)) & (_ALL >> uint64(64 - 8 * n_bytes))
            shift = uint64(8 * (at & 7))
            padded[at >> 3] |= eight << shift
            padded[(at >> 3) + 1] |= (eight >> uint64(1)) >> (uint64(63) - shift)
            at += n_bytes
        if end > start:
            padded[at >> 3] |= uint64(mark) << uint64(8 * (at & 7))
            at += 1
    padded[8 * last - 1] = _swapped(uint64(8 * (at - 1 - 64 * first)))


# --- constants ----------------------------------------------------------------------------------------------------------------


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


# --- lanes --------------------------------------------------------------------------------------------------------------------


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
    """The message schedule: words 16 to 63 of each lane from its first 16; word t of lane l stands at t * LANES + l."""
    for t in range(16 * LANES, 64 * LANES, LANES):
        for i in range(t, t + LANES):
            x, y = words[i - 15 * LANES], words[i - 2 * LANES]
            low = _turn(x, 7) ^ _turn(x, 18) ^ (x >> uint32(3))
            high = _turn(y, 17) ^ _turn(y, 19) ^ (y >> uint32(10))
            words[i] = uint32(words[i - 16 * LANES] + low + words[i - 7 * LANES] + high)


class Lanes(NamedTuple):
    """Working space: word t of lane l stands at t * LANES + l. `state` are the digests so far, `words` the next block of each."""

    state: U32
    work: U32
    words: U32


@compiled
def lanes_of_sha256() -> Lanes:
    return Lanes(np.empty(8 * LANES, np.uint32), np.empty(8 * LANES, np.uint32), np.zeros(64 * LANES, np.uint32))


@compiled
def begin_all(state: U32) -> None:
    """New messages in all lanes."""
    for t in range(8):
        state[t * LANES : (t + 1) * LANES] = _H[t]


@compiled
def put_block(words: U32, lane: int, message: U32, at: int) -> None:
    """The next block of a lane: the 64 bytes from word `at` of a message on, as they stand in memory."""
    for t in range(16):
        x = message[at + t]
        words[t * LANES + lane] = uint32(
            (x << uint32(24)) | ((x & uint32(0xFF00)) << uint32(8)) | ((x >> uint32(8)) & uint32(0xFF00)) | (x >> uint32(24))
        )


@compiled
def absorb(lanes: Lanes) -> None:
    """Take the block of every lane into its state; the words from 16 on are overwritten."""
    state, work, words = lanes
    _stretch(words)
    work[:] = state
    for t in range(0, 64, 8):
        k0, k1, k2, k3, k4, k5, k6, k7 = _K[t], _K[t + 1], _K[t + 2], _K[t + 3], _K[t + 4], _K[t + 5], _K[t + 6], _K[t + 7]
        at = t * LANES
        for i in range(LANES):
            a, b, c, d = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
            e, f, g, h = work[i + 4 * LANES], work[i + 5 * LANES], work[i + 6 * LANES], work[i + 7 * LANES]
            w = at + i
            d, h = _round(a, b, c, d, e, f, g, h, uint32(k0 + words[w]))
            c, g = _round(h, a, b, c, d, e, f, g, uint32(k1 + words[w + LANES]))
            b, f = _round(g, h, a, b, c, d, e, f, uint32(k2 + words[w + 2 * LANES]))
            a, e = _round(f, g, h, a, b, c, d, e, uint32(k3 + words[w + 3 * LANES]))
            h, d = _round(e, f, g, h, a, b, c, d, uint32(k4 + words[w + 4 * LANES]))
            g, c = _round(d, e, f, g, h, a, b, c, uint32(k5 + words[w + 5 * LANES]))
            f, b = _round(c, d, e, f, g, h, a, b, uint32(k6 + words[w + 6 * LANES]))
            e, a = _round(b, c, d, e, f, g, h, a, uint32(k7 + words[w + 7 * LANES]))
            work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES] = a, b, c, d
            work[i + 4 * LANES], work[i + 5 * LANES], work[i + 6 * LANES], work[i + 7 * LANES] = e, f, g, h
    for i in range(8 * LANES):
        state[i] = uint32(state[i] + work[i])


@compiled
def remainder(state: U32, lane: int, powers: U64, n_buckets: np.uint64) -> np.uint64:
    """A lane's digest, a number of 256 bits, modulo n_buckets."""
    total = uint64(0)
    for t in range(8):
        total += uint64(state[t * LANES + lane]) * powers[t]
    return total % n_buckets
