"""The access logs that lethe.toml names, read line by line."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from typing import Any

from infra.files import filesystem
from infra.settings import Settings, resolve
from infra.store import failures
from tasks.dedup.access import LONGEST, Accesses, count_accesses


def logged_accesses(settings: Settings, tables: Collection[str]) -> Accesses:
    """What the settings' access logs tell of these tables; nothing of a lake in a folder, whose reads no store logs.

    Logs are a hint, and erasure must not wait for one: where no file matches, nothing is told, and the rest of a file that
    breaks off counts as a bad line.
    """
    prices = settings.retention
    if not prices.access_logs or not settings.lake_uri.startswith(("s3://", "s3a://")):
        return Accesses({})
    bucket, _, prefix = settings.lake_uri.split("://", 1)[1].partition("/")
    records = f"{prefix.strip('/')}/records/".lstrip("/")
    lines = (line for log in prices.access_logs for line in _lines(resolve(settings.home, log)))
    return count_accesses(lines, bucket, records, tables, ignore=prices.access_ignore)


def _lines(pattern: str) -> Iterator[str]:
    """The lines of all files that match, which may be compressed."""
    fs, path = filesystem(pattern)
    broken = (*failures(pattern), EOFError, zlib.error)
    try:
        found = sorted(str(one) for one in fs.glob(path))
    except broken:
        found = []
        yield "?"
    for one in found:
        if not fs.isdir(one):
            yield from _lines_of(fs, one, broken)


def _lines_of(fs: Any, path: str, broken: tuple[type[Exception], ...]) -> Iterator[str]:
    try:
        with fs.open(path, "rb", compression="infer") as raw:
            while line := raw.readline(LONGEST):
                yield line.decode("utf-8", "replace")
    except broken:
        yield "?"  # no log line
