"""Which documents have similar MinHash signatures: bands, pairs within buckets, and clusters about leaders.

All of it is a function of the set of documents: neither order nor partition matters, as every bucket is worked through in the
order of its records.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import uint64

from tasks.kernels.tokens import GOLDEN, I32, I64, U32, U64, compiled, fold

SMALL_BUCKET = 64  # within a bucket of up to so many records all pairs are looked at
N_CENTRES = 256  # within a larger one, a record is compared with so many others at most

_1, _2, _4, _56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
_5555, _3333 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_0F0F, _0101 = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


# --- keys of signatures --------------------------------------------------------------------------------------------------------


@compiled
def band_keys(minhash: U32, n_bands: int, n_rows: int) -> U64:
    """A key of each band of `n_rows` values, uint64 (n, n_bands); no key of one band equals one of another."""
    keys = np.empty((len(minhash), n_bands), np.uint64)
    for i in range(len(minhash)):
        for band in range(n_bands):
            state = fold(uint64(band) * GOLDEN, uint64(band + 1))
            for row in range(n_rows):
                state = fold(state, uint64(minhash[i, band * n_rows + row]))
            keys[i, band] = fold(state, uint64(band))
    return keys


@compiled
def sign_bits(minhash: U32) -> U64:
    """The lowest bit of each value, uint64 (n, ceil(n_permutations / 64)): two signatures share half of the bits by chance."""
    bits = np.zeros((len(minhash), (minhash.shape[1] + 63) // 64), np.uint64)
    for i in range(len(minhash)):
        for k in range(minhash.shape[1]):
            bits[i, k // 64] |= uint64(minhash[i, k] & 1) << uint64(k % 64)
    return bits


@compiled
def _n_differing(bits: U64, i: int, j: int) -> int:
    total = uint64(0)
    for k in range(bits.shape[1]):
        x = bits[i, k] ^ bits[j, k]
        x = x - ((x >> _1) & _5555)
        x = (x & _3333) + ((x >> _2) & _3333)
        x = (x + (x >> _4)) & _0F0F
        total += (x * _0101) >> _56
    return int(total)


@compiled
def n_equal(left: U32, right: U32, a: I64, b: I64) -> I32:
    """How many values each pair of signatures, left[a[i]] and right[b[i]], has in common."""
    counts = np.zeros(len(a), np.int32)
    for i in range(len(a)):
        first, second = left[a[i]], right[b[i]]
        n = 0
        for k in range(left.shape[1]):
            n += int(first[k] == second[k])
        counts[i] = n
    return counts


@compiled
def may_recur(keys: U64) -> npt.NDArray[np.bool_]:
    """Which keys may be there twice: all that are, and about one in eight of the others (their lowest bits are there twice)."""
    n_slots = 16
    while n_slots < 8 * len(keys):
        n_slots *= 2
    seen, mask = np.zeros(n_slots, np.uint8), uint64(n_slots - 1)
    for key in keys:
        seen[key & mask] = min(seen[key & mask] + 1, 2)
    found = np.empty(len(keys), np.bool_)
    for i in range(len(keys)):
        found[i] = seen[keys[i] & mask] > 1
    return found


# --- pairs within buckets ------------------------------------------------------------------------------------------------------


@compiled
def bucket_pairs(buckets: I64, bits: U64, most: int) -> tuple[I64, I64]:
    """Pairs of places i < j of one bucket whose bits differ in at most `most`.

    `buckets` says where each bucket begins, and at last where all end. In a large bucket a record is compared with centres only,
    the last `N_CENTRES` records that came near no centre before them: the work is linear in the size of a bucket. Records
    are expected in the order in which they lead; one that is near to another has about as many words, so that an order by
    words leaves few pairs unseen.
    """
    firsts, seconds = np.empty(1024, np.int64), np.empty(1024, np.int64)
    centres = np.empty(N_CENTRES, np.int64)
    n = 0
    for bucket in range(len(buckets) - 1):
        begin, end = buckets[bucket], buckets[bucket + 1]
        reach = SMALL_BUCKET if end - begin <= SMALL_BUCKET else N_CENTRES
        is_small = reach == SMALL_BUCKET
        n_centres = 0
        for j in range(begin, end):
            if n + reach > len(firsts):
                firsts = np.concatenate((firsts, np.empty_like(firsts)))
                seconds = np.concatenate((seconds, np.empty_like(seconds)))
            before = n
            for k in range(min(n_centres, reach)):
                if _n_differing(bits, centres[k], j) <= most:
                    firsts[n], seconds[n] = centres[k], j
                    n += 1
            if is_small or n == before:
                centres[n_centres % N_CENTRES] = j
                n_centres += 1
    return firsts[:n], seconds[:n]


# --- clusters ------------------------------------------------------------------------------------------------------------------


@compiled
def components(n: int, a: I64, b: I64) -> I64:
    """The connected component of each of n nodes, told by its least node (union-find with path halving)."""
    parent = np.arange(n)
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        parent[max(x, y)] = min(x, y)
    for x in range(n):
        parent[x] = parent[parent[x]]
    return parent


@compiled
def leaders(starts: I64, neighbours: I64, similarities: I32) -> tuple[I64, I32]:
    """The leader of each node, and how similar it is to it; a leader leads itself.

    Nodes come in the order in which they may lead. One that is linked to no leader before it is a leader; others follow the most
    similar of the leaders they are linked to, the first of equals. So nobody follows through a chain: who follows is linked to
    whom it follows. The links of node i are neighbours[starts[i]:starts[i + 1]].
    """
    n = len(starts) - 1
    leader, similarity = np.arange(n), np.zeros(n, np.int32)
    for i in range(n):
        for k in range(starts[i], starts[i + 1]):
            j = neighbours[k]
            if j >= i or leader[j] != j:
                continue
            if similarities[k] > similarity[i] or (similarities[k] == similarity[i] and j < leader[i]):
                leader[i], similarity[i] = j, similarities[k]
    return leader, similarity
