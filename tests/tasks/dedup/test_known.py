"""What is said to hold still is what counting again would say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.exact import Counted, count, run_of
from tasks.dedup.known import Change, still

ROWS = st.lists(st.integers(0, 5), max_size=8)


def counted(child: list[int], parent: list[int], limit: float = 1.0) -> Counted:
    runs = [run_of(np.array([[value, 1] for value in rows], np.uint64).reshape(-1, 2)) for rows in (child, parent)]
    return count([runs[0]], [runs[1]], n_runs=1, limit_fraction=limit)[0]


@settings(max_examples=300, deadline=None)
@given(*(ROWS for _ in range(6)), st.sampled_from([0.3, 0.9, 1.0]))
def test_what_still_holds_is_what_counting_says(
    child: list[int],
    parent: list[int],
    child_lost: list[int],
    parent_lost: list[int],
    child_more: list[int],
    parent_more: list[int],
    approximate: float,
) -> None:
    before = counted([*child, *child_lost], [*parent, *parent_lost], 1.0 - approximate)
    found = still(
        before, Change(len(child_more), len(child_lost)), Change(len(parent_more), len(parent_lost)), approximate=approximate
    )
    if found is None:
        return
    now = counted([*child, *child_more], [*parent, *parent_more])
    assert (found.set, found.multiset) == (now.set, now.multiset)
    if not now.set:
        assert now.fraction < approximate or (found == before and not (child_lost or child_more or parent_lost or parent_more))
        assert found.n_missing_distinct <= now.n_missing_distinct and found.n_residual <= now.n_residual


def test_a_parent_that_grows_by_less_than_is_missing_changes_nothing() -> None:
    refuted = Counted(100, 100, 40, 40, complete=False)
    assert still(refuted, Change(), Change(n_added=10), approximate=0.9) == Counted(100, 100, 30, 30, complete=False)
    assert still(refuted, Change(), Change(n_added=35), approximate=0.9) is None


def test_a_containment_outlives_a_parent_that_grows_and_a_child_that_shrinks() -> None:
    whole = Counted(100, 90, 0, 0)
    assert still(whole, Change(n_removed=10), Change(n_added=5), approximate=0.9) == Counted(90, 0, 0, 0)
    assert still(whole, Change(n_added=1), Change(), approximate=0.9) is None
    assert still(whole, Change(), Change(n_removed=1), approximate=0.9) is None


@pytest.mark.parametrize("change", [Change(1, 0), Change(0, 1)])
def test_a_set_whose_copies_are_too_few_is_counted_again(change: Change) -> None:
    assert Counter([1, 1]) - Counter([1])
    assert still(counted([1, 1], [1]), Change(), change, approximate=0.9) is None
