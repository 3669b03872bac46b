"""What the containment benchmarks stand on: made lakes are the same ones again, and samples of pairs leave none out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infra.lake import Lake
from tests.bench.lakes import DERIVED, Shape, tables
from tests.bench.oracle import Fitting, agreement, by_duckdb, fitting, scanned, scratch_lake, told

SHAPE = Shape(70, 20, 60)
NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True).map(tuple)


def test_a_made_lake_is_made_again() -> None:
    once, again = ([(name, files) for name, files in tables(SHAPE)] for _ in range(2))
    assert len(once) == SHAPE.n_tables == len({name for name, _ in once})
    assert once == again
    other = [(name, files) for name, files in tables(Shape(70, 20, 60, seed=1))]
    assert other != once


def test_a_larger_lake_has_the_same_tables_with_more_rows() -> None:
    small, large = (dict(tables(shape)) for shape in (SHAPE, SHAPE.scaled(10)))
    assert small.keys() == large.keys()
    n_small, n_large = (sum(file.num_rows for files in lake.values() for file in files) for lake in (small, large))
    assert 7 * n_small < n_large < 13 * n_small


def test_every_way_to_derive_is_taken() -> None:
    names = [name for name, _ in tables(Shape(280, 5, 9))]
    assert all(any(name.split("_")[-1].startswith(how) for name in names) for how in DERIVED)


@given(NAMES, NAMES, st.integers(0, 3))
def test_a_sample_of_all_pairs_is_all_pairs(children: tuple[str, ...], parents: tuple[str, ...], seed: int) -> None:
    others = tuple(name.upper() for name in parents)
    fits = Fitting(((children, children), (children, others)))
    expected = {(a, b) for a in children for b in (*children, *others) if a != b}
    assert {*fits} == {*fits.sample(100, seed)} == expected
    assert len(fits) == len(expected)
    some = fits.sample(3, seed)
    assert len({*some}) == len(some) == min(3, len(expected)) and {*some} <= expected


def test_duckdb_and_ours_agree_on_a_made_lake() -> None:
    with scratch_lake(Shape(28, 20, 60)) as (settings, snapshots):
        ours = scanned(settings, snapshots)
        tables_told = told(Lake.open(settings), snapshots)
        theirs, _, _ = by_duckdb(tables_told, [*fitting(tables_told.kinds)])
    assert ours.edges == theirs and any(not multiset for _, _, multiset in theirs)
    assert agreement(ours.edges, theirs).startswith("precision 1, recall 1 of")
