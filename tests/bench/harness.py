"""What the benchmarks share: the row of the printed table, the data, a clock that a busy machine does not disturb much."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import psutil

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
N_REPEATS = 5
# Settings of whoever runs the benchmarks; none of them may reach a scratch lake, a Prefect server or a reference.
_OUTER = ("LETHE_", "PREFECT_", "MLFLOW_", "DASK_", "PYTHONPATH")


@dataclass(frozen=True)
class Row:
    """One comparison within one run. A verdict is met, not met, a reason why it was skipped, or - where there is no target."""

    what: str
    ours: str
    theirs: str
    ratio: str
    target: str = "-"
    verdict: str = "-"


@dataclass(frozen=True)
class Options:
    """Where the data lies, an interpreter that has the reference implementation of selection (None: one is made), and whether
    the sizes are those of README's figures, which take hours.
    """

    data: Path = DATA
    reference_python: Path | None = None
    full: bool = False


def print_parts(parts: Iterable[Callable[[Options], Iterable[Row]]], description: str | None) -> None:
    """The command line of a benchmark's module: its rows as they come."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true")
    options = Options(full=parser.parse_args().full)
    for part in parts:
        for row in part(options):
            print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.verdict}")


def skipped(what: str, target: str, why: str) -> Row:
    return Row(what, "-", "-", "-", target, f"skipped: {why}")


def verdict(met: bool) -> str:
    return "met" if met else "not met"


def times(theirs: float, ours: float) -> str:
    """How many times less ours is: 2.0x is half of theirs."""
    return f"{theirs / ours:.3g}x"


def table(rows: Sequence[Row]) -> str:
    """Columns as wide as their widest cell."""
    lines = [[field.name for field in fields(Row)], *(list(astuple(row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_json(rows: Iterable[Row]) -> str:
    return json.dumps([asdict(row) for row in rows])


def of_json(text: str) -> list[Row]:
    return [Row(**row) for row in json.loads(text)]


def unpacked(archive: Path, place: Path, members: Sequence[str] | None = None) -> Path:
    """The files of a packed folder, or those named, under `place`."""
    with tarfile.open(archive) as packed:
        packed.extractall(place, None if members is None else [packed.getmember(name) for name in members], filter="data")
    return place


def least_cpu_s(work: Callable[[], object]) -> float:
    """The least CPU seconds (all threads of this process) of some runs, so that a busy machine tells the same story."""

    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return min(once() for _ in range(N_REPEATS))


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass
class Peak:
    """The most bytes of memory that one process, this one or a child of its, has held."""

    n_bytes: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        here = psutil.Process()
        while not self.done.wait(0.05):
            for process in (here, *here.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    self.n_bytes = max(self.n_bytes, process.memory_info().rss)


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watches the memory of this process and its children, twenty times a second."""
    peak = Peak()
    watcher = threading.Thread(target=peak.watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        peak.done.set()
        watcher.join()


def peer_python(name: str, requirements: Sequence[str]) -> str:
    """An interpreter of its own that has a peer, installed on first use in a folder of yours under the system's temporary one.

    Raises `CalledProcessError` where it cannot be had.
    """
    place = Path(tempfile.gettempdir()) / f"lethe-bench-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        raise PermissionError(f"{place} belongs to someone else; remove it")
    python, done = place / name / "bin" / "python", place / name / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def wall_s(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def stopwatch(*doors: tuple[ModuleType, str]) -> Iterator[dict[str, float]]:
    """Seconds spent in functions of modules, by their names, while the context is open; they are replaced by clocked ones."""
    taken = {name: 0.0 for _, name in doors}

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = work(*args, **options)
            taken[name] += time.perf_counter() - start
            return result

        return run

    patches = [mock.patch.object(module, name, clocked(name, getattr(module, name))) for module, name in doors]
    for patch in patches:
        patch.start()
    try:
        yield taken
    finally:
        for patch in patches:
            patch.stop()


def said(steps: dict[str, float], total_s: float) -> str:
    """Steps by their seconds, and what is left of the total."""
    known = [f"{name} {seconds:.2f}" for name, seconds in steps.items()]
    return ", ".join([*known, f"rest {total_s - sum(steps.values()):.2f}", f"total {total_s:.2f} s"])


def environment() -> dict[str, str]:
    """The environment of a child process, without any outer setting."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OUTER)}
