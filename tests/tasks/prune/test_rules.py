"""Rules: exact on the sample, the same for any order of it, and a function of the row afterwards."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ids import I64
from tasks.kernels.kmeans import UNIT, Points
from tasks.prune.prototypes import class_floors, class_thresholds
from tasks.prune.quotas import n_to_keep, threshold_of, thresholds_of, within
from tasks.prune.rules import Rule, apply_rule, fit_rule

METHODS = ("density", "prototypes")


def some_points(n: int, seed: int) -> Points:
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((4, 16))[rng.integers(0, 4, n)] * 2 + rng.standard_normal((n, 16))
    return np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)


def some_labels(n: int, seed: int) -> pa.Array:
    drawn = np.random.default_rng(seed).choice(["a", "b", "c", "none"], n, p=[0.7, 0.2, 0.05, 0.05])
    return pa.array([None if label == "none" else str(label) for label in drawn], pa.string())


def unique_ids(n: int, seed: int) -> I64:
    return np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.int64)


def learn(points: Points, row_ids: I64, labels: pa.Array, method: str, fraction: float = 0.4, *, hard: bool = True) -> Rule:
    return fit_rule(points, row_ids, labels, method=method, keep_fraction=fraction, hard=hard, n_clusters=6, seed=3)


@given(st.integers(1, 80), st.integers(0, 90), st.integers(0, 5), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_a_threshold_keeps_its_quota(n: int, quota: int, levels: int, seed: int) -> None:
    """With many ties too: the rows kept are the first in (rank descending, row id ascending)."""
    ranks, row_ids = np.random.default_rng(seed).integers(0, levels + 1, n), unique_ids(n, seed)
    rank, row_id = threshold_of(ranks, row_ids, quota)
    kept = (ranks > rank) | ((ranks == rank) & (row_ids <= row_id))
    first = sorted(range(n), key=lambda i: (-ranks[i], row_ids[i]))[:quota]
    assert set(np.flatnonzero(kept)) == set(first)


@given(st.integers(1, 120), st.integers(1, 5), st.floats(0.01, 1.0), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_class_thresholds_keep_exactly_and_above_the_floors(n: int, n_classes: int, fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks, row_ids, classes = rng.integers(0, 20, n), unique_ids(n, seed), rng.integers(0, n_classes + 1, n)
    n_keep = n_to_keep(n, fraction)
    kept = within(ranks, row_ids, classes, class_thresholds(ranks, row_ids, classes, n_classes, n_keep))
    sizes = np.bincount(classes, minlength=n_classes + 1)[:n_classes]
    assert kept.sum() == n_keep
    assert (np.bincount(classes[kept], minlength=n_classes + 1)[:n_classes] >= class_floors(sizes, n_keep)).all()


def test_a_floor_is_half_of_an_equal_share() -> None:
    assert class_floors(np.array([100, 100, 3]), 60).tolist() == [10, 10, 3]
    assert class_floors(np.array([5, 5, 5]), 1).tolist() == [0, 0, 0]


def test_a_starved_class_keeps_its_floor() -> None:
    """Class 1 has the lowest ranks; ten rows are kept, so each of the two classes keeps three at least."""
    ranks, classes = np.arange(40)[::-1].copy(), np.repeat([0, 1], 20)
    kept = within(ranks, np.arange(40), classes, class_thresholds(ranks, np.arange(40), classes, 2, 10))
    assert np.flatnonzero(kept).tolist() == [*range(7), 20, 21, 22]


def test_quotas_by_group() -> None:
    ranks, groups = np.array([5, 5, 1, 9, 2]), np.array([0, 0, 0, 2, 2])
    kept = within(
        ranks, np.array([7, 3, 1, 4, 5]), groups, thresholds_of(ranks, np.array([7, 3, 1, 4, 5]), groups, np.array([1, 0, 1]))
    )
    assert kept.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(1, 150), st.floats(0.01, 1.0), st.booleans(), st.integers(0, 1 << 20))
@settings(max_examples=20)
def test_a_rule_keeps_its_fraction_of_the_sample(method: str, n: int, fraction: float, hard: bool, seed: int) -> None:
    points, row_ids, labels = some_points(n, seed), unique_ids(n, seed), some_labels(n, seed)
    rule = learn(points, row_ids, labels, method, fraction, hard=hard)
    assert apply_rule(rule, points, row_ids, labels)[2].sum() == n_to_keep(n, fraction)


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(2, 150), st.integers(0, 1 << 20))
@settings(max_examples=20)
def test_order_and_partition_change_no_decision(method: str, n: int, seed: int) -> None:
    points, row_ids, labels = some_points(n, seed), unique_ids(n, seed), some_labels(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    one = learn(points, row_ids, labels, method)
    other = learn(points[order], row_ids[order], labels.take(pa.array(order)), method)
    assert np.array_equal(one.centroids.vectors, other.centroids.vectors)
    whole = apply_rule(one, points, row_ids, labels)
    cut = n // 2
    halves = [
        apply_rule(other, points[s], row_ids[s], labels.take(pa.array(np.arange(n)[s]))) for s in (slice(cut), slice(cut, n))
    ]
    for mine, first, second in zip(whole, *halves, strict=True):
        assert np.array_equal(mine, np.concatenate([first, second]))


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
@given(st.integers(2, 150), st.booleans(), st.integers(0, 1 << 20))
@settings(max_examples=20)
def test_a_gpu_changes_no_rule_and_no_decision(method: str, n: int, hard: bool, seed: int) -> None:
    points, row_ids, labels = some_points(n, seed), unique_ids(n, seed), some_labels(n, seed)
    options: dict[str, Any] = {"method": method, "keep_fraction": 0.4, "hard": hard, "n_clusters": 6, "seed": 3}
    here, there = (fit_rule(points, row_ids, labels, device=device, **options) for device in ("cpu", "cuda"))
    assert np.array_equal(here.centroids.vectors, there.centroids.vectors)
    for mine, theirs in zip(
        apply_rule(here, points, row_ids, labels), apply_rule(there, points, row_ids, labels, device="cuda"), strict=True
    ):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("method", METHODS)
def test_classes_and_clusters_the_sample_never_saw_are_decided_too(method: str) -> None:
    points, row_ids = some_points(60, 0), unique_ids(60, 0)
    rule = learn(points, row_ids, pa.array(["a"] * 60), method)
    assert apply_rule(rule, points, row_ids, pa.array(["z"] * 60))[2].any()


def test_two_blobs_by_eye() -> None:
    """Two tight blobs, each with one stray. Hard keeps the strays, easy keeps the cores."""
    left, right = [[-2000, 0], [-2000, 10], [-2000, -10], [-1700, 900]], [[2000, 0], [2000, 10], [2000, -10], [1700, -900]]
    points, row_ids = np.array(left + right, np.int16), np.arange(8)
    nobody = pa.nulls(8, pa.string())
    kept = {}
    for hard in (True, False):
        rule = fit_rule(points, row_ids, nobody, method="prototypes", keep_fraction=0.25, hard=hard, n_clusters=2, seed=0)
        kept[hard] = np.flatnonzero(apply_rule(rule, points, row_ids, nobody)[2]).tolist()
    assert kept[True] == [3, 7]
    assert not set(kept[False]) & {3, 7}


def test_a_wide_cluster_keeps_more_than_a_tight_one() -> None:
    rng = np.random.default_rng(0)
    tight = np.array([1.0, 0, 0]) + 0.02 * rng.standard_normal((200, 3))
    wide = np.array([0, 1.0, 0]) + 0.5 * rng.standard_normal((200, 3))
    raw = np.concatenate([tight, wide])
    points = np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)
    nobody = pa.nulls(400, pa.string())
    rule = fit_rule(points, np.arange(400), nobody, method="density", keep_fraction=0.3, hard=True, n_clusters=2, seed=0)
    kept = apply_rule(rule, points, np.arange(400), nobody)[2]
    assert kept.sum() == 120
    assert kept[200:].sum() > 3 * kept[:200].sum() > 0
