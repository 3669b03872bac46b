"""Hashed unigrams and bigrams of text columns, in one pass over Arrow's string buffers.

A document's n-grams are its tokens (see `tokens`) and its pairs of neighbouring tokens, each hashed with a seed to 64 bits and
from there to one of `n_buckets` buckets (Xie et al., "Data Selection for Language Models via Importance Resampling", arXiv
2302.03169, with a hash of our own).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import uint64

from tasks.kernels.tokens import (
    GOLDEN,
    U8,
    U32,
    U64,
    Texts,
    compiled,
    fold,
    in_passes,
    room,
    split,
    start_of,
    text_chunks,
    token_hash,
)

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@compiled
def _bucket(hashed: np.uint64, n_buckets: np.uint64) -> np.uint64:
    return ((hashed >> np.uint64(32)) * n_buckets) >> np.uint64(32)


@compiled
def _hash_tokens(words: U64, starts: U32, ends: U32, n_tokens: int, start: np.uint64, n_buckets: np.uint64, out: U32) -> None:
    """Buckets of a document's n-grams: the first token's, then of each token that of the pair it ends and its own.

    They stand at out[1:2 * n_tokens]; out[0] is scratch, so that the first token needs no branch.
    """
    previous = uint64(0)
    for j in range(n_tokens):
        at = uint64(starts[j])
        hashed = token_hash(words, at, uint64(ends[j]) - at, start)
        out[2 * j] = _bucket(fold(previous * GOLDEN, hashed), n_buckets)
        out[2 * j + 1] = _bucket(hashed, n_buckets)
        previous = hashed


@compiled
def _add_all(grams: U32, n_tokens: int, weights: I64, n_targets: int, sums: I64) -> None:
    """Add to each target's sum its weights of a document's n-grams."""
    for k in range(1, 2 * n_tokens):
        at = uint64(grams[k]) * uint64(n_targets)
        for r in range(n_targets):
            sums[r] += weights[at + uint64(r)]


# --- one array -----------------------------------------------------------------------------------------------------------------

_TOKENS, _COUNT, _SCORE, _FILL, _SCORES = 0, 1, 2, 3, 4


@compiled
def _run(
    mode: int,
    data: U8,
    begins: I64,
    sizes: I64,
    table: U32,
    start: np.uint64,
    n_buckets: np.uint64,
    max_tokens: int,
    weights: I64,
    n_targets: int,
    places: I64,
    sums: I64,
    n_tokens: I64,
    buckets: I32,
) -> None:
    """One pass over documents. `n_tokens` is always written, and is negative for a document that was left out.

    `_COUNT` adds 1 to weights[bucket] for each n-gram; `_SCORE` writes Σ weights[bucket] to `sums`, `_SCORES` the same of each
    target, where a bucket's weights stand side by side, and so do a document's sums; `_FILL` writes a document's buckets to
    `buckets` from its place on. Without a `table` (length 0), only documents of pure ASCII are taken.
    """
    capacity = 1 << 14
    low, kinds, edges, starts, ends, grams = room(capacity)
    for d in range(len(begins)):
        size = sizes[d]
        if size > capacity:
            capacity = size + size // 2
            low, kinds, edges, starts, ends, grams = room(capacity)
        text = data[begins[d] : begins[d] + size]
        n = min(split(text, table, low, kinds, edges, starts, ends), max_tokens)
        n_tokens[d] = n
        if mode == _TOKENS or n <= 0:
            continue
        _hash_tokens(low.view(np.uint64), starts, ends, n, start, n_buckets, grams)
        if mode == _COUNT:
            for k in range(1, 2 * n):
                weights[grams[k]] += 1
        elif mode == _SCORE:
            total = 0
            for k in range(1, 2 * n):
                total += weights[grams[k]]
            sums[d] = total
        elif mode == _SCORES:
            _add_all(grams, n, weights, n_targets, sums[d * n_targets : (d + 1) * n_targets])
        else:
            for k in range(1, 2 * n):
                buckets[places[d] + k - 1] = grams[k]


# --- Arrow in, NumPy out -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What a pass does with the n-grams, see `_run`."""

    mode: int
    seed: int = 0
    n_buckets: int = 1
    max_tokens: int = 1 << 62
    weights: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    n_targets: int = 1
    buckets: I32 = field(default_factory=lambda: np.empty(0, np.int32))


def count_ngrams(array: pa.Array | pa.ChunkedArray, *, n_buckets: int, seed: int) -> I64:
    """How often the n-grams of all documents fall into each bucket, int64 of shape (n_buckets,)."""
    job = _Job(_COUNT, seed, n_buckets, weights=np.zeros(n_buckets, np.int64))
    for texts in text_chunks(array):
        _visit(job, texts, np.zeros(len(texts.sizes), np.int64))
    return job.weights


def count_tokens(array: pa.Array | pa.ChunkedArray) -> I64:
    """Tokens of each document, int64 of shape (n,). One that has t > 0 tokens has 2t - 1 n-grams."""
    return _joined([_visit(_Job(_TOKENS), texts, np.zeros(len(texts.sizes), np.int64))[1] for texts in text_chunks(array)])


def score_ngrams(array: pa.Array | pa.ChunkedArray, ratios: I64, *, seed: int) -> tuple[I64, I64]:
    """Σ ratios[bucket] over the n-grams of each document, and its number of tokens; both int64 of shape (n,).

    `ratios` holds integers (fixed point), one a bucket: sums are exact and owe nothing to the order of the n-grams. Ratios of
    shape (R, n_buckets) give sums of shape (n, R), in the same pass.
    """
    rows = np.atleast_2d(ratios)
    # A bucket's ratios lie side by side: one place in memory for each n-gram.
    weights = np.ascontiguousarray(rows.T, np.int64).ravel()
    job = _Job(_SCORE if len(rows) == 1 else _SCORES, seed, rows.shape[1], weights=weights, n_targets=len(rows))
    passes = [_visit(job, texts, np.zeros(len(texts.sizes), np.int64)) for texts in text_chunks(array)]
    sums = np.concatenate([np.zeros((0, len(rows)), np.int64), *(found for found, _ in passes)])
    return sums[:, 0] if ratios.ndim == 1 else sums, _joined([n_tokens for _, n_tokens in passes])


def token_buckets(
    array: pa.Array | pa.ChunkedArray, *, n_buckets: int, seed: int, max_tokens: int | None = None
) -> tuple[I64, I32]:
    """The buckets of each document's n-grams, as offsets (n + 1,) into buckets (offsets[-1],): the bag of an embedding bag.

    Within a document they stand as: first token, then of every further token the pair it ends and itself.
    `max_tokens` keeps a document's first tokens only.
    """
    limit = 1 << 62 if max_tokens is None else max_tokens
    chunks = list(text_chunks(array))
    sizes = [_visit(_Job(_TOKENS, max_tokens=limit), texts, texts.begins)[1] for texts in chunks]
    n_grams = np.maximum(2 * _joined(sizes) - 1, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_grams)])
    job = _Job(_FILL, seed, n_buckets, limit, buckets=np.empty(offsets[-1], np.int32))
    done = 0
    for texts in chunks:
        _visit(job, texts, offsets[done : done + len(texts.sizes)])
        done += len(texts.sizes)
    return offsets, job.buckets


def _joined(parts: list[I64]) -> I64:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _visit(job: _Job, texts: Texts, spots: I64) -> tuple[I64, I64]:
    """Sums (n, R) and n_tokens (n,) of documents; `spots` says where a document's buckets go."""
    start = start_of(job.seed)
    sums = np.zeros((len(texts.sizes), job.n_targets), np.int64)
    n_tokens = np.zeros(len(texts.sizes), np.int64)

    def run(some: Texts, places: I64, table: U32) -> I64:
        part, n = np.zeros((len(places), job.n_targets), np.int64), np.zeros(len(places), np.int64)
        _run(
            job.mode, some.data, some.begins, some.sizes, table, start, np.uint64(job.n_buckets), job.max_tokens,
            job.weights, job.n_targets, spots[places], part.ravel(), n, job.buckets,
        )  # fmt: skip
        sums[places], n_tokens[places] = part, n
        return n

    in_passes(texts, run)
    return sums, n_tokens
