"""Which copies go: after erasing, containment holds again, and no row goes that the original still accounts for."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import DataFile
from infra.files import Part
from tasks.forget.frames import Copies, Hits, matches
from tasks.forget.plan import Edge, choose, shared_columns, union

LETTERS = st.lists(st.sampled_from("abc"), max_size=12)


def copies(rows: list[str], wanted: str) -> Copies:
    """One file of a neighbour, each row a letter; as the worker reports the wanted ones."""
    positions = np.array([i for i, row in enumerate(rows) if row in wanted], np.int64)
    indices = np.array([wanted.index(rows[i]) for i in positions], np.int64)
    part = Part("", DataFile("f", len(rows), 0, "0:0"), pa.schema([]))
    return Copies(Hits(part, positions, positions, np.zeros((len(positions), 2), np.uint64), np.zeros_like(positions)), indices)


def counts(rows: list[str], wanted: str) -> np.ndarray:
    return np.array([Counter(rows)[letter] for letter in wanted], np.int64)


@given(LETTERS.filter(bool), LETTERS, st.lists(LETTERS, min_size=1, max_size=3))
def test_containment_holds_again(erased: list[str], kept: list[str], files: list[list[str]]) -> None:
    """Of a multiset as many copies stay as the original keeps; of rows that it keeps nowhere, none; others stay."""
    wanted = "".join(sorted(set(erased)))
    chosen = choose([copies(rows, wanted) for rows in files], counts(erased, wanted), counts(kept, wanted), multiset=True)
    left = [row for rows, (hits, _) in zip(files, chosen, strict=True) for i, row in enumerate(rows) if i not in hits.positions]
    everything = Counter(row for rows in files for row in rows)
    for letter, n in everything.items():
        expected = min(n, Counter(kept)[letter]) if letter in wanted else n
        assert Counter(left)[letter] == expected
    for rows, (hits, gone) in zip(files, chosen, strict=True):
        assert all((rows[i] not in left) == flag for i, flag in zip(hits.positions, gone, strict=True))


def test_a_set_loses_no_more_than_the_original_lost() -> None:
    """The original had one row of two persons; the child has five. One was erased: one of the five goes."""
    [(hits, gone)] = choose([copies(["a"] * 5, "a")], np.array([1]), np.array([1]), multiset=False)
    assert hits.positions.tolist() == [4]
    assert gone.tolist() == [False]


@given(LETTERS.filter(bool), LETTERS, st.lists(LETTERS, min_size=1, max_size=3), st.randoms())
def test_rows_that_go_anyway_count(erased: list[str], kept: list[str], files: list[list[str]], chance: Random) -> None:
    """A neighbour that loses some of the equal rows by its own subject columns loses only as many more as are due, and not the
    same ones twice."""
    wanted = "".join(sorted(set(erased)))
    found = [copies(rows, wanted) for rows in files]
    taken = [np.array([p for p in one.hits.positions if chance.random() < 0.4], np.int64) for one in found]
    chosen = choose(found, counts(erased, wanted), counts(kept, wanted), multiset=True, taken=taken)
    assert not any(np.isin(hits.positions, going).any() for (hits, _), going in zip(chosen, taken, strict=True))
    for letter in wanted:
        n_found, n_due = sum(rows.count(letter) for rows in files), Counter(kept)[letter]
        gone = [set(hits.positions) | set(going) for (hits, _), going in zip(chosen, taken, strict=True)]
        n_gone = sum(rows[i] == letter for rows, positions in zip(files, gone, strict=True) for i in positions)
        n_taken = sum(rows[i] == letter for rows, positions in zip(files, taken, strict=True) for i in positions)
        assert n_gone == max(n_taken, n_found - n_due)


def test_union_of_two_originals() -> None:
    one = choose([copies(["a", "b", "a"], "a")], np.array([2]), np.array([1]), multiset=True)
    two = choose([copies(["a", "b", "a"], "ab")], np.array([1, 1]), np.array([2, 0]), multiset=True)
    [(hits, gone)] = union([one, two])
    assert hits.positions.tolist() == [1, 2]
    assert gone.tolist() == [True, False]


def test_shared_columns_need_one_side_whole() -> None:
    assert shared_columns(["Email", "city", "x"], ["CITY", "email"]) == ("Email", "city")
    assert shared_columns(["a", "b"], ["b", "c"]) == ()
    assert Edge("c", "p", True).other("p") == "c"
    assert Edge("c", "p", True).other("x") is None


def test_matching_needs_both_lanes() -> None:
    hashes = np.array([[1, 2], [1, 3], [4, 2], [1, 2]], np.uint64)
    positions, indices = matches(hashes, {(1, 2): 0}, skip=np.array([False, False, False, True]))
    assert positions.tolist() == [0]
    assert indices.tolist() == [0]
