"""A small project on a folder: a lethe.toml, raw files, and what the lake holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.lake import Lake
from infra.settings import load_settings
from tasks.ingest.task import IngestedTable, ingest

TABLE = '[tables.t]\nsource = "in/*"\n'


class Project:
    """A folder with a lethe.toml and raw files under `in/`; in their names, `__` stands for a dot."""

    def __init__(self, home: Path, text: str = TABLE) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        (home / "lethe.toml").write_text(text, encoding="utf-8")

    def put(self, **files: str | bytes) -> Project:
        for name, content in files.items():
            path = self.home / "in" / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def run(self, *tables: str, prune: bool = False) -> list[IngestedTable]:
        return ingest.fn(load_settings(self.home), tables or None, prune=prune)

    @property
    def lake(self) -> Lake:
        return Lake.open(load_settings(self.home))

    def rows(self, table: str = "records/t") -> list[dict[str, Any]]:
        return self.lake.read(self.lake.snapshot(table)).to_pylist() if self.lake.exists(table) else []

    def values(self, table: str = "records/t") -> list[Any]:
        return sorted(([v for k, v in row.items() if k != "row_id"] for row in self.rows(table)), key=repr)

    def reasons(self) -> list[str]:
        return sorted(row["reason"] for row in self.rows("quarantine"))
