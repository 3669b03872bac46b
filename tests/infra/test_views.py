"""What columns are to whoever compares records: the same look in every table, and never a subject or a label."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from infra.columns import CONTENT
from infra.settings import ConfigError, Settings
from infra.views import NothingToEmbed, View, content_of, views_of

IMAGE = pa.schema([("row_id", pa.int64()), ("person", pa.string()), ("pixels", pa.list_(pa.uint8())), ("kind", pa.string())])
TABLE = pa.schema(
    [("row_id", pa.int64()), ("size", pa.float32()), ("person", pa.string()), ("colour", pa.string()), ("kind", pa.string())]
)
TEXT = pa.schema([("row_id", pa.int64()), ("person", pa.string()), ("body", pa.string()), ("kind", pa.string())])


def settings(**tables: dict[str, Any]) -> Settings:
    subject = {"kind": "person", "column": "person"}
    return Settings.model_validate(
        {
            "home": "/",
            "lake": {"root": "lake"},
            "tables": {name: {"source": "x", "subject": subject, **asked} for name, asked in tables.items()},
            "datasets": {"d": {"pool": list(tables)}},
            "models": {"m": {"dataset": "d", "kind": "text", "label": "kind"}},
        }
    )


def test_a_pool_and_its_target_are_looked_at_alike() -> None:
    """Two tables of texts under other names; beside a table without texts, both are rows of a table."""
    asked = settings(pool={"text": "body"}, gold={"text": "words"}, plain={})
    words = pa.schema([("row_id", pa.int64()), ("person", pa.string()), ("words", pa.large_string())])
    views = views_of(asked, "d", {"pool": TEXT, "gold": words}, embeds=True)
    assert {name: (view.look, view.content) for name, view in views.items()} == {
        "pool": ("text", "body"),
        "gold": ("text", "words"),
    }
    assert views["pool"].columns(embeds=True) == ["row_id", "person", "kind", "body"]
    assert views["pool"].columns(embeds=False) == ["row_id", "person"]
    mixed = views_of(asked, "d", {"pool": TEXT, "plain": TABLE}, embeds=True)
    assert {view.look for view in mixed.values()} == {"table"}


def test_neither_subject_nor_label_is_compared() -> None:
    view = views_of(settings(a={}), "d", {"a": TABLE}, embeds=True)["a"]
    assert (view.look, view.numbers, view.words, view.label, view.whose) == ("table", ("size",), ("colour",), "kind", "person")
    assert views_of(settings(a={}), "d", {"a": IMAGE}, embeds=True)["a"].content == "pixels"


def test_a_column_that_is_a_number_in_one_table_only_is_a_category_in_both() -> None:
    other = pa.schema([("row_id", pa.int64()), ("person", pa.string()), ("size", pa.string())])
    views = views_of(settings(a={}, b={}), "d", {"a": TABLE, "b": other}, embeds=True)
    assert (views["a"].words, views["b"].words) == (("colour", "size"), ("size",))


def test_nothing_to_go_by_is_said() -> None:
    bare = pa.schema([("row_id", pa.int64()), ("person", pa.string()), ("kind", pa.string())])
    with pytest.raises(NothingToEmbed, match=r"datasets\.d"):
        views_of(settings(a={}), "d", {"a": bare}, embeds=True)
    assert views_of(settings(a={}), "d", {"a": bare}, embeds=False)["a"].numbers == ()
    with pytest.raises(ConfigError, match="'gone'"):
        views_of(settings(a={"text": "gone"}), "d", {"a": TEXT}, embeds=True)


def test_content_has_the_same_names_and_types_in_every_table() -> None:
    batch = pa.record_batch({"row_id": [1], "body": pa.array(["hello"]), "pixels": [[1, 2]], "n": pa.array([3], pa.int8())})
    assert content_of(batch, View("text", None, content="body")).schema == pa.schema([(CONTENT, pa.large_string())])
    assert content_of(batch, View("pixels", None, content="pixels")).column(CONTENT).to_pylist() == [[1, 2]]
    found = content_of(batch, View("table", None, numbers=("n",), words=("body",)))
    assert found.schema == pa.schema([("n", pa.float64()), ("body", pa.string())])
