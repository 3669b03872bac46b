"""The advised fraction: laws of compute and of quality, and the integral against a sum of small steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.select.advice import N_BUCKETS, Utility, advised_fraction, log_error, quality_buckets

utilities = st.builds(
    lambda worst, more, half_life: Utility(worst + more, worst, half_life),
    st.floats(0.01, 0.3),
    st.floats(0.0, 0.3),
    st.floats(0.3, 8.0),
)


def sample(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) ** 3, rng.integers(1, 400, n)


@settings(max_examples=60)
@example(seed=3, utility=Utility(0.20365284252064772, 0.20365284252064772, 1.0), epochs=0.0703125, more=2.44921875)
@given(st.integers(0, 9), utilities, st.floats(0.01, 20), st.floats(1.0, 10.0))
def test_more_training_never_asks_for_less_data(seed: int, utility: Utility, epochs: float, more: float) -> None:
    weights, n_tokens = sample(seed)
    less, longer = (
        advised_fraction(weights, n_tokens, tokens, utility)
        for tokens in (epochs * n_tokens.sum(), more * epochs * n_tokens.sum())
    )
    assert longer.fraction >= less.fraction


@settings(max_examples=60)
@given(st.integers(0, 9), utilities, st.floats(0.05, 20), st.floats(1.0, 4.0))
def test_data_that_wears_out_faster_asks_for_no_less(seed: int, utility: Utility, epochs: float, faster: float) -> None:
    # Half-lives of half a repetition and more: below, a small selection is worn out already and has nothing left to lose.
    lasting = Utility(utility.best, utility.worst, max(utility.half_life, 0.5))
    worn = Utility(utility.best, utility.worst, max(utility.half_life / faster, 0.5))
    weights, n_tokens = sample(seed)
    found = [advised_fraction(weights, n_tokens, epochs * n_tokens.sum(), one).fraction for one in (lasting, worn)]
    assert found[1] >= found[0]


@given(st.integers(0, 9), st.randoms())
def test_order_and_scale_do_not_matter(seed: int, random: object) -> None:
    weights, n_tokens = sample(seed, 60)
    order = np.random.default_rng(seed).permutation(60)
    one = advised_fraction(weights, n_tokens, 3.0 * n_tokens.sum())
    assert one.epochs == pytest.approx(3.0 / one.fraction)
    for other in (
        advised_fraction(weights[order], n_tokens[order], 3.0 * n_tokens.sum()),
        advised_fraction(2 * weights + 1, n_tokens, 3.0 * n_tokens.sum()),
        advised_fraction(weights, 1_000 * n_tokens, 3_000.0 * n_tokens.sum()),
        advised_fraction(np.append(weights, np.nan), np.append(n_tokens, 99), 3.0 * n_tokens.sum()),
    ):
        assert other.fraction == pytest.approx(one.fraction)


@given(st.floats(0.5, 40), st.floats(0.05, 100.0), st.floats(0.01, 0.5), st.floats(0.1, 1_900.0))
def test_the_error_is_the_integral(epochs: float, half_life: float, b: float, start: float) -> None:
    n_pool = 1_000.0
    found = log_error(epochs * n_pool, n_pool, start=start, b=b, half_life=half_life)
    if epochs * n_pool <= start:
        assert found == 0
        return
    edges = np.exp(np.linspace(math.log(start), math.log(epochs * n_pool), 20_001))
    middles = np.sqrt(edges[1:] * edges[:-1])
    utility = b * 0.5 ** (np.maximum(middles / n_pool - 1, 0) / half_life)
    assert found == pytest.approx(-float((utility * np.diff(np.log(edges))).sum()), rel=1e-3, abs=1e-6)


def test_buckets_hold_all_tokens_best_first() -> None:
    weights, n_tokens = sample(1, 5_000)
    sizes, quality = quality_buckets(weights, n_tokens)
    assert sizes.sum() == n_tokens.sum()
    assert len(sizes) == N_BUCKETS
    assert (np.diff(quality) < 0).all()
    assert sizes.max() < 1.5 * sizes.min()


def test_an_example() -> None:
    """A hundredth of an epoch takes the best only; a hundred epochs take most; no spread of quality takes all."""
    weights, n_tokens = np.linspace(0, 1, 1_000), np.full(1_000, 100)
    total = float(n_tokens.sum())
    assert advised_fraction(weights, n_tokens, total / 100).fraction == pytest.approx(0.01)
    assert advised_fraction(weights, n_tokens, 100 * total).fraction > 0.7
    middle = advised_fraction(weights, n_tokens, 2 * total)
    assert 0.1 < middle.fraction < 0.9
    assert middle.log_errors.min() == middle.log_errors[np.argmin(np.abs(middle.fractions - middle.fraction))]
    assert advised_fraction(np.zeros(1_000), n_tokens, 2 * total).fraction == pytest.approx(1.0)
    with pytest.raises(ValueError, match="some tokens"):
        advised_fraction(weights, n_tokens, 0.0)
    with pytest.raises(ValueError, match="half-life"):
        Utility(0.1, 0.2)
    with pytest.raises(ValueError, match="records with a weight"):
        advised_fraction(np.array([np.nan]), np.array([3]), 5.0)
