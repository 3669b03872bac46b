"""Raw files that are broken, and raw files that move while they are read: what is whole is in, what is not is told, and once the
file is whole the lake is as if it had always been."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fault_project import Held, Project, Recovery, ingested, recovered, rejects, values

TABLE = '[tables.t]\nsource = "in/*"\n'
_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": lambda data: bz2.compress(data, 1),  # blocks of 100 kB: a cut one is lost whole
    "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


_KINDS = pytest.mark.parametrize("kind", ["csv", pytest.param("jsonl", marks=pytest.mark.slow)])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", TABLE)


def _undisturbed(project: Project) -> Held:
    """What a lake of the raw files as they are now holds; the project's own lake is gone after it."""
    shutil.rmtree(project.home / "lake")
    ended = project.run()
    assert not ended.error, ended.message
    return project.held()


def _settles(project: Project) -> None:
    found: Recovery = project.value(recovered)
    expected = _undisturbed(project)
    assert (found.held, found.tidied) == (expected, expected)
    assert (found.unreferenced, found.unsettled) == ([], [])


# --- broken -------------------------------------------------------------------------------------------------------------------


def _rows(n: int) -> list[tuple[int, str]]:
    chance = random.Random(7)
    return [(i, f"w{chance.getrandbits(200):x}") for i in range(n)]


def _text(rows: list[tuple[int, str]], kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in rows).encode()
    return "".join(["n,text\n", *(f"{n},{text}\n" for n, text in rows)]).encode()


@pytest.mark.parametrize(
    ("packed", "kind"),
    [
        ("gz", "csv"),
        ("zst", "csv"),
        ("bz2", "jsonl"),
        pytest.param("gz", "jsonl", marks=pytest.mark.slow),
        pytest.param("zst", "jsonl", marks=pytest.mark.slow),
        pytest.param("bz2", "csv", marks=pytest.mark.slow),
    ],
)
def test_a_truncated_stream_gives_what_stands_before_its_end(project: Project, packed: str, kind: str) -> None:
    rows = _rows(8_000)
    whole = _PACKED[packed](_text(rows, kind))
    ended = project.put({f"a.{kind}.{packed}": whole[: len(whole) * 2 // 3], "b.csv": "n,text\n-1,other\n"}).run()
    assert not ended.error, ended.message
    other, *found = sorted(project.value(values, "records/t"))
    assert other == (-1, "other")
    assert len(found) > len(rows) // 4
    assert found == rows[: len(found)]  # none is lost before the damage, and none is a piece of one
    _told(project, packed, at_most=2)  # the file as a whole, and the line that was cut
    project.put({f"a.{kind}.{packed}": whole})
    _settles(project)
    assert sorted(project.value(values, "records/t")) == [(-1, "other"), *rows]


@_KINDS
def test_a_damaged_gzip_is_told_and_its_repair_replaces_all(project: Project, kind: str) -> None:
    """A byte is wrong. gzip tells by the checksum at its end, when wrong text may have come out already."""
    rows = _rows(8_000)
    whole = _PACKED["gz"](_text(rows, kind))
    place = len(whole) * 2 // 3
    ended = project.put({f"a.{kind}.gz": whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]}).run()
    assert not ended.error, ended.message
    _told(project, "gz", at_most=len(rows))
    project.put({f"a.{kind}.gz": whole}, age=1)
    _settles(project)
    assert sorted(project.value(values, "records/t")) == rows


def _told(project: Project, packed: str, *, at_most: int) -> None:
    found = [row for row in project.value(rejects) if row["source"].endswith(packed)]
    (reason,) = [row["reason"] for row in found if row["line"] == 0]
    assert packed[:2] in reason
    assert len(found) <= at_most


# --- moving -------------------------------------------------------------------------------------------------------------------


@contextmanager
def _busy(writer: Callable[[], None]) -> Iterator[None]:
    """Another process of somebody's (here a thread) writes again and again."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            writer()
            time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@_KINDS
def test_a_file_that_grows_while_it_is_read(project: Project, kind: str) -> None:
    """Whatever a run saw, whole lines or half of one, whole numbers or text among them: when the writer is done the next run has
    every line."""
    rows = _rows(30_000)
    project.put({f"a.{kind}": _text(rows, kind), "b.csv": "n,text\n-1,other\n"})
    log = project.home / "in" / f"a.{kind}"
    more = iter(range(len(rows), 10_000_000))
    with log.open("ab", buffering=0) as file:

        def append() -> None:
            line = _text([(next(more), "more" * 10)], kind).splitlines(keepends=True)[-1]
            file.write(line[:20])
            file.write(line[20:])

        with _busy(append):
            ended = project.run()
            again = project.run()
    for one in (ended, again):
        assert one.error in ("", "ChangedWhileRead"), one.message
    _settles(project)
    assert [n for n, _ in sorted(project.value(values, "records/t"))] == list(range(-1, next(more)))


@pytest.mark.parametrize("line", ["7,x\n", "x,7\n"])
def test_a_file_that_grows_whenever_it_is_opened(project: Project, line: str) -> None:
    """Between the listing and the reading, and between two readings; the second line also changes a column's type."""
    project.put({"a.csv": "n,text\n1,x\n", "b.csv": "n,text\n2.5,y\n"})
    ended = project.call(_on_open, "a.csv", _append, line)
    assert ended.error in ("", "ChangedWhileRead"), ended.message
    assert not ended.error or "a.csv" in ended.message
    _settles(project)


@pytest.mark.parametrize("act", ["gone", "shorter", "other"])
def test_a_file_that_is_taken_away_while_it_is_read(project: Project, act: str) -> None:
    project.put({"a.csv": _text(_rows(1_000), "csv"), "b.csv": "n,text\n1,x\n"})
    name = "b.csv" if act == "gone" else "a.csv"
    ended = project.call(_on_open, name, {"gone": _remove, "shorter": _halve, "other": _replace}[act], "")
    assert not ended.signal
    project.put({"b.csv": "n,text\n1,x\n", "c.csv": "n,text\n2,y\n"})
    _settles(project)


@_KINDS
def test_a_file_that_is_rewritten_while_it_is_read(project: Project, kind: str) -> None:
    """As logs are rotated: emptied and filled again, at any moment. Never a crash, though a reader may have mapped it."""
    path = project.home / "in" / f"a.{kind}"
    texts = [_text(_rows(n), kind) for n in (20_000, 100)]
    project.put({path.name: texts[0]})

    def rotate() -> None:
        for text in texts:
            path.write_bytes(text)

    with _busy(rotate):
        for _ in range(3):
            assert not project.run().signal
    _settles(project)


def _append(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)


def _remove(path: str, _line: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(path)


def _halve(path: str, _line: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def _replace(path: str, _line: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write("n,text,new\n5,z,\n")
    os.replace(f"{path}.new", path)


def _on_open(home: str, name: str, act: Callable[[str, str], None], line: str) -> Any:
    """Ingest, and act on a raw file whenever this process opens it."""
    path, acting = f"{home}/in/{name}", threading.Lock()

    def opened(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args[0] == path and acting.acquire(blocking=False):
            act(path, line)
            acting.release()

    sys.addaudithook(opened)
    return ingested(home)
