"""How much of a document its repeated word n-grams are, for n of 2 to 10.

An n-gram can only occur twice where both (n-1)-grams within it do. So each length looks at the places that the one before has
left, and names an n-gram by the two names before it: a pair of numbers, without a hash that could collide.
"""

from __future__ import annotations

import numpy as np
from numba import uint32, uint64

from tasks.kernels.signals_chars import signed
from tasks.kernels.tokens import GOLDEN, I64, U32, U64, compiled, fetch, inlined

LONGEST = 10
AHEAD, _NEAR, _GUESSED = 16, 1 << 12, 4
_29, _30, _32 = np.uint64(29), np.uint64(30), np.uint64(32)


@compiled
def table_size(n: int) -> int:
    """The size of an open-addressed table for so many entries: a power of two, at most half full."""
    size = 8
    while size < 2 * n:
        size *= 2
    return size


@inlined
def _slot(key: np.uint64, mask: np.uint64) -> np.uint64:
    return (((key ^ (key >> _29)) * GOLDEN) >> _30) & mask


@compiled
def name_each(keys: U64, n: int, slots: U32, names: U32, known: U64, counts: U32) -> int:
    """Name keys by numbers from 1 on, in the order of first occurrence, the same key by the same; returns the number of names.

    Of each key: its name; of each name: its key and how often it occurs. `slots` is the table of names. `known` and `counts` are
    written for a next name in any case, so that no branch has to guess whether a key is new. Slots are fetched `AHEAD` of their
    turn, for a table may be larger than the cache.
    """
    mask = uint64(table_size(n) - 1)
    slots[: mask + uint64(1)] = 0
    known[0], fresh = uint64(0), uint64(1)
    far = n > _NEAR
    for k in range(uint64(n)):
        key = keys[k]
        if far:
            fetch(slots, _slot(keys[k + uint64(AHEAD)], mask))  # pyright: ignore[reportCallIssue]
        slot = _slot(key, mask)
        name = uint64(slots[slot])
        while (name != uint64(0)) & (known[name] != key):
            slot = (slot + uint64(1)) & mask
            name = uint64(slots[slot])
        known[fresh], counts[fresh] = key, uint32(0)
        is_fresh = uint64(name == uint64(0))
        name += is_fresh * fresh
        fresh += is_fresh
        slots[slot] = uint32(name)
        counts[name] += uint32(1)
        names[k] = uint32(name)
    return signed(fresh) - 1


@compiled
def _name_pairs(keys: U64, n: int, n_lefts: int, slots: U32, heads: U32, names: U32, known: U64, counts: U32) -> int:
    """As `name_each`, of pairs whose left half is at most `n_lefts` and seldom has more than one right half.

    The first pair of each left half is found by it, without a hash, and those of a repeated passage lie one behind the other;
    only other pairs go into `slots`.
    """
    mask = uint64(table_size(n) - 1)
    slots[: mask + uint64(1)] = 0
    heads[: n_lefts + 1] = 0
    known[0], fresh = uint64(0), uint64(1)
    for k in range(uint64(n)):
        key = keys[k]
        left = key >> _32
        name = uint64(heads[left])
        known[fresh], counts[fresh] = key, uint32(0)
        if name == uint64(0):
            name = fresh
            heads[left] = uint32(name)
        elif known[name] != key:
            slot = _slot(key, mask)
            name = uint64(slots[slot])
            while (name != uint64(0)) & (known[name] != key):
                slot = (slot + uint64(1)) & mask
                name = uint64(slots[slot])
            name = fresh if name == uint64(0) else name
            slots[slot] = uint32(name)
        fresh += uint64(name == fresh)
        counts[name] += uint32(1)
        names[k] = uint32(name)
    return signed(fresh) - 1


@inlined
def first_pairs(names: U32, counts: U32, n_words: int, places: U32, keys: U64) -> int:
    """The 2-grams both of whose words occur twice, as places and pairs of names; returns how many."""
    n = uint64(0)
    for i in range(uint64(1), uint64(n_words)):
        left, right = uint64(names[i - uint64(1)]), uint64(names[i])
        places[n] = uint32(i - uint64(1))
        keys[n] = (left << _32) | right
        n += uint64((counts[int(left)] > uint32(1)) & (counts[int(right)] > uint32(1)))
    return signed(n)


@inlined
def _longer_pairs(names: U32, counts: U32, n_grams: int, places: U32, keys: U64) -> int:
    """From n-grams to the (n+1)-grams both of whose n-grams occur twice; returns how many."""
    n = uint64(0)
    for k in range(uint64(1), uint64(n_grams)):
        place, left, right = places[k - uint64(1)], uint64(names[k - uint64(1)]), uint64(names[k])
        follows = places[k] == place + uint32(1)
        places[n] = place
        keys[n] = (left << _32) | right
        n += uint64(follows & (counts[left] > uint32(1)) & (counts[right] > uint32(1)))
    return signed(n)


@inlined
def _top_chars(names: U32, counts: U32, n_grams: int, places: U32, begins: U32, n: int) -> int:
    """Characters of the most frequent n-gram times its count, the longest of several; 0 where none occurs twice.

    The next name is the place where it occurs first: so every array is read from its beginning to its end.
    """
    most, longest, name = 1, 0, uint64(1)
    for k in range(uint64(n_grams)):
        count = signed(counts[name])
        is_first = uint64(names[k]) == name
        name += uint64(is_first)
        if is_first & (count >= most) & (count > 1):
            place = signed(places[k])
            size = signed(begins[uint64(place + n)]) - signed(begins[uint64(place)])
            longest = size if count > most else max(longest, size)
            most = count
    return most * longest


@inlined
def _dupe_chars(names: U32, n_grams: int, places: U32, begins: U32, n: int) -> int:
    """Characters within n-grams that occurred before, each counted once."""
    covered, total, name = 0, 0, 1
    for k in range(uint64(n_grams)):
        place = signed(places[k])
        repeated = int(signed(names[k]) != name)
        name += 1 - repeated
        begin, end = uint64(max(place, covered)), uint64(place + n)
        total += repeated * (signed(begins[end]) - signed(begins[begin]))
        covered += repeated * (place + n - covered)
    return total


@inlined
def read_repeats(
    n_grams: int,
    begins: U32,
    places: U32,
    keys: U64,
    slots: U32,
    heads: U32,
    names: U32,
    known: U64,
    counts: U32,
    found: I64,
    first: int,
) -> None:
    """Of n = 2, 3, 4 the characters of the top n-gram, of 5 to 10 those of repeated ones, into `found`, that of n at `first` + n.

    `begins` counts the characters up to each word; `places` and `keys` hold the `n_grams` 2-grams of `first_pairs`.
    """
    n_names = 0
    for n in range(2, LONGEST + 1):
        if n_grams < 2:
            return
        if n < _GUESSED:
            n_names = name_each(keys, n_grams, slots, names, known, counts)
        else:
            n_names = _name_pairs(keys, n_grams, n_names, slots, heads, names, known, counts)
        if n < 5:
            found[first + n] = _top_chars(names, counts, n_grams, places, begins, n)
        else:
            found[first + n] = _dupe_chars(names, n_grams, places, begins, n)
        n_grams = _longer_pairs(names, counts, n_grams, places, keys)
