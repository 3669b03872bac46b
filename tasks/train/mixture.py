"""Domains that are drawn more often at the end of training (domain upsampling, Blakeney et al., arXiv 2406.03476). Pure.

The end is the last `final_fraction` of a shard's work, counted in passes over its slices as they were planned and not in rows: so
its place does not move when somebody is erased, and a checkpoint depends on no row of a later slice. As a rule it is the last
epochs of the last slice, the first of them in part. There, rows come as often as their weights say, in as many steps as before: a
row's expected number is its weight over the mean weight of the rows that the slice may see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.ids import F64, I64, keyed_bits, keyed_uniform
from infra.settings import ConfigError, Settings
from tasks.train.features import label_texts

UNIT = 1 << 16  # a weight of 1: weights are integers, so that their sum has no order
TABLE = "table"


@dataclass(frozen=True)
class Mixture:
    """The end's share of the work, and the weights of the domains that have one: names of tables, or values of a column."""

    final_fraction: float
    by: str
    weights: tuple[tuple[str, float], ...]


def mixture_of(settings: Settings, dataset: str) -> Mixture | None:
    """What a dataset asks of the end of training; None where it asks nothing."""
    asked = settings.dataset(dataset).mixture
    return Mixture(asked.final_fraction, asked.by, tuple(sorted(asked.weights.items()))) if asked else None


def check_mixture(settings: Settings, dataset: str, columns: Iterable[str]) -> None:
    """Raises `ConfigError` where no table of the pool has the column that says of which domain a row is."""
    asked, has = settings.dataset(dataset).mixture, set(columns) - {"row_id"}
    if asked is not None and asked.by != TABLE and asked.by not in has:
        raise ConfigError(
            f"datasets.{dataset}.mixture: by = {asked.by!r} is a column of no table of the pool; they have: "
            + ", ".join(sorted(has))
        )


def row_weights(mixture: Mixture, table: str, column: pa.Array | None, n_rows: int) -> I64:
    """The weights of a table's rows, (n,) in units of 1/UNIT. `column` holds their domains, if that is not the table: written as
    labels are, NULL or absent for none."""
    known = {name: max(1, round(weight * UNIT)) for name, weight in mixture.weights}
    if mixture.by == TABLE or column is None:
        return np.full(n_rows, known.get(table, UNIT) if mixture.by == TABLE else UNIT, np.int64)
    encoded = label_texts(column).dictionary_encode()
    by_domain = np.array([UNIT, *(known.get(name, UNIT) for name in encoded.dictionary.to_pylist())], np.int64)
    return by_domain[np.asarray(encoded.indices.fill_null(-1)).astype(np.int64) + 1]


def final_share(mixture: Mixture, *, slices: int, epochs: int, slice_: int, epoch: int) -> float:
    """The share of an epoch that belongs to the end. An epoch of slice r costs r + 1, and each slice has so many epochs."""
    total = epochs * slices * (slices + 1) / 2
    left = total - epochs * slice_ * (slice_ + 1) / 2 - epoch * (slice_ + 1)
    inside = mixture.final_fraction * total - (left - (slice_ + 1))
    return min(1.0, max(0.0, round(inside / (slice_ + 1), 9)))


def drawn(row_ids: I64, weights: I64, share: float, *purpose: int) -> npt.NDArray[np.intp]:
    """Positions of rows, drawn by their weights and in a random order: about `share` · n of them, a row as often as it is drawn.

    Keyed by row id: how often a row comes depends on the others through the mean of the weights alone.
    """
    expected: F64 = share * (weights * len(weights) / max(1, int(weights.sum())))
    n_times = np.floor(expected).astype(np.int64)
    n_times += keyed_uniform(row_ids, "draw", *purpose) < expected - n_times
    at = np.repeat(np.arange(len(row_ids)), n_times)
    numbers = np.arange(len(at)) - np.repeat(np.cumsum(n_times) - n_times, n_times)
    bits = keyed_bits(keyed_bits(row_ids, "end", *purpose)[at] + numbers.astype(np.uint64), "number")
    return at[np.lexsort((numbers, row_ids[at], bits))]
