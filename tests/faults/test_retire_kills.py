"""kill -9 while tables are retired, restored, or brought back for an erasure: each table is there whole, or its recipe is, and
one more run ends what was begun."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fault_child import Kill, counted
from fault_project import Project, ingested, unreferenced

from flows.workspace import opened
from infra.lake import Lake
from infra.retired import entries, given_up, retired
from infra.settings import load_settings
from tasks.dedup import give_up as giving_up
from tasks.dedup import restore as restoring
from tasks.dedup import retire as retiring
from tasks.dedup.task import dedup
from tasks.ingest.task import ingest

_SEED = 20_260_707
_COPIES = ("adults", "near", "odd")
_TABLES = "[retention]\nmin_evidence_bits = 1\n" + "".join(f'[tables.{t}]\nsource = "in/{t}.csv"\n' for t in ("visits", *_COPIES))
_ROWS = [(f"p{n % 31}", n % 60, n * 7919 % 1000) for n in range(300)]


def _csv(rows: list[tuple[Any, ...]]) -> str:
    return "who,age,dose\n" + "".join(f"{who},{age},{dose}\n" for who, age, dose in rows)


def _files() -> dict[str, str | bytes]:
    return {
        "visits.csv": _csv(_ROWS),
        "adults.csv": _csv([row for row in _ROWS if row[1] >= 30]),
        "odd.csv": _csv([row for n, row in enumerate(_ROWS) if n * n % 7 in (1, 2)]),
        "near.csv": _csv([*_ROWS[20:120:2], ("q1", 5, 7777), ("q2", 6, 7778)]),
    }


# --- what children do ---------------------------------------------------------------------------------------------------------


def retire_all(home: str) -> None:
    """As `lethe dedup --retire` does it with --yes, without Prefect's server."""
    with opened(home) as work:
        retiring.settle(work.lake)
        scanned = dedup.fn(work.settings, work.all_records(), scheduler=work.scheduler)
        missing = [table for table in _COPIES if table not in retired(work.lake)]
        asked = {table: retiring.asked_of(scanned, table, ["visits"]) for table in missing}
        proposal = retiring.propose.fn(work.settings, asked, scheduler=work.scheduler)
        assert not proposal.refused, proposal.refused
        retiring.retire.fn(work.settings, proposal, approved={})


def restore_all(home: str) -> None:
    with opened(home) as work:
        retiring.settle(work.lake)
        restoring.restore.fn(work.settings, sorted(retired(work.lake)), scheduler=work.scheduler)


def suspend_and_resume(home: str) -> None:
    """What forgetting does around an erasure."""
    with opened(home) as work:
        restoring.suspend.fn(work.settings, scheduler=work.scheduler)
        restoring.resume.fn(work.settings, scheduler=work.scheduler)


def retire_and_lose(home: str) -> None:
    """Somebody deletes the table by hand that the others were to be rebuilt from."""
    retire_all(home)
    shutil.rmtree(f"{home}/lake/records/visits")


def give_up_all(home: str) -> None:
    with opened(home) as work:
        giving_up.give_up.fn(work.settings, _COPIES, scheduler=work.scheduler)


def from_raw_all(home: str) -> None:
    """As `lethe restore --from-raw` does it, of those that a killed run left."""
    with opened(home) as work:
        left = tuple(sorted(entries(work.lake)))
        retiring.settle(work.lake, keep=left)
        waiting = tuple(name for name in left if not work.lake.exists(f"records/{name}"))
        giving_up.give_up.fn(work.settings, left, keep=True, scheduler=work.scheduler)
        if waiting:
            ingest.fn(work.settings, waiting, prune=True, anew=waiting, scheduler=work.scheduler)
        giving_up.taken_in.fn(work.settings, left, n_suppressed={})


def state(home: str) -> dict[str, str]:
    """By table its digest, of rows that were read or, where it is retired, that its recipe promises."""
    lake = Lake.open(load_settings(home))
    listed = retired(lake)
    found = {name: f"retired {entry.digest}" for name, entry in listed.items()}
    for name in lake.tables("records"):
        if (table := name.removeprefix("records/")) not in listed:
            snapshot = lake.snapshot(name)
            assert lake.read(snapshot).num_rows == snapshot.n_rows, name
            found[table] = snapshot.digest
    return found


def ended(home: str, function: Callable[[str], None]) -> tuple[dict[str, str], list[str]]:
    """What came of one more run: what the lake holds, what lies about that no log names, and tables that no recipe needs."""
    function(home)
    found = state(home)
    lake = Lake.open(load_settings(home))
    with lake.writing():
        retiring.settle(lake)
        lake.tidy()
    beside = {*lake.tables("members"), *lake.tables("residual")}
    listed = retired(lake)
    assert not any(entry.is_suspended for entry in entries(lake).values())
    return found, unreferenced(lake) + sorted(name for name in beside if name.partition("/")[2] not in listed)


def counted_call(home: str, function: Callable[[str], None]) -> int:
    return counted(home, function, home)


# --- the tests ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worlds:
    """A lake as it is kept in `all`, and as it is when all copies are retired, in `none`; what both hold by the name."""

    project: Project
    holds: dict[str, dict[str, str]]

    def begin(self, name: str) -> None:
        self.project.restore(self.project.home.parent / name)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    project = Project(tmp_path_factory.mktemp("retire") / "p", _TABLES).put(_files())
    holds = dict[str, dict[str, str]]()
    for name, function in (("all", ingested), ("none", retire_all), ("lost", retire_and_lose)):
        project.value(function)
        project.keep(project.home.parent / name)
        holds[name] = project.value(state)
    return Worlds(project, holds)


_ACTS = {
    "retire": (retire_all, "all", "none"),
    "restore": (restore_all, "none", "all"),
    "forget": (suspend_and_resume, "none", "none"),
}


def _same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two lakes have the same rows, retired or not."""
    return {t: d.split()[-1] for t, d in one.items()} == {t: d.split()[-1] for t, d in other.items()}


def _dies(worlds: Worlds, act: str, kill: Callable[[str], Kill]) -> None:
    function, begin, end = _ACTS[act]
    project, expected = worlds.project, worlds.holds[end]
    worlds.begin(begin)
    project.call(function, kill=kill(str(project.home)))
    assert _same(project.value(state), expected), "a table is there, or its recipe is"
    assert project.value(ended, function) == (expected, [])


_POINTS = {
    "retire": [Kill(after="/recipes")],
    "restore": [Kill(after="/records/"), Kill(after="/recipes")],
    "forget": [Kill(after="/records/"), Kill(after="/recipes")],
}


@pytest.mark.parametrize(("act", "point"), [(act, point) for act, points in _POINTS.items() for point in points], ids=str)
def test_it_dies_around_a_commit(worlds: Worlds, act: str, point: Kill) -> None:
    _dies(worlds, act, lambda _: point)


def _die_somewhere(worlds: Worlds, number: int) -> None:
    chance = random.Random(_SEED + number)
    act = list(_ACTS)[number % len(_ACTS)]
    function, begin, _ = _ACTS[act]
    worlds.begin(begin)
    n_events = worlds.project.value(counted_call, function)
    _dies(worlds, act, lambda home: Kill(home, at=chance.randint(1, n_events)))


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 60))])
def test_random_kill_points(worlds: Worlds, number: int) -> None:
    _die_somewhere(worlds, number)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 40))
def test_a_removal_dies_at_each_of_its_files(worlds: Worlds, at: int) -> None:
    _dies(worlds, "retire", lambda home: Kill(f"{home}/lake/records/odd", at=at))


# --- tables that nothing rebuilds ---------------------------------------------------------------------------------------------


def blocks(home: str) -> list[str]:
    """The retired tables that a forgetting would stop at."""
    return sorted(retired(Lake.open(load_settings(home))))


def lost(home: str) -> list[str]:
    return sorted(given_up(Lake.open(load_settings(home))))


def _dies_lost(worlds: Worlds, function: Callable[[str], None], point: Kill) -> None:
    project = worlds.project
    worlds.begin("lost")
    project.call(function, kill=point)
    assert project.value(blocks) in ([], list(_COPIES)), "one commit decides"
    is_given_up = function is give_up_all
    expected = {} if is_given_up else {name: digest for name, digest in worlds.holds["all"].items() if name != "visits"}
    assert project.value(ended, function) == (expected, [])
    assert project.value(lost) == (list(_COPIES) if is_given_up else [])


@pytest.mark.parametrize(
    ("function", "point"),
    [(give_up_all, Kill(after="/recipes")), (from_raw_all, Kill(after="/recipes")), (from_raw_all, Kill(after="/records/"))],
    ids=["give up, recipes", "from raw, recipes", "from raw, records"],
)
def test_giving_up_dies_around_a_commit(worlds: Worlds, function: Callable[[str], None], point: Kill) -> None:
    _dies_lost(worlds, function, point)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(40))
def test_giving_up_dies_somewhere(worlds: Worlds, number: int) -> None:
    function = (give_up_all, from_raw_all)[number % 2]
    worlds.begin("lost")
    n_events = worlds.project.value(counted_call, function)
    _dies_lost(worlds, function, Kill(str(worlds.project.home), at=random.Random(_SEED - number).randint(1, n_events)))
