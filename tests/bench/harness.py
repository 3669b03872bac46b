"""What the benchmarks share: the row of the printed table, the data, a clock that a busy machine does not disturb much."""

from __future__ import annotations

import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

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
    """Where the data lies, and an interpreter that has the reference implementation of selection (None: one is made)."""

    data: Path = DATA
    reference_python: Path | None = None


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
