"""The lease: never an exclusive holder beside another one, in whatever order steps come and whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import lease, store
from infra.contracts import LetheError
from infra.lease import LeaseLost, Pace, check, clear, leased

FORK = multiprocessing.get_context("fork")
QUICK = Pace(ttl_s=0.9, beat_s=0.1, tell_s=0.2)


# --- every order of steps -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a simulated `kill -9` looks like from inside."""


class Turns:
    """Threads that take one store operation at a time, in an order that a generator draws. Some are killed at a step."""

    def __init__(self, order: random.Random, kills: dict[int, int]) -> None:
        self._order = order
        self._stay = order.choice([0.0, 0.5, 0.9])
        self._kills = kills
        self._changed = threading.Condition()
        self._waiting = set[int]()
        self._turn: int | None = None
        self.dead = set[int]()
        self.me = threading.local()

    def step(self) -> None:
        me = self.me.number
        if me in self.dead:
            raise Killed
        with self._changed:
            self._waiting.add(me)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._turn == me)
            self._turn = None
            self._waiting.discard(me)
        self._kills[me] = self._kills.get(me, -1) - 1
        if self._kills[me] == 0:
            self.dead.add(me)
            raise Killed

    def _next(self, ready: list[int], last: int) -> int:
        """Mostly the one who was last: others sleep for long then, and find a changed world."""
        return last if last in ready and self._order.random() < self._stay else self._order.choice(ready)

    def run(self, actors: list[Callable[[], None]]) -> None:
        alive, failures = set(range(len(actors))), list[BaseException]()

        def play(number: int) -> None:
            self.me.number = number
            try:
                actors[number]()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
            with self._changed:
                alive.discard(number)
                self._changed.notify_all()

        threads = [threading.Thread(target=play, args=(number,), daemon=True) for number in range(len(actors))]
        for thread in threads:
            thread.start()
        last = -1
        while alive:
            with self._changed:
                assert self._changed.wait_for(lambda: self._turn is None and self._waiting >= alive, timeout=20)
                if alive:
                    self._turn = last = self._next(sorted(alive), last)
                    self._changed.notify_all()
        assert not failures, failures


class SteppedStore:
    """A strongly consistent store in memory; each operation is one step."""

    TRANSIENT = store.TRANSIENT

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.objects = dict[str, bytes]()
        self.owners = dict[str, int]()

    def create(self, uri: str, data: bytes) -> bool:
        self.turns.step()
        self.owners[json.loads(data)["lease"]] = self.turns.me.number
        return self.objects.setdefault(uri, data) == data

    def put(self, uri: str, data: bytes) -> None:
        self.turns.step()
        self.objects[uri] = data

    def read(self, uri: str) -> bytes | None:
        self.turns.step()
        return self.objects.get(uri)

    def delete(self, uri: str) -> None:
        self.turns.step()
        self.objects.pop(uri, None)

    def names(self, uri: str) -> list[str]:
        self.turns.step()
        return [name.removeprefix(f"{uri}/") for name in self.objects]


@given(
    kinds=st.lists(st.lists(st.booleans(), min_size=1, max_size=3), min_size=2, max_size=4),
    kills=st.dictionaries(st.integers(0, 3), st.integers(1, 25), max_size=2),
    seed=st.integers(0, 1 << 32),
)
@hypothesis_settings(max_examples=120)
def test_no_order_of_steps_lets_others_beside_an_exclusive_holder(
    monkeypatch: pytest.MonkeyPatch, kinds: list[list[bool]], kills: dict[int, int], seed: int
) -> None:
    turns = Turns(random.Random(seed), dict(kills))
    stepped = SteppedStore(turns)
    inside = dict[int, bool]()

    def act(shares: list[bool]) -> None:
        me = turns.me.number
        for shared in shares:
            with leased("memory", shared=shared, pace=Pace(beat_s=3600)):
                others = [is_shared for number, is_shared in inside.items() if number not in turns.dead]
                assert all(is_shared and shared for is_shared in others), (shared, others)
                inside[me] = shared
                turns.step()
                del inside[me]

    with monkeypatch.context() as patch:
        patch.setattr(lease, "store", stepped)
        patch.setattr(lease, "_has_ended", lambda holder: stepped.owners[holder.lease] in turns.dead)
        clock = SimpleNamespace(sleep=lambda _: turns.step(), monotonic=time.monotonic)
        patch.setattr(lease, "time", clock)
        turns.run([lambda shares=shares: act(shares) for shares in kinds])
    names = frozenset(name.removeprefix("memory/") for name in stepped.objects)
    held = [*lease._shared_ones(names), *filter(None, [lease._exclusive_one(names)])]
    assert {stepped.owners[json.loads(stepped.objects[f"memory/{name}"])["lease"]] for name in held} <= turns.dead


def test_who_slept_while_generations_came_and_went_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, order = str(tmp_path), list[str]()
    held, go, make = threading.Event(), threading.Event(), lease._new_lease

    def others() -> None:
        for _ in range(2):
            with leased(place):
                pass
        with leased(place):
            held.set()
            go.wait(20)
            order.append("other")

    def sleepy(place: str, name: str, pace: Pace) -> lease.Lease:
        if threading.current_thread() is sleeper and not held.is_set():
            other.start()
            held.wait(20)
            threading.Timer(0.3, go.set).start()
        return make(place, name, pace)

    def sleep_and_take() -> None:
        with leased(place):
            order.append("sleeper")

    other, sleeper = threading.Thread(target=others), threading.Thread(target=sleep_and_take)
    monkeypatch.setattr(lease, "_new_lease", sleepy)
    sleeper.start()
    sleeper.join(20)
    other.join(20)
    assert order == ["other", "sleeper"]


def test_a_shared_holder_whose_object_was_taken_away_puts_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, start, n_started = str(tmp_path), lease.Lease.start, list[str]()

    def robbed(self: lease.Lease) -> bool:
        n_started.append(self.name)
        put = start(self)
        if len(n_started) == 1:
            store.delete(self.uri)
        return put

    monkeypatch.setattr(lease.Lease, "start", robbed)
    with leased(place, shared=True):
        assert n_started[1] in store.names(place)


# --- real processes -----------------------------------------------------------------------------------------------------


def take_turns(place: str, folder: str, seed: int, n_rounds: int) -> None:
    """Count up a file that nothing but the exclusive lease protects, and look who else is inside."""
    draw, counter, inside = random.Random(seed), Path(folder) / "counter", Path(folder) / "inside"
    for number in range(n_rounds):
        shared = draw.random() < 0.6
        with leased(place, shared=shared):
            mine = inside / f"{'shared' if shared else 'alone'}-{seed}-{number}"
            mine.touch()
            others = {path.name for path in inside.iterdir()} - {mine.name}
            assert not others if not shared else not any(name.startswith("alone") for name in others)
            if not shared:
                before = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(before + 1))
            mine.unlink()


def _forked(*args: Any) -> None:
    """Leaves at once: at a fork's orderly end stand the threads of flows that ran in this process before, and are not there."""
    take_turns(*args)
    os._exit(0)


def test_processes_count_without_loss(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "counter").write_text("0")
    n_alone = sum(random.Random(seed).random() >= 0.6 for seed in range(5))
    args = [(str(tmp_path / "locks"), str(tmp_path), seed, 8) for seed in range(5)]
    processes = [FORK.Process(target=_forked, args=arg) for arg in args]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 5
    draws = [random.Random(seed) for seed in range(5)]
    n_alone = sum(draw.random() >= 0.6 for draw in draws for _ in range(8))
    assert int((tmp_path / "counter").read_text()) == n_alone > 0


def hold(place: str, shared: bool, told: Any, pace: Pace) -> None:
    with leased(place, shared=shared, pace=pace):
        told.send("held")
        told.recv()
        try:
            check(place)
            told.send("good")
        except LeaseLost:
            told.send("lost")


def started(place: Path, *, shared: bool = False, pace: Pace | None = None) -> tuple[Any, Any]:
    """A process that holds the lease until it is told to look after it."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(str(place), shared, theirs, pace or Pace()), daemon=True)
    process.start()
    assert ours.recv() == "held"
    return process, ours


@pytest.mark.parametrize("shared", [True, False])
def test_a_killed_holder_is_followed_at_once(tmp_path: Path, shared: bool, caplog: pytest.LogCaptureFixture) -> None:
    process, _ = started(tmp_path, shared=shared)
    os.kill(process.pid, signal.SIGKILL)  # and nobody waits for it: it stays as a zombie
    start = time.monotonic()
    with leased(str(tmp_path)):
        assert time.monotonic() - start < 5
    assert "taking over from" in caplog.text
    process.join()


@pytest.mark.parametrize("shared", [True, False])
def test_a_holder_that_was_stopped_loses_its_lease_and_learns_it(tmp_path: Path, shared: bool) -> None:
    process, told = started(tmp_path, shared=shared, pace=QUICK)
    os.kill(process.pid, signal.SIGSTOP)
    with leased(str(tmp_path), pace=QUICK):
        os.kill(process.pid, signal.SIGCONT)
        told.send("look")
        assert told.recv() == "lost"
    process.join(10)
    with leased(str(tmp_path), pace=QUICK):
        pass
    assert not [name for name in store.names(str(tmp_path)) if name.startswith("shared")]


def test_a_living_holder_keeps_its_lease_however_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process, told = started(tmp_path, pace=QUICK)
    threading.Timer(2.5, told.send, ("look",)).start()
    with leased(str(tmp_path), shared=True, pace=QUICK):
        assert told.recv() == "good"
    process.join(10)
    assert f"process {process.pid} on " in caplog.text
    assert "waiting for" in caplog.text


# --- who is dead --------------------------------------------------------------------------------------------------------


def left(place: Path, **changes: str) -> None:
    """The object of an exclusive holder that left it there."""
    holder = replace(lease._holder(), **changes)
    assert store.create(f"{place}/exclusive-{1:012d}.json", holder.written(0))


def test_a_process_id_that_came_back_is_another_process(tmp_path: Path) -> None:
    left(tmp_path, process=f"p{os.getpid()}.1")
    with leased(str(tmp_path)):
        pass


def test_a_holder_on_another_machine_is_dead_after_a_while_only(tmp_path: Path) -> None:
    left(tmp_path, machine="elsewhere", process="p999999999.1")
    start = time.monotonic()
    with leased(str(tmp_path), pace=QUICK):
        assert time.monotonic() - start > QUICK.ttl_s * 4 / 3


def test_an_object_that_is_half_written_blocks_for_a_while_only(tmp_path: Path) -> None:
    store.put(f"{tmp_path}/exclusive-{1:012d}.json", b'{"lease": "12')
    with leased(str(tmp_path), pace=QUICK):
        pass


# --- nesting ------------------------------------------------------------------------------------------------------------


def test_who_holds_it_goes_on(tmp_path: Path) -> None:
    place = str(tmp_path)
    with leased(place), leased(place), leased(place, shared=True):
        check(place)
    with leased(place, shared=True), leased(place, shared=True):
        check(place)
    assert not [name for name in store.names(place) if name.startswith("shared")]


def test_an_exclusive_lease_inside_a_shared_one_is_refused(tmp_path: Path) -> None:
    with leased(str(tmp_path), shared=True), pytest.raises(LetheError, match="from the start"), leased(str(tmp_path)):
        pass
    with leased(str(tmp_path)):
        pass


def test_a_waiting_exclusive_holder_keeps_new_shared_ones_out(tmp_path: Path) -> None:
    place, order = str(tmp_path), list[str]()

    def take(name: str, shared: bool) -> None:
        with leased(place, shared=shared):
            order.append(name)

    alone, late = (threading.Thread(target=take, args=arg) for arg in (("alone", False), ("late", True)))
    with leased(place, shared=True):
        alone.start()
        while not any(name.startswith("exclusive") for name in store.names(place)):
            time.sleep(0.01)
        late.start()
        time.sleep(0.3)
        assert order == []
    alone.join(20)
    late.join(20)
    assert order == ["alone", "late"]


# --- what is left -------------------------------------------------------------------------------------------------------


def test_objects_tell_the_command_and_not_whom_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/lethe", "forget", "--subject", "author=4711"])
    with leased(str(tmp_path)):
        text = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode()
    assert "lethe forget" in text
    assert "4711" not in text.replace(str(os.getpid()), "")


def test_old_marks_are_cleared(tmp_path: Path) -> None:
    for name in ("shared-" + "0" * 32 + ".void", "draft-x", "exclusive-" + "0" * 11 + "1.json"):
        store.put(f"{tmp_path}/{name}", b"x")
    assert clear(str(tmp_path)) == 0
    assert clear(str(tmp_path), older_than_s=-1) == 2
    assert store.names(str(tmp_path)) == ["exclusive-000000000001.json"]
