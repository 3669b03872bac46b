"""A disk that is full: a clear error, nothing half-visible, and with room again the run completes."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from fault_project import Project, World, assert_recovers, first_files, held, ingested, world_of

from infra.contracts import LetheError

_CLONE_NEWNS, _CLONE_NEWUSER, _MS_REMOUNT = 0x00020000, 0x10000000, 32


def _big_files() -> dict[str, str | bytes]:
    """Incompressible text: 2 MB of it become 2 MB of Parquet."""
    lines = [f"{i},{os.urandom(40).hex()}" for i in range(20_000)]
    return {**first_files(), "c/big.csv": "\n".join(["n,text", *lines, ""])}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("disk")
    return world_of(Project(folder / "project").put(_big_files()), folder / "kept")


@pytest.mark.parametrize(
    "n_bytes", [0, 4_000, pytest.param(100, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_files_may_not_grow_beyond_a_limit(world: World, n_bytes: int) -> None:
    """RLIMIT_FSIZE: each write beyond it fails in the kernel, in Python's files and in delta-rs' alike."""
    project = world.again()
    ended = project.call(_limited, n_bytes)
    _refused(ended.error, ended.message)
    assert_recovers(project, world.expected)


def _limited(home: str, n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    ingested(home)


def _refused(error: str, message: str) -> None:
    """An error of Lethe's, for the command line to print and to exit with 1, which says what is wrong with the disk."""
    assert error
    assert "File too large" in message or "No space left on device" in message, message


@pytest.mark.parametrize("n_kilobytes", [64, 600, pytest.param(120, marks=pytest.mark.slow)])
def test_no_space_left_on_device(world: World, n_kilobytes: int) -> None:
    """A lake on a file system of its own that is too small, and then is not."""
    ended = world.again().call(_cramped, n_kilobytes)
    if ended.value is None:
        pytest.skip("no file system can be mounted here")
    error, message, visible, found = ended.value
    _refused(error, message)
    assert visible.items() <= world.expected.digests.items()
    assert found == world.expected


def _cramped(home: str, n_kilobytes: int) -> Any:
    lake = Path(home) / "lake"
    lake.mkdir()
    try:
        _mounted(lake, n_kilobytes)
    except OSError:
        return None
    error, message = "", ""
    try:
        ingested(home)
    except LetheError as failure:
        error, message = type(failure).__name__, str(failure)
    visible = held(home).digests
    _mounted(lake, 64 << 10)
    ingested(home)
    return error, message, visible, held(home)


def _mounted(place: Path, n_kilobytes: int) -> None:
    """A tmpfs for this process alone; once more at the same place, it is made larger."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_REMOUNT
    if not place.is_mount():
        uid, gid, flags = os.getuid(), os.getgid(), 0
        _checked(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        for name, text in {"setgroups": "deny", "uid_map": f"0 {uid} 1", "gid_map": f"0 {gid} 1"}.items():
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    _checked(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, f"size={n_kilobytes}k".encode()))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
