"""Prefect and MLflow servers: the one a command borrows or starts for itself, and those of `lethe up`. All on loopback."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from flows.documents import UpDocument
from infra.contracts import LetheError
from infra.settings import Settings, load_settings

_HOST = "127.0.0.1"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # a failed flow's traceback: the command says what is wrong in one message
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# A temporary server writes to the terminal of its command; ended with it, it may report, traceback and all, what it was doing:
# not the user's trouble. PREFECT_LOGGING_LEVEL in the environment brings it back.
_HUSHED = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
}
_SERVICES = ("EventsWorker", "APILogWorker")  # Prefect's, in this process; their loggers are not below its own


class ServerError(LetheError):
    """A server did not start or did not stay up."""


@contextmanager
def embedded(config: Path) -> Iterator[None]:
    """The environment in which a command's flows run; must be entered before Prefect is imported.

    PREFECT_API_URL, or the server of a running `lethe up`, is used if there is one. Otherwise Prefect starts a temporary server
    of this process, whose database lies in `.lethe/` beside lethe.toml.
    """
    home = (config if config.is_dir() else config.parent).absolute()
    if home.is_dir():
        (home / ".lethe").mkdir(mode=0o700, exist_ok=True)  # Prefect does not make the parents of its own folder
    wanted = {**_QUIET, "PREFECT_HOME": str(home / ".lethe" / "prefect")}
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        wanted |= _HUSHED
        for service in _SERVICES:
            logging.getLogger(service).setLevel(logging.CRITICAL)
    running = _running_api(home)
    if running:
        wanted["PREFECT_API_URL"] = running
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    with nullcontext() if running else _without_heartbeats():
        yield


@contextmanager
def _without_heartbeats() -> Iterator[None]:
    """Nobody watches a temporary server for zombies, and every flow would wait up to a second for its heartbeat to end."""
    from prefect.settings import (  # noqa: PLC0415 - Prefect reads its environment when it is imported
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _running_api(home: Path) -> str | None:
    state = home / ".lethe" / "up.json"
    if not state.exists():
        return None
    url = str(json.loads(state.read_text(encoding="utf-8"))["prefect"])
    return url if _answers(f"{url}/health") else None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# --- lethe up ---------------------------------------------------------------------------------------------------------


def up(config: Path, announce: Callable[[UpDocument], None]) -> None:
    """Start the servers, the work pool, a worker and the deployments; say where they are; wait until interrupted; stop them
    all.
    """
    settings = load_settings(config)
    private = settings.private_dir
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    api = f"http://{_HOST}:{PREFECT_PORT}/api"
    os.environ.update(
        {**_QUIET, "PREFECT_HOME": str(private / "prefect"), "PREFECT_API_URL": api, "LETHE_CONFIG": str(config.absolute())}
    )
    with ExitStack() as stack:
        _start(stack, "prefect", _prefect_command(), f"{api}/health", PREFECT_PORT, private)
        _start(stack, "mlflow", _mlflow_command(settings), f"http://{_HOST}:{MLFLOW_PORT}/health", MLFLOW_PORT, private)
        names = _deploy(config)
        worker = _spawn(stack, "worker", _worker_command(), private)
        _record(stack, private / "up.json", api)
        announce(UpDocument(prefect=f"http://{_HOST}:{PREFECT_PORT}", mlflow=f"http://{_HOST}:{MLFLOW_PORT}", deployments=names))
        _wait(worker)


def _prefect_command() -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(PREFECT_PORT)]


def _worker_command() -> list[str]:
    from flows.deployments import POOL  # noqa: PLC0415 - Prefect is imported after its environment is set

    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]


def _mlflow_command(settings: Settings) -> list[str]:
    store = ["--backend-store-uri", settings.tracking_uri, "--artifacts-destination", settings.artifacts_uri]
    return [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(MLFLOW_PORT), "--workers", "1", *store]


def _deploy(config: Path) -> list[str]:
    from flows.deployments import deploy_all  # noqa: PLC0415 - Prefect is imported after its environment is set

    return deploy_all(str(config.absolute()))


def _start(stack: ExitStack, name: str, command: Sequence[str], health: str, port: int, private: Path) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise ServerError(f"port {port} on {_HOST} is taken, so the {name} server cannot start. Stop what listens there")
    process = _spawn(stack, name, command, private)
    deadline = time.monotonic() + 120
    while not _answers(health):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"the {name} server did not come up; its log is {private / (name + '.log')}")
        time.sleep(0.3)


def _spawn(stack: ExitStack, name: str, command: Sequence[str], private: Path) -> subprocess.Popen[bytes]:
    log = stack.enter_context((private / f"{name}.log").open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server with all the processes it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            try:
                os.killpg(process.pid, sign)
                process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _record(stack: ExitStack, path: Path, api: str) -> None:
    path.write_text(json.dumps({"prefect": api, "pid": os.getpid()}), encoding="utf-8")
    stack.callback(path.unlink, missing_ok=True)


def _wait(worker: subprocess.Popen[bytes]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        code = worker.wait()
    except KeyboardInterrupt:
        return
    raise ServerError(f"the worker ended with exit code {code}; its log is .lethe/worker.log")
