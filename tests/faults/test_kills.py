"""kill -9 anywhere: after one more run nothing is lost, nothing is there twice, and the lake is what an undisturbed run makes."""

from __future__ import annotations

import random

import pytest
from fault_child import Kill
from fault_project import Project, World, assert_recovers, first_files, ingested, later_files, world_of

_SEED = 20_260_101
_STATES = ("first", "later")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """Before the first ingest, and before one that meets changed files, new ones and a wider type."""
    folder = tmp_path_factory.mktemp("worlds")
    first = Project(folder / "first").put(first_files())
    later = Project(folder / "later").put(first_files())
    assert not later.run().error
    later.put(later_files())
    return {name: world_of(project, folder / f"kept-{name}") for name, project in zip(_STATES, (first, later), strict=True)}


def test_the_undisturbed_lakes_hold_what_was_put(worlds: dict[str, World]) -> None:
    """What the other tests compare with, told by hand: of 90 lines nine are ragged, of 30 four are cut."""
    expected = worlds["first"].expected
    rows = {name: len(ids) for name, ids in expected.row_ids.items()}
    assert rows == {"records/people": 81, "records/c/kv": 50, "records/c/lines": 26, "records/c/small": 1}
    assert len(expected.rejects) == 9 + 4 + 1
    assert len(expected.ledger) == 6
    assert len(worlds["later"].expected.ledger) == 9
    assert min(world.n_events for world in worlds.values()) > 50


_POINTS = {
    "files written, nothing committed": Kill(before="/quarantine"),
    "between quarantine and records": Kill(before="/records/"),
    "one table of several committed": Kill(after="/records/"),
    "committed, not in the ledger": Kill(before="/sources"),
    "in the ledger, not reported": Kill(after="/sources"),
}


@pytest.mark.parametrize("point", _POINTS)
@pytest.mark.parametrize("state", [pytest.param("first", marks=pytest.mark.slow), "later"])
def test_the_driver_dies_around_a_commit(worlds: dict[str, World], state: str, point: str) -> None:
    world = worlds[state]
    project = world.again()
    assert project.run(_POINTS[point]).killed
    assert_recovers(project, world.expected)


@pytest.mark.parametrize("number", range(5))
def test_random_kill_points(worlds: dict[str, World], number: int) -> None:
    _die_somewhere(worlds, random.Random(_SEED + number))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5, 100))
def test_ninety_five_more_random_kill_points(worlds: dict[str, World], number: int) -> None:
    _die_somewhere(worlds, random.Random(_SEED + number))


def _die_somewhere(worlds: dict[str, World], chance: random.Random) -> None:
    """Up to three runs in a row are killed, each at a random event; the next one recovers."""
    world = worlds[chance.choice(_STATES)]
    project = world.again()
    for n_events in [world.n_events, world.n_events // 2, world.n_events // 4][: chance.choice([1, 1, 2, 3])]:
        project.run(Kill(str(project.home), at=chance.randint(1, n_events)))
    assert_recovers(project, world.expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_kills_by_the_clock(worlds: dict[str, World], number: int) -> None:
    """Also inside the libraries, where no event of Python's is."""
    chance = random.Random(_SEED - number)
    world = worlds[chance.choice(_STATES)]
    project = world.again()
    project.call(ingested, kill=Kill(after_s=chance.uniform(0.02, 0.4)))
    assert_recovers(project, world.expected)
