"""Rows on their way into a table: nobody who was erased comes back, and neither order nor source says who a row is."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.files import SOURCE
from infra.ids import derive_keys, subject_token
from infra.settings import SubjectSettings
from tasks.ingest import rows
from tasks.ingest.blocks import Reject
from tasks.ingest.rows import Tally, by_subject, suppress, suppress_rejects, trimmed, with_row_ids

KEYS = derive_keys(bytes(range(32)))
AUTHOR, PEOPLE = SubjectSettings(kind="user", column="author"), SubjectSettings(kind="user", column="people[].id")
SCHEMA = pa.schema([("author", pa.string()), ("people", pa.list_(pa.struct([("id", pa.string())]))), ("n", pa.int64())])

names = st.none() | st.sampled_from(["ann", "bob", "cy"])
people = st.none() | st.lists(st.fixed_dictionaries({"id": names}), max_size=3)
some = st.lists(st.fixed_dictionaries({"author": names, "people": people, "n": st.integers(0, 3)}), max_size=15)


def batch_of(found: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(found, schema=SCHEMA)


def named(row: dict[str, Any]) -> set[str | None]:
    return {row["author"], *(person["id"] for person in row["people"] or [])}


@given(some, st.sets(st.sampled_from(["ann", "bob", "zed"])))
def test_a_row_is_suppressed_whoever_of_those_it_names_was_erased(found: list[dict[str, Any]], erased: set[str]) -> None:
    suppressed = frozenset(subject_token(KEYS, "user", name) for name in erased)
    kept, n_suppressed = suppress(batch_of(found), [AUTHOR, PEOPLE], KEYS, suppressed)
    expected = [row for row in found if not named(row) & erased]
    assert kept.to_pylist() == expected
    assert n_suppressed == len(found) - len(expected)
    assert suppress(batch_of(found), [], KEYS, suppressed) == (batch_of(found), 0)


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
    monkeypatch.setattr(rows, "SORT_ROWS", 3)
    batches = [batch_of([{"author": name, "people": None, "n": 1}] * 2) for name in ("cy", "ann", "bob")]
    assert list(by_subject(iter(batches), [AUTHOR], KEYS)) == batches


@given(some, st.lists(st.integers(), min_size=15, max_size=15).map(lambda s: [n % 2**60 for n in s]))
def test_where_a_row_came_from_is_no_part_of_it(found: list[dict[str, Any]], sources: list[int]) -> None:
    plain, tallies = batch_of(found), (Tally(), Tally())
    mixed = plain.append_column(SOURCE, pa.array(sources[: len(found)], pa.int64()))
    alone, marked = with_row_ids(plain, "t", KEYS, tallies[0]), with_row_ids(mixed, "t", KEYS, tallies[1])
    assert marked.schema.names == ["row_id", *SCHEMA.names, SOURCE]
    assert marked.drop_columns([SOURCE]) == alone
    assert tallies[0].digest == tallies[1].digest
    assert tallies[0].digest.n_rows == len(found)


def test_rejects_of_the_erased_do_not_come_back_either() -> None:
    raws = [
        '{"author": "Ann, A.", "people": null}',
        '{"author": "bob", "people": [], "note": "Ann, A."}',
        "bob;ann;7",
        "bob;cy;7",
    ]
    rejects = [Reject(line, "ragged", raw) for line, raw in enumerate(raws)]
    erased = frozenset(subject_token(KEYS, "user", name) for name in ("Ann, A.", "ann"))
    kept, n_suppressed = suppress_rejects(rejects, [AUTHOR, PEOPLE], KEYS, erased)
    assert ([reject.line for reject in kept], n_suppressed) == ([1, 3], 2)
    assert suppress_rejects(rejects, [AUTHOR], KEYS, frozenset()) == (rejects, 0)


def test_blanks_around_ids_go_and_others_stay() -> None:
    batch = pa.RecordBatch.from_pylist([{"author": " ann\t", "note": " x ", "n": 7}])
    number = SubjectSettings(kind="user", column="n")
    assert trimmed(batch, [AUTHOR, number, PEOPLE]).to_pylist() == [{"author": "ann", "note": " x ", "n": 7}]
