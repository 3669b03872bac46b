"""A cover holds every row and no parent of it can be left out; there is none exactly where the union lacks a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.covers import (
    Candidate,
    Choice,
    add_tallies,
    choose,
    compare_unions,
    coverable,
    questions,
    tally_of,
    undominated,
)
from tasks.dedup.sketches import Sketch, merged, pack, sketch_of

ROWS = st.lists(st.integers(0, 5), max_size=8)
PARENTS = st.lists(ROWS, max_size=5)


def piece(child: Sequence[int], parents: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    rows = sorted(set(child))
    found = np.array([[list(parent).count(row) for row in rows] for parent in parents], np.int64)
    return np.array([child.count(row) for row in rows], np.int64), found.reshape(len(parents), len(rows))


def named(parents: Sequence[Sequence[int]]) -> list[Candidate]:
    return [Candidate(f"p{i}", len(parent)) for i, parent in enumerate(parents)]


def holds(child: Sequence[int], parents: Sequence[Sequence[int]], *, multiset: bool) -> bool:
    union = list(chain.from_iterable(parents))
    return Counter(child) <= Counter(union) if multiset else set(child) <= set(union)


@settings(max_examples=200, deadline=None)
@given(ROWS, PARENTS)
def test_a_choice_covers_and_is_minimal_and_is_made_where_it_can_be(child: list[int], parents: list[list[int]]) -> None:
    choice = choose(tally_of([piece(child, parents)], len(parents)), named(parents))
    usable = [parent for parent in parents if not holds(child, [parent], multiset=False)]
    assert (choice is not None) == (bool(child) and holds(child, usable, multiset=False))
    if choice is None:
        return
    assert choice.multiset == holds(child, usable, multiset=True)
    chosen = [parents[p] for p in choice.parents]
    assert holds(child, chosen, multiset=choice.multiset)
    assert all(parent in usable for parent in chosen)
    assert len(chosen) >= 2
    for some in combinations(chosen, len(chosen) - 1):
        assert not holds(child, some, multiset=choice.multiset)


@settings(max_examples=200, deadline=None)
@given(ROWS, PARENTS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_pieces_and_order_change_nothing(child: list[int], parents: list[list[int]], at: int, rng: object) -> None:
    needed, found = piece(child, parents)
    whole = tally_of([(needed, found)], len(parents))
    cut = tally_of([(needed[at:], found[:, at:]), (needed[:at], found[:, :at])], len(parents))
    assert choose(cut, named(parents)) == choose(whole, named(parents))
    assert int(whole.n_rows.sum()) == len(needed)
    order = list(range(len(parents)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shuffled = choose(tally_of([(needed, found[order])], len(parents)), [named(parents)[i] for i in order])
    expected = choose(whole, named(parents))
    assert shuffled == (expected and Choice(tuple(order.index(p) for p in expected.parents), expected.multiset))


@settings(max_examples=200, deadline=None)
@given(ROWS, PARENTS, st.integers(0, 40))
def test_a_tally_out_of_room_names_no_false_cover(child: list[int], parents: list[list[int]], max_words: int) -> None:
    tally = tally_of([piece(child, parents)], len(parents), max_words=max_words)
    assert int(tally.n_rows.sum()) == len(set(child))
    choice = choose(tally, named(parents))
    assert choice is None or holds(child, [parents[p] for p in choice.parents], multiset=choice.multiset)


def test_many_parents_and_large_counts_keep_their_patterns_apart() -> None:
    rng = np.random.default_rng(1)
    needed = rng.integers(1, 1 << 20, 500)
    found = rng.integers(0, 1 << 20, (70, 500))
    half = add_tallies(*(tally_of([(needed[some], found[:, some])], 70) for some in (slice(0, 250), slice(250, 500))))
    assert sorted(zip(half.needed.tolist(), half.held.tolist(), strict=True)) == sorted(
        zip(needed.tolist(), np.minimum(found, needed).T.tolist(), strict=True)
    )


# --- by sketches ---------------------------------------------------------------------------------------------------------------

HASHES = st.lists(st.integers(0, 60), max_size=40)


def sketch(values: Sequence[int], floor: int = 5) -> Sketch:
    return sketch_of(np.array(values, np.uint64), scale=1 << 60, floor=floor)


@settings(max_examples=200, deadline=None)
@given(HASHES, st.lists(HASHES, max_size=5))
def test_a_true_cover_is_never_refuted_and_unions_compare_as_merged_sketches(child: list[int], parents: list[list[int]]) -> None:
    sketches = [sketch(parent) for parent in parents]
    union = merged(sketches)
    expected = {h for h in sketch(child).hashes.tolist() if h <= int(union.bound)}
    (n_compared,), (n_missing,) = compare_unions(
        pack([sketch(child)]), pack(sketches), np.array([(0, p) for p in range(len(parents))], np.int64).reshape(-1, 2)
    )
    assert (n_compared, n_missing) == (len(expected), len(expected - set(union.hashes.tolist())))
    assert coverable(sketch(child), sketches) == (n_missing == 0)
    if holds(child, parents, multiset=False):
        assert coverable(sketch(child), sketches)


@settings(max_examples=100, deadline=None)
@given(st.lists(HASHES, min_size=1, max_size=3), st.lists(HASHES, min_size=1, max_size=4))
def test_questions_lose_no_cover(children: list[list[int]], parents: list[list[int]]) -> None:
    pairs = [(c, p) for c, child in enumerate(children) for p, parent in enumerate(parents) if not set(child) <= set(parent)]
    contained_in = {
        f"p{i}": {f"p{j}" for j, b in enumerate(parents) if i != j and set(a) <= set(b)} for i, a in enumerate(parents)
    }
    packed = pack([sketch(child) for child in children]), pack([sketch(parent) for parent in parents])
    at_most = np.array([len(set(children[c]) & set(parents[p])) / len(set(children[c])) for c, p in pairs])
    for bounds in (None, at_most):
        found = questions(*packed, np.array(pairs, np.int64).reshape(-1, 2), named(parents), contained_in, at_most=bounds)
        for c, child in enumerate(children):
            usable = [parents[p] for one, p in pairs if one == c]
            if child and holds(child, usable, multiset=False):
                assert holds(child, [parents[p] for p in found[c]], multiset=False)


def test_the_dominated_are_left_out() -> None:
    candidates = [Candidate("big", 9), Candidate("part", 4), Candidate("copy", 9), Candidate("other", 3)]
    contained_in = {"part": {"big", "copy", "elsewhere"}, "big": {"copy"}, "copy": {"big"}, "other": {"other"}}
    assert undominated(candidates, contained_in) == [0, 3]


# --- by eye --------------------------------------------------------------------------------------------------------------------


def test_a_year_is_its_months() -> None:
    year = [day for day in range(360) for _ in range(2)]
    months = [[day for day in range(30 * m, 30 * m + 30) for _ in range(2)] for m in range(12)]
    noise = [list(range(0, 360, 17)), list(range(1000, 1100)), year]
    tally = tally_of([piece(year, [*noise, *months])], 15)
    assert len(tally.n_rows) == 24  # a month each, with and without the days of the first noise
    assert choose(tally, named([*noise, *months])) == Choice(tuple(sorted(range(3, 15), key=lambda p: f"p{p}")), True)
    once = tally_of([piece(year, [sorted(set(month)) for month in months])], 12)
    assert choose(once, named([sorted(set(month)) for month in months])) == Choice(
        tuple(sorted(range(12), key=lambda p: f"p{p}")), False
    )


@pytest.mark.parametrize(("sizes", "expected"), [((5, 4, 4), (0, 1)), ((4, 4, 4), (0, 1)), ((6, 5, 4), (0, 2))])
def test_ties_go_to_fewer_rows_and_then_to_the_first_name(sizes: tuple[int, ...], expected: tuple[int, ...]) -> None:
    found = np.array([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    candidates = [Candidate(name, n_rows) for name, n_rows in zip("abc", sizes, strict=True)]
    assert choose(tally_of([(np.ones(4, np.int64), found)], 3), candidates) == Choice(expected, True)
