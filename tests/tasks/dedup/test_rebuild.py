"""A recipe gives back what it was found for: the same rows, types and row ids, whatever the files and their order."""

from __future__ import annotations

import datetime as dt
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_lake import put, read_back, rows_of, split

from infra.cluster import connect
from infra.contracts import SOURCES, DataFile, Lineage, Snapshot
from infra.files import source_key, write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings, TableSettings
from tasks.dedup import finding
from tasks.dedup.rebuild import find_recipe, fingerprint_of, kept_bytes, parents_readable, rebuild, renewed
from tasks.dedup.recipes import NoRecipe, Recipe, Term, as_json, of_json, schema_of

Made = tuple[pa.Table, list[DataFile]]
UTC = dt.UTC
DAY = dt.datetime(2024, 1, 1, tzinfo=UTC)


class Elsewhere:
    """Workers in other processes, one of which dies with its answer: everything is pickled, and asked for twice."""

    def map(self, fn: Callable[..., Any], items: Sequence[Any], *common: Any, **_: Any) -> list[Any]:
        def away() -> list[Any]:
            sent = (pickle.loads(pickle.dumps((fn, item, *common))) for item in items)
            return [pickle.loads(pickle.dumps(work(*of))) for work, *of in sent]

        away()
        return away()


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture(name="lake")
def _lake(config: Settings) -> Lake:
    return Lake.open(config)


def find(
    lake: Lake, config: Settings, child: Snapshot, *parents: Snapshot, columns: Sequence[tuple[str, str]] | None = None
) -> Recipe:
    with connect(None) as workers:
        found = find_recipe(lake, config, child, parents, columns=columns, workers=workers)
    assert of_json(as_json(found)) == found or any(v != v for t in found.terms for v in t.values or ())
    return found


def made_of(lake: Lake, config: Settings, recipe: Recipe) -> Made:
    with tempfile.TemporaryDirectory() as folder, connect(None) as workers:
        files = rebuild(lake, config, of_json(as_json(recipe)), workers=workers, folder=folder)
        return read_back(folder, recipe, files), files


def check(lake: Lake, config: Settings, recipe: Recipe, child: Snapshot) -> None:
    """The recipe makes the child, bit for bit but for -0.0 and the payload of a NaN."""
    made, files = made_of(lake, config, recipe)
    before = lake.read(child)
    assert str(fingerprint_of(files)) == recipe.digest == child.digest
    assert made.schema == before.schema == schema_of(recipe)
    assert rows_of(made) == rows_of(before)
    assert {path.name for path in Path(lake.root, "_scratch").iterdir()} == set()


# --- random derivations --------------------------------------------------------------------------------------------------------

PARENT = pa.schema(
    {
        "n": pa.int64(),
        "X": pa.float64(),
        "day": pa.date32(),
        "at": pa.timestamp("us", "UTC"),
        "flag": pa.bool_(),
        "kind": pa.string(),
        "price": pa.decimal128(12, 2),
        "tags": pa.list_(pa.string()),
    }
)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(-2, 6),
    "X": st.sampled_from([0.0, -0.0, 0.5, 1.0, float("nan"), float("inf"), -2.5]),
    "day": st.integers(0, 5).map(lambda n: dt.date(2024, 1, 1) + dt.timedelta(n)),
    "at": st.integers(0, 5).map(lambda n: DAY + dt.timedelta(hours=n)),
    "flag": st.booleans(),
    "kind": st.sampled_from(["a", "b", "ä", ""]),
    "price": st.sampled_from([Decimal("1.10"), Decimal("0.00"), Decimal("-7.00")]),
    "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
}
OTHER_TYPES = {
    "n": pa.int32(),
    "X": pa.float32(),
    "price": pa.decimal128(14, 3),
}


@st.composite
def parents_tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.lists(st.fixed_dictionaries({k: st.none() | v for k, v in CELLS.items()}), min_size=1, max_size=25))
    copies = draw(st.lists(st.integers(0, len(rows) - 1), max_size=4))
    return pa.Table.from_pylist([*rows, *(rows[i] for i in copies)], schema=PARENT)


@st.composite
def derived(draw: st.DrawFn, parent: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """A child: some rows, some of them twice, some columns, narrower or wider types, other names and case, a row of its own."""
    child = draw(st.sampled_from([whole, ranged, listed, sampled]))(draw, parent)
    if draw(st.booleans()):
        child = ranged(draw, child)
    if child.num_rows and draw(st.integers(0, 3)) == 0:
        child = pa.concat_tables([child, child.slice(0, draw(st.integers(1, 3)))])
    if draw(st.integers(0, 3)) == 0:
        child = pa.concat_tables([child, pa.Table.from_pylist([{"n": 99, "kind": "new"}], schema=PARENT)])
    names = draw(st.lists(st.sampled_from(PARENT.names), min_size=1, unique=True))
    child = child.select(names)
    for name in draw(st.sets(st.sampled_from(sorted(OTHER_TYPES)))) & {*names}:
        child = child.set_column(names.index(name), name, child[name].cast(OTHER_TYPES[name]))
    mine = {name: name.swapcase() if draw(st.booleans()) else name for name in names}
    if draw(st.integers(0, 3)) == 0:
        mine[names[0]] = "renamed"
    return child.rename_columns([mine[name] for name in names]), {mine[name]: name for name in names}


def whole(_: st.DrawFn, table: pa.Table) -> pa.Table:
    return table


def ranged(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    name = draw(st.sampled_from(["n", "day", "at"]))
    low, high = sorted((draw(CELLS[name]), draw(CELLS[name])))
    bounds = [pa.scalar(value, PARENT.field(name).type) for value in (low, high)]
    return table.filter(pc.and_(pc.greater_equal(table[name], bounds[0]), pc.less_equal(table[name], bounds[1])))


def listed(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    name = draw(st.sampled_from(["kind", "flag", "n"]))
    values = draw(st.lists(CELLS[name], min_size=1, max_size=2))
    return table.filter(pc.is_in(table[name], pa.array(values, PARENT.field(name).type)))


def sampled(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    return table.take(pa.array(sorted(draw(st.sets(st.integers(0, table.num_rows - 1)))), pa.int64()))


@settings(max_examples=30)
@given(st.data())
def test_what_a_recipe_makes_is_what_it_was_found_for(data: st.DataObject) -> None:
    parent = data.draw(parents_tables())
    child, columns = data.draw(derived(parent))
    n_files = data.draw(st.integers(1, 3))
    with tempfile.TemporaryDirectory() as home:
        config = Settings(home=Path(home))
        lake = Lake.open(config)
        above, below = put(lake, "p", split(parent, n_files)), put(lake, "c", split(child, n_files))
        shared = rows_of(child) & rows_of(
            parent.select([*columns.values()]).cast(pa.schema([f.with_name(columns[f.name]) for f in child.schema]), safe=False)
        )
        if not shared:
            with pytest.raises(NoRecipe):
                find(lake, config, below, above, columns=[*columns.items()])
            return
        recipe = find(lake, config, below, above, columns=[*columns.items()])
        check(lake, config, recipe, below)
        assert (recipe.residual.n_rows if recipe.residual else 0) == child.num_rows - shared.total()


@settings(max_examples=12)
@given(st.data())
def test_the_recipe_does_not_depend_on_files_or_order(data: st.DataObject) -> None:
    parent = data.draw(parents_tables())
    child, columns = data.draw(derived(parent))
    found = list[Recipe | str]()
    for n_files in (1, 3):
        with tempfile.TemporaryDirectory() as home:
            config = Settings(home=Path(home))
            config.private_dir.mkdir()
            (config.private_dir / "secret").write_text("00" * 32)
            lake = Lake.open(config)
            order = pa.array(data.draw(st.permutations(range(parent.num_rows))), pa.int64())
            above, below = put(lake, "p", split(parent.take(order), n_files)), put(lake, "c", split(child, n_files))
            try:
                found.append(find(lake, config, below, above, columns=[*columns.items()]))
            except NoRecipe as error:
                found.append(str(error))
    one, other = found
    assert repr(one) == repr(other)


# --- by eye --------------------------------------------------------------------------------------------------------------------


def orders(n_rows: int = 40) -> pa.Table:
    """Orders of eight people: numbered, five days, two shops, a status."""
    days = [dt.date(2024, 1, 1) + dt.timedelta(i % 5) for i in range(n_rows)]
    return pa.table(
        {
            "n": pa.array(range(n_rows), pa.int64()),
            "day": days,
            "shop": [("north", "south")[i % 2] for i in range(n_rows)],
            "status": [("new", "paid", "sent")[i % 3] for i in range(n_rows)],
            "who": [f"person {i % 8}" for i in range(n_rows)],
        }
    )


def test_a_projection_is_the_whole_of_some_columns(lake: Lake, config: Settings) -> None:
    table = orders()
    parent, child = put(lake, "p", split(table, 3)), put(lake, "c", [table.select(["shop", "n"])])
    recipe = find(lake, config, child, parent)
    assert (recipe.kind, recipe.terms, recipe.members, recipe.residual) == ("projection", (), None, None)
    assert recipe.columns == (("shop", "shop"), ("n", "n")) and recipe.parents == (parent,)
    check(lake, config, recipe, child)


def test_equal_tables_need_no_look_at_the_parent(lake: Lake, config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    table = orders()
    parent, child = put(lake, "p", [table]), put(lake, "c", split(table, 2))
    monkeypatch.setattr(finding.passes, "count", None)
    recipe = find(lake, config, child, parent)
    monkeypatch.undo()
    check(lake, config, recipe, child)


@pytest.mark.parametrize(
    ("rows", "terms"),
    [
        (pc.field("n") < 17, (Term("n", 0, 16),)),
        (pc.field("day") == dt.date(2024, 1, 2), (Term("day", values=(dt.date(2024, 1, 2),)),)),
        (pc.field("status").isin(["new", "sent"]), (Term("status", values=("new", "sent")),)),
        ((pc.field("shop") == "north") & (pc.field("n") >= 20), (Term("shop", values=("north",)), Term("n", 20, 38))),
        (
            (pc.field("shop") == "north") & (pc.field("status") == "new") & (pc.field("n") < 30),
            (Term("status", values=("new",)), Term("shop", values=("north",)), Term("n", 0, 24)),
        ),
    ],
    ids=["range", "equality", "in", "two", "three"],
)
def test_a_predicate_is_found_by_its_columns(lake: Lake, config: Settings, rows: Any, terms: tuple[Term, ...]) -> None:
    table = orders()
    parent, child = put(lake, "p", split(table, 3)), put(lake, "c", [table.filter(rows)])
    recipe = find(lake, config, child, parent)
    assert (recipe.kind, recipe.members, recipe.residual) == ("predicate", None, None)
    assert {term.column for term in recipe.terms} == {term.column for term in terms}
    assert set(recipe.terms) == set(terms)
    check(lake, config, recipe, child)


def test_nulls_alone_are_a_predicate(lake: Lake, config: Settings) -> None:
    table = pa.table({"a": pa.array([None, 1, None, 2]), "b": pa.array([1, 1, 2, 2])})
    parent, child = put(lake, "p", [table]), put(lake, "c", [table.filter(pc.is_null(table["a"]))])
    recipe = find(lake, config, child, parent)
    assert recipe.terms == (Term("a", nulls=True),)
    check(lake, config, recipe, child)


def test_a_sample_is_kept_by_its_hashes(lake: Lake, config: Settings) -> None:
    table = pa.concat_tables([orders(), orders(3)])  # the first three orders twice
    parent = put(lake, "p", split(table, 4))
    child = put(lake, "c", [table.take([0, 1, 1, 5, 17, 38]), table.take([40])])  # order 0 twice: once of each copy
    recipe = find(lake, config, child, parent)
    assert recipe.kind == "membership" and recipe.residual is None and recipe.members is not None
    listed = lake.read(recipe.members)
    assert kept_bytes(lake, recipe) == sum(part.file.n_bytes for part in lake.parts(recipe.members))
    assert listed.schema.names == ["low", "high", "n"] and sorted(listed["n"].to_pylist()) == [1, 1, 1, 2, 2]
    check(lake, config, recipe, child)


def test_rows_that_the_parents_lack_are_residual(lake: Lake, config: Settings) -> None:
    table, extra = orders(), pa.Table.from_pylist([{"n": 99, "day": dt.date(2025, 1, 1), "shop": "east"}], schema=orders().schema)
    parent, child = put(lake, "p", [table]), put(lake, "c", [table.slice(5, 20), extra])
    recipe = find(lake, config, child, parent)
    assert recipe.kind == "predicate" and recipe.terms == (Term("n", 5, 24),) and recipe.residual is not None
    assert lake.read(recipe.residual)["n"].to_pylist() == [99]
    assert lake.schema(recipe.residual) == lake.schema(child)
    check(lake, config, recipe, child)


def test_copies_that_the_parents_have_too_few_of_are_residual(lake: Lake, config: Settings) -> None:
    table = orders()
    parent, child = put(lake, "p", [table]), put(lake, "c", [table, table.slice(7, 1), table.slice(7, 1)])
    recipe = find(lake, config, child, parent)
    assert recipe.kind == "membership" and recipe.residual is not None and recipe.residual.n_rows == 2
    check(lake, config, recipe, child)


def test_a_cover_is_the_union_of_its_parents(lake: Lake, config: Settings) -> None:
    table = orders()
    months = [put(lake, name, [part]) for name, part in zip(("a", "b"), (table.slice(0, 15), table.slice(15)), strict=True)]
    year = put(lake, "year", [table.rename_columns(["N", *table.column_names[1:]])])
    some = put(lake, "some", [table.take([3, 14, 15, 22])])
    whole, listed = find(lake, config, year, *months), find(lake, config, some, *months)
    assert (whole.kind, listed.kind) == ("projection", "membership")
    check(lake, config, whole, year)
    check(lake, config, listed, some)


def test_types_and_names_of_the_child_come_back(lake: Lake, config: Settings) -> None:
    parent = put(lake, "p", [pa.table({"Id": pa.array([1, 2, 3]), "price": pa.array([Decimal("1.10"), None, Decimal("2.00")])})])
    mine = pa.table({"price": pa.array([Decimal("1.1"), None], pa.decimal128(20, 4)), "number": pa.array([1, 2], pa.int32())})
    child = put(lake, "c", [mine])
    recipe = find(lake, config, child, parent, columns=[("number", "id"), ("price", "price")])
    assert recipe.columns == (("price", "price"), ("number", "Id"))
    check(lake, config, recipe, child)
    made, _ = made_of(lake, config, recipe)
    assert [str(kind) for kind in made.schema.types] == ["int64", "decimal128(20, 4)", "int32"]


# --- privacy -------------------------------------------------------------------------------------------------------------------


def people(**section: Any) -> TableSettings:
    return TableSettings.model_validate({"source": "-", **section})


@pytest.mark.parametrize("where", ["child", "parent", "log"])
def test_no_term_is_on_a_private_column(lake: Lake, tmp_path: Path, where: str) -> None:
    table = orders()
    mine = table.filter(pc.field("who") == "person 3")
    said = [["person", "WHO"]] if where == "log" else []
    parent = put(lake, "p", [table], subjects=said)
    child = put(lake, "c", [mine])
    named = people(subject={"kind": "person", "column": "who"})
    tables = {"c": named if where == "child" else people(), "p": named if where == "parent" else people()}
    open_config = Settings(home=tmp_path, tables={"c": people(), "p": people()})
    if where != "log":
        assert find(lake, open_config, child, parent).terms == (Term("who", values=("person 3",)),)
    recipe = find(lake, Settings(home=tmp_path, tables=tables), child, parent)
    assert recipe.kind == "membership" and "person 3" not in as_json(recipe)


def test_no_term_is_on_a_text_or_on_names(lake: Lake, tmp_path: Path) -> None:
    table = pa.table({"n": range(9), "text": [f"note {i}" for i in range(9)], "name": [f"name {i}" for i in range(9)]})
    parent = put(lake, "p", [table])
    child = put(lake, "c", [table.take([1, 4]).drop_columns(["n"])])
    config = Settings(home=tmp_path, tables={"c": people(text="text"), "p": people(text="text")})
    recipe = find(lake, config, child, parent)
    assert recipe.kind == "membership" and "note" not in as_json(recipe) and "name 1" not in as_json(recipe)
    same = table.set_column(1, "text", pa.array(["note 7"] * 5 + ["other"] * 4))
    above, below = put(lake, "p", [same]), put(lake, "c", [same.slice(0, 5).select(["text"])])
    assert find(lake, Settings(home=tmp_path), below, above).terms == (Term("text", values=("note 7",)),)
    assert find(lake, config, below, above).kind == "membership"
    _, files = made_of(lake, config, recipe)
    assert all("min" not in bounds for file in files for bounds in file.stats.values())


def test_bounds_of_private_columns_stay_out_of_the_log(lake: Lake, tmp_path: Path) -> None:
    table = orders()
    parent, child = put(lake, "p", [table]), put(lake, "c", [table.slice(4, 6)])
    config = Settings(home=tmp_path, tables={"c": people(subject={"kind": "person", "column": "n"}), "p": people()})
    recipe = find(lake, config, child, parent)
    _, files = made_of(lake, Settings(home=tmp_path), recipe)  # lethe.toml may have forgotten the table by then
    assert {name for file in files for name, bounds in file.stats.items() if "min" in bounds} == {"day"}


# --- how files are laid out ----------------------------------------------------------------------------------------------------


def test_partitions_come_back(lake: Lake, config: Settings) -> None:
    table = orders()
    schema = table.schema.insert(0, pa.field("row_id", pa.int64()))
    files = list[DataFile]()
    for shop in ("north", "south"):
        mine = table.filter(pc.field("shop") == shop)
        ids = row_ids("c", row_hashes(mine, table.column_names, lake.keys.row), lake.keys.row)
        rows = mine.add_column(0, "row_id", pa.array(ids)).to_batches()
        folder = lake.folder("records/c")
        files.append(write_part(folder, rows, schema, digest_columns=table.column_names, partition={"shop": shop}))
    lineage = Lineage("test", "c", "")
    child = lake.commit("records/c", schema, files, lineage=lineage, partition_by=["shop"])
    recipe = find(lake, config, child, put(lake, "p", split(table, 2)))
    made, again = made_of(lake, config, recipe)
    assert recipe.partition_by == ("shop",) and {file.partition["shop"] for file in again} == {"north", "south"}
    assert all(file.n_rows in (10, 20) for file in again) and made.num_rows == 40
    with connect(None) as workers:
        written = rebuild(lake, config, recipe, workers=workers, folder=lake.folder("records/c"))
    back = lake.commit("records/c", schema_of(recipe), written, lineage=lineage, overwrite=True, partition_by=recipe.partition_by)
    assert back.digest == child.digest and rows_of(lake.read(back)) == rows_of(lake.read(child))


def test_rows_of_one_raw_file_name_it_again(lake: Lake, config: Settings) -> None:
    table = orders()
    parent = put(lake, "p", [table])
    one = put(lake, "one", split(table.slice(3, 9), 2), sources=["/raw/one.csv"] * 2)
    two = put(lake, "two", split(table.slice(3, 9), 2), sources=["/raw/a.csv", "/raw/b.csv"])
    entries = pa.Table.from_pylist(
        [{"table": "one", "uri": "/raw/one.csv"}, {"table": "two", "uri": "/raw/a.csv"}], schema=SOURCES
    )
    ledger = write_part(lake.folder("sources"), entries.to_batches(), SOURCES)
    lake.commit("sources", SOURCES, [ledger], lineage=Lineage("test", "s", ""))
    found = [find(lake, config, child, parent) for child in (one, two)]
    assert [recipe.source for recipe in found] == [source_key("/raw/one.csv"), ""]
    assert [{file.source for file in made_of(lake, config, recipe)[1]} for recipe in found] == [
        {source_key("/raw/one.csv")},
        {""},
    ]


def test_members_in_many_ranges_and_files(lake: Lake, config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"n": pa.array(range(3000)), "m": pa.array([i % 7 for i in range(3000)])})
    child_rows = table.filter(pc.equal(pc.bit_wise_and(pc.multiply(table["n"], 2654435761), 4), 4))
    parent, child = put(lake, "p", split(table, 5)), put(lake, "c", split(child_rows, 3))
    monkeypatch.setattr(finding, "RUN_ROWS", 100)
    monkeypatch.setattr(finding, "_SENT_BYTES", 0)
    monkeypatch.setattr(finding.Bench.__init__, "__defaults__", (10_000,))
    recipe = find(lake, config, child, parent)
    assert recipe.kind == "membership" and recipe.members is not None and len(lake.parts(recipe.members)) > 10
    check(lake, config, recipe, child)


def test_workers_may_be_elsewhere_and_run_twice(lake: Lake, config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    table, stranger = orders(), pa.Table.from_pylist([{"n": 99}], schema=orders().schema)
    parent, child = put(lake, "p", split(table, 3)), put(lake, "c", [table.take([1, 5, 17]), stranger])
    monkeypatch.setattr(finding, "_SENT_BYTES", 0)
    workers = Elsewhere()
    recipe = find_recipe(lake, config, child, [parent], workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        files = rebuild(lake, config, recipe, workers=workers, folder=folder)
        assert str(fingerprint_of(files)) == child.digest
        assert rows_of(read_back(folder, recipe, files)) == rows_of(lake.read(child))


# --- refusals ------------------------------------------------------------------------------------------------------------------


def test_what_has_no_recipe_says_why(lake: Lake, config: Settings) -> None:
    parent = put(lake, "p", [orders()])
    strangers = put(lake, "s", [pa.table({"n": pa.array([100, 101]), "secret": ["x", "y"]})])
    others = put(lake, "o", [pa.table({"n": pa.array([100, 101])})])
    alike = put(lake, "a", [pa.table({"n": pa.array([1])})])
    for child, why in ((strangers, "lack the columns secret"), (others, "has none of its rows"), (parent, "other tables")):
        with pytest.raises(NoRecipe, match=why):
            find(lake, config, child, parent)
    schema = lake.schema(alike)
    forged = write_part(lake.folder("records/a"), pa.table({"row_id": [5], "n": [1]}).to_batches(), schema, digest_columns=["n"])
    forged_child = lake.commit("records/a", schema, [forged], lineage=Lineage("test", "a", ""), overwrite=True)
    with pytest.raises(NoRecipe, match="row ids"):
        find(lake, config, forged_child, parent)
    assert not lake.exists("residual/o")


# --- parents that move ---------------------------------------------------------------------------------------------------------


def renew(lake: Lake, config: Settings, recipe: Recipe, *, erased: bool = False) -> Recipe:
    with connect(None) as workers:
        return renewed(lake, config, recipe, erased=erased, workers=workers)


def test_a_parent_that_moved_still_gives_the_child(lake: Lake, config: Settings) -> None:
    table = orders()
    child = put(lake, "c", [table.slice(5, 20)])
    recipe = find(lake, config, child, put(lake, "p", [table]))
    more = put(lake, "p", [pa.concat_tables([table, table.slice(6, 1)])])  # one more row between 5 and 24
    now = renew(lake, config, recipe)
    assert (now.kind, now.digest, now.parents) == ("membership", recipe.digest, (more,))
    check(lake, config, now, child)
    less = put(lake, "p", [table.slice(8)])
    last = renew(lake, config, now)
    assert last.residual is not None and last.residual.n_rows == 3 and last.parents == (less,)
    check(lake, config, last, child)
    nothing = put(
        lake,
        "p",
        [pa.table({name: pa.array([], kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)})],
    )
    gone = renew(lake, config, last)
    assert gone.residual is not None and gone.residual.n_rows == 20 and gone.parents == (nothing,)
    check(lake, config, gone, child)


def test_a_parent_written_anew_with_the_same_rows_changes_only_the_version(lake: Lake, config: Settings) -> None:
    table = orders()
    child = put(lake, "c", [table.slice(5, 20)])
    recipe = find(lake, config, child, put(lake, "p", [table]))
    put(lake, "p", split(table, 4))
    with lake.writing():
        lake.purge(["records/p"])  # the version that the recipe names is gone
    assert parents_readable(lake, recipe)
    check(lake, config, recipe, child)
    assert renew(lake, config, recipe) == replace(recipe, parents=(lake.snapshot("records/p"),))


def test_whether_a_recipe_can_be_followed_is_seen_in_the_files(lake: Lake, config: Settings) -> None:
    table = orders()
    child = put(lake, "c", [table.take([1, 5, 17])])
    recipe = find(lake, config, child, put(lake, "p", [table]))
    assert parents_readable(lake, recipe)
    put(lake, "p", [table.slice(3)])
    assert parents_readable(lake, recipe)
    with lake.writing():
        lake.purge(["records/p"])
    assert not parents_readable(lake, recipe)


@settings(max_examples=25)
@given(st.data())
def test_after_an_erasure_the_recipe_makes_what_the_child_would_have_kept(data: st.DataObject) -> None:
    """The child lacks the person's column: along a contained multiset it keeps as many of a row as the parent does."""
    people_of = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20))
    parent = pa.table({"who": pa.array([w for w, _ in people_of]), "v": pa.array([v for _, v in people_of])})
    child = data.draw(st.sampled_from([whole, sampled]))(data.draw, parent).select(["v"])
    gone = data.draw(st.integers(0, 2))
    with tempfile.TemporaryDirectory() as home:
        config = Settings(home=Path(home), tables={"p": people(subject={"kind": "person", "column": "who"})})
        lake = Lake.open(config)
        if not child.num_rows:
            return
        recipe = find(lake, config, put(lake, "c", [child]), put(lake, "p", split(parent, 2)))
        left = parent.filter(pc.field("who") != gone)
        put(lake, "p", [left])
        now = renew(lake, config, recipe, erased=True)
        made, files = made_of(lake, config, now)
        assert rows_of(made.select(["v"])) == rows_of(child) & rows_of(left.select(["v"]))
        assert str(fingerprint_of(files)) == now.digest and now.n_rows == made.num_rows


def test_copies_of_an_erased_row_are_not_left_in_the_residual(lake: Lake, config: Settings) -> None:
    table = orders()
    child = put(
        lake,
        "c",
        [table.slice(0, 9), table.slice(7, 1), pa.table({**table.slice(0, 1).to_pydict(), "n": [77]}).cast(table.schema)],
    )
    recipe = find(lake, config, child, put(lake, "p", [table]))
    assert recipe.residual is not None and sorted(lake.read(recipe.residual)["n"].to_pylist()) == [7, 77]
    put(lake, "p", [table.filter(pc.field("n") != 7)])
    with lake.writing():
        lake.purge(["records/p"])  # as an erasure does: the version that the recipe names is gone
    now = renew(lake, config, recipe, erased=True)
    assert now.residual is not None and lake.read(now.residual)["n"].to_pylist() == [77]
    made, _ = made_of(lake, config, now)
    assert sorted(made["n"].to_pylist()) == [0, 1, 2, 3, 4, 5, 6, 8, 77]


def test_a_bound_that_only_an_erased_row_had_is_forgotten(lake: Lake, config: Settings) -> None:
    table = orders()
    recipe = find(lake, config, put(lake, "c", [table.slice(5, 20)]), put(lake, "p", split(table, 2)))
    assert recipe.terms == (Term("n", 5, 24),)
    put(lake, "p", [table.filter(~pc.field("n").isin([5, 6, 13]))])
    now = renew(lake, config, recipe, erased=True)
    assert now.terms == (Term("n", 7, 24),) and now.n_rows == 17
    assert sorted(made_of(lake, config, now)[0]["n"].to_pylist()) == [n for n in range(7, 25) if n != 13]
    put(lake, "p", [table.slice(30)])
    nobody = renew(lake, config, now, erased=True)
    assert nobody.terms == (Term("n"),) and nobody.n_rows == 0
    assert made_of(lake, config, nobody)[1] == []


def test_rows_that_came_with_an_erasure_are_refused(lake: Lake, config: Settings) -> None:
    table = orders()
    child = put(lake, "c", [table.slice(5, 20)])
    recipe = find(lake, config, child, put(lake, "p", [table]))
    put(lake, "p", [table, table.slice(6, 1)])
    with pytest.raises(NoRecipe, match="before the erasure"):
        renew(lake, config, recipe, erased=True)
