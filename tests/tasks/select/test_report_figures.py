"""Histograms of a report: every record in one bin, parts add up, and edges that neither order nor a few far weights move."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.ids import F64, I64
from tasks.select.report_figures import (
    LENGTH_EDGES,
    Shape,
    as_summary,
    length_hist,
    seed_overlap,
    shape,
    weight_edges,
    weight_hist,
)

WEIGHTS = st.lists(st.floats(-50, 50) | st.just(float("nan")), max_size=80).map(lambda w: np.array(w, np.float64))
LENGTHS = st.lists(st.integers(0, 1 << 28), max_size=80).map(lambda n: np.array(n, np.int64))


@given(LENGTHS)
def test_every_length_is_in_the_bin_of_its_bounds(n_tokens: I64) -> None:
    bounds = [*LENGTH_EDGES, 1 << 62]
    expected = [int(((n_tokens >= a) & (n_tokens < b)).sum()) for a, b in pairwise(bounds)]
    assert length_hist(n_tokens).tolist() == expected


@given(WEIGHTS, WEIGHTS)
def test_every_weight_is_in_the_bin_of_its_bounds(weights: F64, others: F64) -> None:
    edges = weight_edges(weights, others)
    bounds = [-np.inf, *edges, np.inf]
    expected = [int(((weights >= a) & (weights < b)).sum()) for a, b in pairwise(bounds)]
    assert weight_hist(weights, edges).tolist() == expected
    assert sum(expected) == (~np.isnan(weights)).sum()


@given(WEIGHTS, st.integers(0, 80))
def test_order_and_partitions_change_nothing(weights: F64, at: int) -> None:
    n_tokens = np.arange(len(weights))
    edges = weight_edges(weights)
    order = np.random.default_rng(at).permutation(len(weights))
    assert weight_edges(weights[order]).tolist() == edges.tolist()
    whole = shape(n_tokens, weights, edges)
    parts = shape(n_tokens[order][:at], weights[order][:at], edges) + shape(n_tokens[order][at:], weights[order][at:], edges)
    assert as_summary(edges, raw=whole) == as_summary(edges, raw=parts) == as_summary(edges, raw=Shape() + whole)


def test_edges_are_round_few_and_hold_both_samples() -> None:
    rng = np.random.default_rng(0)
    pool, target = rng.normal(-0.5, 0.3, 10_000), rng.normal(0.8, 0.1, 500)
    edges = weight_edges(np.append(pool, 1e6), target)
    assert 30 < len(edges) < 60
    assert np.allclose(np.diff(edges), 0.05)
    assert edges[0] <= np.quantile(pool, 0.01)
    assert edges[-1] >= np.quantile(target, 0.99)
    assert weight_edges(np.array([np.nan])).tolist() == [0.0]
    assert len(weight_edges(np.full(5, 0.25))) == 2


def test_overlap_is_the_share_kept_again() -> None:
    kept, again = np.array([True, True, False, True]), np.array([True, False, True, True])
    assert seed_overlap(kept, again) == 2 / 3
    assert seed_overlap(kept & ~kept, again) is None
