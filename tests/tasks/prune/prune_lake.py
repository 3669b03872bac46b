"""A small lake with records of two topics, and the stage called outside of Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from infra.cluster import Scheduler
from infra.contracts import SELECTION, Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings
from tasks.prune.task import PruneResult, prune

Row = dict[str, Any]
TOPICS = (
    ["ball", "goal", "match", "team", "score", "league", "cup"],
    ["stock", "market", "bank", "price", "share", "profit", "loan"],
)
LINEAGE = Lineage("test", "", "")


def notes(n_people: int = 40, n_each: int = 3) -> list[Row]:
    """Notes about sport or money; a tenth of them, at random, about both."""
    rng = np.random.default_rng(0)
    found = list[Row]()
    for person in range(n_people):
        for _ in range(n_each):
            topic = int(rng.random() < 0.3)
            words = TOPICS[topic] + (TOPICS[1 - topic] if rng.random() < 0.1 else [])
            body = " ".join([*rng.choice(words, 8), f"w{rng.integers(10_000)}"])
            found.append({"person": f"p{person}", "body": body, "size": float(rng.normal()), "topic": ("sport", "money")[topic]})
    return found


class House:
    """A lake in a folder, and what a test does with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake = Lake.open(self.settings())

    def settings(
        self,
        *,
        sample_rows: int = 100_000,
        text: str | None = "body",
        holdout: float = 0.2,
        device: str = "auto",
        **chosen: Any,
    ) -> Settings:
        subject = {"kind": "person", "column": "person"}
        dataset = {"pool": ["notes"], "holdout_fraction": holdout, "prune": {"n_clusters": 4, **chosen}}
        model = {"dataset": "d", "kind": "text", "label": "topic", "shards": 3, "slices": 2}
        return Settings.model_validate(
            {
                "home": self.home,
                "lake": {"root": "lake", "sample_rows": sample_rows},
                "tables": {"notes": {"source": "x", "text": text, "subject": subject}},
                "datasets": {"d": dataset},
                "models": {"m": model},
                "cluster": {"device": device, "n_workers": 2, "local_bytes": 0},
            }
        )

    def put(self, rows: Sequence[Row], *, n_files: int = 1, schema: pa.Schema | None = None) -> Snapshot:
        """Replace the notes by these rows, cut into files."""
        table = pa.Table.from_pylist(list(rows), schema)
        ids = row_ids("notes", row_hashes(table, table.schema.names, self.lake.keys.row), self.lake.keys.row)
        with_ids = table.add_column(0, "row_id", pa.array(ids))
        step = max(1, -(-len(rows) // n_files))
        pieces = [with_ids.slice(start, step) for start in range(0, max(1, len(rows)), step)]
        folder = self.lake.folder("records/notes")
        files = [write_part(folder, piece.to_batches(), with_ids.schema, digest_columns=table.schema.names) for piece in pieces]
        return self.lake.commit("records/notes", with_ids.schema, files, lineage=LINEAGE, overwrite=True)

    def choose(self, row_ids: Sequence[int], keep: Sequence[bool], cuts: dict[int, list[int]] | None = None) -> Snapshot:
        """A selection table; `cuts` by row id."""
        n = len(row_ids)
        columns = {"row_id": row_ids, "keep": keep, "reason": ["kept"] * n, "cuts": [(cuts or {}).get(i) for i in row_ids]}
        rows = pa.table([pa.array(columns.get(field.name, [None] * n), field.type) for field in SELECTION], schema=SELECTION)
        file = write_part(self.lake.folder("selection/d"), rows.to_batches(), SELECTION)
        return self.lake.commit("selection/d", SELECTION, [file], lineage=LINEAGE, overwrite=True)

    def prune(
        self, pool: Snapshot, selection: Snapshot | None = None, *, scheduler: Scheduler = None, **options: Any
    ) -> PruneResult:
        return prune.fn(self.settings(**options), "d", (pool,), selection, scheduler=scheduler)

    def decisions(self, result: PruneResult) -> dict[int, Row]:
        rows = self.lake.read(result.snapshot).to_pylist()
        assert len({row["row_id"] for row in rows}) == len(rows)
        return {row["row_id"]: row for row in rows}

    def shard_digests(self, result: PruneResult) -> dict[str, str]:
        return self.lake.lineage(result.snapshot).summary["shard_digests"]

    def records(self, pool: Snapshot) -> dict[int, Row]:
        return {row["row_id"]: row for row in self.lake.read(pool).to_pylist()}
