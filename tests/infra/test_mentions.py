"""Whom a rejected row names: by its columns where it is JSON, by its words otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ids import derive_keys, subject_token
from infra.mentions import MAX_ID_BYTES, mentioned, text_tokens, token_maker
from infra.settings import SubjectSettings

KEYS = derive_keys(b"k" * 32)
WHO = SubjectSettings(kind="user", column="who")
USER, REVIEWER = SubjectSettings(kind="user", column="author.id"), SubjectSettings(kind="user", column="reviewers[].id")


def tokens(*values: object) -> frozenset[str]:
    return frozenset(subject_token(KEYS, "user", value) for value in values)


def is_mentioned(raw: str | None, wanted: str, *subjects: SubjectSettings) -> bool:
    (found,) = mentioned([raw], subjects, {"user": tokens(wanted)}, KEYS).tolist()
    return found


@given(st.text(max_size=100), st.sampled_from(["user", "kind of ü"]))
def test_the_fast_token_is_the_token(text: str, kind: str) -> None:
    assert token_maker(KEYS, kind)(text.encode()).hex() == subject_token(KEYS, kind, text)


@pytest.mark.parametrize(
    "line",
    [
        "zz.alice@x.com,Rome,7",
        'Rome;"zz.alice@x.com";7',
        "Rome\tzz.alice@x.com",
        '{"who": "zz.alice@x.com", "n": 1}',
        "{'who': ['zz.alice@x.com']}",
        "email=zz.alice@x.com&x=1",
        "  zz.alice@x.com  ",
        "dear zz.alice@x.com",
    ],
)
def test_an_id_is_found_in_a_line(line: str) -> None:
    assert "zz.alice@x.com" in text_tokens(line)
    assert "alice" not in text_tokens(line)


def test_ids_with_blanks_or_colons_are_found_as_fields() -> None:
    assert {"urn:person:7", "Alice Cooper"} <= text_tokens("1,urn:person:7;Alice Cooper|x")
    assert text_tokens("x" * (MAX_ID_BYTES + 1)) == set()


@pytest.mark.parametrize(
    ("raw", "is_named"),
    [
        ('{"author": {"id": "Doe, Jane"}, "reviewers": null, "n": 1}', True),
        ('{"author": {"id": null}, "reviewers": [{"id": "x"}, {"id": "Doe, \\u004aane"}]}', True),
        ('{"author": null, "reviewers": [], "note": "Doe, Jane"}', False),  # somebody else's row that mentions her
        ('{"author": {"id": "x"}, "reviewers": [{"id": null}], "Doe, Jane": 1}', False),
        ('{"author": {"id": "x"}, "note": "Doe, \\u004aane"}', True),  # of another shape: nobody knows whose
        ('{"author": {"id": "x"}, "reviewers": "Doe, Jane"}', True),
        ('{"author": {"id": "Doe, Jane", "id": "x"}, "reviewers": []}', True),
        ('{"author": {"id": "x"}, "author": {"id": "Doe, Jane"}, "reviewers": []}', True),
        ('["Doe, Jane"]', True),
        ('{"author": {"id": "Doe; Jane"}, "reviewers": []}', False),
        ("[" * 9000, False),
    ],
)
def test_a_rejected_row_in_json_is_read_by_its_columns(raw: str, is_named: bool) -> None:
    assert is_mentioned(raw, "Doe, Jane", USER, REVIEWER) == is_named


def test_ids_in_json_are_the_ids_that_they_are_spelled() -> None:
    rows = [('{"who": 7}', True), ('{"who": 7.0}', True), ('{"who": "7"}', True), ('{"who": 8, "n": 7}', False)]
    assert mentioned([raw for raw, _ in rows], [WHO], {"user": tokens("7")}, KEYS).tolist() == [named for _, named in rows]
    assert is_mentioned('{"who": 12345678901234567890123}', "12345678901234567890123", WHO)


def test_kinds_that_nobody_asks_for_are_not_looked_for() -> None:
    assert not is_mentioned("zz@x", "zz@x", SubjectSettings(kind="customer", column="who"))
    assert not is_mentioned("zz@x", "zz@x")
    assert not is_mentioned(None, "zz@x", WHO)
    assert is_mentioned("a;zz@x", "zz@x", SubjectSettings(kind="customer", column="id"), WHO)
