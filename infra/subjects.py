"""Whose row is it: subject tokens and places of Arrow columns, computed once per distinct value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import U64, Keys, subject_places, subject_token
from infra.settings import SubjectSettings


def subject_tokens(column: pa.Array | pa.ChunkedArray, kind: str, keys: Keys) -> pa.Array:
    """The HMAC token (hex) of every row's subject, NULL where the value is NULL. Memory: one token a distinct value."""
    encoded = _encoded(column)
    tokens = pa.array([None if v is None else subject_token(keys, kind, v) for v in encoded.dictionary.to_pylist()], pa.string())
    return tokens.take(encoded.indices)


def row_places(batch: pa.RecordBatch | pa.Table, subject: SubjectSettings | None, keys: Keys) -> U64:
    """The place (keyed 64-bit number) of every row, shape (n,): its subject's, or the row's own id where it has none.

    `batch` must hold `row_id` and the subject's column.
    """
    own = np.asarray(batch.column("row_id")).astype(np.int64).view(np.uint64).copy()
    if subject is None or batch.num_rows == 0:
        return own
    encoded = _encoded(batch.column(subject.column))
    known = np.asarray(pc.is_valid(encoded.indices))
    if known.any():
        places = subject_places(keys, [subject_token(keys, subject.kind, value) for value in encoded.dictionary.to_pylist()])
        own[known] = places[np.asarray(encoded.indices.drop_null())]
    return own


def _encoded(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
