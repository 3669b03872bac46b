"""Ratios, keys and cuts against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.select.budget import EVERYTHING, n_to_keep
from tasks.select.weights import (
    SCALE,
    effective_sample_size,
    inclusion,
    keys_of,
    length_correlation,
    log_ratios,
    log_weights,
    n_drawn_on,
    target_keys,
)
from tests.tasks.select.one_cut import cut_at, is_kept

counts = st.lists(st.integers(0, 10**9), min_size=8, max_size=8).map(lambda values: np.array(values, np.int64))


@given(counts.filter(lambda c: c.sum() > 0), counts, st.floats(0.01, 0.99))
def test_ratios_follow_the_definition_and_are_bounded_below(target: np.ndarray, raw: np.ndarray, smoothing: float) -> None:
    ratios = log_ratios(target, raw, smoothing=smoothing)
    assert ratios.dtype == np.int64
    for t, r, found in zip(target, raw, ratios, strict=True):
        p, q = t / target.sum(), (r + 1) / (raw.sum() + 8)
        assert found == pytest.approx(SCALE * math.log(((1 - smoothing) * p + smoothing * q) / q), abs=2)
    assert ratios.min() >= math.floor(SCALE * math.log(smoothing)) - 1


def test_a_target_like_the_raw_text_says_nothing() -> None:
    raw = np.array([9_999, 19_999, 29_999])
    assert np.abs(log_ratios(raw + 1, raw, smoothing=0.1)).max() == 0
    with pytest.raises(ValueError, match="no n-gram"):
        log_ratios(np.zeros(3, np.int64), raw, smoothing=0.1)


def test_weights_are_means_or_sums_and_absent_for_empty_texts() -> None:
    sums, n_tokens = np.array([SCALE, -4 * SCALE, 0]), np.array([1, 2, 0])
    assert log_weights(sums, n_tokens, normalize=False)[:2].tolist() == [1.0, -4.0]
    assert log_weights(sums, n_tokens, normalize=True)[:2].tolist() == [1.0, -2.0]
    assert np.isnan(log_weights(sums, n_tokens, normalize=True)[2])
    for normalize in (False, True):
        one, other = (log_weights(some, n_tokens, normalize=normalize) for some in (sums, -sums))
        both = log_weights(np.stack([sums, -sums], axis=1), n_tokens, normalize=normalize)
        assert np.array_equal(both, np.stack([one, other], axis=1), equal_nan=True)


rows = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.nan]) | st.floats(-9, 9), st.integers(0, 2**63 - 1)), max_size=60
)


@settings(max_examples=200)
@given(rows, st.floats(0.001, 1.0), st.randoms())
def test_the_cut_keeps_what_a_full_sort_keeps(drawn: list[tuple[float, int]], keep_fraction: float, random: object) -> None:
    unique = list({row_id: key for key, row_id in drawn}.items())
    random.shuffle(unique)  # type: ignore[attr-defined]
    row_ids = np.array([row_id for row_id, _ in unique], np.int64)
    keys = np.array([key for _, key in unique], np.float64)
    with_text = sorted((-key, row_id) for row_id, key in unique if not math.isnan(key))
    expected = {row_id for _, row_id in with_text[: n_to_keep(len(with_text), keep_fraction)]}
    assert set(row_ids[is_kept(keys, row_ids, cut_at(keys, row_ids, keep_fraction))].tolist()) == expected


def test_a_fraction_that_takes_the_whole_sample_takes_everything() -> None:
    """Also rows outside the sample whose keys are below all of its keys."""
    cut = cut_at(np.array([1.0, 2.0]), np.array([1, 2]), 1.0)
    assert cut == EVERYTHING
    assert is_kept(np.array([-1e9, math.nan]), np.array([7, 8]), cut).tolist() == [True, False]


def test_a_tenth_of_ten_is_one() -> None:
    assert [n_to_keep(n, 0.1) for n in (0, 1, 10, 11, 30)] == [0, 1, 1, 2, 3]
    assert n_to_keep(100, 0.07) == 7
    assert n_to_keep(3, 1.0) == 3


def test_the_noise_is_of_the_row_and_draws_in_proportion() -> None:
    """Two kinds of records, one e times as heavy: among the first of many pairs it leads e / (1 + e) of the time."""
    ids = np.arange(20_000)
    weights = np.where(ids % 2 == 0, 1.0, 0.0)
    keys = keys_of(weights, ids, temperature=1.0, seed=3)
    assert np.array_equal(keys[100:200], keys_of(weights[100:200], ids[100:200], temperature=1.0, seed=3))
    heavy_first = (keys[0::2] > keys[1::2]).mean()
    assert heavy_first == pytest.approx(math.e / (1 + math.e), abs=0.02)
    assert not np.array_equal(keys, keys_of(weights, ids, temperature=1.0, seed=4))


def test_each_target_has_luck_of_its_own_and_the_first_keeps_it_when_others_come() -> None:
    ids = np.arange(5_000)
    weights = np.zeros((len(ids), 3))
    keys = target_keys(weights, ids, ["gold", "faq", "law"], temperature=0.5, seed=3)
    assert np.array_equal(keys[:, 0], keys_of(weights[:, 0], ids, temperature=0.5, seed=3))
    assert np.array_equal(keys[:, :1], target_keys(weights[:, :1], ids, ["else"], temperature=0.5, seed=3))
    assert np.array_equal(keys[:, [0, 2]], target_keys(weights[:, :2], ids, ["gold", "law"], temperature=0.5, seed=3))
    assert np.abs(np.corrcoef(keys, rowvar=False) - np.eye(3)).max() < 0.06


def test_effective_sample_size_and_length_correlation() -> None:
    assert effective_sample_size(np.zeros(50), temperature=1.0) == pytest.approx(50)
    assert effective_sample_size(np.array([0.0, 0.0, 1e3, math.nan]), temperature=1.0) == pytest.approx(1)
    assert effective_sample_size(np.array([math.nan]), temperature=1.0) == 0
    assert effective_sample_size(np.array([-1.7e308, 1.7e308]), temperature=0.02) == 1
    assert length_correlation(np.array([1.0, 2.0, 3.0]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert length_correlation(np.array([1.0, 1.0]), np.array([3, 2])) == 0


def test_inclusion_is_how_often_seeds_keep_a_document_and_tells_how_far_they_agree() -> None:
    rng = np.random.default_rng(2)
    ids, weights = np.arange(3_000), np.append(rng.normal(size=2_999), np.nan)
    keys = [keys_of(weights, ids, temperature=0.5, seed=seed) for seed in range(40)]
    cut = cut_at(keys[0], ids, 0.2)
    kept = np.stack([is_kept(one, ids, cut) for one in keys])
    chances = inclusion(weights, cut.key, temperature=0.5)
    assert len(chances) == 2_999
    assert np.abs(kept[:, :-1].mean(axis=0) - chances).mean() < 0.04
    again = (kept[0] & kept[1:]).sum(axis=1).mean() / kept[0].sum()
    assert chances.sum() / n_drawn_on(chances) == pytest.approx(again, abs=0.02)
    assert n_drawn_on(np.array([1.0, 1.0, 0.0])) == pytest.approx(2)
    assert n_drawn_on(np.full(50, 0.1)) == pytest.approx(50)
    assert n_drawn_on(inclusion(np.array([1e9, -1e9]), 0.0, temperature=0.1)) == 1
    assert n_drawn_on(np.zeros(0)) == 0
