"""Cuts against a full sort in plain Python, and the laws: order, absence, budgets, shares, floors."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.select.budget import (
    EVERYTHING,
    Budget,
    Candidates,
    Cuts,
    Floors,
    Totals,
    admitted,
    expected_totals,
    fit_cuts,
    n_to_keep,
    parts_up_to,
    totals_of,
)
from tests.tasks.select.one_cut import cut_at, is_kept

N_STRATA = 3
key = st.sampled_from([-1.0, 0.0, 0.5, 2.0, -0.0]) | st.floats(-9, 9)


@st.composite
def pools(draw: st.DrawFn, max_size: int = 40) -> Candidates:
    """Records of one to three targets, with ties, empty texts and several strata."""
    n, n_targets = draw(st.integers(0, max_size)), draw(st.integers(1, 3))
    ids = draw(st.lists(st.integers(0, 2**63 - 1), min_size=n, max_size=n, unique=True))
    rows = st.one_of(st.lists(key, min_size=n_targets, max_size=n_targets), st.just([math.nan] * n_targets))
    keys = draw(st.lists(rows, min_size=n, max_size=n))
    n_tokens = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    strata = draw(st.lists(st.integers(0, N_STRATA - 1), min_size=n, max_size=n))
    shape = (n, n_targets)
    return Candidates(
        np.array(ids, np.int64), np.array(keys).reshape(shape), np.array(n_tokens, np.int64), np.array(strata, np.int32)
    )


floors = st.builds(Floors, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from([0, 1, 3, 100]))


@st.composite
def budgets(draw: st.DrawFn, n_targets: int, floors: st.SearchStrategy[Floors] = floors) -> Budget:
    measure = draw(
        st.one_of(
            st.floats(0, 1).map(lambda value: {"fraction": value}),
            st.integers(0, 50).map(lambda value: {"n_rows": value}),
            st.integers(0, 250).map(lambda value: {"n_tokens": value}),
        )
    )
    shares = draw(st.lists(st.sampled_from([0.3, 0.7, 1.0, 2.0, 1 / 3]), min_size=n_targets, max_size=n_targets))
    return Budget(**measure, shares=tuple(shares), floors=draw(floors))


@st.composite
def tasks(draw: st.DrawFn, **options: Any) -> tuple[Candidates, Budget]:
    pool = draw(pools())
    return pool, draw(budgets(pool.keys.shape[1], **options))


def kept_by(pool: Candidates, cuts: Cuts) -> dict[int, int]:
    """The target of each record kept, by row id."""
    keep, target = admitted(pool, cuts)
    assert np.array_equal(keep, target >= 0)
    return dict(zip(pool.row_ids[keep].tolist(), target[keep].tolist(), strict=True))


def fitted(pool: Candidates, budget: Budget) -> Cuts:
    return fit_cuts(pool, totals_of(pool, N_STRATA), budget)


def oracle(pool: Candidates, budget: Budget) -> dict[int, int]:
    """Turn by turn: the best of each stratum for its floor, then the best of all others while the budget lasts."""
    rows = [
        {"id": i, "keys": k, "tokens": t, "stratum": s}
        for i, k, t, s in zip(*(column.tolist() for column in (pool.row_ids, pool.keys, pool.n_tokens, pool.strata)), strict=True)
        if not any(map(math.isnan, k))
    ]
    unit = (lambda row: row["tokens"]) if budget.n_tokens is not None else (lambda row: 1)
    whole = budget.n_tokens if budget.n_tokens is not None else budget.n_rows
    if whole is None:
        whole = n_to_keep(len(rows), budget.fraction or 0.0)
    whole = min(whole, sum(map(unit, rows)))
    of = {s: [row for row in rows if row["stratum"] == s] for s in range(N_STRATA)}
    least = {
        s: min(len(some), max(n_to_keep(len(some), budget.floors.min_fraction), budget.floors.min_rows)) for s, some in of.items()
    }
    exact = [Fraction(share).limit_denominator(10**9) for share in budget.shares]
    kept = dict[int, int]()
    used = 0
    for r in range(len(budget.shares)):
        part = sum(exact[: r + 1], Fraction(0)) / sum(exact)
        limit = math.floor(part * whole) if budget.n_tokens is not None else math.ceil(part * whole)
        left = sorted((row for row in rows if row["id"] not in kept), key=lambda row, r=r: (-row["keys"][r], row["id"]))
        for s in range(N_STRATA):
            need = math.ceil(part * least[s]) - sum(row["id"] in kept for row in of[s])
            for row in [row for row in left if row["stratum"] == s][: max(0, need)]:
                kept[row["id"]] = r
                used += unit(row)
        for row in (row for row in left if row["id"] not in kept):
            if used + unit(row) > limit:
                break
            kept[row["id"]] = r
            used += unit(row)
    return kept


@settings(max_examples=100)
@given(tasks())
def test_cuts_keep_what_taking_turns_keeps(task: tuple[Candidates, Budget]) -> None:
    pool, budget = task
    assert kept_by(pool, fitted(pool, budget)) == oracle(pool, budget)


@settings(max_examples=40)
@given(tasks(), st.randoms())
def test_order_and_parts_do_not_matter(task: tuple[Candidates, Budget], random: Any) -> None:
    pool, budget = task
    order = list(range(len(pool.row_ids)))
    random.shuffle(order)
    shuffled = pool.take(np.array(order, np.int64))
    first, rest = shuffled.take(np.arange(len(order)) < 7), shuffled.take(np.arange(len(order)) >= 5)
    cuts = fitted(pool, budget)
    same(cuts, fitted(shuffled, budget))
    assert kept_by(pool, cuts) == kept_by(first, cuts) | kept_by(rest, cuts)


@settings(max_examples=40)
@given(pools(), st.floats(0, 1), floors, st.randoms())
def test_a_row_outside_the_sample_has_no_part_in_other_decisions(
    pool: Candidates, fraction: float, least: Floors, random: Any
) -> None:
    inside = np.array([random.random() < 0.5 for _ in pool.row_ids], np.bool_)
    outside = np.flatnonzero(~inside)
    for measure in ({"fraction": fraction}, {"n_rows": 12}, {"n_tokens": 60}):
        budget = Budget(**measure, shares=(1.0,) * pool.keys.shape[1], floors=least)
        sample = pool.take(inside)
        cuts = fit_cuts(sample, expected_totals(sample, 1, N_STRATA), budget)
        whole = kept_by(pool, cuts)
        for gone in outside[:3]:
            rest = pool.take(np.arange(len(pool.row_ids)) != gone)
            whole.pop(int(pool.row_ids[gone]), None)
            assert {i: r for i, r in kept_by(rest, cuts).items() if i in whole} == whole


def same(one: Cuts, other: Cuts) -> None:
    assert np.array_equal(one.keys, other.keys)
    assert np.array_equal(one.row_ids, other.row_ids)
    assert (one.general, one.n_admitted, one.n_tokens, one.exceeded) == (
        other.general,
        other.n_admitted,
        other.n_tokens,
        other.exceeded,
    )


def first_left_out(text: Candidates, used: np.ndarray) -> dict[str, int]:
    """The best by the last target's keys of the records that are not kept; nothing where all are."""
    out = text.take(~used)
    order = np.lexsort((out.row_ids, -out.keys[:, -1]))
    return {"n_tokens": int(out.n_tokens[order[0]])} if len(order) else {}


@settings(max_examples=60)
@given(tasks(floors=st.just(Floors())))
def test_without_floors_a_budget_is_never_exceeded_and_shares_are_met(task: tuple[Candidates, Budget]) -> None:
    pool, budget = task
    text = pool.with_text()
    cuts = fitted(pool, budget)
    kept = kept_by(pool, cuts)
    used = np.isin(text.row_ids, list(kept))
    assert not cuts.exceeded
    assert sum(cuts.n_admitted) == used.sum()
    assert sum(cuts.n_tokens) == text.n_tokens[used].sum()
    if budget.n_tokens is not None:
        whole = min(budget.n_tokens, int(text.n_tokens.sum()))
        unused = whole - sum(cuts.n_tokens)
        assert 0 <= unused < first_left_out(text, used).get("n_tokens", unused + 1)
        units = cuts.n_tokens
    else:
        whole = min(budget.n_rows, len(used)) if budget.n_rows is not None else n_to_keep(len(used), budget.fraction or 0.0)
        assert sum(cuts.n_admitted) == whole
        units = cuts.n_admitted
    if not used.all():
        for share, n in zip(budget.shares, units, strict=True):
            assert abs(n - whole * share / sum(budget.shares)) <= (1 if budget.n_tokens is None else 9)


@settings(max_examples=60)
@given(tasks())
def test_floors_are_met_and_only_they_exceed_a_budget_of_rows(task: tuple[Candidates, Budget]) -> None:
    pool, budget = task
    text = pool.with_text()
    cuts = fitted(pool, budget)
    keep, _ = admitted(text, cuts)
    least = np.zeros(N_STRATA, np.int64)
    for s in range(N_STRATA):
        n = int((text.strata == s).sum())
        least[s] = min(n, max(n_to_keep(n, budget.floors.min_fraction), budget.floors.min_rows))
        assert (text.strata[keep] == s).sum() >= least[s]
    if budget.n_tokens is None:
        whole = min(budget.n_rows, len(keep)) if budget.n_rows is not None else n_to_keep(len(keep), budget.fraction or 0.0)
        assert keep.sum() == max(whole, least.sum())
        assert cuts.exceeded == (least.sum() > whole)


@settings(max_examples=40)
@given(pools(), st.floats(0.001, 1))
def test_one_target_and_a_fraction_is_the_plain_cut(pool: Candidates, fraction: float) -> None:
    keys = pool.keys[:, 0]
    one = Candidates(pool.row_ids, keys[:, np.newaxis], pool.n_tokens, pool.strata)
    plain = is_kept(keys, pool.row_ids, cut_at(keys, pool.row_ids, fraction))
    assert np.array_equal(admitted(one, fitted(one, Budget(fraction=fraction)))[0], plain)


# --- by eye --------------------------------------------------------------------------------------------------------------------


def records(*rows: tuple[float, int, int]) -> Candidates:
    """Records 0, 1, ... of (key, n_tokens, stratum)."""
    keys, n_tokens, strata = zip(*rows, strict=True)
    return Candidates.of(np.arange(len(rows)), np.array(keys), np.array(n_tokens), np.array(strata, np.int32))


POOL = records((9.0, 10, 0), (8.0, 20, 0), (7.0, 5, 0), (6.0, 1, 0), (5.0, 10, 1), (4.0, 10, 1))


def kept(pool: Candidates, n_strata: int = 2, **budget: Any) -> list[int]:
    return sorted(kept_by(pool, fit_cuts(pool, totals_of(pool, n_strata), Budget(**budget))))


def test_a_budget_of_tokens_ends_before_the_first_record_that_does_not_fit() -> None:
    assert kept(POOL, n_tokens=29) == [0]  # records 2 and 3 would fit: they wait for what is better
    assert kept(POOL, n_tokens=30) == [0, 1]
    assert kept(POOL, n_tokens=9) == []
    assert kept(POOL, n_tokens=10**18) == [0, 1, 2, 3, 4, 5]


def test_a_floor_takes_a_strata_s_best_and_raises_the_cut_of_the_others() -> None:
    assert kept(POOL, n_rows=3) == [0, 1, 2]
    assert kept(POOL, n_rows=3, floors=Floors(min_rows=1)) == [0, 1, 4]
    assert kept(POOL, n_rows=3, floors=Floors(min_fraction=1.0)) == [0, 1, 2, 3, 4, 5]
    cuts = fit_cuts(POOL, totals_of(POOL, 2), Budget(n_rows=1, floors=Floors(min_rows=1)))
    assert cuts.exceeded
    assert kept_by(POOL, cuts) == {0: 0, 4: 0}


def test_targets_take_turns_and_each_gets_its_share() -> None:
    ids = np.arange(8)
    pool = Candidates.of(ids, np.stack([-ids, -ids], axis=1).astype(np.float64), np.ones(8, np.int64))
    cuts = fit_cuts(pool, totals_of(pool), Budget(n_rows=4, shares=(3, 1)))
    assert kept_by(pool, cuts) == {0: 0, 1: 0, 2: 0, 3: 1}
    assert cuts.n_admitted == (3, 1)
    assert cuts.thresholds == (-2.0, -3.0)
    only = fit_cuts(pool, totals_of(pool), Budget(n_rows=4, shares=(0, 1)))
    assert set(kept_by(pool, only).values()) == {1}


def test_the_sample_s_part_of_a_budget_follows_from_the_totals() -> None:
    whole = Totals(np.array([40, 20]), np.array([0, 0]))
    cuts = fit_cuts(POOL, whole, Budget(n_rows=30))
    assert sorted(kept_by(POOL, cuts)) == [0, 1, 2]
    cuts = fit_cuts(POOL, whole, Budget(n_rows=10, floors=Floors(min_rows=10)))
    assert sorted(kept_by(POOL, cuts)) == [0, 4]
    assert cuts.exceeded


def test_what_the_sample_does_not_hold_falls_under_the_general_cut_or_stays_where_it_has_a_floor() -> None:
    sample = POOL.take(np.arange(4))
    totals = totals_of(POOL, 2)
    assert sorted(kept_by(POOL, fit_cuts(sample, totals, Budget(fraction=0.5)))) == [0, 1]
    assert sorted(kept_by(POOL, fit_cuts(sample, totals, Budget(fraction=0.5, floors=Floors(0.1))))) == [0, 1, 4, 5]
    everything = fit_cuts(sample, totals, Budget(fraction=1.0))
    assert everything.general == (EVERYTHING,)
    assert everything.thresholds == (None,)
    assert len(kept_by(POOL, everything)) == 6
    nothing = POOL.take(np.zeros(0, np.int64))
    assert kept_by(nothing, fit_cuts(nothing, totals_of(nothing, 2), Budget(n_rows=5))) == {}


def test_a_budget_is_one_number() -> None:
    for wrong in (
        {},
        {"n_rows": 1, "n_tokens": 1},
        {"fraction": -0.1},
        {"n_rows": 1, "shares": ()},
        {"n_rows": 1, "shares": (0,)},
    ):
        with pytest.raises(ValueError, match=r"budget|shares"):
            Budget(**wrong)


def test_shares_of_any_size_are_parts() -> None:
    assert parts_up_to((1e-12,)) == (1,)
    assert parts_up_to((1e308, 1e308)) == (Fraction(1, 2), 1)
    assert parts_up_to((3.0, 0.0, 1.0)) == (Fraction(3, 4), Fraction(3, 4), 1)
    with pytest.raises(ValueError, match="shares of targets"):
        Budget(n_rows=1, shares=(1.0, math.inf))
