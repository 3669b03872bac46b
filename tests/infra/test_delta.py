"""One Delta table: what its log tells, partition values as readers want them, and commits on the version that was seen."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.transaction import create_table_with_add_actions
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import delta as deltas
from infra.contracts import DataFile, LetheError
from infra.files import Folder, write_part

KEY = bytes(32)
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)),
    "day": (pa.date32(), st.dates(dt.date(1, 1, 1))),
    "at": (pa.timestamp("us", "UTC"), st.datetimes(dt.datetime(1900, 1, 1), timezones=st.just(dt.UTC))),
    "number": (pa.int64(), st.integers(-(1 << 63), (1 << 63) - 1)),
    "flag": (pa.bool_(), st.booleans()),
    "price": (pa.decimal128(12, 3), st.decimals(-99999, 99999, places=3, allow_nan=False)),
}


def made(uri: str, rows: pa.Table, partitions: Sequence[dict[str, Any]], *, columns: Sequence[str] = ()) -> None:
    """A table of one file for each row."""
    files = [
        write_part(Folder(uri, KEY), rows.slice(n, 1).to_batches(), rows.schema, partition=partition)
        for n, partition in enumerate(partitions)
    ]
    deltas.create(uri, rows.schema, files, partition_by=columns, meta={"digest": "x", "n": 0}, app_id=None)


# --- partitions -----------------------------------------------------------------------------------------------------------


@given(data=st.data())
@hypothesis_settings(max_examples=25)
def test_partition_values_come_back_and_readers_see_the_rows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    uri = str(tmp_path_factory.mktemp("t"))
    row = {name: data.draw(st.none() | values, label=name) for name, (_, values) in VALUES.items()}
    schema = pa.schema([("row_id", pa.int64()), *((name, kind) for name, (kind, _) in VALUES.items())])
    rows = pa.Table.from_pylist([{"row_id": 1, **row}, {"row_id": 2}], schema=schema)
    spelled = {name: deltas.spelled(value) for name, value in row.items()}
    made(uri, rows, [spelled, dict.fromkeys(VALUES, None)], columns=list(VALUES))
    table = deltas.open_table(uri)
    assert deltas.partition_columns(table) == list(VALUES)
    assert {file.partition["text"]: file.partition for file in deltas.files_of(table)}[spelled["text"]] in (
        spelled,
        dict.fromkeys(VALUES, None),
    )
    read = pa.table(DeltaTable(uri).scan().read_all()).select(schema.names).cast(schema).sort_by("row_id")
    assert read.to_pylist() == rows.to_pylist()


def test_partition_values_are_spelled_as_the_protocol_says() -> None:
    said = [None, "", "a b/ü", True, 5, dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), Decimal("1.50")]
    assert [deltas.spelled(value) for value in said] == [
        None,
        None,
        "a b/ü",
        "true",
        "5",
        "2024-01-02",
        "2024-01-02 03:04:05.000006",
        "1.50",
    ]
    with pytest.raises(LetheError, match="bytes"):
        deltas.spelled(b"x")


def test_a_table_written_anew_is_an_ordinary_delta_table(tmp_path: Path) -> None:
    uri = str(tmp_path)
    rows = pa.table({"row_id": pa.array([1, 2], pa.int64()), "city": ["a", "b"]})
    made(uri, rows, [{}, {}])
    wide = rows.append_column("more", pa.array([1, 2], pa.int32()))
    file = write_part(Folder(uri, KEY), wide.slice(0, 1).to_batches(), wide.schema, stats=["row_id"], partition={"city": "a"})
    table = deltas.open_table(uri)
    said = {"partition_by": ["city"], "meta": {"digest": "y"}, "app_id": "one"}
    assert deltas.make_anew(uri, table, wide.schema, [file], **said) == 1
    with pytest.raises(deltas.Raced):
        deltas.make_anew(uri, table, wide.schema, [file], **said)
    after = DeltaTable(uri)
    assert after.metadata().partition_columns == ["city"]
    assert after.transaction_version("one") == 1
    assert pa.table(after.scan().read_all()).select(wide.schema.names).to_pylist() == wide.slice(0, 1).to_pylist()
    assert deltas.said_by(uri, 1) == {"digest": "y"}
    after.create_checkpoint()
    assert [f.partition for f in deltas.files_of(deltas.open_table(uri))] == [{"city": "a"}]
    assert len(deltas.files_of(deltas.open_table(uri, 0))) == 2
    assert deltas.open_table(uri).metadata().id == table.metadata().id


# --- first versions -------------------------------------------------------------------------------------------------------

NAIVE = dt.datetime(2020, 1, 1, 10)
KINDS: dict[str, tuple[pa.DataType, Any]] = {
    "bool": (pa.bool_(), True),
    "int64": (pa.int64(), 7),
    "double": (pa.float64(), 0.5),
    "string": (pa.string(), "𠀀"),
    "date32": (pa.date32(), dt.date(2020, 1, 1)),
    "local time": (pa.timestamp("us"), NAIVE),
    "time": (pa.timestamp("us", "UTC"), NAIVE.replace(tzinfo=dt.UTC)),
    "decimal": (pa.decimal128(20, 0), Decimal(5)),
    "list": (pa.list_(pa.int64()), [1, 2]),
    "struct": (pa.struct([("a", pa.int64())]), {"a": 1}),
    "local time in a struct in a list": (pa.list_(pa.struct([("t", pa.timestamp("us"))])), [{"t": NAIVE}]),
    "local time in a map": (pa.map_(pa.string(), pa.timestamp("us")), [("k", NAIVE)]),
}


@given(
    names=st.lists(
        st.sampled_from([name for name in KINDS if "map" not in name]), unique=True
    ),  # it cannot make a table of those
    bounded=st.booleans(),
    app_id=st.none() | st.text(st.characters(codec="utf-8"), max_size=4),
)
@hypothesis_settings(max_examples=25)
def test_a_first_version_is_that_of_the_library(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], bounded: bool, app_id: str | None
) -> None:
    ours, theirs = (str(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs"))
    schema = pa.schema([("row_id", pa.int64()), ("city", pa.string()), *((name, KINDS[name][0]) for name in names)])
    stats = {"row_id": {"min": 1, "max": 5, "n_nulls": 0}} if bounded else {}
    files = [
        DataFile(f"part-{place}.parquet", 2, 9, "2:00", stats, "", {"city": city}) for place, city in enumerate(["𠀀", None])
    ]
    meta = {"digest": "x", "said": "𠀀"}
    deltas.create(ours, schema, files, partition_by=["city"], meta=meta, app_id=app_id)
    create_table_with_add_actions(
        theirs,
        DeltaSchema.from_arrow(schema),
        deltas.add_actions(files),
        mode="error",
        partition_by=["city"],
        configuration=deltas.open_table(ours).metadata().configuration,
        commit_properties=deltas.properties(meta, app_id),
    )
    assert [state_of(ours), deltas.said_by(ours, 0)] == [state_of(theirs), meta]
    assert app_id is None or DeltaTable(ours).transaction_version(app_id) == DeltaTable(theirs).transaction_version(app_id) == 1


def state_of(uri: str) -> list[Any]:
    """What the library says of a table, but for when and under which id it was made."""
    table = DeltaTable(uri)
    actions = pa.table(table.get_add_actions()).drop_columns(["modification_time"]).sort_by("path").to_pylist()
    protocol, metadata = table.protocol(), table.metadata()
    told = [metadata.configuration, metadata.partition_columns, metadata.name, metadata.description]
    return [table.version(), table.schema(), protocol, told, actions, deltas.files_of(table)]


@pytest.mark.parametrize("new", KINDS)
def test_a_column_of_any_type_may_come_later(tmp_path: Path, new: str) -> None:
    uri = str(tmp_path)
    rows, file = one_file(uri, "int64", {"city": "𠀀"})
    deltas.create(uri, rows.schema, [file], partition_by=["city"], meta={"digest": "x"}, app_id=None)
    before = deltas.open_table(uri)
    wider = rows.schema.append(pa.field("more", KINDS[new][0]))
    after = deltas.add_columns(uri, before, deltas.new_columns(before, wider), {"digest": "x", "carried": True})
    assert (after.version(), deltas.said_by(uri, 1)["carried"], deltas.partition_columns(after)) == (1, True, ["city"])
    assert (after.metadata().id, after.metadata().configuration) == (before.metadata().id, before.metadata().configuration)
    values = pa.array([KINDS[new][1], None], KINDS[new][0])
    more = rows.append_column("more", values)
    file = write_part(Folder(uri, KEY), more.to_batches(), wider, partition={"city": "𠀀"})
    assert deltas.write(uri, after, wider, [file], [], overwrite=False, meta={"digest": "y"}, app_id=None) == 2
    read = pa.table(DeltaTable(uri).scan().read_all()).select(wider.names).cast(wider)
    assert sorted(map(str, read["more"].to_pylist())) == sorted(map(str, [*values.to_pylist(), None, None]))


# --- types that change ----------------------------------------------------------------------------------------------------


def one_file(uri: str, kind: str, partition: dict[str, str | None]) -> tuple[pa.Table, DataFile]:
    of_type, value = KINDS[kind]
    rows = pa.table({"row_id": pa.array([1, 2], pa.int64()), "city": ["𠀀", "𠀀"], "v": pa.array([value, None], of_type)})
    return rows, write_part(Folder(uri, KEY), rows.to_batches(), rows.schema, stats=["row_id"], partition=partition)


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("partition", [{}, {"city": "𠀀"}], ids=["overwritten", "made anew"])
def test_a_column_may_become_of_any_type(tmp_path: Path, old: str, partition: dict[str, str | None]) -> None:
    for place, new in enumerate(KINDS):
        uri = str(tmp_path / str(place))
        rows, file = one_file(uri, old, {})
        deltas.create(uri, rows.schema, [file], partition_by=(), meta={"digest": "x"}, app_id=None)
        wanted, file = one_file(uri, new, partition)
        said: dict[str, Any] = {"meta": {"digest": "y"}, "app_id": "one"}
        seen = deltas.open_table(uri)
        for _ in range(2):
            if partition:
                commit = partial(deltas.make_anew, uri, seen, wanted.schema, [file], partition_by=list(partition), **said)
            else:
                commit = partial(deltas.write, uri, seen, wanted.schema, [file], [], overwrite=True, **said)
            if seen.version() == 0 and deltas.newest_version(uri) == 1:
                with pytest.raises(deltas.Raced):
                    commit()
            else:
                assert commit() == 1
        after = DeltaTable(uri)
        read = pa.table(after.scan().read_all()).select(wanted.schema.names).cast(wanted.schema)
        assert (read.to_pylist(), after.version()) == (wanted.to_pylist(), 1), (old, new)
        assert deltas.schema_of(after).field("v").type == wanted.schema.field("v").type
        assert (deltas.said_by(uri, 1), after.transaction_version("one")) == ({"digest": "y"}, 1)
        assert [f.partition for f in deltas.files_of(after)] == [partition]


# --- the log --------------------------------------------------------------------------------------------------------------


def test_a_version_tells_what_its_own_commit_said(tmp_path: Path) -> None:
    uri = str(tmp_path)
    made(uri, pa.table({"x": [1]}), [{}])
    early = deltas.open_table(uri)
    for n in range(1, 70):
        deltas.set_properties(uri, deltas.open_table(uri), deltas.RETENTIONS, {"digest": "x", "n": n})
    assert early.version() == 0
    for n in (0, 1, 8, 69):
        assert deltas.said_by(uri, n)["n"] == n
    assert [version for version, _ in deltas.sayings(uri, 69)] == list(range(69, -1, -1))
    assert (deltas.oldest_version(uri), deltas.newest_version(uri), deltas.newest_version(f"{uri}/none")) == (0, 69, None)
    assert deltas.committed_at(uri, 69) > 1.7e9


def test_every_commit_is_on_the_version_that_was_seen(tmp_path: Path) -> None:
    uri, rows = str(tmp_path), pa.table({"x": [1]})
    made(uri, rows, [{}])
    seen, later = deltas.open_table(uri), deltas.open_table(uri)
    file = write_part(Folder(uri, KEY), rows.to_batches(), rows.schema)
    assert deltas.write(uri, later, rows.schema, [file], [], overwrite=False, meta={"digest": "y"}, app_id=None) == 1
    wider = deltas.new_columns(seen, rows.schema.append(pa.field("y", pa.string())))
    for commit in (
        lambda: deltas.write(uri, seen, rows.schema, [], [], overwrite=True, meta={}, app_id=None),
        lambda: deltas.add_columns(uri, seen, wider, {}),
        lambda: deltas.set_properties(uri, deltas.open_table(uri, 0), deltas.RETENTIONS, {}),
        lambda: deltas.create(uri, rows.schema, [file], partition_by=(), meta={}, app_id=None),
    ):
        with pytest.raises(deltas.Raced):
            commit()
    assert deltas.open_table(uri).version() == 1


def test_what_is_no_table_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(deltas.NotReadable, match="no Delta table"):
        deltas.open_table(str(tmp_path / "nothing"))
    made(str(tmp_path), pa.table({"x": [1]}), [{}])
    with pytest.raises(deltas.NotReadable, match="at version 7"):
        deltas.open_table(str(tmp_path), 7)
    assert deltas.is_table(str(tmp_path))
    assert not deltas.is_table(str(tmp_path / "_delta_log"))
    assert "deletionVectors" not in deltas.features(deltas.open_table(str(tmp_path)))


def test_other_writers_commits_say_nothing_of_ours(tmp_path: Path) -> None:
    uri = str(tmp_path)
    made(uri, pa.table({"x": [1]}), [{}])
    DeltaTable(uri).alter.set_table_properties({"delta.appendOnly": "false"})
    assert deltas.said_by(uri, 1) == {"digest": "x", "n": 0}
    (tmp_path / "_delta_log" / f"{0:020d}.json").rename(tmp_path / "gone")
    with pytest.raises(LetheError, match="no digest"):
        deltas.said_by(uri, 1)


def test_stats_in_the_log_are_those_of_the_file() -> None:
    file = DataFile(
        "p", 2, 9, "2:00", {"x": {"min": 1, "max": 5, "n_nulls": 0}, "t": {"min": "secret", "max": "z", "n_nulls": 1}}
    )
    (action,) = deltas.add_actions([file])
    assert json.loads(action.stats) == {
        "numRecords": 2,
        "minValues": {"x": 1},
        "maxValues": {"x": 5},
        "nullCount": {"x": 0, "t": 1},
    }
