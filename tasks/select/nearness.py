"""How far points are from points, exactly. Pure.

Texts and images lie on the unit sphere, and a point that is zero there (nothing of it is known) counts as one at a right angle to
everything: by plain distance it would be nearer to all than a record of another topic is. Rows of tables lie in the ball.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.columns import Look
from infra.ids import I64, keyed_bits
from tasks.kernels.kmeans import UNIT, Points, squared_norms

I32 = npt.NDArray[np.int32]


def squared_distances(points: Points, others: Points, look: Look) -> I32:
    """Squared distances, int32 (n, m) in units of 1 / `UNIT`^2: exact, and functions of the two points alone.

    A product of two points and its partial sums stay under 2^24, which float32 holds without rounding, in any order.
    """
    products = (points.astype(np.float32) @ others.T.astype(np.float32)).astype(np.int32)
    return (_norms(points, look)[:, None] + _norms(others, look)[None] - 2 * products).astype(np.int32)


def on_sphere(points: Points, look: Look) -> Points:
    """Centroids scaled to the sphere where the records lie on one: then distances order as cosines do."""
    if look == "table":
        return points
    norms = np.sqrt(squared_norms(points).astype(np.float64))
    factors = np.divide(UNIT, norms, out=np.zeros(len(points)), where=norms > 0)
    return np.rint(points * factors[:, None]).astype(np.int16)


def lowest(row_ids: I64, n: int, *purpose: object) -> I64:
    """Indices of the n rows with the smallest keyed bits, in order of row id: an absent row lets one in and moves no other."""
    drawn = np.argsort(keyed_bits(row_ids, *purpose), kind="stable")[:n] if n < len(row_ids) else np.arange(len(row_ids))
    return drawn[np.argsort(row_ids[drawn], kind="stable")]


def _norms(points: Points, look: Look) -> I64:
    return squared_norms(points) if look == "table" else np.full(len(points), UNIT * UNIT, np.int64)
