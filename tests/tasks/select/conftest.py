"""A small lake with pool tables and a target, and the stage called outside of Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings
from tasks.select.task import SelectResult, select

SUBJECT = {"kind": "author", "column": "author"}
TABLES = {
    "news": {"source": "x", "text": "body", "subject": SUBJECT},
    "notes": {"source": "x", "text": "text"},
    "speech": {"source": "x", "text": "text"},
    "faq": {"source": "x", "text": "text"},
    "exam": {"source": "x", "text": "text"},
}


class House:
    """A lake in a folder, and what a test does with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake = Lake.open(self.settings())

    def settings(self, *, sample_rows: int = 100_000, target: Any = "speech", **chosen: Any) -> Settings:
        datasets = {"d": {"pool": ["news", "notes"], "target": target, "select": chosen}}
        lake = {"root": "lake", "sample_rows": sample_rows}
        return Settings.model_validate({"home": self.home, "lake": lake, "tables": TABLES, "datasets": datasets})

    def put(
        self, name: str, rows: Sequence[dict[str, Any]], schema: pa.Schema, *, n_files: int = 1, reuse: bool = False
    ) -> Snapshot:
        """Replace a table's rows; with `reuse`, add a file with these rows instead."""
        table = pa.Table.from_pylist(list(rows), schema)
        ids = row_ids(name, row_hashes(table, schema.names, self.lake.keys.row), self.lake.keys.row)
        table = table.add_column(0, "row_id", pa.array(ids))
        step = max(1, -(-len(rows) // n_files))
        pieces = [table.slice(start, step) for start in range(0, max(1, len(rows)), step)]
        folder = self.lake.folder(f"records/{name}")
        files = [write_part(folder, piece.to_batches(), table.schema, digest_columns=schema.names) for piece in pieces]
        return self.lake.commit(f"records/{name}", table.schema, files, lineage=Lineage("ingest", "", ""), overwrite=not reuse)

    def select(self, pool: Sequence[Snapshot], *beside: Snapshot, **options: Any) -> SelectResult:
        """Select from a pool towards targets, beside evaluation tables."""
        return select.fn(self.settings(**options), "d", tuple(pool), beside)

    def decisions(self, result: SelectResult) -> dict[int, dict[str, Any]]:
        rows = self.lake.read(result.snapshot).to_pylist()
        assert len({row["row_id"] for row in rows}) == len(rows)
        return {row["row_id"]: row for row in rows}

    def ids(self, snapshot: Snapshot) -> list[int]:
        return self.lake.read(snapshot, ["row_id"]).column("row_id").to_pylist()


@pytest.fixture
def make_house(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], House]:
    """Lakes that share one secret, so that equal rows have equal ids in all of them."""
    monkeypatch.setenv("LETHE_SECRET", "5a" * 32)
    return lambda: House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(make_house: Callable[[], House]) -> House:
    return make_house()
