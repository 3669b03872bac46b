"""Functions run in processes of their own, which faults may end at any moment.

One server process imports the product once, before any thread is started; every call is a fork of it, some milliseconds away.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import deltalake.table
import deltalake.transaction
import pyarrow.parquet as pq

from infra.contracts import LetheError

_FILE_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.listdir"})
_TIMEOUT_S = 120.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a call ended: its value, or the name and the text of Lethe's error, or the signal that killed it."""

    value: Any = None
    error: str = ""
    message: str = ""
    signal: int = 0

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL


@dataclass(frozen=True)
class Kill:
    """When a process kills itself (SIGKILL): at the n-th event under a folder, before or after a commit of a table whose place
    holds `table`, or after some seconds. Events are what the process does to files, and its commits."""

    folder: str = ""
    at: int | None = None
    before: str | None = None
    after: str | None = None
    after_s: float | None = None


def apart(
    function: Callable[..., Any],
    *args: Any,
    env: Mapping[str, str] | None = None,
    kill: Kill | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Ended:
    """function(*args) in a process of its own. Raises `AssertionError` if it fails with anything but a `LetheError`: nothing else
    may leave the product."""
    receiver, sender = _server().Pipe(duplex=False)
    process = _server().Process(target=_call, args=(sender, dict(env or {}), kill, function, args), daemon=False)
    process.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(timeout_s) else None
    except EOFError:
        answer = None
    process.join(5.0)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{function.__name__} did not end within {timeout_s} s")
    if process.exitcode < 0:
        return Ended(signal=-process.exitcode)
    assert answer is not None, f"{function.__name__} ended with {process.exitcode} and said nothing; see stderr"
    return answer


@cache
def _server() -> Any:
    """The fork server, which knows where this folder is: it imports `fault_warm` before it forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_warm"])
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths)):
        forkserver.ensure_running()
    return context


def _call(sender: Connection, env: Mapping[str, str], kill: Kill | None, function: Callable[..., Any], args: Any) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives an interrupted test run
    os.environ.update(env)
    if kill is not None:
        _arm(kill)
    try:
        answer = Ended(value=function(*args))
    except LetheError as error:
        answer = Ended(error=type(error).__name__, message=str(error))
    sender.send(answer)
    sender.close()


# --- kill points --------------------------------------------------------------------------------------------------------------


class _Counter:
    """Counts events; kills its process at the n-th. Threads commit at once, so it is locked."""

    def __init__(self, at: int | None) -> None:
        self.n = 0
        self._at = at
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.n += 1
            if self.n == self._at:
                die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _arm(kill: Kill) -> _Counter:
    """Watch files by Python's audit events and commits by the libraries' own functions: both are there whatever the product's
    code looks like."""
    counter = _Counter(kill.at)
    if kill.folder:
        sys.addaudithook(lambda event, args: counter.step() if _is_under(kill.folder, event, args) else None)
    if kill.after_s is not None:
        timer = threading.Timer(kill.after_s, die)
        timer.daemon = True
        timer.start()

    def around(table: str, commit: Callable[[], Any]) -> Any:
        counter.step()
        if kill.before is not None and kill.before in table:
            die()
        result = commit()
        counter.step()
        if kill.after is not None and kill.after in table:
            die()
        return result

    _patch_commits(around)
    _patch_writes(counter)
    return counter


def _is_under(folder: str, event: str, args: tuple[Any, ...]) -> bool:
    return event in _FILE_EVENTS and bool(args) and isinstance(args[0], str) and args[0].startswith(folder)


def _patch_commits(around: Callable[[str, Callable[[], Any]], Any]) -> None:
    table = deltalake.table.DeltaTable
    create = deltalake.transaction._create_table_with_add_actions
    write, link = table.create_write_transaction, os.link

    @wraps(create)
    def created(**options: Any) -> Any:
        return around(str(options["table_uri"]), lambda: create(**options))

    @wraps(write)
    def written(self: Any, *args: Any, **options: Any) -> Any:
        return around(str(self.table_uri), lambda: write(self, *args, **options))

    @wraps(link)
    def linked(source: Any, target: Any, **options: Any) -> Any:
        """A log's file that is made by hand, if there is none, as a table's first one."""
        if "/_delta_log/" not in str(target):
            return link(source, target, **options)
        return around(str(target), lambda: link(source, target, **options))

    os.link = linked
    deltalake.transaction._create_table_with_add_actions = created
    table.create_write_transaction = written


def _patch_writes(counter: _Counter) -> None:
    """A kill between two row groups leaves half a file."""
    write = pq.ParquetWriter.write_table

    @wraps(write)
    def written(self: Any, *args: Any, **options: Any) -> Any:
        counter.step()
        write(self, *args, **options)
        counter.step()

    pq.ParquetWriter.write_table = written


def counted(folder: str, function: Callable[..., Any], *args: Any) -> int:
    """How many events an undisturbed call has; runs in the child."""
    counter = _arm(Kill(folder))
    function(*args)
    return counter.n
