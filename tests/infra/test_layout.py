"""Data files of records: neither order nor source says who a row is, and files and partitions lose no row."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import layout
from infra.files import SOURCE, Folder, Part, read_part_table
from infra.ids import Digest, derive_keys, subject_token
from infra.layout import Layout, Tally, by_subject, data_files, identified, table_schema
from infra.rowhash import row_hashes, row_ids
from infra.settings import SubjectSettings

KEYS = derive_keys(bytes(range(32)))
AUTHOR, PEOPLE = SubjectSettings(kind="user", column="author"), SubjectSettings(kind="user", column="people[].id")
SCHEMA = pa.schema([("author", pa.string()), ("people", pa.list_(pa.struct([("id", pa.string())]))), ("n", pa.int64())])

names = st.none() | st.sampled_from(["ann", "bob", "cy"])
people = st.none() | st.lists(st.fixed_dictionaries({"id": names}), max_size=3)
some = st.lists(st.fixed_dictionaries({"author": names, "people": people, "n": st.integers(0, 3)}), max_size=15)


def batch_of(found: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(found, schema=SCHEMA)


@given(some, st.integers(0, 15))
def test_order_is_that_of_the_first_subject_and_loses_nothing(found: list[dict[str, Any]], cut: int) -> None:
    numbered = batch_of(found).append_column(SOURCE, pa.array(range(len(found)), pa.int64()))
    whole = pa.Table.from_batches(
        by_subject([numbered.slice(0, cut), numbered.slice(cut)], [PEOPLE, AUTHOR], KEYS), numbered.schema
    )
    firsts = [next((p["id"] for p in row["people"] or [] if p["id"] is not None), None) for row in whole.to_pylist()]
    tokens = [subject_token(KEYS, "user", one) if one is not None else "~" for one in firsts]
    assert tokens == sorted(tokens)
    for row in whole.to_pylist():
        assert {k: v for k, v in row.items() if k != SOURCE} == found[row[SOURCE]]
    assert sorted(whole[SOURCE].to_pylist()) == list(range(len(found)))


def test_large_files_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SORT_ROWS", 3)
    batches = [batch_of([{"author": name, "people": None, "n": 1}] * 2) for name in ("cy", "ann", "bob")]
    assert list(by_subject(iter(batches), [AUTHOR], KEYS)) == batches


@given(some, st.lists(st.integers(), min_size=15, max_size=15).map(lambda s: [n % 2**60 for n in s]))
def test_where_a_row_came_from_is_no_part_of_it(found: list[dict[str, Any]], sources: list[int]) -> None:
    plain, tallies = batch_of(found), (Tally(), Tally())
    mixed = plain.append_column(SOURCE, pa.array(sources[: len(found)], pa.int64()))
    alone, marked = identified(plain, "t", KEYS, tallies[0]), identified(mixed, "t", KEYS, tallies[1])
    assert marked.schema.names == ["row_id", *SCHEMA.names, SOURCE]
    assert marked.drop_columns([SOURCE]) == alone
    assert tallies[0].digest == tallies[1].digest
    assert tallies[0].digest.n_rows == len(found)


@settings(max_examples=25)
@given(some, st.integers(0, 15), st.booleans(), st.sampled_from([(), ("n",), ("author", "n"), ("absent",)]))
def test_files_hold_every_row_once_and_one_partition_each(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, Any]], cut: int, has_ids: bool, partition_by: tuple[str, ...]
) -> None:
    whole = batch_of(found)
    schema = table_schema(SCHEMA) if has_ids else SCHEMA
    place = tmp_path_factory.mktemp("files")
    how = Layout(Folder(str(place), KEYS.row), "t", schema, partition_by, (AUTHOR,), ("AUTHOR",))
    with mock.patch.object(layout, "TARGET_ROWS", 4):
        made = data_files(how, [whole.slice(0, cut), whole.slice(cut)], KEYS)
    read = [(file, read_part_table(Part(f"{place}/{file.path}", file, schema))) for file in made]
    kept = (repr(row) for _, rows in read for row in rows.select(SCHEMA.names).to_pylist())
    assert Counter(kept) == Counter(repr(row) for row in whole.to_pylist())
    assert sum((Digest.parse(file.digest) for file in made), Digest()) == Digest.of(row_hashes(whole, SCHEMA.names, KEYS.row))
    for file, rows in read:
        assert 0 < rows.num_rows == file.n_rows <= 4
        assert {tuple(layout.partition_text(row.get(name)) for name in partition_by) for row in rows.to_pylist()} == {
            tuple(file.partition[name] for name in partition_by)
        }
        assert {name for name, told in file.stats.items() if "min" in told} == {"n"}
        if has_ids:
            assert rows["row_id"].to_pylist() == row_ids("t", row_hashes(rows, SCHEMA.names, KEYS.row), KEYS.row).tolist()


def test_partition_values_are_spelled_as_delta_does() -> None:
    told = [None, "", "a b", True, 7, dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 1, 2, 3)]
    assert [layout.partition_text(value) for value in told] == [
        *(None, None, "a b", "true", "7", "2024-02-29", "2024-02-29 01:02:03"),
    ]
