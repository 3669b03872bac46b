"""Which raw files a table or a collection has, and what the tables of a collection are called.

A member of an archive is a raw file of its own, under a chained URL; the labels of idx images are read with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from fsspec.utils import glob_translate

from infra.contracts import LetheError
from infra.files import filesystem
from infra.settings import Settings, TableSettings, resolve
from tasks.ingest.archives import Contents, Member, age_of, contents, is_local
from tasks.ingest.formats import format_of, is_http, split_chain, without_suffixes
from tasks.ingest.readers_idx import labels_of

_MAGIC = re.compile(r"[*?\[{]")
_HTTP_MAGIC = re.compile(r"[*\[{]")
_GONE = (404, 410)
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_DOTS = re.compile(r"\.{2,}")


class SourceError(LetheError):
    """The files of a table cannot be found, or two of them claim one name."""


@dataclass(frozen=True, order=True)
class RawFile:
    """One raw file of one table; `modified` is whatever its filesystem tells of its age, `n_bytes` 0 where it tells no size.

    `path` is where it lies below the fixed part of its pattern, after the archive's path if the pattern may match several: a name
    that says nothing of the machine. `labels` is the URI of the labels that are read with a file of images, or empty.
    """

    table: str
    uri: str
    n_bytes: int
    modified: str
    path: str = field(default="", compare=False)
    labels: str = field(default="", compare=False)


def raw_files(settings: Settings, names: tuple[str, ...] | None = None) -> dict[str, list[RawFile]]:
    """The files of every table, in order of their uri, archive by archive. `names` narrows to tables, collections, or members of
    collections. What archives hold is remembered under `settings.private_dir`.

    Raises `SourceError` for a name that is not known, for two files that claim one table name, and where a server does not tell.
    """
    found = {name: _of_table(settings, name, table) for name, table in settings.tables.items() if _wanted(name, names)}
    for name, collection in settings.collections.items():
        if _wanted(name, names) or any(n.startswith(name + "/") for n in names or ()):
            members = _of_collection(settings, name, collection)
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


def _of_table(settings: Settings, name: str, table: TableSettings) -> list[RawFile]:
    found = sorted(_found(settings, table), key=lambda raw: split_chain(raw.uri)[::-1])
    return [replace(raw, table=name) for raw in found]


def _of_collection(settings: Settings, name: str, table: TableSettings) -> dict[str, RawFile]:
    members = dict[str, RawFile]()
    for raw in _found(settings, table):
        member = replace(raw, table=f"{name}/{table_name(raw.path)}")
        taken = members.setdefault(member.table, member)
        if taken.uri != raw.uri:
            raise SourceError(f"collections.{name}: {taken.uri} and {raw.uri} would both be table {member.table}. Rename one")
    return dict(sorted(members.items()))


def fixed_prefix(pattern: str) -> str:
    """The folder that every match of a glob lies in: what stands before its first wildcard."""
    match = _magic(pattern)
    return pattern[: pattern.rfind("/", 0, match.start() if match else None) + 1]


def _magic(pattern: str) -> re.Match[str] | None:
    return (_HTTP_MAGIC if is_http(pattern) else _MAGIC).search(pattern)


def table_name(path: str) -> str:
    """The name of the table of a file: its path without suffixes, each part in letters, digits, '_', '-', '.'."""
    parts = [_DOTS.sub(".", _UNFIT.sub("_", part)) for part in without_suffixes(path).split("/")]
    return "/".join(part if part[:1].isalnum() else f"x{part}" for part in parts)


# --- listing ------------------------------------------------------------------------------------------------------------------


def _found(settings: Settings, table: TableSettings) -> list[RawFile]:
    """All files of all patterns once, with no table's name yet; a file that two patterns match lies below the first."""
    by_uri = dict[str, RawFile]()
    for source in table.source:
        for raw in _listed(settings, source, table.format):
            by_uri.setdefault(raw.uri, raw)
    labels = {uri: by_uri[found] for uri in by_uri if (found := labels_of(uri)) and found in by_uri}
    taken = {raw.uri for raw in labels.values()}
    return [_joined(raw, labels.get(uri)) for uri, raw in by_uri.items() if uri not in taken]


def _joined(images: RawFile, labels: RawFile | None) -> RawFile:
    if labels is None:
        return images
    n_bytes, modified = images.n_bytes + labels.n_bytes, f"{images.modified} {labels.modified}"
    return replace(images, n_bytes=n_bytes, modified=modified, labels=labels.uri)


def _listed(settings: Settings, source: str, given: str | None) -> Iterator[RawFile]:
    """The files that match; archives as what is in them. `given` is the format that lethe.toml says."""
    inner, outer = split_chain(source)
    pattern = resolve(settings.home, outer or source)
    is_many = _is_many(pattern)
    for plain in _plain(pattern):
        if not outer and not format_of(plain.uri).is_archive:
            yield plain
            continue
        found = contents(plain.uri, memory=settings.private_dir / "archives")
        yield from _matching(plain, found, inner, is_many) if outer else _expanded(plain, found, given, is_many)


def _is_many(pattern: str) -> bool:
    """Whether a pattern may ever match several files."""
    fs, path = filesystem(pattern)
    return _magic(pattern) is not None or (not is_http(pattern) and fs.isdir(path))


def _plain(pattern: str) -> Iterator[RawFile]:
    """The files that match, archives as they are, without markers."""
    fs, path = filesystem(pattern)
    prefix = f"{path}/" if not is_http(path) and fs.isdir(path) else fixed_prefix(path)
    for place, info in _entries(fs, path).items():
        below = (place.split("?")[0] if is_http(place) else place)[len(prefix) :].lstrip("/")
        if info["type"] == "file" and _is_data(below):
            uri = place if is_local(fs) else fs.unstrip_protocol(place)
            yield RawFile("", uri, int(info["size"] or 0), age_of(info), below)


def _entries(fs: Any, path: str) -> dict[str, Any]:
    """What a filesystem has at a path or a glob; nothing where nothing is. Raises `SourceError` where it does not tell."""
    try:
        if _magic(path):
            return fs.glob(path, detail=True)
        return {path: fs.info(path)} if is_http(path) else fs.find(path, detail=True)
    except FileNotFoundError as error:
        # An HTTP filesystem says so of every failure; only two answers mean it.
        if not is_http(path) or getattr(error.__cause__, "status", 0) in _GONE:
            return {}
        why = type(error.__cause__).__name__
    except (OSError, aiohttp.ClientError) as error:
        why = type(error).__name__
    raise SourceError(f"{path} cannot be listed: {why}. Is the server there, and may the file be read?")


def _expanded(archive: RawFile, found: Contents, given: str | None, is_many: bool) -> Iterator[RawFile]:
    """What an archive holds in known formats (in any, if `given` says it); itself where that is nothing or not all."""
    members = [one for one in found.members if _is_data(one.path) and format_of(one.path, given).name]
    yield from (_member(archive, found.version, one, one.path, is_many) for one in members)
    if found.failure or not members:
        yield archive


def _matching(archive: RawFile, found: Contents, pattern: str, is_many: bool) -> Iterator[RawFile]:
    """The members of an archive that match a glob, itself where it is damaged."""
    matches = re.compile(glob_translate(pattern.lstrip("/"))).match
    prefix = len(fixed_prefix(pattern.lstrip("/")))
    for one in found.members:
        if _is_data(one.path) and matches(one.path):
            yield _member(archive, found.version, one, one.path[prefix:], is_many)
    if found.failure:
        yield archive


def _member(archive: RawFile, version: str, one: Member, below: str, is_many: bool) -> RawFile:
    kind = format_of(archive.uri).name
    outer = f"file://{archive.uri}" if archive.uri.startswith("/") else archive.uri
    path = f"{without_suffixes(archive.path)}/{below}" if is_many else below
    return RawFile("", f"{kind}://{one.path}::{outer}", one.n_bytes, f"{version} {one.stamp}", path)


def _is_data(path: str) -> bool:
    """Whether a file is no marker: names that start with '.' or '_' are some (as Hive and Spark have it), and so is what lies in
    a hidden folder or one of macOS."""
    *folders, name = path.split("/")
    return not name.startswith((".", "_")) and not any(folder.startswith(".") or folder == "__MACOSX" for folder in folders)


# --- nothing there ------------------------------------------------------------------------------------------------------------


def why_empty(home: Path, source: str) -> str:
    """What a source without files is, for the reader of an error: a link that leads nowhere, a folder, or nothing."""
    inner, outer = split_chain(source)
    if outer:
        has_archive = next(_plain(resolve(home, outer)), None) is not None
        return f"nothing in {outer} matches {inner}" if has_archive else why_empty(home, outer)
    fs, path = filesystem(resolve(home, source))
    if _magic(path):
        found = sorted({_what(fs, place) for place in fs.glob(path)})
        return f"{source} matches only: {', '.join(found)}" if found else f"no file matches {source}"
    is_there = fs.lexists(path) if hasattr(fs, "lexists") else fs.exists(path)
    return f"{source} is {_what(fs, path)}" if is_there else f"{source} does not exist"


def _what(fs: Any, path: str) -> str:
    if fs.isdir(path):
        return "a folder without data files in it, or to be given as folder/*"
    return "a marker (its name starts with '.' or '_')" if fs.exists(path) else "a link that leads nowhere"
