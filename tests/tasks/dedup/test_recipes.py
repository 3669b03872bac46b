"""Recipes as they are written down, the terms in them, and the members beside them, each against the slow and obvious road."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import Snapshot
from infra.ids import Digest
from tasks.dedup.exact import merge_runs, run_of
from tasks.dedup.members import allot, as_batch, digest_of, of_batches, some_of, take_members, with_counts
from tasks.dedup.recipes import Recipe, Term, as_json, of_json, schema_of, schema_text
from tasks.dedup.terms import (
    MAX_TOGETHER,
    MAX_VALUES,
    add_to_tally,
    best_terms,
    conjunction,
    extent_of,
    meets,
    no_tally,
    terms_of,
    tightened,
)

NAN = float("nan")
KINDS: dict[str, tuple[pa.DataType, pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int64(), pa.int16(), st.integers(-3, 3)),
    "float": (pa.float64(), pa.float32(), st.sampled_from([0.0, -0.0, 0.5, -2.0, math.inf, -math.inf, NAN])),
    "bool": (pa.bool_(), pa.bool_(), st.booleans()),
    "text": (pa.string(), pa.large_string(), st.sampled_from(["", "a", "b", "ä"])),
    "date": (pa.date32(), pa.date32(), st.dates(dt.date(2024, 1, 1), dt.date(2024, 1, 4))),
    "instant": (
        pa.timestamp("us", "UTC"),
        pa.timestamp("us", "Europe/Berlin"),
        st.datetimes(dt.datetime(2024, 3, 31), dt.datetime(2024, 3, 31, 3), timezones=st.just(dt.UTC)),
    ),
    "local": (pa.timestamp("us"), pa.timestamp("us"), st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2))),
}
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.text(st.characters(codec="utf-8")),
    st.dates(),
    (st.datetimes() | st.datetimes(timezones=st.just(dt.UTC))).map(lambda moment: moment.replace(fold=0)),
)


def recipe(*terms: Term) -> Recipe:
    schema = pa.schema(
        [pa.field("row_id", pa.int64()), pa.field("a", pa.decimal128(12, 3)), pa.field("b", pa.list_(pa.string()))]
    )
    snapshot = Snapshot("records/p", 3, "2:0f", 2)
    return Recipe("c/d", "predicate", (snapshot,), (("A", "a"),), terms, None, snapshot, "2:0f", 2, schema_text(schema), ("a",))


# --- the written form ----------------------------------------------------------------------------------------------------------


@given(st.lists(VALUES, min_size=3, max_size=3), st.booleans())
def test_a_recipe_is_read_as_it_was_written(values: list[Any], nulls: bool) -> None:
    written = recipe(Term("a", values[0], values[1], None, nulls), Term("b", values=(values[2],)))
    read = of_json(as_json(written))
    assert repr(read) == repr(written)
    assert [type(v) for t in read.terms for v in (t.low, t.high)] == [type(v) for t in written.terms for v in (t.low, t.high)]


def test_the_written_form_is_this() -> None:
    text = as_json(recipe(Term("day", dt.date(2024, 1, 1), None), Term("x", values=(0.5, NAN), nulls=True)))
    assert '"low": ["date", "2024-01-01"]' in text and '[["float", "0x1.0000000000000p-1"], ["float", "nan"]]' in text
    assert schema_of(of_json(text)).field("b").type == pa.list_(pa.string())


# --- terms ---------------------------------------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)


def really_meets(term: Term, value: Any) -> bool:
    if value is None:
        return term.nulls
    is_ranged = term.low is not None or term.high is not None
    within = is_ranged and (term.low is None or value >= term.low) and (term.high is None or value <= term.high)
    return within or any(same(value, wanted) for wanted in term.values or ())


def columns(draw: st.DrawFn, kind: str, *, min_size: int = 0) -> list[Any]:
    return draw(st.lists(st.none() | KINDS[kind][2], min_size=min_size, max_size=12))


@given(st.data(), st.sampled_from(sorted(KINDS)), st.booleans())
def test_terms_are_met_by_the_rows_they_come_from_and_mean_the_same_for_all_widths(
    data: st.DataObject, kind: str, narrow: bool
) -> None:
    wide, other, _ = KINDS[kind]
    mine, theirs = columns(data.draw, kind, min_size=1), columns(data.draw, kind)
    pieces = [pa.array(mine[::2], wide), pa.array(mine[1::2], wide)]
    extent = extent_of(pieces[1], extent_of(pieces[0]))
    for term in terms_of("x", extent):
        assert meets(term, pa.array(mine, wide)).all()
        column = pa.array(theirs, other if narrow else wide)
        assert meets(term, column).tolist() == [really_meets(term, value) for value in column.to_pylist()]


@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_a_tightened_term_is_met_by_the_same_rows_and_no_wider(data: st.DataObject, kind: str) -> None:
    wide = KINDS[kind][0]
    first, rows = columns(data.draw, kind, min_size=1), pa.array(columns(data.draw, kind), wide)
    for term in terms_of("x", extent_of(pa.array(first, wide))):
        met = meets(term, rows)
        left = rows.filter(pa.array(met))
        narrow = tightened(term, extent_of(left))
        assert meets(narrow, rows).tolist() == met.tolist()
        told = {repr(v) for v in (narrow.low, narrow.high, *(narrow.values or ())) if v is not None and v == v and v != 0}
        assert told <= {repr(v) for v in left.to_pylist()}


def test_minus_zero_is_zero_and_every_nan_is_one() -> None:
    other_nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    for mine, theirs in ((0.0, -0.0), (-0.0, 0.0), (NAN, other_nan), (other_nan, NAN)):
        (term,) = terms_of("x", extent_of(pa.array([mine, mine])))
        assert term.values is not None and meets(term, pa.array([theirs, 1.0, None])).tolist() == [True, False, False]


def test_float32_is_not_float64() -> None:
    term = Term("x", values=(0.1,))
    assert meets(term, pa.array([0.1], pa.float64())).all() and not meets(term, pa.array([0.1], pa.float32())).any()


@pytest.mark.parametrize(
    ("values", "terms"),
    [
        ([1, 2, 3], [Term("x", 1, 3)]),
        ([1, 1, 3, 3], [Term("x", 1, 3), Term("x", values=(1, 3))]),
        ([5, 5, None], [Term("x", values=(5,), nulls=True)]),
        ([None, None], [Term("x", nulls=True)]),
        (["DE", "DE", "DE"], [Term("x", values=("DE",))]),
        (["Ann", "Bob", "Cid"], []),
        ([True, True], [Term("x", values=(True,))]),
        ([dt.date(2024, 1, 1), dt.date(2024, 1, 5)], [Term("x", dt.date(2024, 1, 1), dt.date(2024, 1, 5))]),
        ([*range(MAX_VALUES + 1)] * 2, [Term("x", 0, MAX_VALUES)]),
        ([[1], [2]], []),
        ([b"x", b"x"], []),
    ],
)
def test_the_terms_of_a_column(values: list[Any], terms: list[Term]) -> None:
    assert terms_of("x", extent_of(pa.array(values))) == terms


def test_instants_before_the_calendar_have_no_terms() -> None:
    column = pa.array([-(2**62), 2**62], pa.int64()).cast(pa.timestamp("us"))
    assert terms_of("x", extent_of(column)) == []


def test_of_each_column_the_term_that_cuts_most_is_taken() -> None:
    a, b, b_too, c = Term("a", 1, 2), Term("b", 1, 9), Term("b", values=(1, 9)), Term("c", 0, 0)
    assert best_terms([a, b, b_too, c], [7, 5, 5, 10], 10) == (b, a)


# --- conjunctions --------------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 2**n - 1), min_size=1, max_size=20))),
    st.data(),
)
def test_a_conjunction_is_the_smallest_that_gives_the_rows(drawn: tuple[int, list[int]], data: st.DataObject) -> None:
    n_terms, sets = drawn
    hashes = np.random.default_rng(len(sets)).integers(0, 2**64, (len(sets), 2), np.uint64)
    met = [np.array([bool(one >> place & 1) for one in sets]) for place in range(n_terms)]
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=len(sets), max_size=len(sets))))
    if data.draw(st.booleans()):
        wanted = np.logical_and.reduce([met[place] for place in data.draw(st.sets(st.integers(0, n_terms - 1), min_size=1))])
    tally = no_tally(n_terms)
    for some in np.array_split(np.arange(len(sets)), 2):
        add_to_tally(tally, [mask[some] for mask in met], hashes[some])
    possible = [c for n in range(1, MAX_TOGETHER + 1) for c in itertools.combinations(range(n_terms), n)]
    right = [c for c in possible if (np.logical_and.reduce([met[place] for place in c]) == wanted).all()]
    target = Digest.of(hashes[wanted])
    assert conjunction(tally, target) == (right[0] if right and target.n_rows else conjunction(tally, target))
    assert (conjunction(tally, target) is None) == (not right)


# --- members -------------------------------------------------------------------------------------------------------------------


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30)


def hashed(rows: list[tuple[int, int]]) -> Any:
    return np.array(rows, np.uint64).reshape(-1, 2) * np.uint64(2**62)


@given(ROWS, st.lists(ROWS, min_size=1, max_size=3))
def test_every_member_is_kept_as_often_as_it_is_wanted_and_there(wanted: list[Any], files: list[list[Any]]) -> None:
    run = run_of(hashed(wanted))
    found = [np.bincount(np.zeros(0, np.int64), minlength=len(run.low)) for _ in files]
    for counts, rows in zip(found, files, strict=True):
        for low, high in hashed(rows).tolist():
            np.add(counts, (run.low == low) & (run.high == high), out=counts)
    shares = allot(((np.flatnonzero(c), c[c > 0]) for c in found), run.counts)
    kept = Counter[tuple[int, int]]()
    for rows, share in zip(files, shares, strict=True):
        some = some_of(run, *share)
        mask = take_members(some, some.counts.copy(), hashed(rows))
        kept.update(tuple(row) for row, is_kept in zip(hashed(rows).tolist(), mask, strict=True) if is_kept)
    there = Counter(tuple(row) for rows in files for row in hashed(rows).tolist())
    assert kept == Counter(tuple(row) for row in hashed(wanted).tolist()) & there


@given(ROWS)
def test_members_stand_for_their_rows(rows: list[Any]) -> None:
    run = run_of(hashed(rows))
    assert digest_of(run) == Digest.of(hashed(rows))
    again = of_batches([as_batch(run)])
    assert all((a == b).all() for a, b in ((again.low, run.low), (again.high, run.high), (again.counts, run.counts)))
    assert digest_of(with_counts(run, np.zeros_like(run.counts))) == digest_of(merge_runs([])) == Digest()
