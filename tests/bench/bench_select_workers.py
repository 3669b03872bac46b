"""A selection by two workers beside one: wall seconds, the same with a core for each worker, and where they go.

    python -m tests.bench.bench_select_workers [--full]

The driving thread and Dask's scheduler are in this process. Beside one worker they have a core of a machine of two to themselves,
beside two workers they have none: so the second row has one worker and this process on one core, and two workers and this process
on two. The third row is CPU seconds of the longest way: of the driving thread, and of the busier worker of each pass. A timeline
of passes is printed. The workers are set up as those that `infra.cluster` starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest import mock

import dask.config
from distributed import LocalCluster

from infra.cluster import DASK, Scheduler, Workers, connect
from tasks.select import task
from tests.bench.bench_select_job import FILE_BYTES, make_lake, pool_table, selected, settings_of
from tests.bench.harness import Options, Row, print_parts, skipped, times, verdict

N_FILES, N_FILES_FULL = 128, 512
N_RUNS = 3
LEAST_SPEEDUP = 1.8
_T = TypeVar("_T")
_LOCAL: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None}
# Without a dashboard, as the clusters of `infra.cluster`.
_ANY_PORT: dict[str, Any] = {"scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}


# --- where the time goes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """One map of a selection: wall seconds before it and of it, and CPU seconds of each worker."""

    name: str
    n_pieces: int
    before_s: float
    wall_s: float
    spent_s: tuple[float, ...]


@dataclass(frozen=True)
class Timed:
    """A worker's function that also says which worker ran it, and its CPU seconds."""

    work: Callable[..., Any]

    def __call__(self, *args: Any) -> tuple[Any, int, float]:
        start = time.thread_time()
        found = self.work(*args)
        return found, os.getpid(), time.thread_time() - start


@dataclass
class Traced:
    """Workers that are watched."""

    workers: Workers
    passes: list[Pass]
    last: float = field(default_factory=time.perf_counter)

    def map(self, fn: Callable[..., _T], items: Sequence[Any], *common: Any, **more: Any) -> list[_T]:
        if not items:
            return []
        start = time.perf_counter()
        found = self.workers.map(Timed(fn), items, *common, **more)
        spent = dict[int, float]()
        for _, pid, seconds in found:
            spent[pid] = spent.get(pid, 0.0) + seconds
        end = time.perf_counter()
        self.passes.append(Pass(fn.__name__, len(items), start - self.last, end - start, tuple(sorted(spent.values()))))
        self.last = end
        return [result for result, _, _ in found]


@contextmanager
def traced() -> Iterator[list[Pass]]:
    """The passes of selections while the context is open."""
    passes = list[Pass]()

    @contextmanager
    def watched(scheduler: Scheduler) -> Iterator[Traced]:
        with connect(scheduler) as workers:
            yield Traced(workers, passes)

    with mock.patch.object(task, "connect", watched):
        yield passes


# --- one worker and two --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a selection took: wall seconds, and CPU seconds of the longest way through it, which a busy machine hardly
    stretches."""

    wall_s: float
    way_s: float
    passes: tuple[Pass, ...]


def rows(options: Options) -> list[Row]:
    """The same pool by one worker and by two."""
    n_files = N_FILES_FULL if options.full else N_FILES
    what = f"selection of {n_files * FILE_BYTES / 1e6:.0f} MB, two workers beside one"
    if len(os.sched_getaffinity(0)) < 2:
        return [skipped(what, f">= {LEAST_SPEEDUP}x", "one core")]
    with TemporaryDirectory() as home:
        make_lake(options, Path(home), [n_files])
        one, two, alone, both = (by_workers(Path(home), n_files, *how) for how in ((1, False), (2, False), (1, True), (2, True)))
    told = [row(f"{what}: s", one[0], two[0]), row(f"{what}, a core each: s", alone[0], both[0])]
    return [*told, row(f"{what}: CPU s of the driving thread and of the busier worker", one[1], two[1])]


def row(what: str, one: float, two: float) -> Row:
    return Row(what, f"{two:.2f}", f"{one:.2f}", times(one, two), f">= {LEAST_SPEEDUP}x", verdict(one >= LEAST_SPEEDUP * two))


def by_workers(home: Path, n_files: int, n_workers: int, pinned: bool) -> tuple[float, float]:
    """The least wall and the least way of some selections, after one that warms every worker up."""
    first = n_workers * 100 + pinned * 10
    with (
        dask.config.set(DASK),
        on_cores(n_workers if pinned else None),
        LocalCluster(n_workers=n_workers, threads_per_worker=1, **_LOCAL, **_ANY_PORT) as local,
    ):
        runs = [once(home, n_files, first + run, str(local.scheduler_address)) for run in range(N_RUNS + 1)][1:]
    best = min(runs, key=lambda run: run.wall_s)
    print(f"{n_workers} workers{', a core each' if pinned else ''}")
    print_timeline(best)
    return best.wall_s, min(run.way_s for run in runs)


def once(home: Path, n_files: int, seed: int, address: str) -> Run:
    with traced() as passes:
        start, mine = time.perf_counter(), time.thread_time()
        selected(settings_of(home, [n_files], seed), pool_table(n_files), address)
        wall, mine = time.perf_counter() - start, time.thread_time() - mine
    return Run(wall, mine + sum(max(one.spent_s) for one in passes), tuple(passes))


@contextmanager
def on_cores(n: int | None) -> Iterator[None]:
    """This thread, and the threads and processes that it starts, on so many of its cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if n is None else set(sorted(before)[:n]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def print_timeline(run: Run) -> None:
    print(f"  {'pass':<14}{'pieces':>7}{'before s':>9}{'wall s':>8}{'busier worker: CPU s':>22}{'all':>8}")
    for one in run.passes:
        spent = f"{max(one.spent_s):>22.2f}{sum(one.spent_s):>8.2f}"
        print(f"  {one.name:<14}{one.n_pieces:>7}{one.before_s:>9.2f}{one.wall_s:>8.2f}{spent}")
    n_s = sum(one.before_s + one.wall_s for one in run.passes)
    print(f"  after the last {run.wall_s - n_s:.2f} s, all {run.wall_s:.2f} s, longest way {run.way_s:.2f} CPU s")


if __name__ == "__main__":
    print_parts((rows,), __doc__)
