"""Decision rows, and the exact cut over ranges against one full sort."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import SELECTION
from tasks.select.decide import cut_within, decisions, near, scored
from tasks.select.weights import EVERYTHING, Cut, is_kept


def test_one_row_each_with_a_reason() -> None:
    table = scored(np.array([4, 5, 6]), np.array([0.5, math.nan, -0.5]), np.array([2.0, math.nan, 1.0]))
    found = decisions(table, Cut(1.5, 0))
    assert found.schema.equals(SELECTION)
    assert found.to_pylist() == [
        {"row_id": 4, "keep": True, "reason": "kept", "log_weight": 0.5, "key": 2.0},
        {"row_id": 5, "keep": False, "reason": "empty_text", "log_weight": None, "key": None},
        {"row_id": 6, "keep": False, "reason": "below_threshold", "log_weight": -0.5, "key": 1.0},
    ]
    assert decisions(table, EVERYTHING).column("keep").to_pylist() == [True, False, True]


keys = st.lists(st.sampled_from([-2.0, 0.0, 1.0, math.nan]) | st.floats(-5, 5), min_size=1, max_size=40)


@settings(max_examples=200)
@given(keys, st.integers(1, 40), st.floats(-6, 6), st.floats(0, 6), st.integers(1, 4))
def test_the_bracketed_cut_is_that_of_a_full_sort_or_asks_again(
    values: list[float], k: int, low: float, width: float, n_ranges: int
) -> None:
    ids = np.arange(len(values)) * 7 + 3
    array = np.array(values)
    pieces = np.array_split(np.arange(len(values)), n_ranges)
    found = [near(scored(ids[piece], array[piece], array[piece]), low, low + width) for piece in pieces]
    assert sum(part.n for part in found) == sum(not math.isnan(value) for value in values)
    order = sorted((-value, row_id) for value, row_id in zip(values, ids.tolist(), strict=True) if not math.isnan(value))
    cut = cut_within(found, k)
    if k <= len(order) and low <= -order[k - 1][0] <= low + width:
        assert cut is not None
        assert set(ids[is_kept(array, ids, cut)].tolist()) == {row_id for _, row_id in order[:k]}
    else:
        assert cut is None
