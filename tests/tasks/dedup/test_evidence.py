"""Evidence does not depend on the order or the files, is exact for small columns, and stops at its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.evidence import MAX_BITS, evidence_bits, n_distinct, why_apart
from tasks.dedup.sketches import COLUMN_FLOOR, COLUMN_SCALE, Sketch, merged, sketch_of

CELLS = st.lists(st.one_of(st.just(0), st.integers(0, 2**64 - 1)), min_size=1, max_size=40)


def column(hashes: np.ndarray | list[int]) -> Sketch:
    return sketch_of(np.array(hashes, np.uint64), scale=COLUMN_SCALE, floor=COLUMN_FLOOR)


def keyed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64 - 1, n, np.uint64, endpoint=True)


@settings(deadline=None)
@given(st.integers(0, 300), st.lists(st.integers(0, 300), max_size=5), st.booleans(), st.integers(0, 99))
def test_files_and_order_change_nothing(n: int, at: list[int], has_null: bool, seed: int) -> None:
    cells = np.concatenate([keyed(n, seed), np.zeros(int(has_null), np.uint64)])
    files = np.split(np.random.default_rng(seed).permutation(cells), sorted(min(a, n) for a in at))
    assert evidence_bits({"a": merged([column(file) for file in files])}) == evidence_bits({"a": column(cells)})


@settings(deadline=None)
@given(CELLS)
def test_small_columns_are_counted(cells: list[int]) -> None:
    assert evidence_bits({"a": column(cells)}) == math.log2(len(set(cells)))


def test_null_counts_once_whether_its_cells_were_hashed_or_not() -> None:
    for values in (np.arange(1, 4), keyed(5000)):
        hashed = column(np.concatenate([values.astype(np.uint64), np.zeros(2, np.uint64)]))
        assert n_distinct(hashed) == pytest.approx(n_distinct(column(values)) + 1, rel=0.02)
        assert evidence_bits({"a": hashed}, with_nulls=["a"]) == evidence_bits({"a": hashed})
    apart = evidence_bits({"a": column([1, 2, 3]), "b": column([7])}, with_nulls=["a", "b"])
    assert apart == pytest.approx(math.log2(4 * 2))


@pytest.mark.parametrize("n", [COLUMN_FLOOR - 1, COLUMN_FLOOR, 1_000, 1_000_000])
def test_estimates_are_unbiased(n: int) -> None:
    found = np.array([n_distinct(column(keyed(n, seed))) for seed in range(40)])
    error = 0.0 if n < COLUMN_FLOOR else 1 / math.sqrt(COLUMN_FLOOR)
    assert abs(found.mean() / n - 1) <= 3 * error / math.sqrt(len(found))
    assert found.std() / n <= 1.5 * error


def test_flags_prove_little_and_identifiers_stop_at_the_bound() -> None:
    flag, number = column([1, 2]), column(keyed(1 << 17))
    assert evidence_bits({"a": flag, "b": flag}) == 2.0
    assert evidence_bits({"a": number}) == pytest.approx(17.0, abs=0.5)
    assert evidence_bits({str(i): number for i in range(9)}) == MAX_BITS
    assert evidence_bits({}) == evidence_bits({"a": column([])}) == 0.0


def test_reasons() -> None:
    assert why_apart(0, 3, all_null=False) == "empty"
    assert why_apart(5, 0, all_null=False) == "no comparable column"
    assert why_apart(5, 3, all_null=True) == "all null"
    assert why_apart(5, 1, all_null=False) == "single column"
    assert why_apart(5, 2, all_null=False) is None
