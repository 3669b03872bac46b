"""`--why` says of every pair what counting says, whichever step settles it, and shows no value of any row."""

from __future__ import annotations

import datetime as dt
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pyarrow as pa
import pytest
from hypothesis import given

from infra.contracts import UnknownTable
from infra.foreign import ForeignUnreadable
from infra.lake import Lake
from infra.retired import Retired, TableRetired
from infra.retired import put as put_retired
from infra.settings import Settings
from tasks.dedup import frames
from tasks.dedup.why import Why
from tasks.dedup.why_task import SameTable, why_task
from tests.tasks.dedup.mixed_lake import Table, contained, foreign, own, put, small_lakes


@hypothesis.settings(max_examples=12, deadline=None)
@given(small_lakes(), hypothesis.strategies.sampled_from([0, 1 << 28]))
def test_it_is_what_counting_says(tables: dict[str, Table], memory_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = Settings.model_validate({"home": Path(home), "cluster": {"local_bytes": memory_bytes}})
        put(Lake.open(config), tables)
        for child, parent in itertools.islice(itertools.permutations(tables, 2), 6):
            why = why_task.fn(config, child, parent).why
            empty = not tables[child].whole.num_rows
            assert (why.contained, why.multiset) == ((True, True) if empty else contained(tables[child], tables[parent])), why
        assert not list(Path(home).glob("lake/_scratch/*"))


# --- by eye --------------------------------------------------------------------------------------------------------------------


def people(numbers: list[int], **more: list[str]) -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64()), "Name": [f"secret {n}" for n in numbers], **more})


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture(name="why")
def _why(config: Settings) -> Callable[[str, str], Why]:
    lake = Lake.open(config)
    everybody = people([*range(100)])
    swapped = everybody.set_column(1, "Name", [[f"secret {n ^ 1}" for n in range(100)]])
    tables = {
        "everybody": everybody,
        "some": people([*range(5, 95)]),
        "twice": people([*range(5, 95), 7, 7]),
        "others": people([*range(60, 99), *range(20, 40)]).set_column(1, "Name", [[f"else {n}" for n in range(59)]]),
        "swapped": swapped,
        "beyond": people([*range(50, 120)]),
        "more": people([*range(5)], city=["x"] * 5),
        "same": everybody.slice(0, 100),
    }
    for name, table in tables.items():
        own(lake, name, [table.slice(0, 3), table.slice(3)])
    foreign(lake, "theirs", [people([*range(10, 20), 1000])])
    return lambda child, parent: why_task.fn(config, child, parent).why


def told(why: Why) -> tuple[bool, bool, str, str | None, int | None, int | None]:
    return why.contained, why.multiset, why.step, why.column, why.n_rows, why.n_distinct


def test_a_witness_for_each_step(why: Callable[[str, str], Why], monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(why("some", "everybody")) == (True, True, "exact", None, 0, 0)
    assert told(why("twice", "everybody")) == (True, False, "exact", None, 2, 0)
    assert told(why("others", "everybody")) == (False, False, "exact", "Name", 59, 59)
    assert why("others", "everybody").fractions == (("Name", 0.0), ("id", 1.0))
    assert told(why("swapped", "everybody")) == (False, False, "exact", None, 100, 100)
    assert "not in one row" in why("swapped", "everybody").text
    assert told(why("foreign/theirs", "everybody")) == (False, False, "exact", "Name", 1, 1)
    assert why("foreign/theirs", "everybody").fractions == (("Name", 10 / 11), ("id", 10 / 11))
    assert told(why("everybody", "foreign/theirs"))[:3] == (False, False, "exact")
    monkeypatch.setattr(frames, "hash_item", None)  # from here on no row is read
    assert told(why("same", "everybody")) == (True, True, "fingerprint", None, 0, 0)
    assert told(why("more", "everybody")) == (False, False, "schema", "city", None, None)
    assert told(why("beyond", "everybody")) == (False, False, "bounds", "id", None, None)


def test_no_value_is_told(why: Callable[[str, str], Why]) -> None:
    for child, parent in itertools.permutations(["everybody", "twice", "others", "swapped", "beyond", "foreign/theirs"], 2):
        said = repr(why(child, parent))
        assert "secret" not in said and "else" not in said and "1000" not in said


def test_the_witness_is_a_file_that_a_person_can_open(why: Callable[[str, str], Why], config: Settings) -> None:
    found = why("beyond", "everybody")
    lake = Lake.open(config)
    files = {part.file.path: part.file for part in lake.parts(lake.snapshot("records/beyond"))}
    assert found.file is not None and files[found.file].stats["id"]["max"] == 119
    assert found.text.startswith(f"column 'id' of beyond, in file {found.file}, has values above")


def test_tables_that_are_not_there_are_named(why: Callable[[str, str], Why], config: Settings) -> None:
    with pytest.raises(UnknownTable, match=r"'nobody'.*lethe status"):
        why("nobody", "everybody")
    with pytest.raises(UnknownTable, match="'foreign/nobody'"):
        why("some", "foreign/nobody")
    with pytest.raises(SameTable, match="'some'"):
        why("some", "some")
    (config.home / "outside-theirs").rename(config.home / "away")
    with pytest.raises(ForeignUnreadable, match="foreign/theirs"):
        why("foreign/theirs", "everybody")
    gone = Retired("some", "projection", "{}", ("everybody",), "", 90, 1, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    put_retired(Lake.open(config), gone, {})
    with pytest.raises(TableRetired, match="lethe restore some"):
        why("some", "everybody")
