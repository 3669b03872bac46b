"""A scan after a scan finds what a scan of a lake that was never scanned finds, and reads only what changed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import DataFile, Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.task import DedupResult, dedup

COLUMNS = ("a", "b", "c")
ROWS = st.lists(st.tuples(*(st.integers(0, 2) | st.none() for _ in COLUMNS)), max_size=6)


@dataclass
class World:
    """A lake and what its tables should hold: lists of files by table."""

    lake_settings: Settings
    files: dict[str, list[tuple[pa.Table, DataFile]]] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake.open(self.lake_settings)

    def put(self, name: str, tables: Sequence[pa.Table], *, overwrite: bool) -> None:
        lake = self.lake
        schema = pa.schema([pa.field("row_id", pa.int64()), *tables[0].schema])
        written = [(table, _written(lake, name, table, schema)) for table in tables if table.num_rows]
        lineage = Lineage("test", name, "")
        lake.commit(f"records/{name}", schema, [f for _, f in written], lineage=lineage, overwrite=overwrite)
        self.files[name] = [*([] if overwrite else self.files.get(name, [])), *written]

    def remove(self, name: str, number: int) -> None:
        lake = self.lake
        (_, file), snapshot = self.files[name].pop(number), lake.snapshot(f"records/{name}")
        lake.commit(f"records/{name}", lake.schema(snapshot), [], remove=[file], lineage=Lineage("test", name, ""))

    def compact(self, name: str) -> None:
        lake, whole = self.lake, pa.concat_tables([rows for rows, _ in self.files[name]], promote_options="default")
        schema = lake.schema(lake.snapshot(f"records/{name}"))
        old, new = [file for _, file in self.files[name]], _written(lake, name, whole, schema)
        lake.commit(f"records/{name}", schema, [new], remove=old, lineage=Lineage("test", name, ""))
        self.files[name] = [(whole, new)]

    def snapshots(self) -> tuple[Snapshot, ...]:
        lake = self.lake
        return tuple(lake.snapshot(f"records/{name}") for name in self.files)

    def scan(self) -> DedupResult:
        return dedup.fn(self.lake_settings, self.snapshots())

    def again(self, home: Path) -> World:
        """The same tables in a lake that was never scanned, each as one file."""
        other = World(Settings.model_validate({**self.lake_settings.model_dump(), "home": home}))
        for name, files in self.files.items():
            schema = self.lake.schema(self.lake.snapshot(f"records/{name}")).remove(0)
            whole = pa.concat_tables([schema.empty_table(), *(rows for rows, _ in files)], promote_options="default")
            other.put(name, [pa.table({one.name: _column(whole, one) for one in schema}, schema=schema)], overwrite=True)
        return other


def _written(lake: Lake, name: str, table: pa.Table, schema: pa.Schema) -> DataFile:
    whole = pa.table({field.name: _column(table, field) for field in schema}, schema=schema)
    stats = [field.name for field in schema if field.name != "row_id" and pa.types.is_integer(field.type)]
    return write_part(lake.folder(f"records/{name}"), whole.to_batches(), schema, stats=stats, digest_columns=schema.names[1:])


def _column(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name in table.column_names:
        return table[field.name].cast(field.type)
    return pa.array(range(table.num_rows), pa.int64()) if field.name == "row_id" else pa.nulls(table.num_rows, field.type)


def table_of(rows: Sequence[tuple[int | None, ...]], names: Sequence[str]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return pa.table({n: pa.array(c, pa.int64()) for n, c in zip(COLUMNS, columns, strict=True) if n in names})


def said(result: DedupResult) -> object:
    """Everything a scan says but the steps and the versions."""
    edges = {(e.child, e.parent, e.fraction, e.set, e.multiset, e.exact, e.n_residual) for e in (*result.edges, *result.near)}
    covers = {(cover.child, cover.parents, cover.multiset) for cover in result.covers}
    renames = {(one.child, one.parent, one.columns, one.multiset) for one in result.renames}
    return edges, covers, renames, result.listed_apart, result.n_pairs


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, str, list[tuple[int | None, ...]], list[str], int]:
    kind = draw(st.sampled_from(["append", "append", "remove", "compact", "widen", "overwrite", "drop"]))
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True))
    return kind, draw(st.sampled_from(["t0", "t1", "t2", "t3"])), draw(ROWS), names, draw(st.integers(0, 3))


def take(world: World, step: tuple[str, str, list[tuple[int | None, ...]], list[str], int]) -> None:
    kind, name, rows, names, number = step
    files = world.files.get(name)
    if files is None or kind == "overwrite":
        world.put(name, [table_of(rows, names)], overwrite=True)
    elif kind == "append":
        world.put(name, [table_of(rows, files[0][0].column_names if files else names)], overwrite=False)
    elif kind == "widen":
        world.put(name, [table_of(rows, COLUMNS)], overwrite=False)
    elif kind == "remove" and files:
        world.remove(name, number % len(files))
    elif kind == "compact" and files:
        world.compact(name)
    elif kind == "drop" and len(world.files) > 1:
        del world.files[name]


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=4), st.lists(steps(), min_size=1, max_size=5), st.sampled_from([0.5, 0.9, 1.0]))
def test_a_scan_after_changes_says_what_a_first_scan_says(
    first: list[list[tuple[int | None, ...]]],
    changes: list[tuple[str, str, list[tuple[int | None, ...]], list[str], int]],
    approximate: float,
) -> None:
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as fresh:
        config = {"home": Path(home), "dedup": {"approximate": approximate}}
        world = World(Settings.model_validate(config))
        for number, rows in enumerate(first):
            world.put(f"t{number}", [table_of(rows, COLUMNS[: 1 + number % 3])], overwrite=True)
        world.scan()
        for number, step in enumerate(changes):
            take(world, step)
            assert said(world.scan()) == said(world.again(Path(fresh) / str(number)).scan())


# --- by eye --------------------------------------------------------------------------------------------------------------------


def numbers(start: int, end: int) -> pa.Table:
    """Rows that do not compress."""
    ids = pa.array(range(start, end), pa.int64())
    names = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(start, end)]
    return pa.table({"id": ids, "name": pa.array(names, pa.string())})


def test_a_parent_that_grows_keeps_its_children_and_only_its_new_file_is_read(tmp_path: Path) -> None:
    world = World(Settings(home=tmp_path))
    world.put("parent", [numbers(0, 9000)], overwrite=True)
    world.put("child", [numbers(100, 3000)], overwrite=True)
    first = world.scan()
    world.put("parent", [numbers(9000, 9050)], overwrite=False)
    again = world.scan()
    assert [(e.child, e.parent, e.multiset) for e in again.edges] == [("child", "parent", True)]
    assert again.settled["known"] == 1
    assert 0 < again.bytes_read < first.bytes_read / 20


def test_a_child_that_grows_beyond_its_parent_is_found_out(tmp_path: Path) -> None:
    world = World(Settings(home=tmp_path))
    world.put("parent", [numbers(0, 9000)], overwrite=True)
    world.put("child", [numbers(100, 3000)], overwrite=True)
    assert [edge.child for edge in world.scan().edges] == ["child"]
    world.put("child", [pa.table({"id": pa.array([200], pa.int64()), "name": ["another"]})], overwrite=False)
    again = world.scan()
    assert again.edges == ()
    assert [(edge.child, edge.n_residual, round(edge.fraction, 5)) for edge in again.near] == [
        ("child", 1, round(2900 / 2901, 5))
    ]


def test_joining_files_reads_nothing(tmp_path: Path) -> None:
    world = World(Settings(home=tmp_path))
    world.put("parent", [numbers(0, 500), numbers(500, 1000)], overwrite=True)
    world.put("child", [numbers(100, 300)], overwrite=True)
    world.scan()
    world.compact("parent")
    again = world.scan()
    assert again.found and again.bytes_read == 0


def test_a_column_of_nulls_that_comes_later_is_a_column(tmp_path: Path) -> None:
    """It adds nothing to any digest, and yet the child is none any more."""
    world = World(Settings(home=tmp_path))
    world.put("parent", [numbers(0, 500)], overwrite=True)
    world.put("child", [numbers(100, 300)], overwrite=True)
    assert world.scan().edges
    empty = numbers(0, 0).append_column("more", pa.nulls(0, pa.string()))
    world.put("child", [empty], overwrite=False)
    again = world.scan()
    assert again.edges == () and not again.found
