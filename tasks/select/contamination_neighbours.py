"""Records nearest to evaluation items by embedding: rephrased copies share few words, so they are listed for review. Pure.

Nothing is dropped for being near: somebody has to look at each pair (Yang et al., "Rethinking Benchmark and Contamination for
Language Models with Rephrased Samples", arXiv 2311.04850). Distances are exact integers, so a list owes nothing to the order or
the number of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from infra.ids import I64
from tasks.kernels.kmeans import Points, squared_norms

NEIGHBOURS = pa.schema([("item", pa.int64()), ("row_id", pa.int64()), ("distance", pa.int64())])
_BLOCK_RECORDS, _BLOCK_ITEMS = 4096, 512


def neighbours(points: Points, row_ids: I64, items: Points, item_ids: I64, k: int) -> pa.Table:
    """The k records nearest to each evaluation item: NEIGHBOURS rows, squared distances in 1 / `UNIT`^2, nearest first.

    Points are int16 (n, d) of one embedding; records equally near come by row id. Points at zero (no text to embed) are nobody's
    neighbour and have none.
    """
    points, row_ids = _distinct(points, row_ids)
    items, item_ids = _distinct(items, item_ids)
    found = [NEIGHBOURS.empty_table()]
    for low in range(0, len(items), _BLOCK_ITEMS):
        some, ids = items[low : low + _BLOCK_ITEMS], item_ids[low : low + _BLOCK_ITEMS]
        for start in range(0, len(points), _BLOCK_RECORDS):
            block = slice(start, start + _BLOCK_RECORDS)
            found.append(_nearest(points[block], row_ids[block], some, ids, k))
    return nearest(found, k)


def nearest(tables: Sequence[pa.Table], k: int) -> pa.Table:
    """The k nearest records of each item out of the NEIGHBOURS rows of several files; copies of a record count once."""
    whole = pa.concat_tables([NEIGHBOURS.empty_table(), *tables])
    items, row_ids, distances = (np.asarray(whole.column(name)) for name in NEIGHBOURS.names)
    order = np.lexsort([row_ids, distances, items])
    items, row_ids = items[order], row_ids[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (items[1:] != items[:-1]) | (row_ids[1:] != row_ids[:-1])
    order, items = order[new], items[new]
    first = np.searchsorted(items, items)
    return whole.take(pa.array(order[np.arange(len(items)) - first < k])).combine_chunks()


def _distinct(points: Points, ids: I64) -> tuple[Points, I64]:
    """Each record once and by id, without those that no embedding says anything of."""
    said = np.flatnonzero(points.any(axis=1))
    ids, first = np.unique(ids[said], return_index=True)
    return points[said[first]], ids


def _nearest(points: Points, row_ids: I64, items: Points, item_ids: I64, k: int) -> pa.Table:
    """The k nearest of one block of records to each of a block of items."""
    products = items.astype(np.float64) @ points.T.astype(np.float64)  # integers below 2^53: exact
    distances = squared_norms(items)[:, None] + squared_norms(points)[None, :] - 2 * products.astype(np.int64)
    order = _first(distances, k)
    columns = [np.repeat(item_ids, order.shape[1]), row_ids[order].ravel(), np.take_along_axis(distances, order, axis=1).ravel()]
    return pa.table([pa.array(column) for column in columns], schema=NEIGHBOURS)


def _first(distances: I64, k: int) -> I64:
    """The places of the k smallest of each row, in order; of equals the first, which has the smaller row id."""
    n = distances.shape[1]
    keys = distances * n + np.arange(n)  # squared distances are below 2^36: the keys are distinct integers
    some = np.partition(keys, k - 1, axis=1)[:, :k] if k < n else keys
    return np.sort(some, axis=1) % n
