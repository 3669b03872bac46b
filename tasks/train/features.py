"""Rows to arrays, with nothing fitted on the data: hashed n-grams of texts, numbers and hashed tokens of columns, pixels.

What has to be fitted (the scale of numbers) is fitted inside a shard's model, on its own rows (`models.Tabular.refit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from infra.contracts import LetheError
from infra.ids import I64, seed_of, subject_text
from infra.rowhash import cell_hashes
from tasks.kernels.ngrams import token_buckets

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

TEXT_BUCKETS = 1 << 14
TOKEN_BUCKETS = 1 << 12
MAX_TOKENS = 4096
_HASH_SEED = 20
_TOKEN_KEY = b"lethe/tabular tokens/v1".ljust(32, b"\0")
_MIN_PIXELS = 64
_EPOCH_2000_S = 946_684_800.0
_DECADE_S = 315_576_000.0
_VIEWS = ("text", "tabular", "image")


class BadFeatures(LetheError):
    """The columns of the pool cannot be turned into what the model's kind takes."""


@dataclass(frozen=True)
class Spec:
    """How rows become arrays; plain values. `kinds` says of each column: text, number, instant, token or pixels.

    `side` and `channels` are those of an image, 0 elsewhere. `n_buckets` is that of hashed n-grams or tokens.
    """

    view: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    n_buckets: int = 0
    side: int = 0
    channels: int = 0

    @property
    def n_dense(self) -> int:
        """Width of `Features.dense`."""
        if self.view == "image":
            return self.channels * self.side**2
        return sum(kind in ("number", "instant") for kind in self.kinds)

    @staticmethod
    def parse(document: Mapping[str, Any]) -> Spec:
        whole = Spec(**document)
        return replace(whole, columns=tuple(whole.columns), kinds=tuple(whole.kinds))


@dataclass(frozen=True)
class Features:
    """Arrays of n rows: `dense` (n, d) with NaN for NULL, and ragged `tokens` (m,) with `offsets` (n + 1,)."""

    dense: F32
    tokens: I32
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: npt.NDArray[np.intp]) -> Features:
        """The rows at these positions, in this order."""
        starts, sizes = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        places = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Features(self.dense[rows], self.tokens[places], offsets)


def joined(parts: Sequence[Features], spec: Spec) -> Features:
    """Features one below the other."""
    dense = np.concatenate([np.empty((0, spec.n_dense), np.float32), *(p.dense for p in parts)])
    tokens = np.concatenate([np.empty(0, np.int32), *(p.tokens for p in parts)])
    sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(p.offsets) for p in parts)])
    return Features(dense, tokens, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))


# --- which columns -------------------------------------------------------------------------------------------------------------


def infer_spec(kind: str, schemas: Sequence[pa.Schema], *, text: str | None, exclude: Sequence[str], n_pixels: int = 0) -> Spec:
    """The spec of a model's kind over the tables of its pool. `text` names the text column; `exclude` what is no feature.

    A kind that names a factory sees text where there is a text column, else an image where there is a list of numbers, else the
    columns. `n_pixels` is the length of the list column. Raises `BadFeatures`.
    """
    view = kind if kind in _VIEWS else _natural_view(schemas, text)
    if view == "text":
        if text is None:
            raise BadFeatures('kind = "text" needs a text column: set text = "<column>" in the [tables] of the pool')
        return Spec("text", (text,), ("text",), TEXT_BUCKETS)
    if view == "image":
        return _image_spec(schemas, exclude, n_pixels)
    columns = dict(sorted(_kinds(schemas, exclude).items()))  # the order of a table's columns says who was ingested first
    if not columns:
        raise BadFeatures('kind = "tabular" finds no column of numbers, times or strings beside the label and the subject')
    return Spec("tabular", tuple(columns), tuple(columns.values()), TOKEN_BUCKETS)


def _natural_view(schemas: Sequence[pa.Schema], text: str | None) -> str:
    if text is not None:
        return "text"
    return "image" if pixel_column(schemas[0], ()) is not None else "tabular"


def pixel_column(schema: pa.Schema, exclude: Sequence[str]) -> str | None:
    """The first column that is a list of numbers."""
    lists = (f for f in schema if _is_list(f.type) and _is_number(f.type.value_type) and f.name not in exclude)
    return next((f.name for f in lists), None)


def _image_spec(schemas: Sequence[pa.Schema], exclude: Sequence[str], n_pixels: int) -> Spec:
    column = pixel_column(schemas[0], exclude)
    if column is not None:
        side, channels = _square(n_pixels)
        return Spec("image", (column,), ("pixels",), side=side, channels=channels)
    numbers = [name for name, kind in _kinds(schemas[:1], exclude).items() if kind == "number"]
    if len(numbers) < _MIN_PIXELS:
        raise BadFeatures(
            f'kind = "image" needs a list of numbers or at least {_MIN_PIXELS} columns of numbers, not {len(numbers)}'
        )
    side, channels = _square(len(numbers))
    return Spec("image", tuple(numbers), ("number",) * len(numbers), side=side, channels=channels)


def _square(n_pixels: int) -> tuple[int, int]:
    for channels in (1, 3):
        side = math.isqrt(n_pixels // channels)
        if n_pixels > 0 and channels * side * side == n_pixels:
            return side, channels
    raise BadFeatures(f'kind = "image" needs h*h or 3*h*h pixels an image, not {n_pixels}')


def _kinds(schemas: Sequence[pa.Schema], exclude: Sequence[str]) -> dict[str, str]:
    """Feature columns in the order of the schemas, with their kind; a column that two tables type differently is a token."""
    found = dict[str, str]()
    for schema in schemas:
        for field in schema:
            kind = _kind(field.type)
            if kind and field.name not in exclude:
                found[field.name] = kind if found.get(field.name, kind) == kind else "token"
    return found


def _kind(type_: pa.DataType) -> str:
    if _is_number(type_):
        return "number"
    if pt.is_timestamp(type_) or pt.is_date(type_):
        return "instant"
    if pt.is_dictionary(type_):
        return _kind(type_.value_type)
    return "token" if pt.is_string(type_) or pt.is_large_string(type_) or pt.is_string_view(type_) else ""


def _is_number(type_: pa.DataType) -> bool:
    return pt.is_integer(type_) or pt.is_floating(type_) or pt.is_decimal(type_) or pt.is_boolean(type_)


def _is_list(type_: pa.DataType) -> bool:
    return pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_)


# --- encoding ------------------------------------------------------------------------------------------------------------------


def encode(batch: pa.RecordBatch | pa.Table, spec: Spec) -> Features:
    """The features of a batch that holds the spec's columns; a column that is absent counts as NULL."""
    if spec.view == "text":
        text = _column(batch, spec.columns[0])
        offsets, tokens = token_buckets(text, n_buckets=spec.n_buckets, seed=_HASH_SEED, max_tokens=MAX_TOKENS)
        return Features(np.empty((batch.num_rows, 0), np.float32), tokens, offsets)
    if spec.view == "image":
        return _dense_only(_pixels(batch, spec))
    return _tabular(batch, spec)


def _dense_only(dense: F32) -> Features:
    return Features(dense, np.empty(0, np.int32), np.zeros(len(dense) + 1, np.int64))


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows)
    column = batch.column(name)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _tabular(batch: pa.RecordBatch | pa.Table, spec: Spec) -> Features:
    named = list(zip(spec.columns, spec.kinds, strict=True))
    numbers = [_numbers(_column(batch, name), kind) for name, kind in named if kind != "token"]
    tokens = [_tokens(_column(batch, name), name, spec.n_buckets) for name, kind in named if kind == "token"]
    n_rows = batch.num_rows
    dense = np.stack(numbers, axis=1) if numbers else np.empty((n_rows, 0), np.float32)
    flat = np.stack(tokens, axis=1).ravel() if tokens else np.empty(0, np.int32)
    return Features(dense, flat, np.arange(n_rows + 1, dtype=np.int64) * len(tokens))


def _numbers(array: pa.Array, kind: str) -> F32:
    """A column as float32 with NaN for NULL: numbers as sign(x)·log(1 + |x|), instants in decades since 2000."""
    if kind == "instant":
        seconds = _floats(pc.cast(pc.cast(array, pa.timestamp("us"), safe=False), pa.int64(), safe=False)) / 1e6
        return ((seconds - _EPOCH_2000_S) / _DECADE_S).astype(np.float32)
    values = _floats(array)
    # -0.0 and 0.0 are one value to the row hash, so they must be one here.
    return (np.sign(values) * np.log1p(np.abs(values)) + 0.0).astype(np.float32)


def _floats(array: pa.Array) -> npt.NDArray[np.float64]:
    plain = array.dictionary_decode() if pt.is_dictionary(array.type) else array
    if pt.is_boolean(plain.type) or pt.is_null(plain.type):
        plain = plain.cast(pa.int8())
    return pc.cast(plain, pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)


def _tokens(array: pa.Array, name: str, n_buckets: int) -> I32:
    """The bucket of each cell; NULL has a bucket of its own in every column."""
    texts = array.cast(pa.large_string())
    buckets = (cell_hashes(texts, name, _TOKEN_KEY)[:, 1] % np.uint64(n_buckets)).astype(np.int32)
    buckets[np.asarray(texts.is_null())] = seed_of("null token", name) % n_buckets
    return buckets


def _pixels(batch: pa.RecordBatch | pa.Table, spec: Spec) -> F32:
    """Images divided by their own largest magnitude, so that 0..16 and 0..255 look alike; NULL is 0. Shape (n, pixels)."""
    if spec.kinds[0] == "pixels":
        values = _lists(_column(batch, spec.columns[0]), spec)
    else:
        values = np.stack([_floats(_column(batch, name)) for name in spec.columns], axis=1)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) + 0.0
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    return (values / np.where(largest == 0.0, 1.0, largest)).astype(np.float32)


def _lists(array: pa.Array, spec: Spec) -> npt.NDArray[np.float64]:
    out = np.zeros((len(array), spec.n_dense))
    valid = np.asarray(array.is_valid())
    known = array.filter(pa.array(valid))
    sizes = np.asarray(pc.list_value_length(known))
    if len(known) and not (sizes == spec.n_dense).all():
        raise BadFeatures(f"column {spec.columns[0]} holds lists of different lengths; an image has {spec.n_dense} pixels here")
    out[valid] = _floats(known.flatten()).reshape(len(known), spec.n_dense)
    return out


def label_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Labels as strings, NULL where NULL: 1, 1.0 and '1' are one class."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    encoded = whole if pt.is_dictionary(whole.type) else whole.dictionary_encode()
    texts = pa.array([None if v is None else subject_text(v) for v in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


# --- on disk between workers ---------------------------------------------------------------------------------------------------


def to_arrow(features: Features) -> dict[str, pa.Array]:
    """Features as Arrow columns `dense` and `tokens`, one list a row."""
    n_rows, width = features.dense.shape
    offsets = pa.array(np.arange(n_rows + 1, dtype=np.int64) * width)
    return {
        "dense": pa.LargeListArray.from_arrays(offsets, pa.array(features.dense.ravel())),
        "tokens": pa.LargeListArray.from_arrays(pa.array(features.offsets), pa.array(features.tokens)),
    }


def from_arrow(table: pa.Table, spec: Spec) -> Features:
    """The inverse of `to_arrow`."""
    dense, tokens = _column(table, "dense"), _column(table, "tokens")
    sizes = np.asarray(pc.list_value_length(tokens)).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    flat = np.asarray(dense.flatten()).astype(np.float32).reshape(table.num_rows, spec.n_dense)
    return Features(flat, np.asarray(tokens.flatten()).astype(np.int32), offsets)
