"""The measure: divergences by definition, halves that do not overlap, and a sign that can be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.select.budget import Budget, Floors, Totals
from tasks.select.kl import Divergences, Measured, held_out, is_odd, joined, kl, mean_of, smoothed


def measured(row_ids: list[int], weights: list[float], bags: list[list[int]]) -> Measured:
    flat = np.array([bucket for bag in bags for bucket in bag], np.int32)
    return Measured(np.array(row_ids, np.int64), np.array(weights), np.array([len(bag) for bag in bags]), flat)


def test_kl_by_hand() -> None:
    assert kl(np.array([1, 1]), np.array([0.25, 0.75])) == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert kl(np.array([50, 50]), np.array([0.5, 0.5])) == pytest.approx(0)
    assert kl(np.array([5, 0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))


def test_few_counts_say_little_more_than_the_prior() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    assert smoothed(np.zeros(3, np.int64), prior).tolist() == pytest.approx(prior.tolist())
    assert smoothed(np.array([0, 0, 3]), prior).tolist() == pytest.approx([0.35, 0.1, 0.55])
    assert smoothed(np.array([0, 0, 10**9]), prior)[2] == pytest.approx(1)


def test_halves_are_even_and_of_the_row() -> None:
    ids = np.arange(10_000)
    odd = is_odd(ids)
    assert 0.47 < odd.mean() < 0.53
    assert np.array_equal(is_odd(ids[5:50]), odd[5:50])


def test_parts_join_in_any_order_and_copies_count_once() -> None:
    one = measured([5, 2], [0.5, 0.2], [[1, 1, 3], [2]])
    two = measured([2, 9], [0.2, 0.9], [[2], []])
    expected = measured([2, 5, 9], [0.2, 0.5, 0.9], [[2], [1, 1, 3], []])
    for parts in ([one, two], [two, one], [two, Measured(), one]):
        found = joined(parts)
        for field in ("row_ids", "log_weights", "sizes", "buckets"):
            assert np.array_equal(getattr(found, field), getattr(expected, field)), field
    assert len(joined([]).row_ids) == 0


def divergences(rows: Measured, target: np.ndarray) -> Divergences:
    """Of half of the rows, for one target."""
    return held_out(rows, [target], Budget(fraction=0.5), names=("",), temperature=0.05, seed=1)[0]


def test_choosing_the_like_reduces_and_choosing_the_unlike_does_not() -> None:
    """Half of the rows read like the target (bucket 0), half do not (bucket 1)."""
    rng = np.random.default_rng(0)
    like = np.arange(400) % 2 == 0
    bags = [rng.choice(2, 50, p=[0.9, 0.1] if one else [0.1, 0.9]).tolist() for one in like]
    target = np.array([900, 100])
    good = divergences(measured(list(range(400)), np.where(like, 1.0, -1.0).tolist(), bags), target)
    assert good.raw - good.selected > 0.3
    assert abs(good.raw - good.random) < 0.05
    bad = divergences(measured(list(range(400)), np.where(like, -1.0, 1.0).tolist(), bags), target)
    assert bad.raw - bad.selected < -0.3
    nothing = divergences(Measured(), target)
    assert nothing.raw == nothing.selected == nothing.random


def world(n: int = 600) -> tuple[Measured, np.ndarray]:
    """Rows like target 0 (bucket 0), like target 1 (bucket 1), and like neither, short ones among them; weights towards both."""
    rng = np.random.default_rng(3)
    kind = np.arange(n) % 3
    bags = [(one * np.ones(rng.integers(1, 120))).astype(int).tolist() for one in kind]
    weights = np.stack([kind == 0, kind == 1], axis=1).astype(np.float64)
    flat = measured(list(range(n)), [0.0] * n, bags)
    return Measured(flat.row_ids, weights, flat.sizes, flat.buckets), kind


TARGETS = (np.array([900, 100, 0]), np.array([100, 900, 0]))
OPTIONS = {"names": ("gold", "faq"), "temperature": 0.05, "seed": 1}


def test_two_targets_are_served_by_their_shares() -> None:
    rows, _ = world()
    even = held_out(rows, TARGETS, Budget(fraction=0.4, shares=(1, 1)), **OPTIONS)
    first = held_out(rows, TARGETS, Budget(fraction=0.3, shares=(9, 1)), **OPTIONS)
    assert all(one.raw - one.selected > 0.1 for one in even)
    assert first[0].selected < even[0].selected
    assert first[1].selected > even[1].selected
    mean = mean_of(even)
    assert mean.selected == pytest.approx((even[0].selected + even[1].selected) / 2)


def test_what_other_steps_dropped_is_raw_but_never_selected() -> None:
    rows, kind = world()
    budget = Budget(fraction=0.5, shares=(1, 1))
    free, dropped = held_out(rows, TARGETS, budget, **OPTIONS), held_out(rows, TARGETS, budget, candidates=kind != 0, **OPTIONS)
    assert [one.raw for one in dropped] == [one.raw for one in free]
    assert dropped[0].selected > dropped[0].raw > free[0].selected
    none = held_out(rows, TARGETS, budget, candidates=kind > 9, **OPTIONS)
    assert all(one.raw == one.selected == one.random for one in none)


def test_the_control_has_as_many_tokens_as_the_selection() -> None:
    """Of rows that are all alike but in length, the short ones selected are no worse than as many words by chance."""
    sizes = np.where(np.arange(2_000) % 2, 3, 199)
    rng = np.random.default_rng(5)
    flat = rng.integers(0, 64, int(sizes.sum())).astype(np.int32)
    rows = Measured(np.arange(2_000), (sizes == 3).astype(np.float64)[:, None], sizes, flat)
    found = held_out(rows, [np.full(64, 100)], Budget(fraction=0.4), names=("",), temperature=0.01, seed=1)[0]
    assert found.selected == pytest.approx(found.random, abs=5e-3)
    as_many_rows = held_out(rows, [np.full(64, 100)], Budget(fraction=0.4), names=("",), temperature=1e6, seed=1)[0]
    assert as_many_rows.selected < 2e-3 < found.random


def test_a_budget_in_numbers_is_the_measured_rows_part_of_the_pool_s() -> None:
    rows, _ = world()
    tokens = int(((rows.sizes + 1) // 2).sum())
    totals = Totals(np.array([3_000, 3_000]), np.array([tokens * 7, tokens * 3]))
    expected = held_out(rows, TARGETS, Budget(fraction=0.25, shares=(1, 1)), **OPTIONS)
    assert held_out(rows, TARGETS, Budget(n_rows=1_500, shares=(1, 1)), totals=totals, **OPTIONS) == expected
    assert held_out(rows, TARGETS, Budget(fraction=0.25, shares=(1, 1), floors=Floors(1.0)), **OPTIONS) == expected
    everything = held_out(rows, TARGETS, Budget(n_tokens=tokens * 10, shares=(1, 1)), totals=totals, **OPTIONS)
    assert everything[0].selected == everything[0].random
