"""Tables covered by several others, and tables contained under other column names, as the whole scan finds them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.task import DedupResult, dedup
from tests.tasks.dedup.test_dedup_task import fill


def scan(home: Path, tables: Mapping[str, pa.Table], **options: object) -> DedupResult:
    """Put tables into the lake, beside those that are there, and scan it."""
    config = Settings.model_validate({"home": home, **options})
    lake = Lake.open(config)
    fill(lake, {name: [table] for name, table in tables.items()})
    return dedup.fn(config, tuple(lake.snapshot(name) for name in lake.tables("records")))


def sales(months: Sequence[int]) -> pa.Table:
    rows = [(month, day, month * 100 + day * 7 % 31) for month in months for day in range(1, 29)]
    month, day, amount = zip(*rows, strict=True)
    return pa.table(
        {"month": pa.array(month, pa.int64()), "day": pa.array(day, pa.int64()), "amount": pa.array(amount, pa.int64())}
    )


def test_a_year_is_covered_by_its_months(tmp_path: Path) -> None:
    months = {f"month {m:02}": sales([m]) for m in range(1, 13)}
    result = scan(tmp_path, {"year": sales(range(1, 13)), **months})
    assert [(cover.child, cover.parents, cover.multiset) for cover in result.covers] == [("year", tuple(months), True)]
    assert result.covers[0].parent_versions == (0,) * 12


def test_a_table_within_another_part_adds_nothing_to_a_cover(tmp_path: Path) -> None:
    tables = {"year": sales(range(1, 13)), "half": sales(range(1, 7)), "spring": sales([3, 4, 5]), "rest": sales(range(7, 13))}
    result = scan(tmp_path, tables)
    assert [(cover.child, cover.parents) for cover in result.covers] == [("year", ("half", "rest"))]


def test_a_year_that_has_one_row_more_is_covered_by_nothing(tmp_path: Path) -> None:
    months = {f"month {m:02}": sales([m]) for m in range(1, 13)}
    more = pa.concat_tables([sales(range(1, 13)), sales([1]).slice(0, 1)])
    result = scan(tmp_path, {"year": more, **months})
    assert [(cover.child, cover.multiset) for cover in result.covers] == [("year", False)]
    other = pa.concat_tables([sales(range(1, 13)), pa.table({"month": [13], "day": [1], "amount": [0]})])
    assert scan(tmp_path / "other", {"year": other, **months}).covers == ()


def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    tables = {"year": sales(range(1, 13)), **{f"month {m:02}": sales([m]) for m in range(1, 13)}}
    first = scan(tmp_path, tables)
    again = scan(tmp_path, {"another": pa.table({"x": [1, 2], "y": [1, 2]})})
    assert again.covers == first.covers and not again.found
    assert again.bytes_read < first.bytes_read / 5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_covers_are_those_of_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, child: list[int], parents: list[list[int]]
) -> None:
    def table(values: Sequence[int]) -> pa.Table:
        return pa.table({"x": pa.array(values, pa.int64()), "y": pa.array([v * 7 for v in values], pa.int64())})

    result = scan(tmp_path_factory.mktemp("lake"), {"child": table(child), **{f"p{i}": table(p) for i, p in enumerate(parents)}})
    found = [cover for cover in result.covers if cover.child == "child"]
    alone = any(set(child) <= set(p) for p in parents)
    together = Counter(itertools.chain(*(parents)))
    assert bool(found) == (not alone and set(child) <= set(together))
    for cover in found:
        chosen = [parents[int(name[1:])] for name in cover.parents]
        covers = [Counter(itertools.chain(*some)) for some in (chosen, *itertools.combinations(chosen, len(chosen) - 1))]
        held = [Counter(child) <= one if cover.multiset else set(child) <= set(one) for one in covers]
        assert held[0] and not any(held[1:])
        assert not cover.multiset or Counter(child) <= together


def people(numbers: Sequence[int], names: Sequence[str] = ("id", "name", "height")) -> pa.Table:
    columns = [numbers, [f"name {n}" for n in numbers], [150 + n / 16 for n in numbers]]
    return pa.table(dict(zip(names, columns, strict=True)))


def test_a_renamed_column_is_found_and_checked(tmp_path: Path) -> None:
    swapped = people(range(400)).to_pydict()
    swapped["name"][0], swapped["name"][1] = swapped["name"][1], swapped["name"][0]
    tables = {
        "parent": people(range(1000)),
        "child": people(range(400), ("id", "nom", "taille")),
        "near miss": pa.table({"id": swapped["id"], "nom": swapped["name"], "taille": swapped["height"]}),
    }
    result = scan(tmp_path, tables)
    assert [(r.child, r.parent, r.multiset) for r in result.renames] == [("child", "parent", True)]
    assert result.renames[0].columns == (("id", "id"), ("nom", "name"), ("taille", "height"))
    again = scan(tmp_path, {"another": pa.table({"x": [1, 2], "y": [1, 2]})})
    assert again.renames == result.renames and again.bytes_read < result.bytes_read / 5


def test_neither_is_looked_for_where_nobody_asks(tmp_path: Path) -> None:
    tables = {"year": sales(range(1, 13)), "a": sales(range(1, 7)), "b": sales(range(7, 13)), "c": people(range(9))}
    off = {"approximate": 1.0, "unions": False, "renames": False}
    result = scan(tmp_path, {**tables, "d": people(range(9), ("id", "nom", "taille"))}, dedup=off)
    assert result.covers == result.renames == result.near == ()
