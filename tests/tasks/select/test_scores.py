"""A score of the user's own: bounds that drop, weights that draw, whatever order the sample comes in."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from infra.ids import keyed_gumbel
from infra.select_settings import ScoreSettings
from infra.settings import ConfigError
from tasks.select.scores import Scale, check_score_column, numbers_of, scale_of, score_bounds, score_log_weights

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan) | st.sampled_from([0.0, 0.5, 1.0])
VALUES = nps.arrays(np.float64, st.integers(0, 40), elements=NUMBERS)


def asked(**options) -> ScoreSettings:
    return ScoreSettings.model_validate({"column": "stars", **options})


# --- reading -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3]), [1, None, 3]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array([decimal.Decimal("1.25"), None]), [1.25, None]),
        (pa.array([0.5, math.nan, math.inf, -math.inf], pa.float32()), [0.5, None, None, None]),
        (pa.array([2, 2, None, 7]).dictionary_encode(), [2, 2, None, 7]),
        (pa.chunked_array([[1], [2, None]]), [1, 2, None]),
        (pa.chunked_array([], pa.float64()), []),
        (pa.array([2**63], pa.uint64()), [2.0**63]),
    ],
)
def test_numbers_booleans_and_decimals_are_scores_and_the_rest_is_none(column: pa.Array, expected: list[float | None]) -> None:
    found = numbers_of(column)
    assert found.dtype == np.float64
    assert [None if math.isnan(v) else v for v in found] == expected


def test_a_slice_is_read_as_itself_and_the_source_is_left_alone() -> None:
    column = pa.array([5.0, math.inf, 7.0])
    assert numbers_of(column.slice(2)).tolist() == [7.0]
    assert numbers_of(column.slice(1, 1)).tolist() != [math.inf]
    assert column.to_pylist()[1] == math.inf


@pytest.mark.parametrize(
    ("column", "said"), [("rating", "no such column"), ("body", "string there"), ("row_id", "no such column")]
)
def test_a_column_that_is_not_there_or_holds_no_numbers_is_refused(column: str, said: str) -> None:
    schema = pa.schema([("row_id", pa.int64()), ("body", pa.string()), ("stars", pa.decimal128(5, 2))])
    check_score_column("posts", schema, "stars")
    with pytest.raises(ConfigError, match=rf"'posts'.*'{column}'.*{said}.*stars \(decimal128"):
        check_score_column("posts", schema, column)


# --- bounds --------------------------------------------------------------------------------------------------------------------


@given(VALUES, st.floats(0.1, 100), st.sampled_from(["high", "low"]), st.randoms(use_true_random=False))
def test_a_percentile_keeps_the_share_of_the_best_and_their_equals(values: np.ndarray, share: float, prefer: str, random) -> None:
    chosen = asked(percentile=share, prefer=prefer)
    low, high = score_bounds(values, chosen)
    moved = values.tolist()
    random.shuffle(moved)
    assert score_bounds(np.array(moved), chosen) == (low, high)
    known = values[~np.isnan(values)]
    if not len(known):
        assert (low, high) == (None, None)
        return
    stays = known >= low if prefer == "high" else known <= high
    best = np.sort(known * (1 if prefer == "high" else -1))[::-1]
    k = math.ceil(round(share / 100 * len(known), 9))
    assert stays.sum() == (best >= best[k - 1]).sum() >= k
    assert (high if prefer == "high" else low) is None


def test_a_threshold_is_a_bound_by_itself_and_without_either_nothing_is_dropped() -> None:
    values = np.array([1.0, 2.0])
    assert score_bounds(values, asked(threshold=7)) == (7.0, None)
    assert score_bounds(values, asked(threshold=7, prefer="low")) == (None, 7.0)
    assert score_bounds(values, asked()) == (None, None)
    assert not asked().is_bound


# --- weights -------------------------------------------------------------------------------------------------------------------


@given(VALUES, st.floats(0.01, 100), st.floats(-1000, 1000), st.sampled_from(["high", "low"]))
def test_weights_do_not_depend_on_the_unit_of_the_score(values: np.ndarray, factor: float, shift: float, prefer: str) -> None:
    values = np.round(values, 2)
    moved = values * factor + shift
    weights = score_log_weights(values, scale_of(values, asked(prefer=prefer)))
    others = score_log_weights(moved, scale_of(moved, asked(prefer=prefer)))
    if np.nanmax(values, initial=0) - np.nanmin(values, initial=0) > 1e-2:
        np.testing.assert_allclose(weights, others, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(np.isnan(weights), np.isnan(values))


@given(VALUES, st.randoms(use_true_random=False))
def test_the_scale_is_the_sample_s_in_any_order(values: np.ndarray, random) -> None:
    moved = values.tolist()
    random.shuffle(moved)
    scale = scale_of(values, asked())
    assert scale_of(np.array(moved), asked()) == scale
    assert scale.spread > 0 and math.isfinite(scale.spread) and math.isfinite(scale.centre)


def test_the_scale_is_that_of_a_normal_distribution_and_one_wild_value_does_not_move_it() -> None:
    values = np.random.default_rng(0).normal(5, 3, 20_001)
    scale = scale_of(values, asked())
    assert abs(scale.centre - 5) < 0.1 and abs(scale.spread - 3) < 0.1
    values[0] = 1e300
    assert abs(scale_of(values, asked()).spread - scale.spread) < 1e-2


def test_equal_scores_and_no_scores_weigh_the_same() -> None:
    assert scale_of(np.array([]), asked()) == Scale(0.0, 1.0)
    assert scale_of(np.full(9, 4.0), asked()) == Scale(4.0, 1.0)
    mostly = np.array([0.0] * 9 + [8.0])
    assert scale_of(mostly, asked(prefer="low")).sign == -1.0 and 0 < scale_of(mostly, asked()).spread <= 8.0


def test_low_temperature_draws_the_best_and_high_temperature_draws_anybody() -> None:
    ids = np.arange(10_000)
    values = np.random.default_rng(1).permutation(10_000) / 100
    weights = score_log_weights(values, scale_of(values, asked(prefer="low")))
    drawn = {}
    for temperature in (0.01, 1.0, 100.0):
        keys = weights / temperature + keyed_gumbel(ids, "select", 0)
        drawn[temperature] = values[np.argsort(-keys)[:1000]].mean()
    assert drawn[0.01] < 6 < drawn[1.0] < 40 and 45 < drawn[100.0] < 55
