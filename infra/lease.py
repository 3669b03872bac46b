"""Who may write to a lake: a readers-writer lease of small objects in a folder or an object store; no server, no common clock.

Many holders share the lease (stages that only add), or one has it exclusively (what deletes files: erasing, purging, tidying):

- `shared-<id>.json` is there while a shared holder is. It puts its object first and looks for an exclusive one then; if there is
  one, it takes its own away and waits.
- `exclusive-<n>.json` is made only if absent, under numbers that only grow; generation n has ended once `exclusive-<n>.over` is
  there, and only then is n + 1 made. The exclusive holder puts its object first and waits then until no shared one is left.

With strong consistency one of two that come at once sees the other (Dekker's idea), and names that never come back leave nothing
for a late deletion to hit by mistake. A holder rewrites its object every few seconds. It is ended for it at once when it was a
process of this machine that is gone, and otherwise when a waiter has seen its object unchanged for `ttl_s` of the waiter's own
clock: the waiter declares it void (`<name>.void`) and waits another third, in which every living holder looks for that, before
anybody may go on. A holder that finds itself void must commit nothing: `check` raises `LeaseLost`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from infra import store
from infra.contracts import LetheError

_LOG = logging.getLogger("lethe.lease")
_EXCLUSIVE = re.compile(r"^exclusive-(\d{12})\.json$")
_SHARED = re.compile(r"^shared-[0-9a-f]{32}\.json$")
_MARK = b"lethe\n"


class LeaseLost(LetheError):
    """This process was taken for dead, and another one may be writing; nothing may be committed any more."""


@dataclass(frozen=True)
class Pace:
    """Seconds: after how long a silent holder counts as dead, how often a holder writes, after how long a waiter says so."""

    ttl_s: float = 60.0
    beat_s: float = 6.0
    tell_s: float = 3.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, for people and for those who wait. Processes with equal `machine` can see whether the other lives."""

    lease: str
    machine: str
    process: str
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"{self.command} (process {_process_id(self)} on {self.host}, since {self.since})"

    def written(self, n_beats: int) -> bytes:
        """Always as many bytes, so that one write replaces them."""
        return json.dumps({**asdict(self), "beat": f"b{n_beats:012d}"}).encode()


class Lease:
    """A lease that this process holds, kept alive by a thread."""

    def __init__(self, place: str, name: str, holder: Holder, pace: Pace) -> None:
        self.uri = f"{place}/{name}"
        self.name = name
        self.is_shared = name.startswith("shared")
        self.pid = os.getpid()
        self._holder = holder
        self._pace = pace
        self._good_at = _now()
        self._n_beats = 0
        self._is_lost = False
        self._ended = threading.Event()
        self._beating = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="lethe-lease", daemon=True)

    def start(self) -> bool:
        """Put the object, if it is absent, and keep it alive from then on; whether it was put."""
        if not store.create(self.uri, self._holder.written(0)):
            return False
        self._thread.start()
        return True

    def check(self) -> None:
        """Raises `LeaseLost` if others may be writing. Costs nothing while the last beat is fresh."""
        if not self._is_fresh():
            self._try_beat()
        if not self._is_fresh():
            raise LeaseLost(
                f"this command was silent for too long and lost its lease {self.uri}: others may have written since. Run it again"
            )

    def end(self) -> None:
        """Give the lease back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._give_back()
        except store.TRANSIENT as error:
            _LOG.warning("the lease %s could not be given back and ends when it is silent: %s", self.uri, type(error).__name__)

    def _give_back(self) -> None:
        if self.is_shared:
            store.delete(self.uri)
            store.delete(_void(self.uri))
        else:
            store.put(_over(self.uri), _MARK)

    def _is_fresh(self) -> bool:
        return not self._is_lost and _now() - self._good_at <= self._pace.ttl_s / 3

    def _keep(self) -> None:
        while not self._is_lost and not self._ended.wait(self._pace.beat_s * random.uniform(0.8, 1.2)):
            self._try_beat()

    def _try_beat(self) -> None:
        try:
            with self._beating:
                self._beat()
        except store.TRANSIENT as error:
            _LOG.info("the lease %s could not be kept alive just now: %s", self.uri, type(error).__name__)

    def _beat(self) -> None:
        """Write first, look whether it is void then: whoever declares that later waits until the next look."""
        at = _now()
        self._n_beats += 1
        if not store.overwrite(self.uri, self._holder.written(self._n_beats)) or store.read(_void(self.uri)) is not None:
            self._is_lost = True
        else:
            self._good_at = at


# --- taking and holding -----------------------------------------------------------------------------------------------

_NOTHING: Mapping[str, Lease] = {}
_HELD: ContextVar[Mapping[str, Lease]] = ContextVar("lethe_leases", default=_NOTHING)
_ALIVE: dict[str, list[Lease]] = {}


@contextmanager
def leased(place: str, *, shared: bool = False, pace: Pace | None = None) -> Iterator[None]:
    """Hold the lease whose objects lie at a URI; waits, and says for whom.

    Who holds it already (in this thread, or in one that took over its context) goes on under the lease that is there. Raises
    `LetheError` for an exclusive lease inside a shared one: two that asked for that would wait for each other for ever.
    """
    outer = _HELD.get().get(place)
    if outer is not None and outer.pid == os.getpid():
        if outer.is_shared and not shared:
            raise LetheError(
                f"{place} is held shared and would be held exclusively inside that; take it exclusively from the start"
            )
        yield
        return
    lease = _taken(place, shared, pace or Pace())
    token = _HELD.set({**_HELD.get(), place: lease})
    _ALIVE.setdefault(place, []).append(lease)
    try:
        yield
    finally:
        _ALIVE[place].remove(lease)
        _HELD.reset(token)
        if lease.pid == os.getpid():
            lease.end()


def check(place: str) -> None:
    """Raises `LeaseLost` if a lease that this process holds on a place is not its own any more."""
    for lease in tuple(_ALIVE.get(place, ())):
        if lease.pid == os.getpid():
            lease.check()


def _taken(place: str, shared: bool, pace: Pace) -> Lease:
    watch = _Watch(place, pace)
    while True:
        lease = _shared(place, watch, pace) if shared else _exclusive(place, watch, pace)
        if lease is not None:
            return lease


def _shared(place: str, watch: _Watch, pace: Pace) -> Lease | None:
    """A shared lease; None if an exclusive one came between."""
    while blocking := _exclusive_one(_names(place)):
        watch.wait([blocking])
    with _given_back_on_failure(_new_lease(place, f"shared-{uuid.uuid4().hex}.json", pace)) as lease:
        if lease.start():
            names = _names(place)
            if not _exclusive_one(names) and lease.name in names and _void(lease.name) not in names:
                return lease
            lease.end()
    return None


def _exclusive(place: str, watch: _Watch, pace: Pace) -> Lease | None:
    """The exclusive lease; None if another came between."""
    while blocking := _exclusive_one(names := _names(place)):
        watch.wait([blocking])
    number = _generation(names) + 1
    with _given_back_on_failure(_new_lease(place, f"exclusive-{number:012d}.json", pace)) as lease:
        if lease.start():
            if _exclusive_one(_names(place)) == lease.name:
                _wait_for_shared(place, lease, watch)
                return lease
            # Somebody slept while newer generations came and went.
            lease.end()
    return None


@contextmanager
def _given_back_on_failure(lease: Lease) -> Iterator[Lease]:
    try:
        yield lease
    except BaseException:
        lease.end()
        raise


def _wait_for_shared(place: str, lease: Lease, watch: _Watch) -> None:
    while blocking := _shared_ones(_names(place)):
        lease.check()
        watch.wait(blocking)
    lease.check()
    own = lease.name.removesuffix(".json")
    for name in _names(place):
        if name.startswith("exclusive-") and name[: len(own)] < own:
            store.delete(f"{place}/{name}")


def _new_lease(place: str, name: str, pace: Pace) -> Lease:
    return Lease(place, name, _holder(), pace)


# --- what lies there --------------------------------------------------------------------------------------------------


def _names(place: str) -> frozenset[str]:
    return frozenset(store.names(place))


def _generation(names: frozenset[str]) -> int:
    return max((int(found[1]) for name in names if (found := _EXCLUSIVE.match(name))), default=0)


def _exclusive_one(names: frozenset[str]) -> str | None:
    """The object of the exclusive holder, waiting or at work; None if there is none."""
    newest = f"exclusive-{_generation(names):012d}.json"
    return newest if newest in names and _over(newest) not in names else None


def _shared_ones(names: frozenset[str]) -> list[str]:
    return sorted(name for name in names if _SHARED.match(name))


def _void(name: str) -> str:
    """The object that tells a holder that it holds nothing any more."""
    return f"{name.removesuffix('.json')}.void"


def _over(name: str) -> str:
    """The object that tells everybody that a generation of the exclusive lease has ended."""
    return f"{name.removesuffix('.json')}.over"


def clear(place: str, *, older_than_s: float = 7 * 86_400) -> int:
    """Remove what nobody will come back for: marks of shared holders that never woke up to see them, drafts of killed ones. How
    many. Only call it with the exclusive lease.
    """
    names = _names(place)
    left = [
        n for n in names if n.endswith(".void") and n.startswith("shared-") and f"{n.removesuffix('.void')}.json" not in names
    ]
    left += [name for name in names if name.startswith(("draft-", "probe-"))]
    expired = [name for name in left if store.age_s(f"{place}/{name}") > older_than_s]
    for name in expired:
        store.delete(f"{place}/{name}")
    return len(expired)


class _Watch:
    """What one waiter has seen of the holders before it: their objects, and since when those have not changed."""

    def __init__(self, place: str, pace: Pace) -> None:
        self._place = place
        self._pace = pace
        self._seen = dict[str, tuple[bytes, float]]()
        self._since = time.monotonic()
        self._told = float("-inf")
        self._pause = 0.02

    def wait(self, names: list[str]) -> None:
        """A pause, or the end of holders that are gone."""
        holders = {name: content for name in names if (content := store.read(f"{self._place}/{name}")) is not None}
        ended = [name for name, content in holders.items() if _has_ended(_holder_of(content))]
        silent = [name for name, content in holders.items() if name not in ended and self._is_silent(name, content)]
        for name in (*ended, *silent):
            _LOG.warning("taking over from %s, which is gone or silent", _told_of(holders[name]))
        if silent:
            self._declare_void(silent)
        if ended or silent:
            self._finish([*ended, *silent])
            return
        self._tell(holders)
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(1.0, self._pause * 1.5)

    def _is_silent(self, name: str, content: bytes) -> bool:
        before, since = self._seen.get(name, (b"", 0.0))
        if content != before:
            since = time.monotonic()
            self._seen[name] = (content, since)
        return time.monotonic() - since > self._pace.ttl_s

    def _declare_void(self, names: list[str]) -> None:
        for name in names:
            store.put(_void(f"{self._place}/{name}"), _MARK)
        time.sleep(self._pace.ttl_s / 3)

    def _finish(self, names: list[str]) -> None:
        for name in names:
            if _SHARED.match(name):
                store.delete(f"{self._place}/{name}")
            else:
                store.put(_over(f"{self._place}/{name}"), _MARK)

    def _tell(self, holders: Mapping[str, bytes]) -> None:
        waited_s = time.monotonic() - self._since
        if waited_s < self._pace.tell_s or waited_s - self._told < 60:
            return
        self._told = waited_s
        _LOG.warning("waiting for %s", "; ".join(_told_of(content) for content in holders.values()) or "another command")


# --- who --------------------------------------------------------------------------------------------------------------


def _holder() -> Holder:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    process = f"p{os.getpid()}.{_started(os.getpid())}"
    return Holder(uuid.uuid4().hex, _machine(), process, socket.gethostname(), _command(), since)


def _command() -> str:
    """The program and its subcommand; the other arguments may name a person."""
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"{program} {word}" if program == "lethe" and re.fullmatch(r"[a-z][a-z-]*", word) else program


@cache
def _machine() -> str:
    """Equal for processes that see each other's ids: one running kernel, one space of process ids."""
    return hashlib.sha256("\n".join((socket.gethostname(), _boot(), _space())).encode()).hexdigest()[:16]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{uuid.getnode():x}"


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks: a process id that came back is another process. Empty where the system does not tell."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if state in "ZX" else fields[18]


def _holder_of(content: bytes) -> Holder | None:
    """Who wrote an object; None for one that is not whole yet."""
    try:
        told = json.loads(content)
        return Holder(**{name: str(told[name]) for name in Holder.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None


def _told_of(content: bytes) -> str:
    return str(_holder_of(content) or "another command")


def _process_id(holder: Holder) -> int:
    return int(holder.process.partition(".")[0][1:])


def _has_ended(holder: Holder | None) -> bool:
    """Whether the holder is a process of this machine that is not there any more."""
    if holder is None or holder.machine != _machine():
        return False
    try:
        os.kill(_process_id(holder), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(_process_id(holder)) != holder.process.partition(".")[2]


def _now() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
