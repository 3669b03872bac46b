"""Which raw files a table or a collection has, and what the tables of a collection are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.contracts import LetheError
from infra.files import filesystem
from infra.settings import Settings, resolve
from tasks.ingest.formats import without_suffixes

_MAGIC = re.compile(r"[*?\[{]")
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_DOTS = re.compile(r"\.{2,}")
_MODIFIED = ("ETag", "etag", "LastModified", "mtime", "modified", "created")


class SourceError(LetheError):
    """The files of a table cannot be found, or two of them claim one name."""


@dataclass(frozen=True, order=True)
class RawFile:
    """One raw file of one table; `modified` is whatever its filesystem tells of its age."""

    table: str
    uri: str
    n_bytes: int
    modified: str


def raw_files(settings: Settings, names: tuple[str, ...] | None = None) -> dict[str, list[RawFile]]:
    """The files of every table, in order of their uri. `names` narrows to tables, collections, or members of collections.

    Raises `SourceError` for a name that is not known and for two files that claim one table name.
    """
    found = {
        name: _of_table(settings.home, name, table.source) for name, table in settings.tables.items() if _wanted(name, names)
    }
    for name, collection in settings.collections.items():
        if _wanted(name, names) or any(n.startswith(name + "/") for n in names or ()):
            members = _of_collection(settings.home, name, collection.source)
            _refuse_taken(found, members)
            found.update({m: [f] for m, f in members.items() if _wanted(m, names)})
    if names is not None and (unknown := [n for n in names if not _covers(n, found, settings)]):
        known = ", ".join([*settings.tables, *settings.collections]) or "none"
        raise SourceError(f"no table or collection {unknown[0]!r} in lethe.toml; it has: {known}")
    return found


def _wanted(name: str, names: tuple[str, ...] | None) -> bool:
    return names is None or any(name == n or name.startswith(n + "/") for n in names)


def _covers(name: str, found: Mapping[str, Any], settings: Settings) -> bool:
    return name in settings.collections or any(table == name or table.startswith(name + "/") for table in found)


def _refuse_taken(found: Mapping[str, list[RawFile]], members: Mapping[str, RawFile]) -> None:
    for name in members:
        if name in found:
            raise SourceError(f"table {name} is in [tables] and is a file of a collection: {members[name].uri}. Rename one")


def _of_table(home: Path, name: str, sources: Iterable[str]) -> list[RawFile]:
    files = {uri: (size, age) for source in sources for uri, size, age in _listed(resolve(home, source))}
    return [RawFile(name, uri, size, age) for uri, (size, age) in sorted(files.items())]


def _of_collection(home: Path, name: str, sources: Iterable[str]) -> dict[str, RawFile]:
    members = dict[str, RawFile]()
    for source in sources:
        prefix = fixed_prefix(filesystem(resolve(home, source))[1])
        for uri, size, age in _listed(resolve(home, source)):
            below = filesystem(uri)[1][len(prefix) :].lstrip("/")
            table = f"{name}/{table_name(below)}"
            taken = members.setdefault(table, RawFile(table, uri, size, age))
            if taken.uri != uri:
                raise SourceError(f"collections.{name}: {taken.uri} and {uri} would both be table {table}. Rename one")
    return dict(sorted(members.items()))


def fixed_prefix(pattern: str) -> str:
    """The folder that every match of a glob lies in: what stands before its first wildcard."""
    match = _MAGIC.search(pattern)
    return pattern[: pattern.rfind("/", 0, match.start() if match else None) + 1]


def table_name(path: str) -> str:
    """The name of the table of a file: its path without suffixes, each part in letters, digits, '_', '-', '.'."""
    parts = [_DOTS.sub(".", _UNFIT.sub("_", part)) for part in without_suffixes(path).split("/")]
    return "/".join(part if part[:1].isalnum() else f"x{part}" for part in parts)


def _listed(pattern: str) -> list[tuple[str, int, str]]:
    """(uri, bytes, age) of the files that match; names that start with '.' or '_' are markers, not data (as Hive and Spark have
    it)."""
    fs, path = filesystem(pattern)
    entries = fs.glob(path, detail=True) if _MAGIC.search(path) else fs.find(path, detail=True)
    is_local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    listed = list[tuple[str, int, str]]()
    for place, info in entries.items():
        if info["type"] == "file" and not place.rsplit("/", 1)[-1].startswith((".", "_")):
            listed.append((place if is_local else fs.unstrip_protocol(place), int(info["size"] or 0), _age(info)))
    return listed


def why_empty(home: Path, source: str) -> str:
    """What a source without files is, for the reader of an error: a link that leads nowhere, a folder, or nothing."""
    fs, path = filesystem(resolve(home, source))
    if _MAGIC.search(path):
        found = sorted({_what(fs, place) for place in fs.glob(path)})
        return f"{source} matches only: {', '.join(found)}" if found else f"no file matches {source}"
    is_there = fs.lexists(path) if hasattr(fs, "lexists") else fs.exists(path)
    return f"{source} is {_what(fs, path)}" if is_there else f"{source} does not exist"


def _what(fs: Any, path: str) -> str:
    if fs.isdir(path):
        return "a folder without data files in it, or to be given as folder/*"
    return "a marker (its name starts with '.' or '_')" if fs.exists(path) else "a link that leads nowhere"


def _age(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _MODIFIED if info.get(key) is not None), "")
