"""How often each table is read a month: as the user wrote down, as object-store logs tell, or as the price book supposes. Pure.

An S3 server access log has a line a request, its fields apart by spaces, some in brackets or quotes. An access is one requester's
reading of a table in one hour, however many requests it took. Who that was is needed to tell accesses apart and is kept nowhere.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote

from infra.price_book import RetentionSettings

_GET = "REST.GET.OBJECT"
_LINE = re.compile(
    r"\S+ (?P<bucket>\S+) \[(?P<time>[^\]]{26})\] \S+ (?P<requester>\S+) \S+ (?P<operation>\S+) (?P<key>\S+)"
    r' (?:"(?:[^"\\]|\\.)*"|-) (?P<status>\d{3}|-)(?: |$)'
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
LONGEST = 1 << 16  # characters of a line; S3 writes at most some kilobytes
_DAY_S, _MONTH_S = 86_400.0, 365.25 / 12 * 86_400.0


@dataclass(frozen=True)
class Accesses:
    """What logs tell. `per_month` has every table of the lake where any line was about the lake, and none elsewhere.

    `n_lines` are all lines, `n_bad` those skipped because they are no log lines, `span_s` lies between the first and last.
    """

    per_month: dict[str, float]
    n_lines: int = 0
    n_bad: int = 0
    span_s: float = 0.0


@dataclass(frozen=True)
class _Request:
    at: float
    requester: str
    path: str | None  # in the lake, of a data file that was read
    in_lake: bool


def accesses_of(tables: Iterable[str], prices: RetentionSettings, logged: Accesses) -> dict[str, float]:
    """Accesses a month of each table: the user's word, then the logs', then the price book's."""

    def one(table: str) -> float:
        told = prices.accesses_of(table)
        return logged.per_month.get(table, prices.accesses_per_month) if told is None else told

    return {table: one(table) for table in sorted(tables)}


def count_accesses(
    lines: Iterable[str], bucket: str, prefix: str, tables: Collection[str], *, ignore: Sequence[str] = ()
) -> Accesses:
    """Count lines in any order; `prefix` is the key of the folder that holds `tables`, `ignore` are patterns of requesters.

    Logs of less than a day count as one of a day. Lines that are no log lines are skipped and counted, never fatal.
    """
    known = frozenset(tables)
    n_lines, n_bad, about_us = 0, 0, False
    first, last = float("inf"), float("-inf")
    seen = set[tuple[str, str, int]]()
    for line in lines:
        if not line.strip():
            continue
        n_lines += 1
        request = _parsed(line, bucket, prefix)
        if request is None:
            n_bad += 1
            continue
        first, last, about_us = min(first, request.at), max(last, request.at), about_us or request.in_lake
        table = _table_of(request.path, known)
        if table is not None and not any(fnmatchcase(request.requester, pattern) for pattern in ignore):
            seen.add((table, request.requester, int(request.at // 3600)))
    if not about_us:
        return Accesses({}, n_lines, n_bad)
    return Accesses(_per_month(seen, known, last - first), n_lines, n_bad, last - first)


def _per_month(seen: Iterable[tuple[str, str, int]], tables: Iterable[str], span_s: float) -> dict[str, float]:
    counts: Mapping[str, int] = Counter(table for table, _, _ in seen)
    months = max(span_s, _DAY_S) / _MONTH_S
    return {table: counts.get(table, 0) / months for table in sorted(tables)}


def _parsed(line: str, bucket: str, prefix: str) -> _Request | None:
    """One request; None for a line that is none."""
    found = _LINE.match(line) if len(line) <= LONGEST else None
    at = None if found is None else _seconds(found["time"])
    if found is None or at is None:
        return None
    key = unquote(found["key"])
    in_lake = found["bucket"] == bucket and key.startswith(prefix)
    read = in_lake and found["operation"] == _GET and found["status"] in ("200", "206") and key.endswith(".parquet")
    return _Request(at, found["requester"], key.removeprefix(prefix) if read else None, in_lake)


def _seconds(text: str) -> float | None:
    """`06/Feb/2019:00:00:38 +0000` as seconds since 1970; by hand, since strptime knows months by the machine's language."""
    found = _TIME.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[i]) for i in (1, 3, 4, 5, 6))
    offset = (int(found[8]) * 60 + int(found[9])) * (-60 if found[7] == "-" else 60)
    try:
        moment = dt.datetime(year, _MONTHS.index(found[2]) + 1, day, hour, minute, second, tzinfo=dt.UTC)
    except ValueError:
        return None
    return moment.timestamp() - offset


def _table_of(path: str | None, tables: Collection[str]) -> str | None:
    """The table in whose folder a data file lies: the longest that fits, since tables may lie in each other's folders."""
    if path is None or "/_delta_log/" in path:
        return None
    folder = path
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        if folder in tables:
            return folder
    return None
