"""JSON arrays and objects over lines: the same rows as JSON lines, wherever the blocks are cut; nothing is lost to damage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import readers_json, readers_jsonl
from tasks.ingest.blocks import Block, Reject

TEXTS = st.text('ab"\\[]{},: \n\r\té\U0001f600', max_size=6)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 10**6), st.floats(-1e6, 1e6), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)), max_leaves=8
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c", "é"]), VALUES, min_size=1, max_size=3), max_size=6)
BLANKS = st.text(" \t\r\n", max_size=3)
BROKEN = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b"1", b"\n", b" ", b"\\", b'{"a":1}', b"\xff", "é".encode()]
    ),
    max_size=25,
).map(b"".join)


def cut(data: bytes, n_bytes: int) -> Iterator[bytes]:
    return (data[i : i + n_bytes] for i in range(0, len(data), n_bytes))


def found(blocks: Iterator[Block]) -> tuple[list[Any], list[Reject], list[int]]:
    rows, rejects, lines = list[Any](), list[Reject](), list[int]()
    for block in blocks:
        assert block.n_rows == len(block.rows or [])
        rows += block.rows or []
        rejects += block.rejects
        lines += [] if block.lines is None else block.lines.tolist()
    assert len(lines) == len(rows)
    return rows, rejects, lines


@given(OBJECTS, st.sampled_from([None, 1, "\t"]), st.booleans(), BLANKS, st.integers(1, 40))
def test_an_array_has_the_rows_of_json_lines(objects: list[Any], indent: Any, is_ascii: bool, blank: str, n_bytes: int) -> None:
    lines = "\n".join(json.dumps(one, ensure_ascii=is_ascii) for one in objects).encode()
    array = (blank + json.dumps(objects, ensure_ascii=is_ascii, indent=indent) + blank).encode()
    expected = found(readers_jsonl.read(iter([lines])))
    rows, rejects, _ = found(readers_json.read(cut(array, n_bytes)))
    assert rows == expected[0]
    assert [reject.reason for reject in rejects] == [reject.reason for reject in expected[1]]


@given(OBJECTS.filter(bool), BLANKS, st.integers(1, 40))
def test_objects_over_lines_are_rows(objects: list[Any], blank: str, n_bytes: int) -> None:
    lines = "\n".join(json.dumps(one) for one in objects).encode()
    spread = f"\n{blank}".join(json.dumps(one, indent=2) for one in objects).encode()
    assert found(readers_json.read(cut(spread, n_bytes)))[0] == found(readers_jsonl.read(iter([lines])))[0]


@given(OBJECTS, st.integers(1, 40))
def test_json_lines_are_read_as_ever(objects: list[Any], n_bytes: int) -> None:
    lines = "\n".join(json.dumps(one) for one in objects).encode()
    assert found(readers_json.read(cut(lines, n_bytes))) == found(readers_jsonl.read(iter([lines])))


@given(st.sampled_from([b"[", b"{\n", b""]), BROKEN, st.integers(1, 9))
def test_no_block_size_changes_what_a_broken_file_gives(start: bytes, body: bytes, n_bytes: int) -> None:
    data = start + body
    whole = found(readers_json.read(iter([data])))
    assert found(readers_json.read(cut(data, n_bytes))) == whole


@given(BROKEN)
def test_nothing_of_a_broken_array_is_lost(body: bytes) -> None:
    rows, rejects, _ = found(readers_json.read(iter([b"[" + body])))
    kept = "".join(json.dumps(row) for row in rows) + "".join(reject.raw for reject in rejects)
    for letter in "a1:{":
        assert kept.count(letter) >= body.decode("utf-8", "replace").count(letter)


def test_elements_nested_deeper_than_the_expressions_are_found() -> None:
    deep: Any = 1
    for _ in range(12):
        deep = {"x": [deep, "]}"]}
    rows, rejects, lines = found(readers_json.read(cut(json.dumps([{"a": deep}, {"a": 2}], indent=1).encode(), 7)))
    assert rows == [{"a": deep}, {"a": 2}] and not rejects and lines[0] == 2


@pytest.mark.parametrize("keyword", ["subject", "spelled"])
def test_ids_are_text_as_they_are_spelled(keyword: str) -> None:
    data = iter([b'[{"id": 1.50},\n {"id": 2}]'])
    blocks = readers_json.read(data, "id") if keyword == "subject" else readers_json.read(data, spelled=["ID"])
    assert found(blocks)[0] == [{"id": "1.50"}, {"id": 2}]


def test_rejects_by_eye() -> None:
    data = b'[\n {"a": 1},\n {"a"},\n {"a": 2, "a": 3}, 7,\n {"a": "\xff"},\n {"a": "x\ny"},\n {"a": 4}\n] x'
    rows, rejects, lines = found(readers_json.read(cut(data, 11)))
    assert rows == [{"a": 1}, {"a": 4}]
    assert lines == [2, 8]
    assert rejects == [
        Reject(3, "not JSON from character 5 on", '{"a"}'),
        Reject(4, "a key is there twice", '{"a": 2, "a": 3}'),
        Reject(4, "a JSON int, not an object", "7"),
        Reject(5, "not UTF-8", '{"a": "\\xff"}'),
        Reject(6, "not JSON from character 9 on", '{"a": "x\ny"}'),
        Reject(9, "text after the end of the array", "x"),
    ]


def test_what_cannot_be_told_apart_is_one_reject_by_eye() -> None:
    rows, rejects, _ = found(readers_json.read(iter([b'[{"a": 1},\n{"a: 2}, {"a": 3},\n{"a": 4}]'])))
    assert rows == [{"a": 1}]
    reason = "brackets or quotes do not match: the rest of the file cannot be told apart"
    assert rejects == [Reject(2, reason, '{"a: 2}, {"a": 3},\n{"a": 4}]')]


def test_a_file_that_is_cut_off_by_eye() -> None:
    for data, expected in (
        (b'[{"a": 1},\n{"a": 2}', Reject(2, "the array is not closed", "")),
        (b'[{"a": 1}, {"a": 2},\n{"a": ', Reject(2, "the file ends in the middle of an element", '{"a": ')),
    ):
        rows, rejects, _ = found(readers_json.read(cut(data, 3)))
        assert rows == [{"a": 1}, {"a": 2}]
        assert rejects == [expected]
