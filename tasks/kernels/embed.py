"""Embeddings of texts, table rows and images as `DIMS` integers in units of 1 / `UNIT`; a row's owes nothing to other rows.

Each feature has a vector, and a row is the sum of its features' vectors times their values. Categories have sign vectors from
hashes of their names (Achlioptas, 2003); pixels and numeric columns have rows of a Hadamard matrix under random sign flips, so
that up to `DIMS` of them keep distances exactly. What is fitted, is fitted on a sample and is the same in any order of its rows:
the scales of numeric columns are order statistics, and the vectors of n-grams come from latent semantic analysis in integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import keyed_bits
from tasks.kernels.kmeans import UNIT, Points
from tasks.kernels.ngrams import token_buckets

Words = npt.NDArray[np.int16]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Column: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any]"
_F = TypeVar("_F", bound=Callable[..., Any])

DIMS = 64
_N_BUCKETS = 1 << 16
_FIT_TOKENS = 256
_FIXED = 1 << 20
_WIDEST = 4.0


def _compiled(function: _F) -> _F:
    """Machine code, kept on disk between processes."""
    return cast(_F, numba.njit(function, cache=True, nogil=True))  # pyright: ignore


# --- sign vectors --------------------------------------------------------------------------------------------------------------


def _signs(names: U64, seed: int) -> F64:
    """The sign vectors of 64-bit names as +1 and -1, float64 (n, DIMS)."""
    bits = (keyed_bits(names, "sign", seed)[:, None] >> np.arange(DIMS, dtype=np.uint64)) & np.uint64(1)
    return bits.astype(np.float64) * 2.0 - 1.0


def _basis(n: int, seed: int) -> F64:
    """Sign vectors of positions 0 .. n-1, float64 (n, DIMS): orthogonal within each block of `DIMS` positions."""
    hadamard = np.ones((1, 1))
    while len(hadamard) < DIMS:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    n_blocks = -(-n // DIMS)
    flips = _signs(np.arange(n_blocks, dtype=np.uint64), seed)
    return (flips[:, None, :] * hadamard[None]).reshape(-1, DIMS)[:n]


def _name(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=8).digest(), "little")


# --- to integers ---------------------------------------------------------------------------------------------------------------


def _on_sphere(sums: F64) -> Points:
    """Rows scaled to norm `UNIT` and rounded; a zero row stays zero."""
    norms = np.sqrt(_squares(sums))
    factors = np.divide(UNIT, norms, out=np.zeros_like(norms), where=norms > 0)
    return np.rint(sums * factors[:, None]).astype(np.int16)


def _in_ball(sums: F64) -> Points:
    """Rows rounded; one that is longer than `UNIT` is shortened to it."""
    norms = np.sqrt(_squares(sums))
    factors = np.minimum(1.0, np.divide(UNIT, norms, out=np.ones_like(norms), where=norms > 0))
    return np.rint(sums * factors[:, None]).astype(np.int16)


@_compiled
def _squares(sums: F64) -> F64:
    """Squared norm of each row, added from left to right: NumPy's blocks could make it depend on the shape."""
    out = np.zeros(len(sums))
    for i in range(len(sums)):
        for j in range(sums.shape[1]):
            out[i] += sums[i, j] * sums[i, j]
    return out


# --- texts ---------------------------------------------------------------------------------------------------------------------


def fit_words(texts: Column, *, seed: int, n_rounds: int = 3) -> Words:
    """Vectors of the n-grams of a sample of texts, int16 (2^16, DIMS), by which `embed_text` puts texts on one topic near
    each other.

    Latent semantic analysis (Deerwester et al., 1990) of the tf-idf matrix A: rounds of subspace iteration W <- orth(A' A W)
    from keyed signs. Sums over texts are integers and orth runs row by row, so neither order nor threads change a bit. An
    n-gram that fewer than two texts have gets the zero vector. Takes the first `_FIT_TOKENS` tokens of a text.
    """
    offsets, buckets = token_buckets(texts, n_buckets=_N_BUCKETS, seed=seed, max_tokens=_FIT_TOKENS)
    _sort_bags(offsets, buckets)
    rarity = _rarity(offsets, buckets)
    basis = _orthonormal(_signs(np.arange(_N_BUCKETS, dtype=np.uint64), seed) * (rarity > 0)[:, None])
    for _ in range(n_rounds):
        moved = np.zeros(basis.shape, np.int64)
        _iterate(offsets, buckets, _term_weights(), rarity, np.rint(basis * _FIXED).astype(np.int64), moved)
        basis = _orthonormal(_cut(moved))
    vectors = basis * rarity[:, None]
    return np.rint(vectors * (2.0**14 / max(1e-9, float(np.abs(vectors).max())))).astype(np.int16)


def embed_text(texts: Column, words: Words, *, seed: int) -> Points:
    """Texts on the unit sphere, int16 (n, DIMS): the sum of their n-grams' vectors, one seen c times weighing 1 + log2 c.

    `seed` is that of `fit_words`. A text none of whose n-grams has a vector, such as NULL, is the zero point.
    """
    offsets, buckets = token_buckets(texts, n_buckets=_N_BUCKETS, seed=seed)
    _sort_bags(offsets, buckets)
    sums = np.zeros((len(offsets) - 1, DIMS), np.int64)
    _add_bags(offsets, buckets, _term_weights(), words, sums)
    return _on_sphere(sums.astype(np.float64))


def _term_weights() -> I64:
    """What an n-gram that is seen c times weighs, in sixteenths; from 4096 times on, as much as at 4096."""
    return np.concatenate([np.zeros(1, np.int64), np.rint(16 * (1 + np.log2(np.arange(1, 4097)))).astype(np.int64)])


def _rarity(offsets: I64, buckets: I32) -> I64:
    """log2 of one over the share of texts that have the bucket, in sixteenths, int64 (2^16,); 0 for fewer than two texts."""
    counts = np.zeros(_N_BUCKETS, np.int64)
    _count_texts(offsets, buckets, counts)
    return np.where(counts >= 2, np.rint(16 * np.log2((len(offsets)) / (counts + 1))), 0).astype(np.int64)


def _cut(moved: I64) -> F64:
    """Integers cut to 17 bits, so that a Gram matrix of 2^16 of them is exact in float64."""
    surplus = max(0, int(np.abs(moved).max()).bit_length() - 17)
    return np.rint(moved / float(1 << surplus))


def _orthonormal(rows: F64) -> F64:
    """The same columns made orthonormal, (n, DIMS), by the Cholesky factor of their exact Gram matrix; dependent columns
    become 0.
    """
    factor = np.zeros((DIMS, DIMS))
    _cholesky(rows.T @ rows, factor)
    out = np.zeros_like(rows)
    _substitute(rows, factor, out)
    return out


@_compiled
def _cholesky(gram: F64, factor: F64) -> None:
    for j in range(len(gram)):
        for i in range(j, len(gram)):
            rest = gram[i, j]
            for m in range(j):
                rest -= factor[i, m] * factor[j, m]
            if i == j:
                factor[j, j] = np.sqrt(rest) if rest > 1e-9 * gram[j, j] else 0.0
            elif factor[j, j] > 0.0:
                factor[i, j] = rest / factor[j, j]


@_compiled
def _substitute(rows: F64, factor: F64, out: F64) -> None:
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            if factor[j, j] > 0.0:
                rest = rows[i, j]
                for m in range(j):
                    rest -= factor[j, m] * out[i, m]
                out[i, j] = rest / factor[j, j]


@_compiled
def _sort_bags(offsets: I64, buckets: I32) -> None:
    for d in range(len(offsets) - 1):
        buckets[offsets[d] : offsets[d + 1]] = np.sort(buckets[offsets[d] : offsets[d + 1]])


@_compiled
def _run_end(buckets: I32, low: int, end: int) -> int:
    """The end of the run of equal buckets that begins at `low`."""
    high = low + 1
    while high < end and buckets[high] == buckets[low]:
        high += 1
    return high


@_compiled
def _count_texts(offsets: I64, buckets: I32, counts: I64) -> None:
    for d in range(len(offsets) - 1):
        low = offsets[d]
        while low < offsets[d + 1]:
            counts[buckets[low]] += 1
            low = _run_end(buckets, low, offsets[d + 1])


@_compiled
def _add_bags(offsets: I64, buckets: I32, weights: I64, words: Words, sums: I64) -> None:
    """Add the vector of every distinct bucket of each bag, times the weight of its count."""
    for d in range(len(offsets) - 1):
        low = offsets[d]
        while low < offsets[d + 1]:
            high = _run_end(buckets, low, offsets[d + 1])
            weight = weights[min(high - low, len(weights) - 1)]
            for j in range(sums.shape[1]):
                sums[d, j] += weight * words[buckets[low], j]
            low = high


@_compiled
def _iterate(offsets: I64, buckets: I32, weights: I64, rarity: I64, basis: I64, moved: I64) -> None:
    """Add A' A basis to `moved`, one text (a row of A, of norm 1) at a time; entries of A count in units of 1 / 4096."""
    place = np.empty(basis.shape[1], np.int64)
    for d in range(len(offsets) - 1):
        place[:] = 0
        square = 0
        for step in range(2):
            norm = np.sqrt(np.float64(square))
            if step == 1 and square == 0:
                break
            if step == 1:
                place[:] = np.rint(place / norm).astype(np.int64)
            low = offsets[d]
            while low < offsets[d + 1]:
                bucket = buckets[low]
                high = _run_end(buckets, low, offsets[d + 1])
                weight = weights[min(high - low, len(weights) - 1)] * rarity[bucket]
                low = high
                if step == 0:
                    square += weight * weight
                    for j in range(len(place)):
                        place[j] += weight * basis[bucket, j]
                else:
                    share = np.int64(np.rint(weight / norm * 4096))
                    for j in range(len(place)):
                        moved[bucket, j] += share * place[j]


# --- images --------------------------------------------------------------------------------------------------------------------


def embed_pixels(images: Column, *, seed: int) -> Points:
    """Flattened images on the unit sphere, int16 (n, DIMS). The scale of the pixels falls out; NaN and NULL count as black."""
    offsets, values = _pixels(images)
    longest = int(np.diff(offsets).max(initial=0))
    sums = np.zeros((len(offsets) - 1, DIMS))
    _add_pixels(offsets, values, _basis(longest, seed), sums)
    return _on_sphere(sums)


def _pixels(images: Column) -> tuple[I64, F64]:
    """Images as offsets (n + 1,) into their pixels."""
    array = cast(Any, pa.concat_arrays(images.chunks) if isinstance(images, pa.ChunkedArray) else images)
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        lengths = pc.binary_length(array)
        values = np.frombuffer(b"".join(v for v in array.to_pylist() if v is not None), np.uint8)
    else:
        lengths = pc.list_value_length(array)
        values = np.asarray(pc.list_flatten(array).cast(pa.float64()).fill_null(0.0))
    sizes = np.where(np.asarray(array.is_valid()), np.asarray(lengths.fill_null(0)), 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return offsets, np.nan_to_num(values.astype(np.float64))


@_compiled
def _add_pixels(offsets: I64, values: F64, basis: F64, sums: F64) -> None:
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            value = values[p]
            if value != 0.0:
                for j in range(sums.shape[1]):
                    sums[i, j] += value * basis[p - offsets[i], j]


# --- tables --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Feature:
    """One column of a table embedding. A numeric one is centred and scaled; any other is a category (`scale` 0)."""

    name: str
    centre: float = 0.0
    scale: float = 0.0


def fit_features(sample: pa.Table) -> tuple[Feature, ...]:
    """The features of a sample's columns, sorted by name: the median and half the 16 % to 84 % range of numeric ones."""
    names = sorted(sample.schema.names)
    return tuple(_fitted(n, sample.column(n)) if pa.types.is_floating(sample.schema.field(n).type) else Feature(n) for n in names)


def _fitted(name: str, column: Column) -> Feature:
    values = _numbers(column)
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return Feature(name, 0.0, 1.0)
    low, centre, high = (float(values[int(q * (len(values) - 1))]) for q in (0.16, 0.5, 0.84))
    scale = (high - low) / 2 or float(values[-1] - values[0]) / 2 or 1.0
    return Feature(name, centre, scale)


def embed_table(table: pa.Table, features: Sequence[Feature], *, seed: int) -> Points:
    """Rows of a table (see `as_features`) in the unit ball, int16 (n, DIMS), by fitted features.

    Numbers count in units of their scale, cut at 4; a number that is NULL or NaN counts 0 and has a sign vector of its own, a
    category that is NULL counts 0. A row whose numbers are all 4 scales off has norm 1. A column that the table lacks is NULL.
    """
    sums = np.zeros((table.num_rows, DIMS))
    for feature, vector in zip(features, _basis(len(features), seed), strict=True):
        if feature.name in table.schema.names:
            column = table.column(feature.name)
        else:
            column = pa.nulls(table.num_rows, pa.float64() if feature.scale else pa.string())
        sums += _scaled(column, feature, vector, seed) if feature.scale else _categories(column, feature, seed)
    return _in_ball(sums * (UNIT / (_WIDEST * np.sqrt(DIMS * max(1, len(features))))))


def _scaled(column: Column, feature: Feature, vector: F64, seed: int) -> F64:
    """One numeric column's part of the sums, (n, DIMS). Values are rounded to 1/256, so that sums over columns are exact."""
    values = _numbers(column)
    known = ~np.isnan(values)
    steps = np.clip((np.where(known, values, feature.centre) - feature.centre) / feature.scale, -_WIDEST, _WIDEST)
    absent = _signs(np.array([_name("null", feature.name)], np.uint64), seed)
    return np.where(known[:, None], (np.rint(steps * 256) / 256)[:, None] * vector, absent)


def _categories(column: Column, feature: Feature, seed: int) -> F64:
    """One category column's part of the sums, (n, DIMS): the sign vector of its value."""
    encoded = cast(Any, column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
    values = encoded.dictionary.to_pylist()
    names = np.array([_name("value", feature.name, value) for value in values], np.uint64)
    vectors = np.vstack([_signs(names, seed), np.zeros((1, DIMS))])
    return vectors[np.asarray(encoded.indices.fill_null(len(values)))]


def _numbers(column: Column) -> F64:
    """A float64 column as an array (n,); NULL is NaN."""
    array = cast(Any, column).combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(cast(Any, array).to_numpy(zero_copy_only=False), np.float64)
