"""The demonstration's raw files and settings belong together."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flows import demo_data
from infra.settings import load_settings


def test_the_raw_files_are_those_that_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        {"package": f"p{n % 3}", "module": "m", "name": f"f{n}", "kind": "function", "text": f"words of docstring {n} " * 3}
        for n in range(30)
    ]
    monkeypatch.setattr(demo_data, "installed_docstrings", lambda: iter(records))
    assert demo_data.write_raw(tmp_path) in ("p0", "p1", "p2")
    settings = load_settings(tmp_path / "lethe.toml")
    sources = [source for table in settings.tables.values() for source in table.source]
    assert all(
        list(tmp_path.glob(str(Path(source).relative_to(tmp_path)) if Path(source).is_absolute() else source))
        for source in sources
    )
    asked = settings.dataset("docs").select
    assert asked.decontaminate is not None
    assert asked.decontaminate.tables == ("exam",)
    exam, target = (_texts(tmp_path / "raw" / f"{name}.csv") for name in ("exam", "stdlib"))
    assert len(exam) > 100
    assert len(target) > 100
    assert len(exam & target) < len(exam) / 10


def _texts(path: Path) -> set[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["text"] for row in csv.DictReader(file)}
