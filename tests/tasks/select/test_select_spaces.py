"""Selection of images and of rows of tables, as a stage: what is like the target is kept, and the laws hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.contracts import Snapshot
from infra.ids import in_sample, sample_level
from infra.settings import Settings
from infra.subjects import row_places
from tasks.select.task import SelectResult, select

METHODS = ("clusters", "simcore", "transport")
SUBJECT = {"kind": "owner", "column": "owner"}
SCHEMAS = {
    "images": pa.schema([("owner", pa.string()), ("kind", pa.string()), ("pixels", pa.list_(pa.int16()))]),
    "cars": pa.schema([("owner", pa.string()), ("kind", pa.string()), ("weight", pa.float64()), ("fuel", pa.string())]),
}
Row = dict[str, Any]


def images(n: int, seed: int, kinds: str = "lr") -> list[Row]:
    """Images that are bright on the left (l) or on the right (r); the last shows nothing."""
    rng = np.random.default_rng(seed)
    found = list[Row]()
    for i in range(n):
        kind = kinds[i % len(kinds)]
        pixels = rng.integers(0, 60, 16) + 150 * (np.arange(16) // 8 == "lr".index(kind))
        found.append({"owner": f"o{seed}-{i // 2}", "kind": kind, "pixels": pixels.tolist()})
    return [*found, {"owner": "nobody", "kind": "-", "pixels": None}]


def cars(n: int, seed: int, kinds: str = "lr") -> list[Row]:
    """Light (l) and heavy (r) cars; of the last nothing is known."""
    rng = np.random.default_rng(seed)
    found = list[Row]()
    for i in range(n):
        kind = kinds[i % len(kinds)]
        weight = 1000.0 + 900 * (kind == "r") + 80 * rng.normal()
        found.append({"owner": f"o{seed}-{i // 2}", "kind": kind, "weight": weight, "fuel": {"l": "gas", "r": "oil"}[kind]})
    return [*found, {"owner": "nobody", "kind": "-", "weight": None, "fuel": None}]


MADE: dict[str, Callable[..., list[Row]]] = {"images": images, "cars": cars}


def select_like(
    house: Any,
    pool: Snapshot,
    target: Snapshot,
    method: str,
    *,
    sample_rows: int = 100_000,
    label: str | None = "kind",
    **chosen: Any,
) -> SelectResult:
    name = pool.table.removeprefix("records/")
    table = {"source": "x", "subject": SUBJECT, "label": label}
    asked = {"method": method, "n_clusters": 4, "temperature": 0.01, "keep_fraction": 0.3, **chosen}
    settings = Settings.model_validate(
        {
            "home": house.home,
            "lake": {"root": "lake", "sample_rows": sample_rows},
            "tables": {name: table, "wanted": table},
            "datasets": {"d": {"pool": [name], "target": "wanted", "select": asked}},
        }
    )
    return select.fn(settings, "d", (pool,), (target,))


def wanted(house: Any, name: str) -> Snapshot:
    return house.put("wanted", MADE[name](24, 9, kinds="r"), SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_like_the_target_is_kept(house: Any, method: str, name: str) -> None:
    pool = house.put(name, MADE[name](120, 0), SCHEMAS[name], n_files=2)
    result = select_like(house, pool, wanted(house, name), method)
    kinds = {row["row_id"]: row["kind"] for row in house.lake.read(pool).to_pylist()}
    made = house.decisions(result)
    kept = Counter(kinds[i] for i, row in made.items() if row["keep"])
    assert (result.n_kept, kept["-"]) == (36, 0)
    assert kept["r"] >= 34
    assert Counter(row["reason"] for row in made.values())["empty_text"] == 1


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("method", METHODS)
def test_erased_is_never_seen_in_any_order(make_house: Callable[[], Any], method: str, name: str) -> None:
    rows = MADE[name](80, 0)
    rest = [row for row in rows if row["owner"] != "o0-7"]
    erased, never = make_house(), make_house()
    select_like(erased, erased.put(name, rows, SCHEMAS[name]), wanted(erased, name), method)
    after = select_like(erased, erased.put(name, rest, SCHEMAS[name], n_files=3), wanted(erased, name), method)
    random.Random(1).shuffle(rest)
    fresh = select_like(never, never.put(name, rest, SCHEMAS[name]), wanted(never, name), method)
    assert not after.found
    assert after.snapshot.digest == fresh.snapshot.digest


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("method", METHODS)
def test_a_row_outside_the_sample_changes_nobody_else(house: Any, method: str, name: str) -> None:
    rows = MADE[name](120, 0)
    pool = house.put(name, rows, SCHEMAS[name])
    before = house.decisions(select_like(house, pool, wanted(house, name), method, sample_rows=70))
    table = house.lake.read(pool)
    level = sample_level(table.num_rows, 70)
    outside = ~in_sample(row_places(table, settings_subject(), house.lake.keys), level)
    gone = table.column("owner").to_pylist()[int(np.flatnonzero(outside)[0])]
    rest = house.put(name, [row for row in rows if row["owner"] != gone], SCHEMAS[name])
    after = house.decisions(select_like(house, rest, wanted(house, name), method, sample_rows=70))
    assert level == 1 and len(after) == len(before) - 2
    assert all(before[row_id] == row for row_id, row in after.items())


def settings_subject() -> Any:
    return Settings.model_validate({"home": "/", "tables": {"x": {"source": "x", "subject": SUBJECT}}}).table("x").subject


def test_a_column_that_is_no_label_any_more_is_compared_too(house: Any) -> None:
    """What an embedding sees is in the key: a selection by fewer columns must not be found again."""
    pool, target = house.put("cars", cars(40, 0), SCHEMAS["cars"]), wanted(house, "cars")
    assert not select_like(house, pool, target, "clusters").found
    assert select_like(house, pool, target, "clusters").found
    assert not select_like(house, pool, target, "clusters", label=None).found
