"""The search agrees with counting by hand, whatever the runs."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.exact import (
    N_RANGES,
    Counted,
    Run,
    count,
    found_counts,
    merge_runs,
    ranged,
    run_of,
    total,
)

# Few values, and first halves that collide where second halves differ.
HASH = st.tuples(st.integers(0, 3), st.integers(0, 3))
ROWS = st.lists(HASH, max_size=30)


def hashes(rows: list[tuple[int, int]]) -> np.ndarray:
    return np.array(rows, np.uint64).reshape(-1, 2)


def counts(run: Run) -> Counter[tuple[int, int]]:
    return Counter({(int(a), int(b)): int(n) for a, b, n in zip(run.low, run.high, run.counts, strict=True)})


def by_hand(child: list[tuple[int, int]], parent: list[tuple[int, int]]) -> Counted:
    ours, theirs = Counter(child), Counter(parent)
    return Counted(len(child), len(ours), len(ours.keys() - theirs.keys()), (ours - theirs).total())


def chance(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 64, (n, 2), np.uint64)


def check(run: Run, parents: list[Run], limit_fraction: float = 1.0) -> Counted:
    return count([run], parents, n_runs=len(parents), limit_fraction=limit_fraction)[0]


@settings(deadline=None)
@given(ROWS)
def test_a_run_counts_its_rows_in_order(rows: list[tuple[int, int]]) -> None:
    run = run_of(hashes(rows))
    assert counts(run) == Counter(rows)
    assert (run.n_distinct, run.n_rows) == (len(set(rows)), len(rows))
    pairs = list(zip(run.low.tolist(), run.high.tolist(), strict=True))
    assert pairs == sorted(set(rows))


@settings(deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_merged_runs_are_the_run_of_all_rows(parts: list[list[tuple[int, int]]]) -> None:
    merged = merge_runs([run_of(hashes(rows)) for rows in parts])
    whole = run_of(hashes([row for rows in parts for row in rows]))
    assert all(np.array_equal(a, b) for a, b in zip(columns(merged), columns(whole), strict=True))


def columns(run: Run) -> tuple[np.ndarray, ...]:
    return run.low, run.high, run.counts


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.lists(ROWS, max_size=3), st.randoms())
def test_what_is_left_over_is_counted(
    children: list[list[tuple[int, int]]], parent: list[list[tuple[int, int]]], luck: Random
) -> None:
    """However the parent is cut into runs, and in whatever order its rows come."""
    whole = [row for rows in parent for row in rows]
    expected = [by_hand(child, whole) for child in children]
    runs = [run_of(hashes(child)) for child in children]
    luck.shuffle(whole)
    for parents in ([run_of(hashes(rows)) for rows in parent], [run_of(hashes(whole))]):
        assert count(runs, parents, n_runs=len(parents), limit_fraction=1.0) == expected
        found = [found_counts(run, parents) for run in runs]
        assert [(some == 0).sum() for some in found] == [one.n_missing_distinct for one in expected]


@settings(deadline=None)
@given(ROWS, ROWS, st.floats(0, 1))
def test_a_search_that_stops_says_nothing_wrong(
    child: list[tuple[int, int]], parent: list[tuple[int, int]], limit_fraction: float
) -> None:
    truth = by_hand(child, parent)
    found = check(run_of(hashes(child)), [run_of(hashes(parent))], limit_fraction)
    assert (found.set, found.multiset) == (truth.set, truth.multiset)
    assert found.complete or truth.n_missing_distinct > limit_fraction * truth.n_distinct
    assert found == truth if found.complete else found.n_missing_distinct <= truth.n_missing_distinct
    assert found.n_residual <= truth.n_residual


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.lists(st.integers(0, N_RANGES), max_size=3), st.integers(0, 9))
def test_ranges_add_up(n_child: int, n_parent: int, cuts: list[int], seed: int) -> None:
    rows = chance(400, seed)
    child, parent = run_of(np.concatenate([rows[:n_child], rows[: n_child // 3]])), run_of(rows[100 : 100 + n_parent])
    bounds = sorted({0, N_RANGES, *cuts})
    parts = [check(ranged(child, a, b), [ranged(parent, a, b)]) for a, b in pairwise(bounds)]
    assert total(parts) == check(child, [parent])


def test_a_row_that_differs_in_the_second_half_only_is_found() -> None:
    parent = np.arange(200_000, dtype=np.uint64).reshape(-1, 2)
    child = parent[::7].copy()
    assert check(run_of(child), [run_of(parent)]).multiset
    child[1234, 1] += np.uint64(1)
    assert check(run_of(child), [run_of(parent)]) == Counted(len(child), len(child), 1, 1)


def test_a_set_is_no_multiset() -> None:
    child = run_of(hashes([(1, 1), (1, 1), (1, 1), (2, 2)]))
    parent = run_of(hashes([(1, 1), (2, 2), (3, 3)]))
    found = check(child, [parent])
    assert found == Counted(4, 2, 0, 2)
    assert found.set and not found.multiset and found.fraction == 1.0


def test_a_search_stops_when_it_is_certain() -> None:
    """Of a child that shares nothing a few rows are looked at; one at the limit is counted to its end."""
    rows = chance(100_000)
    parent = run_of(rows[:60_000])
    nothing, most = run_of(rows[60_000:]), run_of(rows[5_000:65_000])
    stopped = check(nothing, [parent], 0.1)
    assert not stopped.complete and stopped.n_missing_distinct < 100
    assert check(nothing, [parent], 0.0).n_missing_distinct == 1
    assert check(most, [parent], 0.1) == Counted(60_000, 60_000, 5_000, 5_000)
    assert not check(most, [parent], 0.05).complete


def test_no_rows_are_contained() -> None:
    nothing, something = run_of(hashes([])), run_of(hashes([(1, 1)]))
    assert check(nothing, [something]).multiset and check(nothing, []).multiset
    assert check(something, [nothing]) == check(something, []) == Counted(1, 1, 1, 1)
    assert check(nothing, [something]).fraction == 1.0
