"""GOT-D: potentials of entropic transport, and what they say of a record."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from tasks.kernels.kmeans import UNIT
from tasks.select import transport
from tasks.select.nearness import lowest
from tasks.select.transport import Potential, costs, fit_transport, potentials, sinkhorn, transport_log_weights


def sphere(n: int, seed: int, about: tuple[float, ...] = (0.0, 0.0, 0.0)) -> np.ndarray:
    raw = np.random.default_rng(seed).standard_normal((n, 3)) + np.array(about)
    return np.rint(UNIT * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int16)


def fitted(points: np.ndarray, target: np.ndarray, row_ids: np.ndarray | None = None) -> Potential:
    ids = np.arange(len(points)) if row_ids is None else row_ids
    return fit_transport(points, ids, target, np.arange(len(target)), look="text", seed=0)


def in_the_log_domain(cost: np.ndarray, epsilon: float, n_steps: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Sinkhorn as it is written in every book."""
    f, g = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for _ in range(n_steps):
        f = -epsilon * np.log(np.exp((g - cost) / epsilon).mean(axis=1))
        g = -epsilon * np.log(np.exp((f[:, None] - cost) / epsilon).mean(axis=0))
    return f, g


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.2, 0.5]), st.integers(0, 1 << 20))
@settings(max_examples=20, deadline=None)
def test_potentials_are_those_of_plain_sinkhorn(n: int, m: int, epsilon: float, seed: int) -> None:
    """Up to the constant that may be moved from one side to the other, and to the tolerance."""
    cost = costs(sphere(n, seed), sphere(m, seed + 1), "text")
    f, g = sinkhorn(cost, epsilon)
    slow_f, slow_g = in_the_log_domain(cost, epsilon)
    moved = f.mean() - slow_f.mean()
    assert np.abs(f - moved - slow_f).max() < 1e-3
    assert np.abs(g + moved - slow_g).max() < 1e-3


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.001, 1.0), st.integers(0, 1 << 20))
@settings(max_examples=30, deadline=None)
def test_the_targets_mass_arrives_whatever_the_scale(n: int, m: int, epsilon: float, seed: int) -> None:
    cost = np.random.default_rng(seed).random((n, m)) * 10
    f, g = sinkhorn(cost, epsilon)
    plan = np.exp((f[:, None] + g - cost) / epsilon) / (n * m)
    assert np.isfinite(f).all()
    assert np.allclose(plan.sum(axis=0), 1 / m)


def test_with_a_small_blur_the_distance_is_that_of_the_linear_programme() -> None:
    n, m = 6, 5
    cost = costs(sphere(n, 0), sphere(m, 1), "text")
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    exact = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])).fun
    f, g = sinkhorn(cost, 0.002)
    assert f.mean() + g.mean() == pytest.approx(exact, abs=0.01)


def test_the_gradient_is_that_of_the_distance() -> None:
    """Two copies more of a record change the distance by two n-ths of its distance from the mean potential, to first order."""
    points, target = sphere(60, 0), sphere(20, 1, about=(1.0, 0.0, 0.0))

    def distance(some: np.ndarray) -> float:
        f, g = sinkhorn(costs(some, target, "text"), 0.1)
        return float(f.mean() + g.mean())

    f, _ = sinkhorn(costs(points, target, "text"), 0.1)
    for record in (0, 7, 30):
        more = distance(np.concatenate([points, np.repeat(points[record : record + 1], 2, axis=0)]))
        assert more - distance(points) == pytest.approx(2 / 62 * (f[record] - f.mean()), abs=2e-3)


def test_out_of_sample_and_in_sample_are_one_formula() -> None:
    points, target = sphere(40, 0), sphere(20, 1)
    cost = costs(points, target, "text")
    f, g = sinkhorn(cost, 0.05)
    assert np.abs(potentials(cost, g, 0.05) - f).max() < 1e-4


@given(st.integers(2, 60), st.integers(0, 1 << 20))
@settings(max_examples=20, deadline=None)
def test_order_changes_no_bit_and_a_record_is_alone(n: int, seed: int) -> None:
    points, target, row_ids = sphere(n, seed), sphere(9, seed + 1), np.random.default_rng(seed).permutation(3 * n)[:n]
    order = np.random.default_rng(seed + 2).permutation(n)
    one, other = fitted(points, target, row_ids), fitted(points[order], target, row_ids[order])
    assert np.array_equal(one.g, other.g)
    assert (one.epsilon, one.mean, one.spread) == (other.epsilon, other.mean, other.spread)
    fresh = sphere(15, seed + 3)
    alone = np.concatenate([transport_log_weights(fresh[i : i + 1], one) for i in range(15)])
    assert np.array_equal(transport_log_weights(fresh, one), alone)


def test_records_near_the_target_weigh_most() -> None:
    near, far = sphere(30, 0, about=(5.0, 0.0, 0.0)), sphere(30, 1, about=(0.0, 5.0, 0.0))
    potential = fitted(np.concatenate([near, far]), sphere(20, 2, about=(5.0, 0.0, 0.0)))
    weights = transport_log_weights(np.concatenate([near, far]), potential)
    assert weights[:30].min() > weights[30:].max()
    assert weights.mean() == pytest.approx(0.0, abs=1e-9)
    assert weights.std() == pytest.approx(1.0)


def test_a_pool_of_equal_records_weighs_nothing() -> None:
    points = np.tile(sphere(1, 0), (5, 1))
    assert transport_log_weights(points, fitted(points, sphere(4, 1))).tolist() == pytest.approx([0.0] * 5)


def test_a_record_that_was_not_drawn_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_POOL_ROWS", 10)
    monkeypatch.setattr(transport, "_TARGET_ROWS", 5)
    points, target = sphere(30, 0), sphere(12, 1)
    drawn = lowest(np.arange(30), 10, "transport", 0)
    rest = np.setdiff1d(np.arange(30), np.setdiff1d(np.arange(30), drawn)[:1])
    one, other = fitted(points, target), fitted(points[rest], target, rest)
    assert len(one.target) == 5
    assert np.array_equal(one.g, other.g)
    erased = np.setdiff1d(np.arange(30), drawn[:1])
    assert not np.array_equal(one.g, fitted(points[erased], target, erased).g)
