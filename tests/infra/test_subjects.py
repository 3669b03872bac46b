"""Whose row is it: one token a subject however its id is stored, and the row itself where there is none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from infra.ids import derive_keys, subject_place, subject_token
from infra.settings import SubjectSettings
from infra.subjects import row_places, subject_tokens

KEYS = derive_keys(bytes(range(32)))
AUTHOR = SubjectSettings(kind="author", column="who")


def test_an_id_has_one_token_in_every_type() -> None:
    columns = [pa.array([7, 8], pa.int16()), pa.array([7.0, 8.0]), pa.array(["7", "8"]), pa.array(["7", "8"]).dictionary_encode()]
    tokens = {tuple(subject_tokens(column, "author", KEYS).to_pylist()) for column in columns}
    assert tokens == {(subject_token(KEYS, "author", 7), subject_token(KEYS, "author", "8"))}


def test_kinds_keep_equal_ids_apart() -> None:
    assert subject_token(KEYS, "author", 7) != subject_token(KEYS, "patient", 7)
    assert subject_token(KEYS, "a", "bc") != subject_token(KEYS, "ab", "c")


def test_a_null_subject_is_placed_by_its_row() -> None:
    batch = pa.table({"row_id": pa.array([11, 12, 13], pa.int64()), "who": pa.array(["x", None, "x"])})
    places = row_places(batch, AUTHOR, KEYS)
    assert places[0] == places[2] == np.uint64(subject_place(KEYS, subject_token(KEYS, "author", "x")))
    assert places[1] == 12
    assert subject_tokens(batch["who"], "author", KEYS).null_count == 1


def test_chunks_and_slices_change_nothing() -> None:
    table = pa.table(
        {"row_id": pa.array(range(20), pa.int64()), "who": pa.array([str(i % 3) if i % 5 else None for i in range(20)])}
    )
    whole = row_places(table, AUTHOR, KEYS)
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7, 1), table.slice(8)])
    assert np.array_equal(row_places(chunked, AUTHOR, KEYS), whole)
    assert np.array_equal(row_places(table.slice(4, 9), AUTHOR, KEYS), whole[4:13])
    assert len(row_places(table.slice(0, 0), AUTHOR, KEYS)) == 0
    assert np.array_equal(row_places(table, None, KEYS), np.arange(20, dtype=np.uint64))
