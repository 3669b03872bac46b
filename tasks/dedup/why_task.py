"""The door of `lethe dedup --why`: one pair of tables, as they are now. Writes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import LetheError, UnknownTable
from infra.discretion import discreet
from infra.foreign import PREFIX as FOREIGN
from infra.foreign import ForeignTable, ForeignUnreadable, Refreshed, refreshed, registered
from infra.lake import Lake
from infra.retired import TableRetired, retired, why_retired
from infra.settings import Settings
from tasks.dedup.containment import RECORDS, all_facts
from tasks.dedup.exact import Counted
from tasks.dedup.frames import Reader
from tasks.dedup.profiles import Profiles
from tasks.dedup.runs import search, searches, totals
from tasks.dedup.scan import Facts
from tasks.dedup.why import Why, why_by_count, why_by_log

_ALL = 1.0  # count to the end, whatever is missing


@dataclass(frozen=True)
class WhyResult:
    """The answer, and what it took: `bytes_read` counts the data files opened, 0 where the log has the answer."""

    why: Why
    bytes_read: int
    seconds: float


class SameTable(LetheError):
    """A table was to be compared with itself."""


@task(name="why", persist_result=False)
@discreet
def why_task(settings: Settings, child: str, parent: str, *, scheduler: Scheduler = None) -> WhyResult:
    """Why a table is contained in another or not, by their names as the scan has them (`foreign/NAME` of other writers).

    Data are read only where the log does not answer, each table once. Raises `UnknownTable`, `TableRetired`, `SameTable` and
    `ForeignUnreadable`.
    """
    if child == parent:
        raise SameTable(f"{child!r} is the child and the parent. Name two tables")
    start, lake = time.perf_counter(), Lake.open(settings)
    with connect(scheduler) as workers:
        foreign = _foreign(lake, (child, parent), workers)
        snapshots = [foreign[name].snapshot if name in foreign else lake.snapshot(RECORDS + name) for name in (child, parent)]
        facts = all_facts(lake, snapshots, tuple(foreign.values()))
        why = why_by_log(*facts)
        found, n_bytes = (why, 0) if why is not None else _counted(lake, settings, facts, workers)
    return WhyResult(found, n_bytes, time.perf_counter() - start)


def _foreign(lake: Lake, names: tuple[str, ...], workers: Workers) -> dict[str, ForeignTable]:
    """Those of the tables that another writer has, by their name here. A table of the lake comes before one of that name."""
    gone, listed = retired(lake), {FOREIGN + entry.name for entry in registered(lake)}
    wanted = list[str]()
    for name in names:
        if name in gone:
            raise TableRetired(why_retired(name))
        if not lake.exists(RECORDS + name):
            wanted.append(name)
    for name in wanted:
        if name not in listed:
            raise UnknownTable(f"there is no table {name!r}. See which there are: lethe status")
    found = refreshed(lake, workers) if wanted else Refreshed()
    for name in wanted:
        if (reason := found.unreadable.get(name.removeprefix(FOREIGN))) is not None:
            raise ForeignUnreadable(name.removeprefix(FOREIGN), reason)
    return {FOREIGN + table.name: table for table in found.tables if FOREIGN + table.name in wanted}


def _counted(lake: Lake, settings: Settings, facts: list[Facts], workers: Workers) -> tuple[Why, int]:
    """Both tables read once: what the parent lacks of the child's rows, and of each of its columns; and the bytes read."""
    child, parent = facts
    sets = list(dict.fromkeys((child.columns, *((name,) for name in child.columns))))
    pairs = [((0, one), (1, one)) for one in sets]
    memory_bytes = settings.cluster.local_bytes
    with lake.scratch() as scratch:
        reader = Reader(facts, Profiles(()), workers, lake.keys.row, scratch, memory_bytes)
        reader.fetch(side for pair in pairs for side in pair)
        jobs = searches(pairs, reader.runs, memory_bytes=memory_bytes, limit_fraction=_ALL)
        counted: list[Counted] = totals(jobs, workers.map(search, jobs), len(pairs))
    found = dict(zip(sets, counted, strict=True))
    cells = {name: found[(name,)] for name in child.columns}
    return why_by_count(child, parent, found[child.columns], cells), reader.n_bytes
