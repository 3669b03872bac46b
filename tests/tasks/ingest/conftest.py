"""Projects to ingest in, all under one secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ingest_project import TABLE, Project


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Project]:
    """Projects in folders of their own: `make(text)` adds lines to the section of the table `t`."""
    n = iter(range(1000))
    return lambda text="": Project(tmp_path / f"p{next(n)}", TABLE + text)


@pytest.fixture(autouse=True)
def _one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SECRET", "ab" * 32)
