"""Statistics that lie, are rough or are missing: no true edge is lost by them, and no false one is kept."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from infra.lake import Lake
from infra.settings import Settings
from tests.infra.test_foreign import delete_by_vector
from tests.tasks.dedup.mixed_lake import (
    Edges,
    Spoil,
    Table,
    by_counting,
    edges,
    foreign,
    log_of,
    own,
    scanned,
    strict,
    with_stats,
)

INT, DOUBLE, TEXT, UTC, US = pa.int64(), pa.float64(), pa.string(), pa.timestamp("us", "UTC"), pa.timestamp("us")
NAN, INF = float("nan"), float("inf")


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"c": pa.array(values, kind)})


@dataclass(frozen=True)
class Case:
    """A table whose statistics are unsound, some of its rows, and a table that is all but in it."""

    whole: pa.Table
    near: pa.Table
    spoil: Spoil | None = None

    @property
    def part(self) -> pa.Table:
        """The rows at both ends: what an upper bound that is too low would lose."""
        return pa.concat_tables([self.whole.slice(0, 1), self.whole.slice(self.whole.num_rows - 1)])


def cents(*values: str) -> pa.Table:
    return column([Decimal(value) for value in values], pa.decimal128(38, 2))


def moments(*micros: int, kind: pa.DataType = UTC) -> pa.Table:
    return column(micros, kind)


LONG = "x" * 64
SMILE = "\U0001f600"


def as_spark_cuts(stats: dict[str, Any]) -> dict[str, Any]:
    """Texts of at most 32 characters, the largest one rounded up."""
    stats["minValues"] = {name: text[:32] for name, text in stats["minValues"].items()}
    stats["maxValues"] = {name: text[:31] + chr(ord(text[31]) + 1) for name, text in stats["maxValues"].items()}
    return stats


def as_floats(stats: dict[str, Any]) -> dict[str, Any]:
    """Every bound as a double, whose last digits are lost."""
    return stats | {side: {name: float(value) for name, value in stats[side].items()} for side in ("minValues", "maxValues")}


def to_ms(stats: dict[str, Any]) -> dict[str, Any]:
    """Both bounds floored to the millisecond, as Delta's writers do: the greatest value lies above its bound."""
    return stats | {side: {name: text[:23] + "Z" for name, text in stats[side].items()} for side in ("minValues", "maxValues")}


def too_low(stats: dict[str, Any]) -> dict[str, Any]:
    return stats | {"maxValues": dict(stats["minValues"]), "numRecords": 1}


def only_of_the_second_file(path: Path) -> None:
    """A first writer who tells nothing, and a second one who tells bounds."""
    with_stats(lambda stats: None)(path)
    assert "stats" in str(log_of(path, 1))


def of_the_part(spoil: Spoil) -> Spoil:
    """The child's statistics are spoiled, the parent's are as they were."""
    return lambda path: spoil(path) if "part" in path.name else None


CENTS = [f"1234567890123456.{rest}" for rest in ("01", "50", "99")]
MANY = {f"c{i}": [i, i + 1, i + 2] for i in range(40)}
CASES = {
    "decimals as doubles": Case(
        cents(*CENTS), cents("1234567890123456.02"), with_stats(as_floats)
    ),
    "of the child alone": Case(cents(*CENTS), cents("1234567890123456.02"), of_the_part(with_stats(as_floats))),
    "decimals that no double tells apart": Case(
        cents("12345678901234567890.11", "12345678901234567890.12"), cents("12345678901234567890.13")
    ),
    "times to the millisecond": Case(moments(1_000_001, 5_000_000, 9_000_999), moments(9_000_998), with_stats(to_ms)),
    "times as they are written here": Case(moments(-999, 1, 1999), moments(1998)),
    "local times": Case(moments(-999, 1, 1999, kind=US), moments(1998, kind=US)),
    "texts cut at 64 bytes": Case(column([LONG + "a", LONG + "m", LONG + "z"], TEXT), column([LONG + "b"], TEXT)),
    "texts of many bytes": Case(column([SMILE * 40 + "a", SMILE * 40 + "z"], TEXT), column([SMILE * 40], TEXT)),
    "texts that sort otherwise by bytes": Case(column(["\uffff", SMILE, "a"], TEXT), column(["\ue000"], TEXT)),
    "texts cut at 32 characters": Case(
        column([LONG, LONG + "m", LONG + "z"], TEXT), column([LONG + "zz"], TEXT), with_stats(as_spark_cuts)
    ),
    "so by the child alone": Case(
        column([LONG, LONG + "m", LONG + "z"], TEXT), column([LONG + "zz"], TEXT), of_the_part(with_stats(as_spark_cuts))
    ),
    "more than 32 columns": Case(pa.table(MANY), pa.table({**MANY, "c39": [39, 40, 42]})),
    "bytes": Case(column([b"\xff" * 99, b"a", b""], pa.binary()), column([b"\xff" * 98], pa.binary())),
    "lists": Case(column([[1, None], [], None], pa.list_(INT)), column([[1]], pa.list_(INT))),
    "maps": Case(column([[("k", 1)], []], pa.map_(TEXT, INT)), column([[("k", 2)]], pa.map_(TEXT, INT))),
    "structs": Case(
        column([{"x": 1}, {"x": None}, None], pa.struct([("x", INT)])), column([{"x": 2}], pa.struct([("x", INT)]))
    ),
    "infinities": Case(column([-INF, 0.0, INF], DOUBLE), column([2.0], DOUBLE)),
    "an infinity and no NaN": Case(column([0.0, 1.0, INF], DOUBLE), column([NAN], DOUBLE)),
    "a NaN beside bounds": Case(column([NAN, 0.0, 1.0], DOUBLE), column([0.5], DOUBLE)),
    "bounds and no NaN": Case(column([0.0, 0.5, 1.0], DOUBLE), column([0.5, NAN], DOUBLE)),
    "nothing but NaN": Case(column([NAN, NAN], DOUBLE), column([INF], DOUBLE)),
    "no statistics": Case(column([1, 2, 3], INT), column([1, 4], INT), with_stats(lambda stats: None)),
    "statistics that lie": Case(column([1, 2, 3], INT), column([1, 4], INT), with_stats(too_low)),
    "two writers": Case(column([1, 5, None], INT), column([4], INT), only_of_the_second_file),
}  # fmt: skip


def of_its_own(table: pa.Table, number: int) -> pa.Table:
    return table.rename_columns([f"{name}_{number}" for name in table.column_names])


def tables_of(number: int, case: Case) -> dict[str, Table]:
    """Whole and part from us and, with a row twice, from another writer (equal tables would stand for each other); the near miss
    from us.
    """
    whole, part, near = (of_its_own(table, number) for table in (case.whole, case.part, case.near))
    more = [pa.concat_tables([table, table.slice(0, 1)]) for table in (whole, part)]
    files = [(table.slice(0, 1), table.slice(1)) if case.spoil is only_of_the_second_file else (table,) for table in more]
    return {
        f"whole {number}": Table((whole.slice(0, 1), whole.slice(1))),
        f"part {number}": Table((part,)),
        f"near {number}": Table((near,)),
        f"foreign/whole {number}": Table(files[0], is_foreign=True),
        f"foreign/part {number}": Table(files[1], is_foreign=True),
    }


@pytest.fixture(name="found", scope="module")
def _found(tmp_path_factory: pytest.TempPathFactory) -> Edges:
    """The edges of one lake with all cases."""
    config = strict(tmp_path_factory.mktemp("statistics"))
    lake, snapshots = Lake.open(config), []
    for number, case in enumerate(CASES.values()):
        for name, table in tables_of(number, case).items():
            if table.is_foreign:
                foreign(lake, name.removeprefix("foreign/"), table.files, spoil=case.spoil)
            else:
                snapshots.append(own(lake, name, table.files))
    return edges(scanned(config, snapshots))


@pytest.mark.parametrize("name", CASES)
def test_part_is_found_and_the_near_miss_is_not(found: Edges, name: str) -> None:
    number = list(CASES).index(name)
    tables = tables_of(number, CASES[name])
    here = {(child, parent, multiset) for child, parent, multiset in found if child in tables and parent in tables}
    assert here == by_counting(tables)
    parts = {child for child, parent, _ in here if parent in (f"whole {number}", f"foreign/whole {number}")}
    assert f"part {number}" in parts and f"foreign/part {number}" in parts and f"near {number}" not in parts


# --- what bounds do not fit ----------------------------------------------------------------------------------------------------


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Settings:
    return strict(tmp_path)


def test_rows_under_a_deletion_vector_are_neither_found_nor_counted(config: Settings) -> None:
    """The bounds are those of all rows, and `numRecords` counts the hidden ones too."""
    lake = Lake.open(config)
    rows = column([1, 2, 2, 2, 3, 9], INT)
    foreign(lake, "hidden", [rows], spoil=lambda path: delete_by_vector(path, [2, 5], inline=True))
    assert log_of(Path(lake.root).parent / "outside-hidden", 1)[-1]["add"]["stats"].count("9")
    children = {"left": [1, 2, 2, 3], "twice": [2, 2], "thrice": [2, 2, 2], "gone": [9], "one gone": [1, 9]}
    found = edges(scanned(config, [own(lake, name, [column(values, INT)]) for name, values in children.items()]))
    assert {(child, multiset) for child, parent, multiset in found if parent == "foreign/hidden"} == {
        ("left", True),
        ("twice", True),
        ("thrice", False),
    }
    assert {parent for child, parent, _ in found if child == "foreign/hidden"} == {"left"}


def test_partition_columns_have_values_and_no_bounds(config: Settings) -> None:
    lake = Lake.open(config)
    days = [dt.date(2024, 1, day) for day in (1, 2, 3)]
    rows = pa.table({"day": pa.array([*days, None], pa.date32()), "x": [1, 2, 3, 4]})
    foreign(lake, "parted", [rows], partition_by=["day"])
    adds = [entry["add"] for entry in log_of(Path(lake.root).parent / "outside-parted") if "add" in entry]
    assert all("day" not in json.loads(add["stats"])["minValues"] for add in adds)
    swapped = pa.table({"day": pa.array([days[0], days[1]], pa.date32()), "x": [2, 1]})
    snapshots = [own(lake, "some", [rows.slice(1)]), own(lake, "swapped", [swapped]), own(lake, "days", [rows.select(["day"])])]
    assert edges(scanned(config, snapshots)) == {
        ("some", "foreign/parted", True),
        ("days", "foreign/parted", True),
    }


def test_bounds_of_ours_pass_through_checkpoints_unchanged(config: Settings) -> None:
    """A checkpoint that rounded them would lose the table's own copy."""
    lake = Lake.open(config)
    rows = pa.table(
        {
            "at": moments(-62_135_596_800_000_000 + 1, 1_999)["c"],
            "f": [1e-308, 1.7976931348623157e308],
            "i": [-(2**63), 2**63 - 1],
        }
    )
    snapshot = own(lake, "rows", [rows.slice(0, 1), rows.slice(1)])
    before = [part.file.stats for part in lake.parts(snapshot)]
    DeltaTable(lake.uri("records/rows")).create_checkpoint()
    assert list(Path(lake.uri("records/rows"), "_delta_log").glob("*.checkpoint.parquet"))
    assert [part.file.stats for part in lake.parts(snapshot)] == before
    ends = own(lake, "ends", [rows.slice(1)])
    assert edges(scanned(config, [snapshot, ends])) == {("ends", "rows", True)}
