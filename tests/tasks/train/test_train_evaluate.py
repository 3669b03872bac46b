"""Tallies add up whatever the parts, and the figures are those one would count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.evaluate import Tally, class_numbers, metrics, tally


@given(
    st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(-1, 1), st.integers(0, 4)), min_size=1, max_size=30), st.integers(0, 4)
)
def test_groups_of_subjects_add_up(rows: list[tuple[float, int, int]], cut: int) -> None:
    chances = np.array([[1 - p, p] for p, _, _ in rows])
    labels = np.array([y for _, y, _ in rows])
    places = np.array([s for _, _, s in rows], np.uint64)
    first = places < cut
    parts = [tally(chances[mask], labels[mask], places[mask]) for mask in (first, ~first)]
    assert parts[0] + parts[1] == tally(chances, labels, places)


def test_by_eye() -> None:
    chances = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    found = metrics([tally(chances, np.array([0, 0, 0, -1]), np.array([1, 1, 2, 3], np.uint64))], "x_")
    assert found["x_accuracy"] == 0.5
    assert found["x_subject_accuracy"] == pytest.approx(1 / 3)
    assert found["x_log_loss"] == pytest.approx((-math.log(0.75) - math.log(0.5) - math.log(0.25) - math.log(1e-12)) / 4)
    assert found["x_n_holdout"] == 4
    assert metrics([Tally()]) == {}
    assert class_numbers(["b", None, "c", "a"], ["a", "b"]).tolist() == [1, -1, -1, 0]
