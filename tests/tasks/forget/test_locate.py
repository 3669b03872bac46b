"""Whose row is it: by the column, and by the words of a rejected line."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import QUARANTINE
from infra.ids import derive_keys, subject_token
from tasks.forget.locate import MAX_ID_BYTES, quarantined, rows_of, text_tokens, token_maker

KEYS = derive_keys(b"k" * 32)


def tokens(*values: object) -> frozenset[str]:
    return frozenset(subject_token(KEYS, "user", value) for value in values)


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=40), st.sets(st.integers(0, 9), max_size=4))
def test_rows_are_those_of_the_wanted_in_every_type(values: list[int | None], wanted: set[int]) -> None:
    expected = [value in wanted for value in values]
    for kind in (pa.int64(), pa.int8(), pa.float64(), pa.decimal128(25, 2), pa.string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(values, pa.int64()).cast(pa.string() if pa.types.is_dictionary(kind) else kind).cast(kind)
        assert rows_of(column, "user", tokens(*wanted), KEYS).tolist() == expected


@given(st.text(max_size=100), st.sampled_from(["user", "kind of ü"]))
def test_the_fast_token_is_the_token(text: str, kind: str) -> None:
    assert token_maker(KEYS, kind)(text.encode()).hex() == subject_token(KEYS, kind, text)


def test_kinds_do_not_mix() -> None:
    assert not rows_of(pa.array(["7"]), "customer", tokens("7"), KEYS).any()
    assert rows_of(pa.array([Decimal("7.0")]), "user", tokens("7"), KEYS).all()


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


def test_a_rejected_line_is_searched_for_the_kind_of_its_table() -> None:
    rows = [("people", "a,zz@x"), ("orders", "a,zz@x"), ("people", "a,b"), ("gone", "zz@x"), ("people", None)]
    lines = [{"table": t, "source": "s", "line": i, "reason": "r", "raw": raw} for i, (t, raw) in enumerate(rows)]
    batch = pa.RecordBatch.from_pylist(lines, schema=QUARANTINE)
    found = quarantined(batch, {"people": "user", "orders": "customer"}, {"user": tokens("zz@x")}, KEYS)
    assert np.array(found, bool).tolist() == [True, False, False, False, False]
