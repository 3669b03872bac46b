"""The rule that a sample teaches and that every record then applies to itself. Pure.

Fitting sees the keyed sample of the selected records, held-out subjects left out: whoever judges the model has no say in what
it trains on. Applying sees one record and what was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import I64
from tasks.kernels.kmeans import Centroids, Points, assign, fit, squared_norms
from tasks.prune.density import cluster_quotas, complexities, shares
from tasks.prune.prototypes import class_thresholds
from tasks.prune.quotas import Thresholds, n_to_keep, thresholds_of, within

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rule:
    """What was fitted. A record's group is its cluster (density), or its class where `classes` is given (prototypes).

    `hard` keeps the records far from their centroid.
    """

    centroids: Centroids
    thresholds: Thresholds
    hard: bool
    classes: tuple[str, ...] | None = None

    @property
    def nbytes(self) -> int:
        return int(self.centroids.vectors.nbytes)


def fit_rule(
    points: Points,
    row_ids: I64,
    labels: pa.Array,
    *,
    method: str,
    keep_fraction: float,
    hard: bool,
    n_clusters: int,
    seed: int,
    device: str = "cpu",
) -> Rule:
    """The rule by which exactly `keep_fraction` of these rows (to the nearest whole row) stay; row ids are unique."""
    centroids = fit(points, row_ids, n_clusters, seed=seed, device=device)
    clusters, distances = assign(points, centroids, device=device)
    n_keep = n_to_keep(len(row_ids), keep_fraction)
    ranks = distances if hard else -distances
    if method == "prototypes":
        classes = tuple(sorted(value for value in labels.unique().to_pylist() if value is not None))
        thresholds = class_thresholds(ranks, row_ids, class_numbers(labels, classes), len(classes), n_keep)
        return Rule(centroids, thresholds, hard, classes)
    groups = clusters.astype(np.int64)
    share = shares(complexities(squared_norms(points), groups, distances, centroids))
    quotas = cluster_quotas(share, np.bincount(groups, minlength=centroids.k), n_keep)
    return Rule(centroids, thresholds_of(ranks, row_ids, groups, quotas), hard)


def apply_rule(rule: Rule, points: Points, row_ids: I64, labels: pa.Array, *, device: str = "cpu") -> tuple[I32, I64, Mask]:
    """(cluster, squared distance to its centroid, kept) of each row: functions of the row and the rule alone."""
    clusters, distances = assign(points, rule.centroids, device=device)
    groups = clusters.astype(np.int64) if rule.classes is None else class_numbers(labels, rule.classes)
    return clusters, distances, within(distances if rule.hard else -distances, row_ids, groups, rule.thresholds)


def class_numbers(labels: pa.Array, classes: Sequence[str]) -> I64:
    """The place of each label among the classes; their number for a label that is NULL or not among them."""
    options = pc.SetLookupOptions(pa.array(classes, pa.string()), skip_nulls=True)
    found = pc.call_function("index_in", [labels], options)
    return np.asarray(found.fill_null(len(classes))).astype(np.int64)
