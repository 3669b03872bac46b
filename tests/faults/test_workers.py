"""Workers that die: one is replaced and the run ends well; a file that kills each of them is named."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, WorkerPlugin
from fault_project import Project, assert_recovers, first_files, lines, world_of

from flows.workspace import opened
from infra.cluster import LazyCluster
from tasks.ingest.task import ingest

_TIMEOUT_S = 240.0


class _Killer(WorkerPlugin):
    """Kills its worker when that opens a raw file: always, or as long as a marker is there to be taken away."""

    name = "killer"

    def __init__(self, path: str, marker: str | None) -> None:
        self._path = path
        self._marker = marker

    def setup(self, worker: Any) -> None:
        del worker
        sys.addaudithook(self._opened)

    def _opened(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args[0] == self._path and self._is_due():
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_due(self) -> bool:
        if self._marker is None:
            return True
        try:
            os.unlink(self._marker)
        except FileNotFoundError:
            return False
        return True


def _ingested(home: str, path: str, marker: str | None) -> list[Any]:
    """An ingest by two worker processes, one of which dies when it opens `path`."""
    with opened(home) as work:
        assert isinstance(work.scheduler, LazyCluster)
        with Client(work.scheduler.address(), set_as_default=False) as client:
            client.register_plugin(_Killer(path, marker))
        return ingest.fn(work.settings, scheduler=work.scheduler)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    text = '[collections.c]\nsource = "in/*/*"\n[cluster]\ndevice = "cpu"\nn_workers = 2\nlocal_bytes = 0\n'
    return Project(tmp_path / "project", text).put(first_files())


def test_a_worker_that_is_killed_is_replaced(project: Project, tmp_path: Path) -> None:
    world = world_of(project, tmp_path / "kept")
    marker = tmp_path / "once"
    marker.touch()
    path = str(world.again().home / "in" / "people" / "a.csv")
    ended = project.call(_ingested, path, str(marker), timeout_s=_TIMEOUT_S)
    assert not ended.error, ended.message
    assert not marker.exists()
    assert project.held() == world.expected
    assert_recovers(project, world.expected)


@pytest.mark.slow
def test_a_file_that_kills_every_worker_is_named(project: Project, tmp_path: Path) -> None:
    """It may not take down the run without a name; without it the run goes on."""
    world = world_of(project, tmp_path / "kept")
    poison = world.again().put({"c/poison.jsonl": lines(0, 5)}).home / "in" / "c" / "poison.jsonl"
    ended = project.call(_ingested, str(poison), None, timeout_s=_TIMEOUT_S)
    assert ended.error == "WorkersDied"
    assert "poison.jsonl" in ended.message
    poison.unlink()
    assert_recovers(project, world.expected)
