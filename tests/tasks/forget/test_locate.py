"""Whose row is it: by the column, and for a rejected row by the subjects of its table."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import QUARANTINE
from infra.ids import derive_keys, subject_token
from infra.settings import SubjectSettings
from infra.subjects import concerned
from tasks.forget.locate import quarantined

KEYS = derive_keys(b"k" * 32)
WHO = SubjectSettings(kind="user", column="who")


def tokens(*values: object) -> frozenset[str]:
    return frozenset(subject_token(KEYS, "user", value) for value in values)


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=40), st.sets(st.integers(0, 9), max_size=4))
def test_rows_are_those_of_the_wanted_in_every_type(values: list[int | None], wanted: set[int]) -> None:
    expected = [value in wanted for value in values]
    for kind in (pa.int64(), pa.int8(), pa.float64(), pa.decimal128(25, 2), pa.string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(values, pa.int64()).cast(pa.string() if pa.types.is_dictionary(kind) else kind).cast(kind)
        found = concerned(pa.table({"who": column}), [WHO], {"user": tokens(*wanted)}, KEYS)
        assert found.tolist() == expected


def test_kinds_do_not_mix() -> None:
    assert not concerned(pa.table({"who": ["7"]}), [WHO], {"customer": tokens("7")}, KEYS).any()
    assert concerned(pa.table({"who": [Decimal("7.0")]}), [WHO], {"user": tokens("7")}, KEYS).all()


def test_a_rejected_line_is_searched_for_the_subjects_of_its_table() -> None:
    """`people` has users, `orders` customers, nobody knows a table `gone`; order and company change nothing."""
    rows = [("people", "a,zz@x"), ("orders", "a,zz@x"), ("people", "a,b"), ("gone", "zz@x"), ("people", None), ("people", "zz@x")]
    subjects = {"people": (WHO,), "orders": (SubjectSettings(kind="customer", column="who"),)}
    lines = [{"table": t, "source": "s", "line": i, "reason": "r", "raw": raw} for i, (t, raw) in enumerate(rows)]
    batch = pa.RecordBatch.from_pylist(lines, schema=QUARANTINE)
    found = quarantined(batch, subjects, {"user": tokens("zz@x")}, KEYS)
    assert found.tolist() == [True, False, False, False, False, True]
    assert quarantined(batch.slice(0, 0), subjects, {"user": tokens("zz@x")}, KEYS).tolist() == []
