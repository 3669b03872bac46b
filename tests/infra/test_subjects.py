"""Whose row is it: one token a subject however its id is stored and wherever it lies, and the row itself where there is none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ids import derive_keys, subject_place, subject_text, subject_token
from infra.settings import SubjectSettings
from infra.subjects import (
    concerned,
    declared,
    is_absent,
    json_ids,
    missing,
    remembered,
    root,
    roots,
    row_places,
    subject_ranks,
    subject_tokens,
    subject_values,
)

KEYS = derive_keys(bytes(range(32)))
AUTHOR = SubjectSettings(kind="author", column="who")

PERSON = pa.struct([("id", pa.string()), ("tags", pa.list_(pa.int64()))])
DEEP = pa.schema(
    [
        ("row_id", pa.int64()),
        ("who", pa.string()),
        ("author", PERSON),
        ("people", pa.list_(PERSON)),
        ("threads", pa.list_(pa.struct([("posts", pa.list_(pa.struct([("by", pa.struct([("id", pa.string())]))])))]))),
        ("tags", pa.list_(pa.list_(pa.string()))),
    ]
)
PATHS = {
    "who": lambda row: [row["who"]],
    "author.id": lambda row: [_get(row["author"], "id")],
    "author.tags[]": lambda row: _get(row["author"], "tags") or [],
    "people[].id": lambda row: [_get(p, "id") for p in row["people"] or []],
    "people[].tags[]": lambda row: [t for p in row["people"] or [] for t in _get(p, "tags") or []],
    "threads[].posts[].by.id": lambda row: [
        _get(_get(p, "by"), "id") for t in row["threads"] or [] for p in _get(t, "posts") or []
    ],
    "tags[][]": lambda row: [t for tags in row["tags"] or [] for t in tags or []],
}

ids = st.none() | st.sampled_from(["a", "b", "7", ""])
person = st.none() | st.fixed_dictionaries({"id": ids, "tags": st.none() | st.lists(st.none() | st.integers(6, 8), max_size=3)})
post = st.none() | st.fixed_dictionaries({"by": st.none() | st.fixed_dictionaries({"id": ids})})
thread = st.none() | st.fixed_dictionaries({"posts": st.none() | st.lists(post, max_size=3)})
row = st.fixed_dictionaries(
    {
        "row_id": st.integers(0, 2**62),
        "who": ids,
        "author": person,
        "people": st.none() | st.lists(person, max_size=3),
        "threads": st.none() | st.lists(thread, max_size=2),
        "tags": st.none() | st.lists(st.none() | st.lists(ids, max_size=2), max_size=2),
    }
)
rows = st.lists(row, max_size=12)


def _get(value: dict[str, Any] | None, name: str) -> Any:
    return None if value is None else value[name]


def known(ids: list[Any]) -> list[Any]:
    return [one for one in ids if one is not None]


def whose(path: str, kind: str = "author") -> SubjectSettings:
    return SubjectSettings(kind=kind, column=path)


# --- laws -----------------------------------------------------------------------------------------------------------------------


@given(rows, st.integers(0, 12), st.sampled_from(sorted(PATHS)))
def test_a_path_finds_what_walking_the_rows_finds(table: list[dict[str, Any]], start: int, path: str) -> None:
    """Also in a slice, whose arrays begin in the middle of others, and in the row's JSON."""
    batch = pa.RecordBatch.from_pylist(table, schema=DEEP).slice(start)
    expected = [(i, one) for i, row in enumerate(table[start:]) for one in known(PATHS[path](row))]
    positions, values = subject_values(batch, whose(path))
    assert list(zip(positions.tolist(), values.to_pylist(), strict=True)) == expected
    for row in table:
        assert json_ids(json.loads(json.dumps(row)), whose(path)) == known(PATHS[path](row))


@given(rows, st.sampled_from(sorted(PATHS)), st.sampled_from(sorted(PATHS)), st.sets(st.sampled_from(["a", "7", "8"])))
def test_a_row_concerns_all_that_any_column_names(table: list[dict[str, Any]], one: str, two: str, wanted: set[str]) -> None:
    sought = {"author": frozenset(subject_token(KEYS, "author", w) for w in wanted), "nobody": frozenset({"ab"})}
    batch = pa.RecordBatch.from_pylist(table, schema=DEEP)
    expected = [bool(wanted & {subject_text(i) for path in (one, two) for i in known(PATHS[path](row))}) for row in table]
    assert concerned(batch, [whose(one), whose(two), whose(one, "other")], sought, KEYS).tolist() == expected


@given(rows, st.sampled_from(sorted(PATHS)), st.integers(0, 12))
def test_a_row_lies_where_the_first_it_names_lies(table: list[dict[str, Any]], path: str, cut: int) -> None:
    """A function of the row alone: however the rows are cut into batches."""
    batch = pa.RecordBatch.from_pylist(table, schema=DEEP)
    first = [next(iter(known(PATHS[path](row))), None) for row in table]
    expected = [
        row["row_id"] if one is None else subject_place(KEYS, subject_token(KEYS, "author", one))
        for row, one in zip(table, first, strict=True)
    ]
    assert row_places(batch, whose(path), KEYS).tolist() == expected
    parts = pa.Table.from_batches([batch.slice(0, cut), batch.slice(cut)], schema=DEEP)
    assert row_places(parts, whose(path), KEYS).tolist() == expected
    tokens = [subject_token(KEYS, "author", one) if one is not None else "~" for one in first]
    ranks = subject_ranks(batch, whose(path), KEYS)
    assert [tokens[i] for i in np.argsort(ranks, kind="stable")] == sorted(tokens)


# --- columns --------------------------------------------------------------------------------------------------------------------


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
    assert np.array_equal(row_places(table, whose("elsewhere"), KEYS), np.arange(20, dtype=np.uint64))


@pytest.mark.parametrize("kind", [pa.large_list(pa.int64()), pa.list_(pa.int64(), 2), pa.list_view(pa.int64())])
def test_every_kind_of_list(kind: pa.DataType) -> None:
    column = pa.array([[1, 2], None, [None, 1]], kind)
    positions, values = subject_values(pa.table({"tags": column.take(pa.array([1, 2, 0]))}), whose("tags[]"))
    assert (positions.tolist(), values.to_pylist()) == ([1, 2, 2], [1, 1, 2])


def test_what_lies_under_a_null_is_nobody() -> None:
    """Arrow keeps values below a NULL list or struct; they are not the row's."""
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3]), pa.array(["a", "b", "c"]), mask=pa.array([True, False]))
    structs = pa.StructArray.from_arrays([pa.array(["a", "b"])], ["id"], mask=pa.array([True, False]))
    for column, path, id_ in ((lists, "c[]", "c"), (structs, "c.id", "b")):
        positions, values = subject_values(pa.table({"c": column}), whose(path))
        assert (positions.tolist(), values.to_pylist()) == ([1], [id_])


def test_a_dictionary_may_hold_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([1, 0, 2, None]), pa.array([None, "a", "b"]))
    batch = pa.table({"row_id": pa.array(range(4), pa.int64()), "who": column})
    assert concerned(batch, [AUTHOR], {"author": frozenset({subject_token(KEYS, "author", "b")})}, KEYS).tolist() == [0, 0, 1, 0]
    assert row_places(batch, AUTHOR, KEYS)[[1, 3]].tolist() == [1, 3]


# --- names ----------------------------------------------------------------------------------------------------------------------


def test_an_exact_name_is_no_path() -> None:
    """Names of columns and of fields may hold dots and brackets; the longest one that leads to ids is meant."""
    inner = pa.struct([("id", pa.int64()), ("x.id", pa.string())])
    schema = pa.schema([("a", inner), ("a.id", pa.string()), ("t[]", pa.string()), ("t", pa.list_(pa.string())), ("a.x", inner)])
    found = {path: root(schema, whose(path)) for path in ("a.id", "t[]", "a.x.id", "a.x.x.id", "a", "t", "a.id.id", "t[][]", "b")}
    no = dict.fromkeys(("a", "t", "a.id.id", "t[][]", "b"))
    assert found == {"a.id": "a.id", "t[]": "t[]", "a.x.id": "a.x", "a.x.x.id": "a.x", **no}
    assert roots(schema, [whose("a.id"), whose("b"), whose("a.x.id"), whose("a.x.x.id")]) == ["a.id", "a.x"]
    only = pa.schema([("a", inner)])
    assert root(only, whose("a.x.id")) == "a"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Who", "there is no column 'Who'. Names match exactly: write 'who'"),
        ("nobody", "there is no column 'nobody'. It has: row_id, who, author, people"),
        ("people", "'people' leads to no ids in column 'people', which holds lists. It has: people[].id, people[].tags[]"),
        ("author", "which holds objects. It has: author.id, author.tags[]"),
        ("author.name", "which holds objects. It has: author.id, author.tags[]"),
        ("tags[]", "which holds lists. It has: tags[][]"),
        ("who.id", "which holds text. Text that holds JSON is not looked into. Name a column that holds ids"),
        ("both.key", "which holds maps. Name a column that holds ids"),
    ],
)
def test_what_is_missing_is_said(path: str, said: str) -> None:
    schema = DEEP.append(pa.field("both", pa.map_(pa.string(), pa.string())))
    why = missing(schema, whose(path))
    assert why is not None and said in why
    assert is_absent(schema, whose(path)) == ("no column" in said)
    assert concerned(schema.empty_table(), [whose(path)], {"author": frozenset({"ab"})}, KEYS).tolist() == []


def test_a_log_remembers_the_subjects() -> None:
    both = (whose("people[].id", "user"), AUTHOR)
    assert declared(DEEP, [*both, whose("gone")]) == [["user", "people[].id"], ["author", "who"]]
    assert remembered({"subjects": declared(DEEP, both)}) == both
    assert remembered({"subject": ["author", "who"]}) == (AUTHOR,)
    assert remembered({"subject": None}) == remembered({"subjects": []}) == remembered({}) == ()
