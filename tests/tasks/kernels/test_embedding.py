"""An embedding is what the sample taught, whatever its order, and gives every row its own point."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.columns import CONTENT, Look
from tasks.kernels.embed import DIMS
from tasks.kernels.embedding import embed, fit_embedding

SAMPLES: dict[Look, pa.Table] = {
    "text": pa.table({CONTENT: pa.array(["red ball", "red cup", "blue ball", None, "blue cup"], pa.large_string())}),
    "pixels": pa.table({CONTENT: [[1, 2, 3], [3, 2, 1], None, [0, 0, 9], [5, 5, 5]]}),
    "table": pa.table({"x": [1.0, 2.0, None, 4.0, 9.0], "c": ["a", "b", "a", None, "c"]}),
}


@pytest.mark.parametrize("look", SAMPLES)
def test_order_changes_no_point_and_a_row_is_alone(look: Look) -> None:
    sample, row_ids = SAMPLES[look], np.array([50, 10, 40, 30, 20])
    order: Any = np.array([3, 0, 4, 2, 1])
    one = fit_embedding(look, sample, row_ids, seed=7)
    other = pickle.loads(pickle.dumps(fit_embedding(look, sample.take(pa.array(order)), row_ids[order], seed=7)))
    points = embed(one, sample)
    assert points.shape == (5, DIMS)
    assert (points.any(axis=1).sum(), one.nbytes > 0) == (5 if look == "table" else 4, look == "text")
    assert np.array_equal(points, np.concatenate([embed(other, sample.slice(i, 1)) for i in range(5)]))
