"""The search agrees with counting by hand, whatever the runs."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.exact import Run, Verdict, contained, merge_runs, run_of

# Few values, and first halves that collide where second halves differ.
HASH = st.tuples(st.integers(0, 3), st.integers(0, 3))
ROWS = st.lists(HASH, max_size=30)


def hashes(rows: list[tuple[int, int]]) -> np.ndarray:
    return np.array(rows, np.uint64).reshape(-1, 2)


def counts(run: Run) -> Counter[tuple[int, int]]:
    return Counter({(int(a), int(b)): int(n) for a, b, n in zip(run.low, run.high, run.counts, strict=True)})


def by_hand(child: list[tuple[int, int]], parent: list[tuple[int, int]]) -> Verdict:
    return Verdict(set(child) <= set(parent), Counter(child) <= Counter(parent))


@settings(deadline=None)
@given(ROWS)
def test_a_run_counts_its_rows_in_order(rows: list[tuple[int, int]]) -> None:
    run = run_of(hashes(rows))
    assert counts(run) == Counter(rows)
    pairs = list(zip(run.low.tolist(), run.high.tolist(), strict=True))
    assert pairs == sorted(set(rows))


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_merged_runs_are_the_run_of_all_rows(parts: list[list[tuple[int, int]]]) -> None:
    merged = merge_runs([run_of(hashes(rows)) for rows in parts])
    assert counts(merged) == Counter(row for rows in parts for row in rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.lists(ROWS, min_size=1, max_size=3))
def test_contained_is_counting(children: list[list[tuple[int, int]]], parent: list[list[tuple[int, int]]]) -> None:
    runs = [run_of(hashes(rows)) for rows in parent]
    whole = [row for rows in parent for row in rows]
    expected = [by_hand(child, whole) for child in children]
    assert contained([run_of(hashes(child)) for child in children], runs, n_runs=len(runs)) == expected


def test_one_row_that_differs_in_the_second_half_only_is_found() -> None:
    parent = np.arange(200_000, dtype=np.uint64).reshape(-1, 2)
    child = parent[::7].copy()
    assert contained([run_of(child)], [run_of(parent)], n_runs=1) == [Verdict(True, True)]
    child[1234, 1] += np.uint64(1)
    assert contained([run_of(child)], [run_of(parent)], n_runs=1) == [Verdict(False, False)]


def test_a_set_is_no_multiset() -> None:
    child = run_of(hashes([(1, 1), (1, 1), (2, 2)]))
    parent = run_of(hashes([(1, 1), (2, 2), (3, 3)]))
    assert contained([child], [parent], n_runs=1) == [Verdict(True, False)]
