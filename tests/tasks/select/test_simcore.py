"""SimCore: the rounds of the paper's greedy, each record's known from its own row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.kernels.kmeans import UNIT
from tasks.select.nearness import squared_distances
from tasks.select.simcore import LIKE_FIRST, Reach, fit_simcore, n_rounds, rounds, simcore_log_weights


def sphere(n: int, seed: int, about: tuple[float, ...] = (0.0, 0.0, 0.0)) -> np.ndarray:
    raw = np.random.default_rng(seed).standard_normal((n, 3)) + np.array(about)
    return np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)


def greedy(points: np.ndarray, centroids: np.ndarray) -> list[set[int]]:
    """The paper's algorithm, word by word: what each round takes."""
    left, taken = set(range(len(points))), list[set[int]]()
    while left:
        away = squared_distances(points, centroids, "text")
        chosen = {min(left, key=lambda u: (away[u, c], u)) for c in range(len(centroids))}
        taken.append(chosen)
        left -= chosen
    return taken


def fitted(points: np.ndarray, target: np.ndarray, k: int = 4) -> Reach:
    return fit_simcore(points, np.arange(len(points)), target, np.arange(len(target)), k, look="text", seed=0)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_with_everything_in_the_sample_it_is_the_papers_greedy(n: int, m: int, k: int, seed: int) -> None:
    points = np.unique(sphere(n, seed), axis=0)
    reach = fitted(points, sphere(m, seed + 1), k)
    weights = simcore_log_weights(points, reach)
    away = squared_distances(points, reach.centroids, "text")
    expected = greedy(points, reach.centroids)
    for number, taken in enumerate(expected):
        for record in taken:
            tied = any((away[record, c] == away[:, c]).sum() > 1 for c in range(len(reach.centroids)))
            assert weights[record] == -np.log1p(number) or (tied and weights[record] > -np.log1p(number))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_each_round_takes_each_centroids_nearest_of_those_left(n: int, k: int, levels: int, seed: int) -> None:
    """With many ties too: then the first record is taken."""
    away = np.random.default_rng(seed).integers(0, 10**levels + 1, (k, n)).astype(np.int32)
    gone = set[int]()
    for row in rounds(away):
        left = [u for u in range(n) if u not in gone]
        assert row.tolist() == [min(left, key=lambda u: (away[c, u], u)) for c in range(k)]
        gone |= set(row.tolist())
    assert len(gone) == n


@given(st.integers(2, 50), st.integers(0, 1 << 20))
@settings(max_examples=30)
def test_order_changes_nothing_and_a_record_is_alone(n: int, seed: int) -> None:
    points, target, row_ids = sphere(n, seed), sphere(6, seed + 1), np.random.default_rng(seed).permutation(n * 3)[:n]
    order = np.random.default_rng(seed + 2).permutation(n)
    one = fit_simcore(points, row_ids, target, np.arange(6), 3, look="text", seed=0)
    other = fit_simcore(points[order], row_ids[order], target[::-1], np.arange(6)[::-1], 3, look="text", seed=0)
    assert np.array_equal(one.distances, other.distances)
    whole = simcore_log_weights(sphere(20, seed + 3), one)
    alone = np.concatenate([simcore_log_weights(sphere(20, seed + 3)[i : i + 1], other) for i in range(20)])
    assert np.array_equal(whole, alone)


def test_a_record_that_was_not_sampled_falls_between_those_that_were() -> None:
    """One centroid in the east; rounds 1, 2, 3 reach to 10, 20 and 30 degrees."""

    def at(*degrees: float) -> np.ndarray:
        angles = np.radians(degrees)
        return np.rint(UNIT * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.int16)

    reach = fitted(at(10, 20, 30), at(0), 1)
    assert np.exp(-simcore_log_weights(at(5, 10, 15, 29, 30, 80), reach)).round().tolist() == [1, 1, 2, 3, 3, 4]


def test_the_papers_rule_stops_where_similarity_falls() -> None:
    """Half of the pool lies about the target, half at its antipode."""
    near, far = sphere(50, 0, about=(20.0, 0.0, 0.0)), sphere(50, 1, about=(-20.0, 0.0, 0.0))
    reach = fitted(np.concatenate([near, far]), sphere(20, 2, about=(20.0, 0.0, 0.0)), 2)
    assert reach.similar_fraction == pytest.approx(0.5, abs=0.02)
    similar = np.array([[1.0, 0.9], [1.0, 0.9], [0.95, 0.86], [0.95, 0.85], [1.0, 1.0]])
    distances = np.rint((1 - similar) * 2 * UNIT**2).astype(np.int32)
    assert LIKE_FIRST == 0.95
    assert n_rounds(distances) == 3


def test_every_centroid_has_its_turn() -> None:
    """A target of two topics, of which the pool has nine times as many records of one: both come first."""
    east, north = sphere(90, 0, about=(8.0, 0.0, 0.0)), sphere(10, 1, about=(0.0, 8.0, 0.0))
    target = np.concatenate([sphere(10, 2, about=(8.0, 0.0, 0.0)), sphere(10, 3, about=(0.0, 8.0, 0.0))])
    weights = simcore_log_weights(np.concatenate([east, north]), fitted(np.concatenate([east, north]), target, 2))
    first = np.argsort(-weights, kind="stable")[:16]
    assert (first >= 90).sum() >= 6
