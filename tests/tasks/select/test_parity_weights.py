"""The package's rules beside its hash: log ratios in its order of floats, and documents too short for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.select.parity import parity_ratios

counts = st.lists(st.integers(0, 2**40), min_size=4, max_size=4).filter(any).map(np.array)


@given(counts, counts)
def test_ratios_are_those_of_the_formula(target: np.ndarray, raw: np.ndarray) -> None:
    expected = [
        math.log(t / sum(target.tolist()) + 1e-8) - math.log(r / sum(raw.tolist()) + 1e-8)
        for t, r in zip(target.tolist(), raw.tolist(), strict=True)
    ]
    assert parity_ratios(target, raw).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert np.abs(parity_ratios(target, raw)).max() < 18.5


@given(counts, counts, counts)
def test_targets_apart_are_fitted_as_if_alone(one: np.ndarray, other: np.ndarray, raw: np.ndarray) -> None:
    both = parity_ratios(np.stack([one, other]), raw)
    assert np.array_equal(both, np.stack([parity_ratios(one, raw), parity_ratios(other, raw)]))


def test_ratios_of_the_package() -> None:
    """Three of its numbers, to the bit where `log` is."""
    target, raw = np.zeros(64, np.int64), np.zeros(64, np.int64)
    target[:3], raw[:3] = (0, 1, 33), (3, 3, 108)
    found = parity_ratios(target, raw)
    assert found[0] == pytest.approx(float.fromhex("-0x1.d90f1d2ba0670p+3"), rel=1e-15)
    assert found[1] == pytest.approx(float.fromhex("0x1.c7947d57a0360p-4"), rel=1e-14)
    assert found[3] == 0.0


def test_nothing_to_fit_on() -> None:
    with pytest.raises(ValueError, match="raw tables have no n-gram"):
        parity_ratios(np.ones(3, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="target has no n-gram"):
        parity_ratios(np.array([[1, 0], [0, 0]]), np.ones(2, np.int64))
