"""Rows on their way into a table: nobody who was erased comes back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra.ids import subject_token
from infra.settings import SubjectSettings
from tasks.ingest.blocks import Reject
from tasks.ingest.rows import suppress, suppress_rejects, trimmed
from tests.infra.test_layout import AUTHOR, KEYS, PEOPLE, batch_of, some


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
