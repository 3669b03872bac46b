"""How a pool becomes points: what the sample taught about its columns or n-grams, and the embedding of any batch by it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.columns import CONTENT, Look
from infra.ids import I64, keyed_bits
from tasks.kernels.embed import Feature, Words, embed_pixels, embed_table, embed_text, fit_features, fit_words
from tasks.kernels.kmeans import Points

_FIT_TEXTS = 20_000


@dataclass(frozen=True)
class Embedding:
    """What was fitted: the scales of a table's columns, or the vectors of n-grams; images need neither."""

    look: Look
    seed: int
    features: tuple[Feature, ...] = ()
    words: Words | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.words is None else self.words.nbytes


def fit_embedding(look: Look, content: pa.Table, row_ids: I64, *, seed: int) -> Embedding:
    """The embedding that a sample teaches. N-grams learn from `_FIT_TEXTS` texts of it at most, drawn by their row ids."""
    if look == "table":
        return Embedding(look, seed, fit_features(content))
    if look == "pixels":
        return Embedding(look, seed)
    drawn = np.argsort(keyed_bits(row_ids, "words", seed), kind="stable")[:_FIT_TEXTS]
    return Embedding(look, seed, (), fit_words(content.column(CONTENT).take(pa.array(drawn)), seed=seed))


def embed(embedding: Embedding, content: pa.Table) -> Points:
    """Points int16 (n, d) of rows, see `infra.views.content_of`: each a function of its row and of the embedding."""
    if embedding.look == "table":
        return embed_table(content, embedding.features, seed=embedding.seed)
    if embedding.words is None:
        return embed_pixels(content.column(CONTENT), seed=embedding.seed)
    return embed_text(content.column(CONTENT), embedding.words, seed=embedding.seed)
