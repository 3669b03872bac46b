"""Distances are exact and of the two points alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.columns import Look
from tasks.kernels.kmeans import UNIT
from tasks.select.nearness import lowest, on_sphere, squared_distances


def on_ball(n: int, seed: int, *, edge: bool) -> np.ndarray:
    raw = np.random.default_rng(seed).standard_normal((n, 64))
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    scale = 1.0 if edge else np.random.default_rng(seed + 1).random((n, 1))
    return np.rint(UNIT * raw * scale).astype(np.int16)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 1 << 20))
@settings(max_examples=30)
def test_rows_of_tables_lie_as_far_apart_as_arithmetic_says(n: int, m: int, seed: int) -> None:
    points, others = on_ball(n, seed, edge=False), on_ball(m, seed + 7, edge=True)
    slow = ((points[:, None].astype(np.int64) - others[None].astype(np.int64)) ** 2).sum(axis=2)
    assert np.array_equal(squared_distances(points, others, "table"), slow)


@pytest.mark.parametrize("look", ["text", "pixels", "table"])
@given(st.integers(2, 40), st.integers(0, 1 << 20))
@settings(max_examples=20)
def test_a_distance_does_not_see_other_points(look: Look, n: int, seed: int) -> None:
    points, others = on_ball(n, seed, edge=True), on_ball(5, seed + 7, edge=True)
    alone = [squared_distances(points[i : i + 1], others, look)[0] for i in range(n)]
    assert np.array_equal(squared_distances(points, others, look), np.stack(alone))


def test_what_nothing_is_known_of_is_at_a_right_angle_to_everything() -> None:
    east, north, nothing = ([UNIT, 0], [0, UNIT], [0, 0])
    away = squared_distances(np.array([east, north, nothing], np.int16), np.array([east], np.int16), "text")
    assert away[:, 0].tolist() == [0, 2 * UNIT**2, 2 * UNIT**2]


def test_centroids_go_to_the_sphere_where_records_lie_on_one() -> None:
    centroids = np.array([[30, 40], [0, 0]], np.int16)
    assert on_sphere(centroids, "text").tolist() == [[round(0.6 * UNIT), round(0.8 * UNIT)], [0, 0]]
    assert on_sphere(centroids, "table").tolist() == centroids.tolist()


@given(st.sets(st.integers(0, 1 << 62), min_size=1, max_size=60), st.integers(1, 60), st.randoms())
def test_the_lowest_are_those_of_any_order_and_one_that_was_not_drawn_moves_none(ids: set[int], n: int, random: object) -> None:
    row_ids = np.array(sorted(ids))
    drawn = row_ids[lowest(row_ids, n, "x")]
    shuffled = row_ids.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(shuffled[lowest(shuffled, n, "x")], drawn)
    assert len(drawn) == min(n, len(row_ids))
    others = np.setdiff1d(row_ids, drawn)
    if len(others):
        assert np.array_equal((rest := np.setdiff1d(row_ids, others[:1]))[lowest(rest, n, "x")], drawn)
