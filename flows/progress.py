"""What a flow is doing, in one line: shown by the command line while it runs, and in the log of a worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

_LOG = logging.getLogger("lethe.progress")


def say(message: str, *arguments: object) -> None:
    """Tell what is being done; names of tables, datasets and models and counts only, never what is in a row."""
    _LOG.info(message, *arguments)


def count_tables(_table: str, n_done: int, n_tables: int) -> None:
    """The ingest stage's progress."""
    say("ingest: %d of %d tables", n_done, n_tables)


class _Line(logging.Handler):
    def __init__(self, status: Status) -> None:
        super().__init__(logging.INFO)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        self._status.update(record.getMessage())


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show what is said as one changing line, if the console is a terminal."""
    if not console.is_terminal:
        yield
        return
    with console.status("starting Prefect") as status:
        handler = _Line(status)
        _LOG.addHandler(handler)
        _LOG.setLevel(logging.INFO)
        try:
            yield
        finally:
            _LOG.removeHandler(handler)
