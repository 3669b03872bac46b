"""Tables of other writers in the scan: the same edges as for tables of the lake, and never a plan that needs them."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import foreign
from infra.cluster import connect
from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.foreign import ForeignUnreadable, register
from infra.lake import Lake
from infra.settings import RetentionSettings, Settings
from tasks.dedup import task
from tasks.dedup.task import DedupResult, dedup

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.string())])
Rows = list[tuple[int | None, str | None]]


def table_of(rows: Rows) -> pa.Table:
    return pa.table([pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)], SCHEMA)


def commit(lake: Lake, name: str, table: pa.Table) -> Snapshot:
    """A table of the lake, as ingest leaves it: with row ids, and with bounds in its log."""
    full = table.add_column(0, "row_id", pa.array(range(table.num_rows), pa.int64()))
    folder = lake.folder(f"records/{name}")
    file = write_part(folder, full.to_batches(), full.schema, stats=["k"], digest_columns=table.column_names)
    return lake.commit(f"records/{name}", full.schema, [file], lineage=Lineage("test", name, ""), overwrite=True)


def enter(lake: Lake, name: str, path: Path, table: pa.Table, **options: Any) -> None:
    write_deltalake(path, table, **options)
    with connect(None) as workers:
        register(lake, name, str(path), workers)


def edges(result: DedupResult) -> set[tuple[str, str, bool]]:
    return {(edge.child, edge.parent, edge.multiset) for edge in result.edges}


def by_counting(tables: dict[str, pa.Table]) -> set[tuple[str, str, bool]]:
    counts = {name: Counter(tuple(sorted(row.items())) for row in table.to_pylist()) for name, table in tables.items()}
    pairs = itertools.permutations(counts, 2)
    return {(a, b, counts[a] <= counts[b]) for a, b in pairs if set(counts[a]) <= set(counts[b])}


ROWS = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, "", "a"])), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ours=st.lists(ROWS, min_size=1, max_size=2), theirs=st.lists(ROWS, min_size=1, max_size=2), by_partition=st.booleans())
def test_edges_are_those_of_counting(
    tmp_path_factory: pytest.TempPathFactory, ours: list[Rows], theirs: list[Rows], by_partition: bool
) -> None:
    home = tmp_path_factory.mktemp("lake")
    lake = Lake.open(Settings(home=home))
    tables = {f"own{i}": table_of(rows) for i, rows in enumerate(ours)}
    snapshots = tuple(commit(lake, name, table) for name, table in tables.items())
    for i, rows in enumerate(theirs):
        tables[f"foreign/their{i}"] = table_of(rows)
        # Narrower, and partitioned by the numbers: the same values all the same.
        narrow = tables[f"foreign/their{i}"].cast(pa.schema([("k", pa.int16()), ("v", pa.string())]))
        enter(lake, f"their{i}", home / f"their{i}", narrow, partition_by=["k"] if by_partition else None)
    result = dedup.fn(Settings(home=home), snapshots)
    assert edges(result) == by_counting(tables)
    assert result.n_tables == len(tables)
    assert {row.table for row in result.plan} == {f"own{i}" for i in range(len(ours))}


LONG = pa.table({"k": pa.array(range(2000), pa.int64()), "v": [f"value {i}" for i in range(2000)]})
CHEAP = RetentionSettings(storage_gb_month=1e9, min_evidence_bits=8.0)


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, retention=CHEAP)


def test_no_plan_rests_on_a_table_of_another_writer(config: Settings) -> None:
    lake = Lake.open(config)
    own = commit(lake, "own", LONG.slice(0, 500))
    enter(lake, "whole", config.home / "whole", LONG)
    enter(lake, "copy", config.home / "copy", LONG.slice(0, 100))
    result = dedup.fn(config, (own,))
    assert {("own", "foreign/whole", True), ("foreign/copy", "own", True)} <= edges(result)
    assert [(row.table, row.action, row.parents) for row in result.plan] == [("own", "keep", ())]
    twin = commit(lake, "twin", LONG)
    plan = {row.table: (row.action, row.parents) for row in dedup.fn(config, (own, twin)).plan}
    assert plan == {"own": ("retire", ("twin",)), "twin": ("keep", ())}


def test_a_table_that_moved_is_read_again_and_one_that_did_not_is_found(config: Settings) -> None:
    lake = Lake.open(config)
    own = commit(lake, "own", LONG)
    enter(lake, "other", config.home / "other", LONG.slice(0, 5))
    assert edges(dedup.fn(config, (own,))) == {("foreign/other", "own", True)}
    assert dedup.fn(config, (own,)).found
    write_deltalake(config.home / "other", LONG.slice(5), mode="append")
    moved = dedup.fn(config, (own,))
    assert not moved.found
    assert edges(moved) == {("foreign/other", "own", True), ("own", "foreign/other", True)}
    assert {edge.child_version for edge in moved.edges if edge.child == "foreign/other"} == {1}


def test_a_table_that_is_gone_is_named_and_the_others_are_compared(config: Settings) -> None:
    lake = Lake.open(config)
    snapshots = (commit(lake, "own", LONG), commit(lake, "part", LONG.slice(3, 9)))
    enter(lake, "gone", config.home / "gone", LONG)
    enter(lake, "there", config.home / "there", LONG)
    shutil.rmtree(config.home / "gone")
    result = dedup.fn(config, snapshots)
    assert list(result.unreadable) == ["foreign/gone"] and "no Delta table" in result.unreadable["foreign/gone"]
    assert ("part", "own", True) in edges(result) and ("part", "foreign/there", True) in edges(result)


def test_a_table_that_is_lost_under_the_scan_takes_no_other_along(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.open(config)
    snapshots = (commit(lake, "own", LONG), commit(lake, "part", LONG.slice(3, 9)))
    enter(lake, "lost", config.home / "lost", LONG.slice(0, 50))
    real = task.refreshed

    def lose(*args: Any) -> foreign.Refreshed:
        found = real(*args)
        for file in (config.home / "lost").glob("*.parquet"):
            file.unlink()
        return found

    monkeypatch.setattr(task, "refreshed", lose)
    result = dedup.fn(config, snapshots)
    assert edges(result) == {("part", "own", True)}
    assert "is gone" in result.unreadable["foreign/lost"]


def test_a_name_that_the_lake_has_is_not_taken_for_it(config: Settings) -> None:
    lake = Lake.open(config)
    snapshots = (commit(lake, "foreign/same", LONG), commit(lake, "own", LONG.slice(0, 9)))
    enter(lake, "same", config.home / "same", LONG.slice(5))
    result = dedup.fn(config, snapshots)
    assert edges(result) == {("own", "foreign/same", True)}
    assert "a table of that name" in result.unreadable["foreign/same"]


def test_statistics_of_other_writers_are_not_believed(config: Settings) -> None:
    """A log that lies about bounds and counts changes no edge."""
    lake = Lake.open(config)
    own = commit(lake, "own", LONG.slice(10, 20))
    write_deltalake(config.home / "liar", LONG)
    log = config.home / "liar" / "_delta_log" / f"{0:020d}.json"
    log.write_text(log.read_text().replace('\\"k\\":1999', '\\"k\\":3').replace('\\"numRecords\\":2000', '\\"numRecords\\":2'))
    assert '"k\\":3' in log.read_text() and 'numRecords\\":2,' in log.read_text()
    with connect(None) as workers:
        assert register(lake, "liar", str(config.home / "liar"), workers).n_rows == 2000
    assert edges(dedup.fn(config, (own,))) == {("own", "foreign/liar", True)}


def test_the_error_of_a_lost_table_names_it() -> None:
    found = foreign.Refreshed(unreadable={"a": "gone"}).without(ForeignUnreadable("b", "broken"))
    assert found.unreadable == {"a": "gone", "b": "broken"}
