"""Records compared by their embeddings instead of their n-grams: texts, images and rows of tables alike. Pure.

What is fitted is a function of the keyed sample of the pool and of the targets; a record's log weights are functions of its own
row and of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.columns import CONTENT, Look
from infra.ids import F64, I64
from infra.select_settings import Method, SelectSettings
from tasks.kernels.embedding import Embedding, embed, fit_embedding
from tasks.kernels.kmeans import Centroids, Points
from tasks.kernels.ngrams import count_tokens
from tasks.select.clusters import cluster_counts, cluster_log_weights, fit_clusters
from tasks.select.nearness import lowest
from tasks.select.simcore import Reach, fit_simcore, simcore_log_weights
from tasks.select.transport import Potential, fit_transport, transport_log_weights
from tasks.select.weights import log_ratios

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Records of a pool or a target: their row ids, and the columns that an embedding sees (`infra.views.content_of`)."""

    row_ids: I64
    content: pa.Table


@dataclass(frozen=True)
class Clusters:
    """Centroids of the pool's sample, and the log ratio of each in each target, int64 (R, k)."""

    centroids: Centroids
    ratios: I64

    @property
    def nbytes(self) -> int:
        return self.centroids.vectors.nbytes + self.ratios.nbytes


@dataclass(frozen=True)
class Space:
    """What was fitted: the embedding, and what the method learnt of all targets together, or of each of them.

    `silent` names the targets in which nothing was found to compare with; a pool whose sample has nothing has neither.
    """

    embedding: Embedding
    n_targets: int
    clusters: Clusters | None = None
    fits: tuple[Reach | Potential | None, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        fits = sum(fit.nbytes for fit in self.fits if fit is not None)
        return self.embedding.nbytes + fits + (self.clusters.nbytes if self.clusters else 0)


# --- rows ----------------------------------------------------------------------------------------------------------------------


def joined_rows(parts: Sequence[Rows], *, limit: int | None = None, seed: int = 0) -> Rows:
    """Rows as one, each record once, in order of row id: at most `limit` of them, those with the smallest keyed bits."""
    row_ids, first = np.unique(np.concatenate([part.row_ids for part in parts]), return_index=True)
    drawn = lowest(row_ids, len(row_ids) if limit is None else limit, "rows", seed)
    content = pa.concat_tables([part.content for part in parts], promote_options="permissive")
    return Rows(row_ids[drawn], content.take(pa.array(first[drawn])))


# --- fitting -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Embedded:
    """Records that have something to compare: their points, by row id."""

    points: Points
    row_ids: I64


def fit_space(
    method: Method, pool: Rows, targets: Mapping[str, Rows], asked: SelectSettings, look: Look, *, device: str = "cpu"
) -> Space:
    """The space of a method ("clusters", "simcore" or "transport") that a sample of the pool and the targets teach."""
    pool = joined_rows([pool])
    embedding = fit_embedding(look, pool.content, pool.row_ids, seed=asked.seed)
    sample = _embedded(embedding, pool, known=False)
    known = bool(len(sample.row_ids))  # an embedding of nothing knows nothing of a target: that is not the target's fault
    aims = {name: _embedded(embedding, joined_rows([rows]), known=known) for name, rows in targets.items()}
    silent = tuple(name for name, aim in aims.items() if not len(aim.row_ids))
    if not len(sample.row_ids):
        return Space(embedding, len(aims), silent=silent)
    if method == "clusters":
        clusters = _clusters(sample, list(aims.values()), asked, device)
        return Space(embedding, len(aims), clusters=clusters, silent=silent)
    fits = tuple(_fitted(method, sample, aim, asked, look, device) for aim in aims.values())
    return Space(embedding, len(aims), fits=fits, silent=silent)


def _embedded(embedding: Embedding, rows: Rows, *, known: bool) -> _Embedded:
    """The rows that have content; with `known`, only those that the embedding knows something of: an n-gram, a bright pixel."""
    points = embed(embedding, rows.content)
    which = has_content(embedding, rows.content, points)
    if known and embedding.look != "table":
        which &= points.any(axis=1)
    return _Embedded(points[which], rows.row_ids[which])


def _clusters(sample: _Embedded, aims: Sequence[_Embedded], asked: SelectSettings, device: str) -> Clusters:
    centroids = fit_clusters(sample.points, sample.row_ids, asked.n_clusters, seed=asked.seed, device=device)
    raw = cluster_counts(sample.points, centroids, device=device)
    counts = [cluster_counts(aim.points, centroids, device=device) for aim in aims]
    nothing = np.zeros(centroids.k, np.int64)
    ratios = [log_ratios(found, raw, smoothing=asked.smoothing) if found.any() else nothing for found in counts]
    return Clusters(centroids, np.stack(ratios) if ratios else np.zeros((0, centroids.k), np.int64))


def _fitted(
    method: Method, sample: _Embedded, aim: _Embedded, asked: SelectSettings, look: Look, device: str
) -> Reach | Potential | None:
    if not len(aim.row_ids):
        return None
    data = (sample.points, sample.row_ids, aim.points, aim.row_ids)
    if method == "simcore":
        return fit_simcore(*data, asked.n_clusters, look=look, seed=asked.seed, device=device)
    if method == "transport":
        return fit_transport(*data, look=look, seed=asked.seed)
    raise ValueError(f"{method!r} compares no embeddings")


# --- scoring -------------------------------------------------------------------------------------------------------------------


def space_log_weights(space: Space, content: pa.Table, *, device: str = "cpu") -> F64:
    """Log weights of records, float64 (n, R), each a function of its row; NaN where a record has no content."""
    points = embed(space.embedding, content)
    weights = np.zeros((len(points), space.n_targets))
    if space.clusters is not None:
        weights[:] = cluster_log_weights(points, space.clusters.centroids, space.clusters.ratios, device=device)
    for column, fit in enumerate(space.fits):
        if isinstance(fit, Reach):
            weights[:, column] = simcore_log_weights(points, fit)
        elif fit is not None:
            weights[:, column] = transport_log_weights(points, fit)
    weights[~has_content(space.embedding, content, points)] = np.nan
    return weights


def has_content(embedding: Embedding, content: pa.Table, points: Points) -> Mask:
    """Which rows have a token, a pixel, or a value in a column that the embedding knows."""
    if embedding.look == "table":
        return _has_value(content, [feature.name for feature in embedding.features])
    known: Mask = np.asarray(points.any(axis=1))
    unclear = np.flatnonzero(~known)
    known[unclear] = _sizes(embedding.look, content.column(CONTENT).take(pa.array(unclear))) > 0
    return known


def _has_value(content: pa.Table, names: Sequence[str]) -> Mask:
    known = np.zeros(content.num_rows, np.bool_)
    for name in set(names) & set(content.schema.names):
        np.logical_or(known, ~np.asarray(pc.is_null(content.column(name), nan_is_null=True)), out=known)
    return known


def _sizes(look: Look, column: pa.ChunkedArray) -> I64:
    """Tokens of texts, bytes or numbers of images; 0 for NULL."""
    if look == "text":
        return count_tokens(column)
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    sizes = pc.list_value_length(column) if is_list else pc.binary_length(column)
    return np.asarray(sizes.fill_null(0)).astype(np.int64)
