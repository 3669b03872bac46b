"""Tables of other writers: read row for row as their logs say, or refused with the reason."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import shutil
import struct
import uuid
import zlib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import foreign
from infra.cluster import connect
from infra.foreign import ForeignTable, ForeignUnreadable, measured, open_foreign, read_foreign, refreshed, register, registered
from infra.ids import Digest
from infra.lake import Lake
from infra.rowhash import row_hashes
from infra.settings import Settings

KEY = b"k" * 32
SMALL = pa.table({"x": pa.array(range(10), pa.int64()), "s": [f"row {i}" for i in range(10)]})


def rows(table: ForeignTable) -> list[dict[str, Any]]:
    return [row for part in table.parts for batch in read_foreign(part) for row in batch.to_pylist()]


def digest_of(table: pa.Table) -> str:
    return str(Digest.of(row_hashes(table.combine_chunks(), table.column_names, KEY)))


def digest_at(path: Path | str) -> str:
    with connect(None) as workers:
        (table,) = measured([open_foreign("t", str(path))], {}, workers, KEY)
    assert isinstance(table, ForeignTable), table
    return table.snapshot.digest


def log(path: Path, version: int) -> Path:
    return path / "_delta_log" / f"{version:020d}.json"


def actions(path: Path, version: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log(path, version).read_text().splitlines()]


def commit(path: Path, version: int, entries: Sequence[dict[str, Any]]) -> None:
    log(path, version).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def swap_parquet(path: Path, table: pa.Table, **options: Any) -> None:
    """Put another Parquet file in the place of a table's only one, as another writer would have written it."""
    entries = actions(path, 0)
    add = next(entry["add"] for entry in entries if "add" in entry)
    pq.write_table(table, path / add["path"], **options)
    add["size"] = (path / add["path"]).stat().st_size
    del add["stats"]
    commit(path, 0, entries)


# --- deletion vectors, from the format's description -------------------------------------------------------------------------

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data: bytes) -> str:
    words = (int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4))
    return "".join(Z85[word // 85**power % 85] for word in words for power in range(4, -1, -1))


def bitmap(positions: Sequence[int]) -> bytes:
    """A portable 64-bit roaring bitmap of positions below 65,536: one array container."""
    values = sorted(positions)
    header = struct.pack("<IIHHI", 12346, 1, 0, len(values) - 1, 16)
    inner = header + struct.pack(f"<{len(values)}H", *values)
    return struct.pack("<IQI", 1681511377, 1, 0) + inner


def delete_by_vector(path: Path, positions: Sequence[int], *, inline: bool) -> None:
    add = next(entry["add"] for entry in actions(path, 0) if "add" in entry)
    data = bitmap(positions)
    if inline:
        padded = data + b"\0" * (-len(data) % 4)
        vector = {"storageType": "i", "pathOrInlineDv": z85(padded)}
    else:
        name = uuid.uuid4()
        body = struct.pack(">BI", 1, len(data)) + data + struct.pack(">I", zlib.crc32(data))
        (path / f"deletion_vector_{name}.bin").write_bytes(body)
        vector = {"storageType": "u", "pathOrInlineDv": z85(name.bytes), "offset": 1}
    vector |= {"sizeInBytes": len(data), "cardinality": len(positions)}
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True, "partitionValues": {}, "size": add["size"]}
    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    commit(path, 1, [{"protocol": protocol}, {"remove": remove}, {"add": {**add, "deletionVector": vector}}])


@pytest.mark.parametrize("inline", [True, False])
def test_rows_that_a_deletion_vector_hides_are_not_rows(tmp_path: Path, inline: bool) -> None:
    path = tmp_path / "a table"
    write_deltalake(path, SMALL)
    whole = digest_at(path)
    delete_by_vector(path, [1, 4, 7], inline=inline)
    left = SMALL.filter(pa.array([i not in (1, 4, 7) for i in range(10)]))
    assert (
        rows(open_foreign("t", str(path))) == left.to_pylist() == DeltaTable(path).scan().read_all().to_struct_array().to_pylist()
    )
    assert digest_at(path) == digest_of(left) != whole


@settings(max_examples=15, deadline=None)
@given(gone=st.sets(st.integers(0, 9), min_size=1))
def test_any_deletion_vector(tmp_path_factory: pytest.TempPathFactory, gone: set[int]) -> None:
    path = tmp_path_factory.mktemp("dv") / "t"
    write_deltalake(path, SMALL)
    delete_by_vector(path, sorted(gone), inline=True)
    assert [row["x"] for row in rows(open_foreign("t", str(path)))] == [i for i in range(10) if i not in gone]


def test_a_mask_reaches_over_the_batches_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_BATCH_ROWS", 3)
    write_deltalake(tmp_path / "t", SMALL)
    delete_by_vector(tmp_path / "t", [2, 3, 9], inline=True)
    assert [row["x"] for row in rows(open_foreign("t", str(tmp_path / "t")))] == [0, 1, 4, 5, 6, 7, 8]


def test_a_lost_deletion_vector_is_an_error_and_not_a_whole_file(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    delete_by_vector(tmp_path / "t", [1], inline=False)
    next((tmp_path / "t").glob("deletion_vector*")).unlink()
    with pytest.raises(ForeignUnreadable):
        open_foreign("t", str(tmp_path / "t"))


# --- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["columnMapping", "typeWidening", "variantType", "vacuumProtocolCheck", "somethingNew"])
def test_a_feature_that_is_not_read_right_is_named(tmp_path: Path, feature: str) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    lists = {"readerFeatures": [feature], "writerFeatures": [feature]}
    commit(tmp_path / "t", 1, [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **lists}}])
    with pytest.raises(ForeignUnreadable, match=f"feature {feature}, which is not read here. Way out: "):
        open_foreign("t", str(tmp_path / "t"))


def test_column_mapping_of_the_second_reader_version_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    entries = actions(tmp_path / "t", 0)
    metadata = next(entry["metaData"] for entry in entries if "metaData" in entry)
    metadata["configuration"] = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"}
    fields = json.loads(metadata["schemaString"])
    for number, one in enumerate(fields["fields"], 1):
        one["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
    metadata["schemaString"] = json.dumps(fields)
    protocol = {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}
    commit(tmp_path / "t", 0, [protocol, *(entry for entry in entries if "protocol" not in entry)])
    with pytest.raises(ForeignUnreadable, match="columnMapping"):
        open_foreign("t", str(tmp_path / "t"))


def test_missing_and_changed_files_are_named(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    table = open_foreign("t", str(tmp_path / "t"))
    file = next((tmp_path / "t").glob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    with pytest.raises(ForeignUnreadable, match="bytes and its log says"):
        rows(table)
    file.write_bytes(b"x" * len(content))
    with pytest.raises(ForeignUnreadable, match="cannot be read"):
        rows(table)
    file.unlink()
    with pytest.raises(ForeignUnreadable, match="is gone"):
        rows(table)
    shutil.rmtree(tmp_path / "t")
    with pytest.raises(ForeignUnreadable, match="no Delta table"):
        open_foreign("t", str(tmp_path / "t"))


def test_errors_hold_no_partition_value(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1], "who": ["Ada"]}), partition_by=["who"])
    table = open_foreign("t", str(tmp_path / "t"))
    next((tmp_path / "t").rglob("*.parquet")).unlink()
    with pytest.raises(ForeignUnreadable) as error:
        rows(table)
    assert "Ada" not in str(error.value) and "data file part-" in str(error.value)


def test_a_column_of_another_type_than_the_log_says_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    swap_parquet(tmp_path / "t", pa.table({"x": ["1", "2"], "s": ["a", "b"]}))
    with pytest.raises(ForeignUnreadable, match="column 'x' is string"):
        rows(open_foreign("t", str(tmp_path / "t")))


INNER = pa.struct([("a", pa.int64()), ("b", pa.string())])


@pytest.mark.parametrize("wrap", [lambda kind: kind, pa.list_, lambda kind: pa.map_(pa.string(), kind)])
@pytest.mark.parametrize("fields", [[("A", pa.int64())], [("a", pa.string())], [("a", pa.int64()), ("B", pa.string())]])
def test_inside_of_values_too(tmp_path: Path, wrap: Any, fields: list[tuple[str, pa.DataType]]) -> None:
    write_deltalake(tmp_path / "t", pa.table({"s": pa.nulls(1, wrap(INNER))}))
    swap_parquet(tmp_path / "t", pa.table({"s": pa.nulls(2, wrap(pa.struct(fields)))}))
    with pytest.raises(ForeignUnreadable, match="column 's' is"):
        rows(open_foreign("t", str(tmp_path / "t")))


def test_fields_that_came_later_are_null_and_order_does_not_matter(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"s": pa.array([{"a": 1, "b": "x"}], INNER)}))
    swap_parquet(tmp_path / "t", pa.table({"s": pa.array([{"a": 7}], pa.struct([("a", pa.int32())]))}))
    assert rows(open_foreign("t", str(tmp_path / "t"))) == [{"s": {"a": 7, "b": None}}]
    write_deltalake(tmp_path / "u", pa.table({"s": pa.array([{"a": 1, "b": "x"}], INNER)}))
    swap_parquet(tmp_path / "u", pa.table({"s": pa.array([{"b": "y", "a": 7}], pa.struct([*reversed(list(INNER))]))}))
    assert rows(open_foreign("t", str(tmp_path / "u"))) == [{"s": {"a": 7, "b": "y"}}]


def test_names_in_a_file_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    swap_parquet(tmp_path / "t", pa.table([pa.array([1]), pa.array([2]), pa.array(["a"])], names=["x", "X", "s"]))
    with pytest.raises(ForeignUnreadable, match="differ only in case"):
        rows(open_foreign("t", str(tmp_path / "t")))


def test_parts_cross_processes(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", PARTITIONED, partition_by=["at", "m"])
    parts = open_foreign("t", str(tmp_path / "t")).parts
    there = pickle.loads(pickle.dumps(list(parts)))
    assert foreign.hash_parts(there, KEY) == foreign.hash_parts(parts, KEY)


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(ForeignUnreadable("t", "it is gone")))
    assert (error.table, error.reason, str(error)) == ("t", "it is gone", "foreign/t: it is gone")


def checkpoint_v2(path: Path, *, sidecar: bool) -> None:
    """Version 0 as a checkpoint of the second kind (JSON, with the files in it or in a sidecar), and no commit before it."""
    entries = actions(path, 0)
    metadata = next(entry for entry in entries if "metaData" in entry)
    kept = ("path", "partitionValues", "size", "modificationTime", "stats")
    add = next({key: entry["add"][key] for key in kept} | {"dataChange": False} for entry in entries if "add" in entry)
    features = ["v2Checkpoint"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    lines = [{"checkpointMetadata": {"version": 0}}, {"protocol": protocol}, metadata]
    folder = path / "_delta_log"
    if sidecar:
        (folder / "_sidecars").mkdir()
        values = pa.map_(pa.string(), pa.string())
        kinds = {"path": pa.string(), "partitionValues": values, "size": pa.int64(), "modificationTime": pa.int64()}
        kind = pa.struct([*kinds.items(), ("stats", pa.string()), ("dataChange", pa.bool_())])
        file = folder / "_sidecars" / f"{uuid.uuid4()}.parquet"
        rows_of_it = [{"add": {**add, "partitionValues": []}}]
        pq.write_table(pa.Table.from_pylist(rows_of_it, schema=pa.schema([("add", kind)])), file)
        lines.append({"sidecar": {"path": file.name, "sizeInBytes": file.stat().st_size, "modificationTime": 1, "tags": {}}})
    else:
        lines.append({"add": add})
    name = f"{0:020d}.checkpoint.{uuid.uuid4()}.json"
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    commit(path, 1, [{"commitInfo": {"timestamp": 1, "operation": "NOTHING"}}])
    log(path, 0).unlink()


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_checkpoint_of_the_second_kind_is_read_or_refused_but_never_in_part(tmp_path: Path, sidecar: bool) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    checkpoint_v2(tmp_path / "t", sidecar=sidecar)
    table = open_foreign("t", str(tmp_path / "t"))
    assert (table.version, len(rows(table))) == (1, 10)
    lost = "_sidecars/*" if sidecar else "*.checkpoint.*"
    next((tmp_path / "t" / "_delta_log").glob(lost)).unlink()
    with pytest.raises(ForeignUnreadable):
        open_foreign("t", str(tmp_path / "t"))


# --- what is read -------------------------------------------------------------------------------------------------------------

DAY, NOW = dt.date(2020, 2, 29), dt.datetime(2020, 2, 29, 12, 30, 15, 123456, dt.UTC)
PARTITIONED = pa.table(
    {
        "x": pa.array([1, 2, 3, 4], pa.int64()),
        "p": ["a b", "c/d%=é:", None, "x+y"],
        "day": pa.array([DAY, DAY, None, None]),
        "at": pa.array([NOW, NOW, None, NOW], pa.timestamp("us", "UTC")),
        "m": pa.array([Decimal("1.10"), Decimal("-2.00"), None, Decimal("1.10")], pa.decimal128(10, 2)),
        "b": [True, False, None, True],
        "n": pa.array([1, -1, None, 0], pa.int16()),
    }
)


def test_partition_columns_have_their_values_types_and_places(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", PARTITIONED, partition_by=["p", "day", "at", "m", "b", "n"])
    table = open_foreign("t", str(tmp_path / "t"))
    assert table.schema.names == PARTITIONED.column_names
    assert sorted(rows(table), key=lambda row: row["x"]) == PARTITIONED.to_pylist()
    assert digest_at(tmp_path / "t") == digest_of(PARTITIONED)
    only = [batch for part in table.parts for batch in read_foreign(part, ["p"])]
    assert sum(batch.num_rows for batch in only) == 4


def test_an_empty_partition_value_is_null(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1], "p": ["q"]}), partition_by=["p"])
    entries = actions(tmp_path / "t", 0)
    next(entry["add"] for entry in entries if "add" in entry)["partitionValues"] = {"p": ""}
    commit(tmp_path / "t", 0, entries)
    assert rows(open_foreign("t", str(tmp_path / "t"))) == [{"x": 1, "p": None}]


def test_columns_that_a_file_lacks_are_null_and_names_match_in_any_case(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    swap_parquet(tmp_path / "t", pa.table({"X": pa.array([7], pa.int32())}))
    assert rows(open_foreign("t", str(tmp_path / "t"))) == [{"x": 7, "s": None}]


def test_a_row_id_of_theirs_is_a_column_like_any_other(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"row_id": [1, 2], "x": ["a", "b"]}))
    assert rows(open_foreign("t", str(tmp_path / "t"))) == [{"row_id_": 1, "x": "a"}, {"row_id_": 2, "x": "b"}]


RICH = pa.table(
    {
        "byte": pa.array([1, None], pa.int8()),
        "short": pa.array([300, -1], pa.int16()),
        "int": pa.array([70_000, 0], pa.int32()),
        "float": pa.array([0.1, float("nan")], pa.float32()),
        "decimal": pa.array([Decimal("12345678901234567890.12"), None], pa.decimal128(38, 2)),
        "bytes": pa.array([b"\xff\x00", b""], pa.binary()),
        "at": pa.array([NOW, dt.datetime(1, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
        "local": pa.array([NOW.replace(tzinfo=None), None], pa.timestamp("us")),
        "day": pa.array([DAY, None], pa.date32()),
        "struct": pa.array([{"a": 1, "b": ["x", None]}, None], pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    }
)


def test_every_type_has_the_digest_of_its_values(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", RICH)
    assert digest_at(tmp_path / "t") == digest_of(RICH)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (pa.timestamp("us", "UTC"), {"use_deprecated_int96_timestamps": True}),
        (pa.timestamp("ns", "UTC"), {}),
        (pa.timestamp("ms", "Europe/Berlin"), {}),
    ],
)
def test_times_of_other_units_are_the_same_instants(tmp_path: Path, kind: pa.DataType, options: dict[str, Any]) -> None:
    moments = pa.table({"at": pa.array([NOW.replace(microsecond=123000), None], pa.timestamp("us", "UTC"))})
    write_deltalake(tmp_path / "t", moments)
    swap_parquet(tmp_path / "t", moments.cast(pa.schema([("at", kind)])), **options)
    assert rows(open_foreign("t", str(tmp_path / "t"))) == moments.to_pylist()
    assert digest_at(tmp_path / "t") == digest_of(moments)


def test_spark_times_before_the_nanoseconds_begin(tmp_path: Path) -> None:
    moments = pa.table({"at": pa.array([dt.datetime(1500, 1, 2, 3, 4, 5, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))})
    write_deltalake(tmp_path / "t", moments)
    swap_parquet(tmp_path / "t", moments, use_deprecated_int96_timestamps=True)
    assert rows(open_foreign("t", str(tmp_path / "t"))) == moments.to_pylist()


def test_a_time_that_a_column_cannot_hold_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"at": pa.array([NOW], pa.timestamp("us", "UTC"))}))
    swap_parquet(tmp_path / "t", pa.table({"at": pa.array([1], pa.timestamp("ns", "UTC"))}))
    with pytest.raises(ForeignUnreadable, match="cannot be read as its log says"):
        rows(open_foreign("t", str(tmp_path / "t")))


# --- the list -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(name="lake")
def _lake(tmp_path: Path) -> Lake:
    return Lake.open(Settings(home=tmp_path / "home"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()


def test_a_table_that_moved_costs_its_new_files_only(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    real = foreign.hash_parts
    monkeypatch.setattr(foreign, "hash_parts", lambda parts, key: read.extend(p.uri for p in parts) or real(parts, key))
    path = str(tmp_path / "t")
    write_deltalake(path, SMALL)
    with connect(None) as workers:
        register(lake, "t", path, workers)
        register(lake, "t", path, workers)
        assert len(read) == 1
        version = lake.snapshot("foreign").version
        assert refreshed(lake, workers).tables[0].snapshot.n_rows == 10
        assert len(read) == 1 and lake.snapshot("foreign").version == version
        write_deltalake(path, SMALL.slice(0, 3), mode="append")
        (moved,) = refreshed(lake, workers).tables
        assert len(read) == 2 and moved.snapshot.n_rows == 13
    (entry,) = registered(lake)
    assert (entry.version, entry.n_rows, entry.digest) == (1, 13, moved.snapshot.digest)


def test_a_vector_on_a_known_file_is_another_file(tmp_path: Path, lake: Lake) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    with connect(None) as workers:
        register(lake, "t", str(tmp_path / "t"), workers)
        delete_by_vector(tmp_path / "t", [0], inline=True)
        assert refreshed(lake, workers).tables[0].snapshot.n_rows == 9


def test_one_that_is_gone_takes_no_other_along(tmp_path: Path, lake: Lake) -> None:
    for name in ("a", "b", "c"):
        write_deltalake(tmp_path / name, SMALL)
    with connect(None) as workers:
        for name in ("a", "b", "c"):
            register(lake, name, str(tmp_path / name), workers)
        shutil.rmtree(tmp_path / "a")
        write_deltalake(tmp_path / "b", SMALL, mode="append")
        for file in (tmp_path / "b").glob("*.parquet"):
            file.unlink()
        found = refreshed(lake, workers)
    assert [table.name for table in found.tables] == ["c"]
    assert set(found.unreadable) == {"a", "b"} and "is gone" in found.unreadable["b"]
    assert [entry.name for entry in registered(lake)] == ["a", "b", "c"]


def test_what_is_forgotten_is_off_the_list_and_still_there(tmp_path: Path, lake: Lake) -> None:
    write_deltalake(tmp_path / "t", SMALL)
    with connect(None) as workers:
        register(lake, "t", str(tmp_path / "t"), workers)
    foreign.forget_registration(lake, "t")
    foreign.forget_registration(lake, "t")
    assert registered(lake) == () and DeltaTable(tmp_path / "t").version() == 0


def test_two_writers_of_the_list_lose_nothing(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_deltalake(tmp_path / name, SMALL)
    real, raced = foreign._write, list[str]()

    def between(one: Lake, books: Any) -> None:
        if not raced:
            raced.append("b")
            with connect(None) as inner:
                register(one, "b", str(tmp_path / "b"), inner)
        real(one, books)

    monkeypatch.setattr(foreign, "_write", between)
    with connect(None) as workers:
        register(lake, "a", str(tmp_path / "a"), workers)
    assert [entry.name for entry in registered(lake)] == ["a", "b"]
