"""The catalogue: write-read identity, atomic commits, digests that hold, retries that do nothing, purges that leave nothing."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import delta as deltas
from infra import lease, purge
from infra.contracts import CommitConflict, DataFile, LetheError, Lineage, Snapshot, StaleSnapshot, UnknownTable
from infra.files import MissingFile, Part, parse_name, read_part, read_part_table, source_key, write_part
from infra.ids import Digest
from infra.lake import Lake, no_table
from infra.lease import LeaseLost
from infra.lineage import code_digest, stage_key
from infra.purge import TidyReport
from infra.rowhash import row_hashes
from infra.settings import load_settings

TABLE = "records/t"
ROWS = pa.table({"row_id": pa.array([1, 2, 3], pa.int64()), "x": [10, 20, None], "name": ["a", "b", "c"]})


def put(lake: Lake, rows: pa.Table, *, key: str = "k", table: str = TABLE, **options: Any) -> Snapshot:
    file = write_part(lake.folder(table), rows.to_batches(), rows.schema, stats=["x"] if "x" in rows.schema.names else [])
    return lake.commit(table, rows.schema, [file], lineage=Lineage("test", key, "code"), **options)


def digest_of(lake: Lake, rows: pa.Table) -> str:
    return str(Digest.of(row_hashes(rows, rows.schema.names, lake.keys.row)))


def rows_of(lake: Lake, snapshot: Snapshot, column: str = "row_id") -> Sequence[Any]:
    return sorted(lake.read(snapshot)[column].to_pylist())


# --- write-read identity ----------------------------------------------------------------------------------------------


def test_what_is_written_is_read(make_lake: Callable[..., Lake]) -> None:
    rows = ROWS.append_column(
        "when", pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)] * 3, pa.timestamp("us", "UTC"))
    )
    rows = rows.append_column("tags", pa.array([["a"], [], None], pa.list_(pa.string())))
    lake = make_lake()
    snapshot = put(lake, rows)
    assert lake.read(snapshot).to_pylist() == rows.to_pylist()
    assert snapshot == Snapshot(TABLE, 0, digest_of(lake, rows), 3)
    assert lake.snapshot(TABLE) == snapshot


@given(cuts=st.lists(st.integers(0, 30), max_size=4), order=st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=8)
def test_a_digest_does_not_see_files_or_order(make_lake: Callable[..., Lake], cuts: list[int], order: Any) -> None:
    lake = make_lake()
    ids = list(range(30))
    whole = pa.table({"row_id": pa.array(ids, pa.int64()), "x": [i % 4 for i in ids]})
    order.shuffle(ids)
    shuffled = whole.take(ids)
    edges = [0, *sorted(cuts), 30]
    files = [
        write_part(lake.folder(TABLE), shuffled.slice(a, b - a).to_batches(), whole.schema) for a, b in itertools.pairwise(edges)
    ]
    snapshot = lake.commit(TABLE, whole.schema, files, overwrite=True, lineage=Lineage("test", "k", "c"))
    assert snapshot.digest == digest_of(lake, whole)


def test_the_log_tells_exact_bounds_of_the_named_columns_only(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    rows = pa.table(
        {
            "row_id": pa.array([1, 2], pa.int64()),
            "Sepal.Length": [1.5, 2.25],
            "a, b": pa.array([2**53 + 1, None], pa.int64()),
            "nan": [float("nan"), 1.0],
            "day": [dt.date(1066, 10, 14), dt.date(9999, 1, 1)],
            "at": pa.array([1, 1_500_001], pa.timestamp("us")),
            "secret": ["aaa-private", "zzz-private"],
        }
    )
    file = write_part(lake.folder(TABLE), rows.to_batches(), rows.schema, stats=["Sepal.Length", "a, b", "nan", "day", "at"])
    snapshot = lake.commit(TABLE, rows.schema, [file], lineage=Lineage("test", "k", "c"))
    (part,) = lake.parts(snapshot)
    assert part.file.stats["Sepal.Length"] == {"min": 1.5, "max": 2.25, "n_nulls": 0}
    assert part.file.stats["a, b"] == {"min": 2**53 + 1, "max": 2**53 + 1, "n_nulls": 1}
    assert "min" not in part.file.stats.get("nan", {})
    assert part.file.stats["day"]["min"] == "1066-10-14"
    assert part.file.stats["at"]["max"].startswith("1970-01-01T00:00:01.500001")
    assert b"private" not in b"".join(p.read_bytes() for p in Path(lake.uri(TABLE)).rglob("*.json"))


def test_names_of_files_tell_digest_and_source(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    file = write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema, source="s3://raw/posts.jsonl")
    assert parse_name(file.path) == (Digest.parse(file.digest), source_key("s3://raw/posts.jsonl"))
    assert parse_name("part-00000-foreign.snappy.parquet") is None
    assert "posts" not in file.path


def test_dictionaries_keep_no_absent_value(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    encoded = pa.table(
        {"row_id": pa.array([1, 2], pa.int64()), "who": pa.array(["kept", "gone-for-ever"]).dictionary_encode()}
    ).slice(0, 1)
    schema = pa.schema([("row_id", pa.int64()), ("who", pa.string())])
    file = write_part(lake.folder(TABLE), encoded.to_batches(), schema)
    assert b"gone-for-ever" not in (Path(lake.uri(TABLE)) / file.path).read_bytes()


def test_reading_conforms_to_the_table(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    snapshot = put(lake, ROWS.append_column("new", pa.array(["n"] * 3)))
    read = lake.read(snapshot, ["row_id", "new"])
    assert sorted(read["new"].to_pylist(), key=str) == ["n", "n", "n", *[None] * 3][0:0] + [None] * 3 + ["n"] * 3
    batches = [b for part in lake.parts(snapshot) for b in read_part(part, ["new"])]
    assert {b.schema.field(0).type for b in batches} == {pa.string()}


# --- commits ----------------------------------------------------------------------------------------------------------


def test_adding_and_removing_files_is_arithmetic_on_digests(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    first = put(lake, ROWS)
    both = put(lake, ROWS)
    assert both.n_rows == 6
    (old, _) = (p.file for p in lake.parts(both))
    one = put(lake, ROWS.slice(0, 1), remove=[old])
    assert one.n_rows == 4
    assert str(Digest.parse(one.digest) - Digest.parse(first.digest)) == digest_of(lake, ROWS.slice(0, 1))


def test_a_repeated_commit_is_a_no_op(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    first = put(lake, ROWS, app_id="one")
    assert put(lake, ROWS, app_id="one") == first
    assert put(lake, ROWS, app_id="two").n_rows == 6


def test_a_commit_planned_on_rows_that_moved_is_refused(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    seen = put(lake, ROWS)
    (part,) = lake.parts(seen)
    put(lake, ROWS, overwrite=True, key="other")
    put(lake, ROWS)
    with pytest.raises(CommitConflict, match="moved"):
        put(lake, ROWS, expect=seen)
    with pytest.raises(CommitConflict, match="no longer part"):
        put(lake, ROWS, remove=[part.file])


def test_a_file_that_is_not_whole_is_never_committed(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    file = write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema)
    (Path(lake.uri(TABLE)) / file.path).write_bytes(b"PAR1")
    with pytest.raises(LetheError, match="now has 4"):
        lake.commit(TABLE, ROWS.schema, [file], lineage=Lineage("test", "k", "c"))
    assert not lake.exists(TABLE)


def test_writers_at_once_lose_nothing(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put(lake, ROWS, key=str(n)), range(8)))
    snapshot = lake.snapshot(TABLE)
    assert snapshot.n_rows == 27
    assert snapshot.digest == digest_of(lake, lake.read(snapshot))


def test_a_changed_type_is_refused_and_names_both(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    with pytest.raises(LetheError, match=r"column x .*long.*string"):
        put(lake, ROWS.set_column(1, "x", pa.array(["a", "b", "c"])))


def test_an_overwrite_may_change_the_schema_and_may_be_empty(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    narrow = ROWS.select(["row_id"])
    assert lake.read(put(lake, narrow, overwrite=True)).schema.names == ["row_id"]
    empty = lake.commit(TABLE, narrow.schema, [], overwrite=True, lineage=Lineage("test", "e", "c"))
    assert (empty.n_rows, lake.read(empty).num_rows) == (0, 0)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_an_output_is_found_by_its_key(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    first = put(lake, ROWS, key="one")
    second = put(lake, ROWS.slice(1), key="two", overwrite=True)
    assert lake.find(TABLE, "one") == first
    assert lake.find(TABLE, "two") == second
    assert lake.find(TABLE, "three") is None
    assert lake.find("records/nothing", "one") is None
    assert rows_of(lake, first) == [1, 2, 3]


def test_an_output_whose_files_are_gone_is_not_found(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    first = put(lake, ROWS, key="one")
    (part,) = lake.parts(first)
    put(lake, ROWS.slice(1), key="two", overwrite=True)
    Path(part.uri).unlink()
    assert lake.find(TABLE, "one") is None
    with pytest.raises(MissingFile, match="is gone"):
        read_part_table(part)


def test_keys_depend_on_digests_not_on_versions() -> None:
    a, b = Snapshot("t", 1, "1:00", 1), Snapshot("t", 9, "1:00", 1)
    assert stage_key("s", "c", [a], {"p": 1}) == stage_key("s", "c", [b], {"p": 1})
    assert len({stage_key("s", "c", [a], {"p": 1}), stage_key("s", "d", [a], {"p": 1}), stage_key("s", "c", [a], {"p": 2})}) == 3


def test_code_digests_cover_packages_and_modules() -> None:
    assert code_digest("infra.ids") != code_digest("infra")
    assert code_digest("infra.ids", "infra.contracts") == code_digest("infra.contracts", "infra.ids")


def test_lineage_is_read_back(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    source = put(lake, ROWS)
    told = Lineage("test", "k2", "code", (source,), {"seed": 1}, {"n_kept": 2})
    file = write_part(lake.folder("selection/d"), ROWS.to_batches(), ROWS.schema)
    assert lake.lineage(lake.commit("selection/d", ROWS.schema, [file], lineage=told)) == told


def test_old_versions_tell_their_own_digest_and_lineage(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    made = [put(lake, ROWS.slice(n), key=str(n), overwrite=True) for n in range(3)]
    for n, snapshot in enumerate(made):
        assert lake.snapshot(TABLE, snapshot.version) == snapshot
        assert lake.lineage(snapshot).key == str(n)
    with lake.writing():
        lake.purge([TABLE])
    assert lake.lineage(lake.snapshot(TABLE)).key == "2"


# --- names and errors -------------------------------------------------------------------------------------------------


def test_tables_are_listed_by_prefix(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    for name in ("records/b", "records/exports/2024/jan", "selection/b"):
        put(lake, ROWS, table=name)
    assert lake.tables("records") == ["records/b", "records/exports/2024/jan"]
    assert len(lake.tables()) == 3


@pytest.mark.parametrize("name", ["../outside", "records/../../etc", "", "a//b", "."])
def test_names_cannot_leave_the_lake(make_lake: Callable[..., Lake], name: str) -> None:
    with pytest.raises(UnknownTable):
        make_lake().uri(name)


def test_errors_name_the_table_and_the_oldest_version(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    with pytest.raises(UnknownTable, match="records/nothing"):
        lake.snapshot("records/nothing")
    put(lake, ROWS)
    with pytest.raises(StaleSnapshot, match=r"records/t@7 is gone; the oldest readable version is 0"):
        lake.snapshot(TABLE, 7)


# --- purging ----------------------------------------------------------------------------------------------------------


def test_a_purge_leaves_the_rows_and_nothing_else(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS, key="one")
    kept = put(lake, ROWS.slice(1), key="two", overwrite=True)
    folder = Path(lake.uri(TABLE))
    pq.write_table(ROWS, folder / "orphan.parquet")
    (folder / "_x").mkdir()
    pq.write_table(ROWS, folder / "_x" / "hidden.parquet")
    (folder / "_delta_log" / "00000000000000000000.crc").write_text("old")
    (folder / "_delta_log" / "_commit.json.tmp").write_text("old")
    with lake.writing():
        (report,) = lake.purge([TABLE])
    after = lake.snapshot(TABLE)
    assert (after.digest, rows_of(lake, after)) == (kept.digest, [2, 3])
    assert lake.find(TABLE, "one") is None
    assert lake.find(TABLE, "two") == after
    assert report.version_before == kept.version < report.version
    assert report.n_files_deleted == 3
    (part,) = lake.parts(after)
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "_delta_log" not in p.parts}
    assert names == {part.file.path}
    versions = sorted(p.name[:20] for p in (folder / "_delta_log").iterdir() if p.name != "_last_checkpoint")
    assert int(versions[0]) >= report.version - 1
    with pytest.raises(StaleSnapshot):
        lake.snapshot(TABLE, 0)
    assert put(lake, ROWS).n_rows == 5


def test_scratch_is_removed_and_what_a_killed_run_left_is_cleared(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    with lake.scratch() as uri:
        (Path(uri) / "part.parquet").write_bytes(b"x")
    assert not Path(uri).exists()
    left = Path(lake.root) / "_scratch" / "dead"
    left.mkdir(parents=True)
    (left / "part.parquet").write_bytes(b"x")
    assert lake.clear_scratch() == 1
    assert not left.exists()


def test_parts_are_picklable(make_lake: Callable[..., Lake]) -> None:
    import pickle  # noqa: PLC0415

    lake = make_lake()
    (part,) = lake.parts(put(lake, ROWS))
    again: Part = pickle.loads(pickle.dumps(part))
    assert read_part_table(again).equals(read_part_table(part))
    assert isinstance(again.file, DataFile)


# --- what a review found -------------------------------------------------------------------------------------------------------


def test_a_purge_does_not_reach_a_table_whose_name_goes_on(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS, table="records/exports/2024")
    inner = put(lake, ROWS, table="records/exports/2024/jan")
    with lake.writing():
        lake.purge(["records/exports/2024"])
    assert rows_of(lake, inner) == [1, 2, 3]
    assert lake.tables("records/exports/2024") == ["records/exports/2024", "records/exports/2024/jan"]


def test_a_reused_output_is_the_newest_again_and_survives_a_purge(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    first = put(lake, ROWS, key="one")
    put(lake, ROWS.slice(1), key="two", overwrite=True)
    again = lake.reuse(TABLE, "one")
    assert again is not None
    assert lake.snapshot(TABLE) == again
    assert (again.digest, lake.lineage(again).key) == (first.digest, "one")
    assert lake.reuse(TABLE, "one") == again
    assert lake.reuse(TABLE, "three") is None
    with lake.writing():
        lake.purge([TABLE])
    assert rows_of(lake, lake.snapshot(TABLE)) == [1, 2, 3]


def test_a_reused_output_may_share_files_with_the_newest(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS, key="one")
    put(lake, ROWS.slice(1), key="two")
    again = lake.reuse(TABLE, "one")
    assert again is not None
    assert rows_of(lake, again) == [1, 2, 3]


def test_derived_tables_can_be_dropped_and_records_cannot(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS, table="scores/x")
    lake.drop("scores/x")
    assert lake.tables() == []
    put(lake, ROWS)
    for name in (TABLE, "requests", "certificates"):
        with pytest.raises(LetheError, match="not a derived table"):
            lake.drop(name)


def test_files_of_a_table_that_never_came_to_be_are_swept(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    write_part(lake.folder("records/exports/killed"), ROWS.to_batches(), ROWS.schema)
    assert lake.sweep() == 1
    assert lake.sweep() == 0
    assert not Path(lake.uri("records/exports/killed")).exists()
    assert rows_of(lake, lake.snapshot(TABLE)) == [1, 2, 3]


def test_another_secret_is_refused(make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    put(make_lake(), ROWS)
    monkeypatch.setenv("LETHE_SECRET", "cd" * 32)
    with pytest.raises(LetheError, match="another secret"):
        make_lake()


def test_a_purge_killed_half_way_is_healed_by_the_next_commit(
    make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake()
    put(lake, ROWS)
    monkeypatch.setattr(purge, "vacuum", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with lake.writing(), pytest.raises(KeyboardInterrupt):
        lake.purge([TABLE])
    put(lake, ROWS)
    log = "".join(p.read_text() for p in sorted((Path(lake.uri(TABLE)) / "_delta_log").glob("*.json"))[-2:])
    assert "interval 30 days" in log
    assert lake.snapshot(TABLE).n_rows == 6


# --- partitions ---------------------------------------------------------------------------------------------------------------


def by_city(lake: Lake, rows: pa.Table) -> list[DataFile]:
    """One file a city."""
    cities = sorted(set(rows["city"].to_pylist()), key=str)
    return [
        write_part(
            lake.folder(TABLE),
            rows.filter(pc.equal(rows["city"], city)).to_batches(),
            rows.schema,
            partition={"city": city},
        )
        for city in cities
    ]


CITIES = pa.table({"row_id": pa.array(range(6), pa.int64()), "city": ["Oslo", "Rome", "Bonn"] * 2})


def test_a_partitioned_table_keeps_its_values_through_adding_removing_and_purging(make_lake: Callable[..., Lake]) -> None:
    lake, said = make_lake(), Lineage("test", "k", "c")
    files = by_city(lake, CITIES)
    first = lake.commit(TABLE, CITIES.schema, files[:2], lineage=said, partition_by=["city"])
    lake.commit(TABLE, CITIES.schema, files[2:], lineage=said, remove=files[:1], expect=first)
    with lake.writing():
        lake.purge([TABLE])
    now = lake.snapshot(TABLE)
    assert lake.partitioning(now) == ("city",)
    assert {part.file.partition["city"] for part in lake.parts(now)} == {"Oslo", "Rome"}
    assert sorted(rows_of(lake, now, "city")) == ["Oslo", "Oslo", "Rome", "Rome"]
    assert not [path for path in Path(lake.uri(TABLE)).iterdir() if path.is_dir() and path.name != "_delta_log"]
    again = lake.reuse(TABLE, "k")
    assert again == now


def test_another_partitioning_wants_the_table_written_anew(make_lake: Callable[..., Lake]) -> None:
    lake, said = make_lake(), Lineage("test", "k", "c")
    old = lake.commit(TABLE, CITIES.schema, by_city(lake, CITIES), lineage=said, partition_by=["city"])
    plain = write_part(lake.folder(TABLE), CITIES.to_batches(), CITIES.schema)
    with pytest.raises(LetheError, match="partitioned by city and would be by nothing"):
        lake.commit(TABLE, CITIES.schema, [plain], lineage=said, partition_by=[])
    with pytest.raises(LetheError, match=r"partitioned by city, and part-.* by nothing"):
        lake.commit(TABLE, CITIES.schema, [plain], lineage=said)
    with pytest.raises(CommitConflict):
        lake.commit(
            TABLE, CITIES.schema, [plain], lineage=said, partition_by=[], overwrite=True, expect=Snapshot(TABLE, 0, "1:00", 1)
        )
    new = lake.commit(TABLE, CITIES.schema, [plain], lineage=said, partition_by=[], overwrite=True, expect=old, app_id="a")
    assert (lake.partitioning(new), new.digest, new.version) == ((), old.digest, 1)
    assert lake.commit(TABLE, CITIES.schema, [plain], lineage=said, partition_by=[], overwrite=True, app_id="a") == new
    assert lake.read(new).num_rows == 6
    assert {part.file.partition["city"] for part in lake.parts(old)} == {"Oslo", "Rome", "Bonn"}
    assert put(lake, CITIES, key="more").n_rows == 12
    put(lake, CITIES, key="other", overwrite=True)


def test_a_table_is_partitioned_by_columns_that_it_has(make_lake: Callable[..., Lake]) -> None:
    lake, said = make_lake(), Lineage("test", "k", "c")
    bare = ROWS.schema
    with pytest.raises(LetheError, match=r"records/t would be partitioned by year, city, which it does not have"):
        lake.commit(TABLE, bare, [], lineage=said, partition_by=["year", "name", "city"])
    assert not lake.exists(TABLE)
    lake.commit(TABLE, CITIES.schema, by_city(lake, CITIES), lineage=said, partition_by=["city"])
    for options in ({"partition_by": ["city"]}, {"partition_by": ["x"]}, {}):
        with pytest.raises(LetheError, match="which it does not have"):
            lake.commit(TABLE, bare.remove(1), [], lineage=said, overwrite=True, **options)
    assert lake.read(lake.snapshot(TABLE)).num_rows == 6


def test_times_without_a_zone_may_come_later_and_survive_a_purge(make_lake: Callable[..., Lake]) -> None:
    lake, naive = make_lake(), dt.datetime(2020, 1, 1, 10)
    old = put(lake, ROWS)
    kinds = {"x": pa.timestamp("us"), "in": pa.list_(pa.struct([("t", pa.timestamp("us"))]))}
    rows = pa.Table.from_pylist(
        [{"row_id": 1, "x": naive, "in": [{"t": naive}]}, {"row_id": 2}], pa.schema([("row_id", pa.int64()), *kinds.items()])
    )
    new = put(lake, rows, key="times", overwrite=True, expect=old, app_id="a")
    assert put(lake, rows, key="times", overwrite=True, app_id="a") == new == lake.snapshot(TABLE) == lake.find(TABLE, "times")
    assert (new.version, new.digest, lake.read(new).to_pylist()) == (1, digest_of(lake, rows), rows.to_pylist())
    assert lake.read(old).to_pylist() == ROWS.to_pylist()
    assert put(lake, rows, key="more").n_rows == 4
    assert put(lake, ROWS, key="back", overwrite=True).n_rows == 3
    assert put(lake, rows, key="again", overwrite=True).n_rows == 2
    with lake.writing():
        lake.purge([TABLE])
    assert lake.read(lake.snapshot(TABLE)).to_pylist() == rows.to_pylist()
    assert DeltaTable(lake.uri(TABLE)).to_pyarrow_table().sort_by("row_id").num_rows == 2


def test_a_damaged_log_is_told(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    log = Path(lake.uri(TABLE)) / "_delta_log" / f"{0:020d}.json"
    log.write_bytes(log.read_bytes()[:-9])
    with pytest.raises(deltas.NotReadable, match=r"damaged: version 0 is no JSON"):
        lake.snapshot(TABLE)


def test_a_reused_output_brings_its_partitioning_back(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    said = Lineage("test", "parted", "c")
    lake.commit(TABLE, CITIES.schema, by_city(lake, CITIES), lineage=said, partition_by=["city"])
    put(lake, CITIES, key="plain", overwrite=True, partition_by=[])
    again = lake.reuse(TABLE, "parted")
    assert again is not None
    assert (lake.partitioning(again), again.version, lake.read(again).num_rows) == (("city",), 2, 6)


# --- several writers ----------------------------------------------------------------------------------------------------------

Crowd = Callable[[Callable[[str, int], None], Lake], None]
N_PROCESSES = 3


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Run a function of (project folder, number) in several processes at once, and look at what became of each."""
    context = multiprocessing.get_context("forkserver")  # delta-rs knows no forked processes
    context.set_forkserver_preload(["infra.lake", "pytest", "hypothesis.strategies"])
    with ProcessPoolExecutor(N_PROCESSES, mp_context=context) as pool:

        def run(work: Callable[[str, int], None], lake: Lake) -> None:
            list(pool.map(work, [str(Path(lake.root).parent)] * N_PROCESSES, range(N_PROCESSES)))

        yield run


def add_thrice(home: str, number: int) -> None:
    lake = Lake.open(load_settings(home))
    rows = ROWS.append_column(f"more_{number}", pa.array([number] * 3)) if number else ROWS
    with lake.writing(shared=True):
        for turn in range(3):
            put(lake, rows, key=f"{number}-{turn}", app_id=f"{number}-{turn}")


def test_processes_at_once_lose_nothing_and_say_true_digests(make_lake: Callable[..., Lake], crowd: Crowd) -> None:
    """From no table on, with columns that come in between: every version tells the digest of its own rows."""
    lake = make_lake()
    crowd(add_thrice, lake)
    newest = lake.snapshot(TABLE)
    assert newest.n_rows == 27
    assert newest.digest == digest_of(lake, lake.read(newest))
    for version in range(newest.version + 1):
        snapshot = lake.snapshot(TABLE, version)
        assert snapshot.n_rows == sum(part.file.n_rows for part in lake.parts(snapshot)), version
    for number, turn in itertools.product(range(N_PROCESSES), range(3)):
        found = lake.find(TABLE, f"{number}-{turn}")
        assert found is not None
        assert lake.lineage(found).key == f"{number}-{turn}"


def come_first(home: str, number: int) -> None:
    lake = Lake.open(load_settings(home))
    with lake.writing(shared=True), contextlib.suppress(CommitConflict):
        put(lake, ROWS, key=str(number), expect=no_table(TABLE))
        (Path(home) / f"made-{number}").touch()


def test_of_first_commits_that_expect_no_table_one_is_made(make_lake: Callable[..., Lake], tmp_path: Path, crowd: Crowd) -> None:
    lake = make_lake()
    crowd(come_first, lake)
    assert len(list(tmp_path.glob("*/made-*"))) == 1
    assert lake.snapshot(TABLE).n_rows == 3
    with pytest.raises(CommitConflict, match="moved"):
        put(lake, ROWS, expect=no_table(TABLE))


def count_on(home: str, _: int) -> None:
    """Replace the one row by the next number four times, each planned on the snapshot that it saw."""
    lake, n_done = Lake.open(load_settings(home)), 0
    while n_done < 4:
        seen = lake.snapshot(TABLE)
        number = lake.read(seen)["row_id"][0].as_py() + 1
        rows = ROWS.slice(0, 1).set_column(0, "row_id", pa.array([number], pa.int64()))
        with contextlib.suppress(CommitConflict):
            put(lake, rows, overwrite=True, expect=seen)
            n_done += 1


def test_planning_again_on_every_conflict_is_as_if_one_wrote_after_the_other(
    make_lake: Callable[..., Lake], crowd: Crowd
) -> None:
    lake = make_lake()
    put(lake, ROWS.slice(0, 1))
    crowd(count_on, lake)
    assert rows_of(lake, lake.snapshot(TABLE)) == [13]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, write = make_lake(), deltas.write
    put(lake, ROWS)

    def forgetful(*args: Any, **options: Any) -> int:
        write(*args, **options)
        raise deltas.Raced("the store met its own first try")

    monkeypatch.setattr(deltas, "write", forgetful)
    assert put(lake, ROWS, key="again") == lake.snapshot(TABLE)
    assert lake.snapshot(TABLE).n_rows == 6


def test_a_snapshot_tells_its_own_digest_while_others_commit(
    make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, newest_version = make_lake(), deltas.newest_version
    first = put(lake, ROWS)
    monkeypatch.setattr(deltas, "newest_version", lambda uri: (newest_version(uri), put_once())[0])
    left = [1]

    def put_once() -> None:
        if left:
            left.pop()
            put(lake, ROWS)

    assert lake.snapshot(TABLE) == first


def test_nothing_is_committed_under_a_lost_lease(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    with lake.writing(shared=True):
        locks = Path(lake.root) / "_locks"
        (name,) = (path for path in locks.iterdir() if path.name.startswith("shared"))
        (locks / f"{name.stem}.void").touch()
        (held,) = lease._ALIVE[str(locks)]
        held._try_beat()
        with pytest.raises(LeaseLost, match="Run it again"):
            put(lake, ROWS)
    assert lake.snapshot(TABLE).n_rows == 3


def test_a_purge_waits_for_those_who_add(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, ROWS)
    written = write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema)

    def tidy() -> None:
        with lake.writing():
            lake.tidy()

    with ThreadPoolExecutor(1) as pool:
        with lake.writing(shared=True):
            tidying = pool.submit(tidy)
            time.sleep(0.3)
            assert not tidying.done()
            lake.commit(TABLE, ROWS.schema, [written], lineage=Lineage("test", "k", "c"))
        tidying.result()
    assert len(rows_of(lake, lake.snapshot(TABLE))) == 6


# --- tidying ------------------------------------------------------------------------------------------------------------------


def test_a_tidy_takes_what_nothing_names_and_no_readable_version(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    old = put(lake, ROWS, key="one")
    put(lake, ROWS.slice(1), key="two", overwrite=True)
    orphan = write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema)
    folder = Path(lake.uri(TABLE))
    (folder / "draft-1.parquet").write_bytes(b"12345")
    (folder / "_delta_log" / "_commit_1.json.tmp").write_bytes(b"1")
    write_part(lake.folder("quarantine"), ROWS.to_batches(), ROWS.schema)
    (Path(lake.root) / "_scratch" / "dead").mkdir(parents=True)
    (Path(lake.root) / "_scratch" / "dead" / "x").write_bytes(b"123")
    with lake.writing():
        assert lake.tidy(grace_s=3600)[0].table != TABLE
        reports = {report.table: report for report in lake.tidy()}
        assert reports[TABLE] == TidyReport(TABLE, 3, orphan.n_bytes + 6)
        assert lake.tidy() == []
    assert rows_of(lake, old) == [1, 2, 3]
    assert rows_of(lake, lake.snapshot(TABLE)) == [2, 3]
    assert not Path(lake.uri("quarantine")).exists()


def test_a_tidy_keeps_a_week_of_history_through_checkpoints(
    make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake()
    old = put(lake, ROWS, key="one")
    put(lake, ROWS.slice(1), key="two", overwrite=True)
    DeltaTable(lake.uri(TABLE)).create_checkpoint()
    for path in (Path(lake.uri(TABLE)) / "_delta_log").glob("*0.json"):
        path.rename(path.with_suffix(".gone"))
    with lake.writing():
        assert lake.tidy() == []
        (part,) = (Path(lake.uri(TABLE)) / name for name in paths_of_version(lake, old))
        assert part.exists()
        eight_days = time.time() + 8 * 86_400
        monkeypatch.setattr(purge.time, "time", lambda: eight_days)
        assert [report.n_files_deleted for report in lake.tidy()] == [1]
    assert not part.exists()
    assert rows_of(lake, lake.snapshot(TABLE)) == [2, 3]


def paths_of_version(lake: Lake, snapshot: Snapshot) -> list[str]:
    now = {part.file.path for part in lake.parts(lake.snapshot(snapshot.table))}
    return [path.name for path in Path(lake.uri(snapshot.table)).glob("*.parquet") if path.name not in now]
