"""Fixtures of the fault tests: a small project with every kind of raw file, and one secret for all lakes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("fault_project", "fault_child")

from fault_project import Project  # noqa: E402 - after its asserts are rewritten


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")
