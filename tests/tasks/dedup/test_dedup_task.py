"""The scan finds exactly the containments that counting every row of every pair finds."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.schema_graph import compatible, kind_of
from tasks.dedup.task import DedupResult, dedup

Tables = Mapping[str, Sequence[pa.Table]]
Fill = Callable[[Tables], tuple[Snapshot, ...]]
TYPES = (
    pa.int32(),
    pa.int64(),
    pa.float64(),
    pa.string(),
    pa.timestamp("us", "UTC"),
    pa.date32(),
    pa.decimal128(10, 2),
    pa.bool_(),
)


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
BOUNDED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal, pa.types.is_boolean)


def fill(lake: Lake, tables: Tables) -> tuple[Snapshot, ...]:
    """Commit each table as files of the given rows, with a row_id in front and bounds of numbers and times, as ingest does."""
    snapshots = list[Snapshot]()
    for name, files in tables.items():
        schema = pa.schema([pa.field("row_id", pa.int64()), *files[0].schema])
        bounded = [field.name for field in files[0].schema if any(test(field.type) for test in BOUNDED)]
        folder = lake.folder(f"records/{name}")
        written = [
            write_part(
                folder,
                file.add_column(0, "row_id", pa.array(range(file.num_rows), pa.int64())).cast(schema).to_batches(),
                schema,
                stats=bounded,
                digest_columns=files[0].schema.names,
            )
            for file in files
            if file.num_rows
        ]
        lineage = Lineage("test", name, "")
        snapshots.append(lake.commit(f"records/{name}", schema, written, lineage=lineage, overwrite=True))
    return tuple(snapshots)


@pytest.fixture(name="settings")
def _settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture(name="fill")
def _fill(settings: Settings) -> Fill:
    lake = Lake.open(settings)
    return lambda tables: fill(lake, tables)


def scan(lake_settings: Settings, snapshots: tuple[Snapshot, ...]) -> DedupResult:
    return dedup.fn(lake_settings, snapshots)


# --- the oracle ----------------------------------------------------------------------------------------------------------------


def canonical(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and value != value else value


def rows(table: pa.Table, names: Sequence[str]) -> Counter[tuple[Any, ...]]:
    lower = {name.lower(): table[name].to_pylist() for name in table.column_names}
    return Counter(zip(*([canonical(v) for v in lower[name]] for name in names), strict=True))


def oracle(tables: Tables) -> set[tuple[str, str, bool]]:
    """(child, parent, multiset) by counting."""
    whole = {name: pa.concat_tables(files) for name, files in tables.items()}
    kinds = {name: {f.name.lower(): kind_of(f.type) for f in table.schema} for name, table in whole.items()}
    found = set[tuple[str, str, bool]]()
    for child, parent in itertools.permutations(tables, 2):
        fits = all(n in kinds[parent] and compatible(k, kinds[parent][n]) for n, k in kinds[child].items())
        if fits and whole[child].num_rows:
            ours, theirs = (rows(whole[name], sorted(kinds[child])) for name in (child, parent))
            if set(ours) <= set(theirs):
                found.add((child, parent, ours <= theirs))
    return found


def found_edges(result: DedupResult) -> set[tuple[str, str, bool]]:
    edges = {(edge.child, edge.parent, edge.multiset) for edge in result.edges}
    assert len(edges) == len(result.edges)
    return edges


# --- small lakes ---------------------------------------------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-1, 1),
    "float": st.sampled_from([0.0, -0.0, 1.0, 0.5, float("nan"), float("inf")]),
    "string": st.sampled_from(["", "a", "b"]),
    "timestamp": st.integers(-1, 1).map(lambda us: EPOCH + dt.timedelta(microseconds=us)),
    "date": st.sampled_from([dt.date(1, 1, 1), dt.date(2020, 2, 29)]),
    "decimal": st.sampled_from([Decimal("1.10"), Decimal("-2.25")]),
    "bool": st.booleans(),
}


@st.composite
def lakes(draw: st.DrawFn) -> dict[str, list[pa.Table]]:
    """A base of random rows, tables cut out of it by rows and columns with near misses, and one of other types."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=3, unique=True))
    kinds = {name: draw(st.sampled_from(TYPES)) for name in names}
    columns = {name: st.none() | VALUES[kind_of(kind)] for name, kind in kinds.items()}
    base = draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=8))
    tables = dict[str, list[pa.Table]]()
    for number in range(draw(st.integers(2, 6))):
        kept = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        some = draw(st.lists(st.sampled_from(base), max_size=10))
        if draw(st.integers(0, 3)) == 0:
            some = [*some, draw(st.fixed_dictionaries(columns))]
        written = {name: name.upper() if draw(st.booleans()) else name for name in kept}
        widened = {name: pa.int64() if kinds[name] == pa.int32() and draw(st.booleans()) else kinds[name] for name in kept}
        schema = pa.schema([(written[name], widened[name]) for name in kept])
        whole = pa.Table.from_pylist([{written[name]: row[name] for name in kept} for row in some], schema=schema)
        cut = draw(st.integers(0, len(some)))
        tables[f"t{number}"] = [whole.slice(0, cut), whole.slice(cut)]
    return tables


@settings(max_examples=40, deadline=None)
@given(lakes(), st.sampled_from([0, 1 << 28]))
def test_edges_are_those_of_the_oracle(tables: dict[str, list[pa.Table]], memory_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        lake_settings = Settings.model_validate({"home": Path(home), "cluster": {"local_bytes": memory_bytes}})
        result = scan(lake_settings, fill(Lake.open(lake_settings), tables))
        assert found_edges(result) == oracle(tables)
        assert sum(result.settled.values()) == result.n_pairs
        assert {row.table for row in result.plan} == set(tables)
        assert not list((Path(home) / "lake" / "_scratch").iterdir())


@settings(max_examples=10, deadline=None)
@given(lakes(), st.data())
def test_files_and_order_change_nothing(tables: dict[str, list[pa.Table]], data: st.DataObject) -> None:
    results = list[DedupResult]()
    cut_again = dict[str, list[pa.Table]]()
    for name, files in tables.items():
        whole = pa.concat_tables(files)
        order = data.draw(st.permutations(range(whole.num_rows)))
        shuffled = whole.take(pa.array(order, pa.int64()))
        cut = data.draw(st.integers(0, whole.num_rows))
        cut_again[name] = [shuffled.slice(0, cut), shuffled.slice(cut)]
    for lake_tables in (tables, dict(reversed(cut_again.items()))):
        with tempfile.TemporaryDirectory() as home:
            lake_settings = Settings(home=Path(home))
            results.append(scan(lake_settings, fill(Lake.open(lake_settings), lake_tables)))
    one, other = results
    assert found_edges(one) == found_edges(other)
    assert one.listed_apart == other.listed_apart


# --- by eye --------------------------------------------------------------------------------------------------------------------


def people(numbers: Sequence[int], **more: Sequence[Any]) -> pa.Table:
    return pa.table(
        {"id": pa.array(numbers, pa.int64()), "name": [f"name {n}" for n in numbers], "half": [n / 2 for n in numbers], **more}
    )


@pytest.fixture(name="example")
def _example() -> Tables:
    everybody = range(5000)
    swapped = people(range(3000)).to_pydict()
    swapped["name"][0], swapped["name"][1] = swapped["name"][1], swapped["name"][0]
    return {
        "everybody": [people(everybody, age=[n % 90 for n in everybody])],
        "half": [people(range(1000)), people(range(1000, 2500))],
        "copy": [people(range(2499, -1, -1))],
        "twice": [people([*range(1000), 7])],
        "swapped": [pa.table(swapped)],
        "later": [people(range(4000, 6000))],
        "none": [people([])],
    }


def test_who_is_contained_in_whom(settings: Settings, fill: Fill, example: Tables) -> None:
    result = scan(settings, fill(example))
    assert found_edges(result) == {
        ("half", "everybody", True),
        ("half", "copy", True),
        ("copy", "half", True),
        ("copy", "everybody", True),
        ("twice", "half", False),
        ("twice", "copy", False),
        ("twice", "everybody", False),
    }
    steps = {(edge.child, edge.parent): edge.step for edge in result.edges}
    assert steps["half", "copy"] == "fingerprint"
    assert result.settled["bounds"] > 0
    assert result.listed_apart == {"none": "empty"}
    plan = {row.table: row for row in result.plan}
    retired = {name for name, row in plan.items() if row.action == "retire"}
    assert {"swapped"} < retired <= {"half", "copy", "swapped", "twice"}
    assert "2 rows" in plan["swapped"].reason
    assert all(plan[parent].action == "keep" for name in retired for parent in plan[name].parents)


def test_a_second_scan_is_found_and_reads_nothing(settings: Settings, fill: Fill, example: Tables) -> None:
    snapshots = fill(example)
    first = scan(settings, snapshots)
    again = scan(settings, snapshots[::-1])
    assert first.bytes_read > 0 == again.bytes_read
    assert again.found and not first.found
    assert dataclasses.replace(again, seconds=0, found=False, bytes_read=0) == dataclasses.replace(first, seconds=0, bytes_read=0)


def test_other_prices_make_another_plan_of_the_same_scan(settings: Settings, fill: Fill, example: Tables) -> None:
    snapshots = fill(example)
    first = scan(settings, snapshots)
    dear = settings.model_copy(update={"retention": settings.retention.model_copy(update={"accesses_per_month": 1e6})})
    again = scan(dear, snapshots)
    assert again.bytes_read == 0 and again.containment == first.containment and not again.found
    assert any(row.parents for row in first.plan) and not any(row.parents for row in again.plan)


def test_a_changed_table_is_scanned_again(settings: Settings, fill: Fill, example: Tables) -> None:
    scan(settings, fill(example))
    changed = scan(settings, fill({**example, "half": [people([*range(2499), 9999])]}))
    assert not changed.found
    assert not any("half" in (edge.child, edge.parent) and edge.child != "twice" for edge in changed.edges)
    kept = Lake.open(settings).read(changed.containment).to_pylist()
    assert sum(row["relation"] == "contained" for row in kept) == len(changed.edges)
    assert {row["relation"] for row in kept} >= {"contained", "approximate"}


def test_accidents_are_listed_apart_and_never_retired(settings: Settings, fill: Fill) -> None:
    flags = pa.table({"x": [True, False] * 500, "y": [True, True] * 500})
    tables = {
        "flags": [flags],
        "flags copy": [flags],
        "ids": [pa.table({"id": range(900)})],
        "nothing": [pa.table({"x": pa.nulls(9, pa.bool_()), "id": pa.nulls(9, pa.int64())})],
        "more": [pa.table({"id": [*range(1000), *[None] * 9], "x": [True] * 1000 + [None] * 9})],
    }
    result = scan(settings, fill(tables))
    assert {("flags", "flags copy"), ("ids", "more"), ("nothing", "more")} <= {(edge.child, edge.parent) for edge in result.edges}
    assert result.listed_apart == {
        "flags": "low evidence",
        "flags copy": "low evidence",
        "ids": "single column",
        "nothing": "all null",
    }
    assert all(row.action == "keep" for row in result.plan)


def test_an_empty_lake(settings: Settings) -> None:
    result = scan(settings, ())
    assert (result.n_tables, result.edges, result.plan, result.n_pairs) == (0, (), (), 0)
    assert scan(settings, ()).found


def test_a_cluster_finds_the_same(settings: Settings, fill: Fill, example: Tables) -> None:
    snapshots = fill(example)
    here = scan(settings, snapshots)
    spilling = settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"local_bytes": 100_000})})
    Path(settings.lake_uri, "containment").rename(settings.home / "put aside")
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None, protocol="tcp") as cluster, Client(cluster):
        there = dedup.fn(spilling, snapshots, scheduler=cluster.scheduler_address)
    assert not there.found
    assert found_edges(there) == found_edges(here)
