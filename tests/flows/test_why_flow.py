"""One pair of tables, asked from the command line's side: a document that fits its schema, and a text without values."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import validate
from small_lake import write_project

from flows import show
from flows.curate import ingest_tables
from flows.documents import DedupDocument, WhyDocument
from flows.why import why
from tasks.dedup.why import Why
from tasks.dedup.why_task import WhyResult


def told(result: WhyResult) -> WhyDocument:
    """The answer as the document has it, which is also shown."""
    document = show.explained(result)
    validate(document.model_dump(mode="json"), DedupDocument.model_json_schema())
    show.text(document)
    assert document.why is not None
    return document.why


def test_the_answer_as_document_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_project(tmp_path / "project"))
    ingest_tables(["posts", "posts_copy", "visits"], config)
    found = told(why("posts_copy", "posts", config))
    assert (found.contained, found.multiset, found.step, set(found.fractions.values())) == (True, True, "exact", {1.0})
    assert "posts_copy is contained in posts (settled by: exact)" in capsys.readouterr().out
    found = told(why("posts", "posts_copy", config))
    assert (found.contained, found.step, found.n_rows) == (False, "bounds", None)
    shown = capsys.readouterr().out
    assert "posts is not contained in posts_copy (settled by: bounds)" in shown
    assert found.file and found.file in shown and f"column {found.column!r}" in shown
    assert told(why("visits", "posts", config)).step == "schema"


def test_the_columns_that_a_mismatch_lies_in_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fractions = (("[name]", 0.25), ("id", 1.0))
    found = Why("a", "b", False, False, "exact", "b lacks 3 of the 4 rows of a", "[name]", None, 3, 3, fractions)
    assert told(WhyResult(found, 100, 0.5)).fractions == {"[name]": 0.25, "id": 1.0}
    shown = capsys.readouterr().out
    assert shown.splitlines()[:2] == ["a is not contained in b (settled by: exact)", "b lacks 3 of the 4 rows of a"]
    assert "[name]" in shown and "0.2500" in shown and "1.0000" not in shown
