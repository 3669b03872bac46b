"""Maintenance: small files are joined, leftovers go, and no row changes."""

from __future__ import annotations

import uuid
from pathlib import Path

from flows import show
from flows.curate import ingest_tables
from flows.maintain import maintain
from infra.lake import Lake
from infra.settings import load_settings


def test_maintenance_changes_files_and_no_row(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = tmp_path / "lethe.toml"
    config.write_text('[tables.t]\nsource = "in/*.csv"\nsubject = { kind = "person", column = "who" }\n')
    for day in range(4):
        (tmp_path / "in" / f"{day}.csv").write_text("who,v\n" + "".join(f"p{n},{day}\n" for n in range(5)))
        [before] = ingest_tables(["t"], str(config))
    lake = Lake.open(load_settings(config))
    folder = Path(lake.uri("records/t"))
    stray = folder / f"part-{uuid.uuid4().hex}-0-3-{0:032x}.parquet"
    stray.write_bytes(b"left by a killed run")
    (tmp_path / "lake" / "records" / "never").mkdir()
    (tmp_path / "lake" / "records" / "never" / "draft-1.parquet").write_bytes(b"x")

    document = show.maintained(maintain(str(config)))

    [joined] = document.compacted
    assert (joined.table, joined.n_files_before, joined.n_files) == ("records/t", 4, 1)
    assert {t.table: t.n_files_deleted for t in document.tidied} == {"records/t": 1, "records/never": 1}
    assert not stray.exists() and not (tmp_path / "lake" / "records" / "never").exists()
    after = lake.snapshot("records/t")
    assert (after.digest, after.n_rows) == (before.digest, 20)
    assert ingest_tables(["t"], str(config))[0].found
    again = show.maintained(maintain(str(config)))
    assert (again.compacted, again.tidied, again.problems) == ([], [], {})
