"""Recipes of tables that ingest made: what comes back looks as ingest left it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from infra.cluster import connect
from infra.files import Part, read_part_table
from infra.lake import Lake
from infra.settings import load_settings
from tasks.dedup.rebuild import find_recipe, fingerprint_of, rebuild
from tasks.dedup.recipes import NoRecipe, schema_of
from tasks.ingest.task import ingest

SMALL = """
[tables.all]
source = "all.csv"
[tables.some]
source = "some.csv"
partition_by = ["shop"]
text = "note"
subject = {kind = "person", column = "who"}
"""


def test_data_files_come_back_as_ingest_wrote_them(tmp_path: Path) -> None:
    lines = [f"{i},{'ab'[i % 2]},p{i},note {i},{i / 4}" for i in range(40)]
    for name, rows in (("all", lines), ("some", lines[5:30])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["n,shop,who,note,x", *rows]), encoding="utf-8")
    (tmp_path / "lethe.toml").write_text(SMALL, encoding="utf-8")
    config = load_settings(tmp_path)
    ingest.fn(config)
    lake = Lake.open(config)
    child, parent = lake.snapshot("records/some"), lake.snapshot("records/all")
    with connect(None) as workers, lake.scratch() as folder:
        recipe = find_recipe(lake, config, child, [parent], workers=workers)
        files = rebuild(lake, config, recipe, workers=workers, folder=folder)
        again = [Part(f"{folder}/{file.path}", file, schema_of(recipe)) for file in files]
        before = [(dict(p.file.partition), p.file.source, p.file.digest, read_part_table(p)) for p in lake.parts(child)]
        after = [(dict(p.file.partition), p.file.source, p.file.digest, read_part_table(p)) for p in again]
        bounds = [{name: b for name, b in p.file.stats.items() if "min" in b} for p in (*lake.parts(child), *again)]
    assert recipe.kind == "predicate" and {term.column for term in recipe.terms} <= {"n", "x"}
    assert sorted(before, key=repr) == sorted(after, key=repr)  # rows in the same order, too
    assert sorted(bounds[:2], key=repr) == sorted(bounds[2:], key=repr) and {*bounds[0]} == {"n", "x"}


@pytest.mark.slow
def test_versions_of_real_tables_come_back(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "lake" / "snapshots.tar.gz"
    (tmp_path / "lethe.toml").write_text(f'[collections.s]\nsource = "{source}"\n', encoding="utf-8")
    config = load_settings(tmp_path)
    ingest.fn(config)
    lake = Lake.open(config)
    tables = lake.tables("records")
    kinds = Counter[str]()
    with connect(None) as workers:
        for old, new in pairwise(tables):
            if re.sub(r"__.*", "", old) != re.sub(r"__.*", "", new):
                continue
            child = lake.snapshot(old)
            try:
                recipe = find_recipe(lake, config, child, [lake.snapshot(new)], workers=workers)
            except NoRecipe:
                kinds["none"] += 1
                continue
            with lake.scratch() as folder:
                files = rebuild(lake, config, recipe, workers=workers, folder=folder)
                rows = pa.concat_tables([read_part_table(Part(f"{folder}/{f.path}", f, schema_of(recipe))) for f in files])
            assert str(fingerprint_of(files)) == child.digest
            ids = Counter(lake.read(child)["row_id"].to_pylist())
            assert Counter(rows["row_id"].to_pylist()) == ids and rows.schema == lake.schema(child)
            kinds[recipe.kind] += 1
    assert kinds["predicate"] > 20 and kinds["membership"] > 20 and kinds["none"] < 10
