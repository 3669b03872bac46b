"""What is equal and what is not, seen by the whole scan: tables of the lake, and of other writers, that look alike."""

from __future__ import annotations

import datetime as dt
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import Lineage
from infra.files import write_part
from infra.foreign import ForeignUnreadable
from infra.lake import Lake
from infra.settings import Settings
from tests.tasks.dedup.mixed_lake import (
    Edges,
    Spoil,
    Table,
    by_counting,
    edges,
    foreign,
    log_of,
    own,
    put,
    put_log,
    scanned,
    small_lakes,
    stored_as,
    strict,
)

MULTISET, SET, NO = True, False, None
NAN = float("nan")
ODD_NANS = np.array([0x7FF8000000000001, 0xFFF8000000000000], np.uint64).view(np.float64)
NOON = dt.datetime(2024, 2, 29, 12, 30, 1, 5000)
X = pa.struct([("x", pa.int64())])
BIG = Decimal("12345678901234567890.12")


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"c": pa.array(values, kind)})


@dataclass(frozen=True)
class Trap:
    """Two tables that look alike, and whether the one is in the other: as a multiset, as a set only, or not. `spoil` is what the
    other writer of the first table did to it."""

    one: pa.Table
    other: pa.Table
    one_in_other: bool | None
    other_in_one: bool | None
    spoil: Spoil | None = None


def cells(one: Sequence[Any], kind: pa.DataType, other: Sequence[Any], kind_too: pa.DataType, *holds: bool | None) -> Trap:
    return Trap(column(one, kind), column(other, kind_too), *(holds * 2)[:2])


INT, DOUBLE, TEXT, US, UTC = pa.int64(), pa.float64(), pa.string(), pa.timestamp("us"), pa.timestamp("us", "UTC")
AB = pa.struct([("a", pa.int32()), ("b", TEXT)])
SWAPPED = {"a": [1, 2, 3], "b": ["x", "y", "z"]}
TRAPS = {
    "NULL is NULL": cells([None, 1], INT, [None, 1, 2], INT, MULTISET, NO),
    "two NULLs are not one": cells([None, None, 1], INT, [None, 1, 2], INT, SET, NO),
    "NaN is NaN whatever the payload": cells(ODD_NANS, DOUBLE, [NAN, NAN, 1.0], DOUBLE, MULTISET, NO),
    "-0.0 is 0.0": cells([-0.0], DOUBLE, [0.0], DOUBLE, MULTISET),
    "int and long": cells([5, -1], pa.int32(), [5, -1], INT, MULTISET),
    "2^53 + 1 is not 2^53 as double": cells([2**53 + 1], INT, [2.0**53], DOUBLE, NO),
    "nor is any int64 a double": cells([7], INT, [7.0], DOUBLE, NO),
    "nor a decimal": cells([7], INT, [Decimal(7)], pa.decimal128(10, 0), NO),
    "float32 0.1 is not 0.1": cells([0.1], pa.float32(), [0.1], DOUBLE, NO),
    "but what it is as double": cells([0.1], pa.float32(), [float(np.float32(0.1))], DOUBLE, MULTISET),
    "1.10 is 1.100": cells([Decimal("1.10")], pa.decimal128(10, 2), [Decimal("1.100")], pa.decimal128(12, 3), MULTISET),
    "decimals past 15 digits": cells([BIG], pa.decimal128(38, 2), [BIG + Decimal("0.01")], pa.decimal128(38, 2), NO),
    "and their own": cells([BIG, Decimal(0)], pa.decimal128(38, 2), [BIG], pa.decimal128(22, 2), NO, MULTISET),
    "a zone and none": cells([NOON], UTC, [NOON], US, NO),
    "a day and its midnight": cells([NOON.date()], pa.date32(), [dt.datetime.combine(NOON, dt.time())], US, NO),
    "'' is not NULL": cells([""], TEXT, [None], TEXT, NO),
    "a blank at the end": cells(["a "], TEXT, ["a"], TEXT, NO),
    "upper and lower case": cells(["A"], TEXT, ["a"], TEXT, NO),
    "NFC is not NFD": cells(["\u00e9"], TEXT, ["e\u0301"], TEXT, NO),
    "text and bytes": cells(["a"], TEXT, [b"a"], pa.binary(), NO),
    "true and 1": cells([True], pa.bool_(), [1], INT, NO),
    "{x: NULL} is not NULL": cells([{"x": None}], X, [None], X, NO),
    "[] is not NULL": cells([[]], pa.list_(INT), [None], pa.list_(INT), NO),
    "[] is not [NULL]": cells([[]], pa.list_(INT), [[None]], pa.list_(INT), NO),
    "a map without entries is not NULL": cells([[]], pa.map_(TEXT, INT), [None], pa.map_(TEXT, INT), NO),
    "an empty struct is no empty list": cells([{"x": None}], X, [[]], pa.list_(INT), NO),
    "lists of int and of long": cells([[1, None]], pa.list_(pa.int32()), [[1, None], []], pa.list_(INT), MULTISET, NO),
    "fields in any order and case": cells(
        [{"a": 1, "b": "q"}], AB, [{"B": "q", "A": 1}], pa.struct([("B", TEXT), ("A", INT)]), MULTISET
    ),
    "NaN and -0.0 inside": cells([[NAN, -0.0]], pa.list_(DOUBLE), [[float(ODD_NANS[0]), 0.0]], pa.list_(DOUBLE), MULTISET),
    "separators": Trap(pa.table({"a": ["x|"], "b": ["y"]}), pa.table({"a": ["x"], "b": ["|y"]}), NO, NO),
    "cells swapped between columns": Trap(pa.table({"a": ["x"], "b": ["y"]}), pa.table({"a": ["y"], "b": ["x"]}), NO, NO),
    "NULLs swapped between columns": Trap(
        pa.table({"a": pa.array([None], TEXT), "b": ["y"]}), pa.table({"a": ["y"], "b": pa.array([None], TEXT)}), NO, NO
    ),
    "cells swapped between rows": Trap(pa.table(SWAPPED), pa.table({**SWAPPED, "b": ["y", "x", "z"]}), NO, NO),
    "columns in any order and case": Trap(pa.table({"a": [1], "B": ["x"]}), pa.table({"b": ["x"], "A": [1]}), MULTISET, MULTISET),
    "milliseconds and microseconds": Trap(
        column([NOON, None], UTC), column([NOON, None], UTC), MULTISET, MULTISET, stored_as(pa.timestamp("ms", "UTC"))
    ),
    "nanoseconds": Trap(
        column([NOON], UTC), column([NOON, None], UTC), MULTISET, NO, stored_as(pa.timestamp("ns", "UTC"))
    ),
    "the times of Spark": Trap(
        column([NOON], UTC), column([NOON], UTC), MULTISET, MULTISET, stored_as(use_deprecated_int96_timestamps=True)
    ),
}  # fmt: skip


def test_a_nan_keeps_its_payload_on_the_way_to_a_test() -> None:
    assert [struct.pack("<d", value).hex() for value in column(ODD_NANS, DOUBLE)["c"].to_pylist()] == [
        "010000000000f87f",
        "000000000000f8ff",
    ]


# --- one scan of all of them ---------------------------------------------------------------------------------------------------


def of_its_own(table: pa.Table, number: int) -> pa.Table:
    """The table with column names that no other trap has."""
    return table.rename_columns([f"{name}{number}" for name in table.column_names])


@pytest.fixture(name="found", scope="module")
def _found(tmp_path_factory: pytest.TempPathFactory) -> Edges:
    """The edges of a lake that has both sides of every trap, and the first one from another writer as well."""
    config = strict(tmp_path_factory.mktemp("traps"))
    lake, snapshots = Lake.open(config), []
    for number, trap in enumerate(TRAPS.values()):
        one, other = (of_its_own(table, number) for table in (trap.one, trap.other))
        snapshots += [own(lake, f"one{number}", [one.slice(0, 1), one.slice(1)]), own(lake, f"other{number}", [other])]
        foreign(lake, f"one{number}", [one], spoil=trap.spoil)
    return edges(scanned(config, snapshots))


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_seen_as_it_is(found: Edges, name: str) -> None:
    trap, number = TRAPS[name], list(TRAPS).index(name)
    sides = {"one": [f"one{number}", f"foreign/one{number}"], "other": [f"other{number}"]}
    holds = {("one", "other"): trap.one_in_other, ("other", "one"): trap.other_in_one, ("one", "one"): True}
    tables = {table for side in sides.values() for table in side}
    expected = {
        (child, parent, multiset)
        for (a, b), multiset in holds.items()
        if multiset is not None
        for child in sides[a]
        for parent in sides[b]
        if child != parent
    }
    assert {edge for edge in found if tables & {edge[0], edge[1]}} == expected


@hypothesis.settings(max_examples=15, deadline=None)
@given(small_lakes(), st.booleans())
def test_edges_are_those_of_counting_whatever_the_types(tables: dict[str, Table], is_strict: bool) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = strict(Path(home)) if is_strict else Settings(home=Path(home))
        assert edges(scanned(config, put(Lake.open(config), tables))) == by_counting(tables)


# --- partition values, names, columns without a value --------------------------------------------------------------------------


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_an_empty_text_of_a_partition_is_null_for_another_writer_and_a_text_for_us(config: Settings) -> None:
    lake = Lake.open(config)
    empty, null = (pa.table({"p": pa.array([p, "b"], TEXT), "x": [1, 2]}) for p in ("", None))
    snapshots = [own(lake, "empty", [empty]), own(lake, "null", [null])]
    foreign(lake, "parted", [empty], partition_by=["p"])
    foreign(lake, "parted null", [null], partition_by=["p"])
    foreign(lake, "whole", [empty])
    pairs = {(child, parent) for child, parent, _ in edges(scanned(config, snapshots))}
    nulls = {"null", "foreign/parted", "foreign/parted null"}
    assert pairs == {(a, b) for same in (nulls, {"empty", "foreign/whole"}) for a in same for b in same if a != b}


def test_a_dictionary_is_its_values(config: Settings) -> None:
    lake = Lake.open(config)
    texts = column(["p", "q", "p", None], TEXT)
    encoded = texts.set_column(0, "c", texts["c"].dictionary_encode())
    foreign(lake, "encoded", [encoded])
    foreign(lake, "stored", [texts], spoil=stored_as(pa.dictionary(pa.int32(), TEXT)))
    found = edges(scanned(config, [own(lake, "encoded", [encoded]), own(lake, "texts", [texts.slice(1)])]))
    same = ["encoded", "foreign/encoded", "foreign/stored"]
    expected = {(a, b, True) for a in same for b in same if a != b} | {("texts", parent, True) for parent in same}
    assert found == expected | {(child, "texts", False) for child in same}


def test_an_empty_text_in_a_partition_of_ours_stays_one(config: Settings) -> None:
    lake = Lake.open(config)
    rows = pa.table({"row_id": [1], "p": [""], "x": [7]})
    file = write_part(
        lake.folder("records/parted"), rows.to_batches(), rows.schema, digest_columns=["p", "x"], partition={"p": None}
    )
    lineage = Lineage("test", "parted", "")
    parted = lake.commit("records/parted", rows.schema, [file], lineage=lineage, overwrite=True, partition_by=["p"])
    plain = [own(lake, name, [pa.table({"p": pa.array([p], TEXT), "x": [7]})]) for name, p in (("empty", ""), ("null", None))]
    found = edges(scanned(config, [parted, *plain]))
    assert {(child, parent) for child, parent, _ in found} == {("parted", "empty"), ("empty", "parted")}


@pytest.mark.parametrize("table", [pa.table({"a": [1], "b": [2]}), pa.table({"s": pa.array([{"a": 1, "b": 2}])})])
def test_names_that_differ_only_in_case_never_get_so_far(config: Settings, table: pa.Table) -> None:
    """{a: 1, A: 2} and {a: 2, A: 1} would look alike. Delta refuses such a schema, and a log that has one is not read."""

    def rename(path: Path) -> None:
        entries = log_of(path)
        said = next(entry["metaData"] for entry in entries if "metaData" in entry)
        said["schemaString"] = said["schemaString"].replace('"name":"b"', '"name":"A"')
        put_log(path, entries)

    with pytest.raises(ForeignUnreadable, match="no Delta table can be read"):
        foreign(Lake.open(config), "twice", [table], spoil=rename)


def test_a_column_without_a_value_meets_any_other(config: Settings) -> None:
    """No value told ingest the type of such a column: it is text in the one and a number in the other."""
    lake = Lake.open(config)
    numbers = pa.table({"id": [1, 2, 3], "note": pa.array([None, None, 7], INT)})
    nothing = pa.table({"id": [1, 2], "note": pa.array([None, None], TEXT)})
    times = pa.table({"id": [1, 2, 3], "note": pa.array([None, None, NOON], UTC)})
    snapshots = [own(lake, "nothing", [nothing.slice(0, 1), nothing.slice(1)])]
    snapshots += [
        own(lake, name, [table]) for name, table in (("numbers", numbers), ("times", times), ("full", numbers.slice(2)))
    ]
    assert edges(scanned(config, snapshots)) == {
        ("nothing", "numbers", True),
        ("nothing", "times", True),
        ("full", "numbers", True),
    }
