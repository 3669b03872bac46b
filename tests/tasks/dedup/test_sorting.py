"""Sorting and counting hashes agrees with NumPy, however unevenly they are spread."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup.sorting import merge_sorted, sort_hashes

N = 30_000
LUCK = np.random.default_rng(0)
EVEN = LUCK.integers(0, 1 << 64, (N, 2), np.uint64)
SHAPES = {
    "even": EVEN,
    "few values": EVEN[LUCK.integers(0, 5, N)],
    "one value": EVEN[np.zeros(N, np.int64)],
    "one first half": np.stack([np.zeros(N, np.uint64), EVEN[:, 1]], axis=1),
    "one second half": np.stack([EVEN[:, 0], np.zeros(N, np.uint64)], axis=1),
    "small numbers": np.arange(2 * N, dtype=np.uint64)[::-1].reshape(-1, 2),
    "long common beginnings": EVEN & np.uint64(0xFF),
    "ends of the range": np.array([[0, (1 << 64) - 1], [(1 << 64) - 1, 0]] * (N // 2), np.uint64),
}


def check(hashes: np.ndarray) -> None:
    distinct, expected = np.unique(hashes, axis=0, return_counts=True)
    low, high, counts, n = sort_hashes(np.ascontiguousarray(hashes))
    assert n == len(distinct)
    assert np.array_equal(np.stack([low[:n], high[:n]], axis=1), distinct)
    assert np.array_equal(counts[:n], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_sorted(shape: str) -> None:
    check(SHAPES[shape])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=80), st.integers(0, 62), st.integers(0, 62))
def test_any_rows_are_sorted(rows: list[tuple[int, int]], shift: int, shift_too: int) -> None:
    shifts = np.array([shift, shift_too], np.uint64)
    check(np.array(rows, np.uint64).reshape(-1, 2) << shifts)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_merged_halves_are_the_whole(n: int, m: int, n_values: int) -> None:
    one, other = EVEN[np.arange(n) % n_values], EVEN[100 : 100 + m]
    low, high, counts, k = merge_sorted(*trimmed(one), *trimmed(other))
    whole = trimmed(np.concatenate([one, other]))
    assert all(np.array_equal(a[:k], b) for a, b in zip((low, high, counts), whole, strict=True))
    assert all(a < b for a, b in pairwise(zip(low[:k].tolist(), high[:k].tolist(), strict=True)))


def trimmed(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, counts, n = sort_hashes(np.ascontiguousarray(hashes))
    return low[:n], high[:n], counts[:n]
