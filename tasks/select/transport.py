"""GOT-D: the records that bring the pool nearest to a target, by the gradient of entropic optimal transport. Pure.

After Kang et al., "Get more for less: Principled Data Selection for Warming Up Fine-Tuning in LLMs" (arXiv 2405.02774). The
gradient of the transport distance with respect to a record's mass is its dual potential, up to a constant: calibrated, its
distance from the mean of the others. Records of the most negative gradient are wanted most.

The plan is found between keyed draws of the sample and of the target. What is kept is the target's potential g, from which
f(x) = -ε ln Σ_j b_j exp((g_j - c(x, y_j)) / ε) is the potential of any record, met or not: a function of its own row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from infra.columns import Look
from infra.ids import F64, I64
from tasks.kernels.kmeans import UNIT, Points
from tasks.select.nearness import lowest, squared_distances

_POOL_ROWS = 4096
_TARGET_ROWS = 2048
_BLUR = 0.05  # ε as a share of the mean cost
_TOLERANCE = 1e-6
_N_PLANS = 25
_N_STEPS = 20
_CHUNK_COSTS = 1 << 18


@dataclass(frozen=True)
class Potential:
    """What one target taught: its points int16 (m, d) with potentials (m,), ε, and the mean and spread of f over the sample."""

    look: Look
    target: Points
    g: F64
    epsilon: float
    mean: float
    spread: float

    @property
    def nbytes(self) -> int:
        return self.target.nbytes + self.g.nbytes


def fit_transport(points: Points, row_ids: I64, target: Points, target_ids: I64, *, look: Look, seed: int) -> Potential:
    """The potential of a target (m, d) against a sample of points (n, d), n >= 1: of at most 4096 of these and 2048 of those."""
    points = points[lowest(row_ids, _POOL_ROWS, "transport", seed)]
    target = target[lowest(target_ids, _TARGET_ROWS, "transport", seed)]
    cost = costs(points, target, look)
    epsilon = max(_BLUR * float(cost.mean()), 1.0 / UNIT)
    g = sinkhorn(cost, epsilon)[1]
    f = potentials(cost, g, epsilon)
    return Potential(look, target, g, epsilon, float(f.mean()), float(f.std()) or 1.0)


def costs(points: Points, target: Points, look: Look) -> F64:
    """Half the squared distance, float64 (n, m): one minus the cosine on the sphere."""
    return squared_distances(points, target, look) / (2 * UNIT**2)


def sinkhorn(cost: F64, epsilon: float) -> tuple[F64, F64]:
    """The potentials f (n,) and g (m,) of entropic transport between uniform weights, for which the rows and columns of
    exp((f + g - cost) / ε) / nm sum to 1/n and 1/m.

    Stabilised (Schmitzer, 2019): each plan is made in the log domain and scaled `_N_STEPS` times, then absorbed. Ends when
    rows are off by `_TOLERANCE` of their mass, or after `_N_PLANS` plans.
    """
    f = cost.min(axis=1)
    g = (cost - f[:, None]).min(axis=0)
    # One thread: how a BLAS divides a sum is not for the number of threads to say.
    with threadpool_limits(1, "blas"):
        for _ in range(_N_PLANS):
            plan = np.exp((f[:, None] + g - cost) / epsilon)
            u, v = np.ones(len(f)), np.ones(len(g))
            for _ in range(_N_STEPS):
                u = len(g) / (plan @ v)
                v = len(f) / (u @ plan)
            f, g = f + epsilon * np.log(u), g + epsilon * np.log(v)
            if np.abs(u * (plan @ v) / len(g) - 1).mean() < _TOLERANCE:
                break
    return f, g


def potentials(cost: F64, g: F64, epsilon: float) -> F64:
    """f of each row of costs (n, m), float64 (n,)."""
    exponents = (g - cost) / epsilon
    top = exponents.max(axis=1)
    return -epsilon * (top + np.log(np.exp(exponents - top[:, None]).mean(axis=1)))


def transport_log_weights(points: Points, potential: Potential) -> F64:
    """Minus the calibrated gradient of each record in units of the sample's spread, float64 (n,)."""
    n_chunk = max(1, _CHUNK_COSTS // len(potential.g))
    parts = [_potentials_of(points[low : low + n_chunk], potential) for low in range(0, len(points), n_chunk)]
    return (potential.mean - np.concatenate([np.zeros(0), *parts])) / potential.spread


def _potentials_of(points: Points, potential: Potential) -> F64:
    return potentials(costs(points, potential.target, potential.look), potential.g, potential.epsilon)
