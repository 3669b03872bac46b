"""The measure: divergences by definition, halves that do not overlap, and a sign that can be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.select.kl import Measured, divergences, is_odd, joined, kl, smoothed


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


def test_choosing_the_like_reduces_and_choosing_the_unlike_does_not() -> None:
    """Half of the rows read like the target (bucket 0), half do not (bucket 1)."""
    rng = np.random.default_rng(0)
    like = np.arange(400) % 2 == 0
    bags = [rng.choice(2, 50, p=[0.9, 0.1] if one else [0.1, 0.9]).tolist() for one in like]
    target = np.array([900, 100])
    options = {"keep_fraction": 0.5, "temperature": 0.05, "seed": 1}
    good = divergences(measured(list(range(400)), np.where(like, 1.0, -1.0).tolist(), bags), target, **options)
    assert good.raw - good.selected > 0.3
    assert abs(good.raw - good.random) < 0.05
    bad = divergences(measured(list(range(400)), np.where(like, -1.0, 1.0).tolist(), bags), target, **options)
    assert bad.raw - bad.selected < -0.3
    nothing = divergences(Measured(), target, **options)
    assert nothing.raw == nothing.selected == nothing.random
