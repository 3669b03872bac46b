"""Raw files as they are opened: plain ones by their filesystem, members of a zip or a tar out of their archive.

A process reads an archive from its start once at most: a compressed or a remote one is copied, decompressed, to a temporary file
that has no name, so that it goes with the process however that ends; every member is then found by its place. The archives used
last are kept; one that changed is read again. Links in archives are not followed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
import uuid
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.files import filesystem, source_key
from tasks.ingest.formats import KNOWN, Format, format_of, is_http, split_chain
from tasks.ingest.streams import Unreadable, byte_blocks

_MAX_HELD = 8
_MAX_HELD_BYTES = 8 << 30
_SIP = 64 << 10  # what a member of a broken zip loses at most
_TAR_BLOCK = 512
_MODIFIED = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "modified", "created")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there (never out of it), its size, and what the archive tells of its age or content."""

    path: str
    n_bytes: int
    stamp: str


@dataclass(frozen=True)
class Contents:
    """What an archive holds. `version` is its size and age; `failure` says why there may be more in it than was found."""

    version: str
    members: tuple[Member, ...]
    failure: str = ""


@dataclass(frozen=True)
class _Archive:
    contents: Contents
    opened: Callable[[str], io.RawIOBase]
    n_bytes: int  # of the temporary file, 0 if there is none


# --- opening ------------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(uri: str, *, modified: str = "", then: str = "") -> Iterator[Any]:
    """A raw file, to be read from its start: a local path, any URL of fsspec, or `zip://` or `tar://` with a member's path and
    the archive's URL. `modified` as in its `RawFile` saves asking for the archive's age. `then` is a file that follows
    as if it were the rest of this one: the labels of a file of images, so that a digest of the bytes covers both.

    Reading raises `Unreadable`, once, where an archive is damaged; after that the file is at its end. Raises `FileNotFoundError`.
    """
    if then:
        with _opened(uri, modified) as file, _opened(then, modified) as rest:
            yield _Chain([file, rest])
        return
    with _opened(uri, modified) as file:
        yield file


@contextmanager
def _opened(uri: str, modified: str) -> Iterator[Any]:
    path, outer = split_chain(uri)
    if not outer:
        with _plain(uri) as file:
            yield file
        return
    with _archive(outer, modified).opened(path) as file:
        yield file


@contextmanager
def random_access(uri: str, *, modified: str = "", compression: str | None = None) -> Iterator[Any]:
    """A raw file that can be read from any place: a decompressed copy where it cannot be itself. Raises `Unreadable` at the end,
    when all that is left of it was read, if it was damaged."""
    if compression is None and not is_http(uri) and not uri.startswith("zip://"):
        with opened(uri, modified=modified) as file:
            yield file
        return
    with opened(uri, modified=modified) as file, tempfile.TemporaryFile() as copy:
        failure = _spool(byte_blocks(file, compression), copy)
        yield copy
    if failure:
        raise Unreadable(failure)


@contextmanager
def _plain(uri: str) -> Iterator[Any]:
    fs, path = filesystem(uri)
    options = {} if is_local(fs) else {"block_size": 0} if is_http(uri) else {"cache_type": "readahead"}
    with fs.open(path, "rb", **options) as file:  # block_size 0: one request; many servers know no ranges
        yield file


def is_local(fs: Any) -> bool:
    """Whether a filesystem is the machine's own."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _spool(blocks: Iterable[bytes], copy: Any) -> str:
    """Write the blocks, as many as there are, and say what ended them early."""
    failure = ""
    try:
        for block in blocks:
            copy.write(block)
    except Unreadable as error:
        failure = str(error)
    copy.flush()
    copy.seek(0)
    return failure


# --- archives -----------------------------------------------------------------------------------------------------------------


def contents(uri: str, *, memory: Path | None = None) -> Contents:
    """What an archive holds, sorted by path. A damaged one is no error: `failure` tells it. `memory` is a folder where this is
    remembered, so that an archive that did not change is not fetched and decompressed only to be listed."""
    if memory is None:
        return _archive(uri, "").contents
    fs, path = filesystem(uri)
    version, note = version_of(fs.info(path)), memory / f"{source_key(uri)}.json"
    found = _remembered(note, version)
    if found is None:
        found = contents(uri)
        if not found.failure:
            _remember(note, found)
    return found


def _remembered(note: Path, version: str) -> Contents | None:
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        if said["version"] != version:
            return None
        return Contents(version, tuple(Member(*member) for member in said["members"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _remember(note: Path, found: Contents) -> None:
    """Write what an archive holds; where that cannot be written, it is found again the next time."""
    draft = note.with_suffix(f".{uuid.uuid4().hex}")
    members = [[member.path, member.n_bytes, member.stamp] for member in found.members]
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"version": found.version, "members": members}), encoding="utf-8")
        os.replace(draft, note)


def refusal(uri: str) -> str:
    """Why an archive that was listed as a raw file gives no rows."""
    if split_chain(uri)[1]:
        return "an archive inside an archive is not opened. Unpack it"
    return contents(uri).failure or f"no file in the archive is of a format that is read here: {KNOWN}. Set `format`"


def version_of(info: Mapping[str, Any]) -> str:
    """The size and age of a file as its filesystem tells them, without blanks."""
    return f"{info.get('size')}:{age_of(info)}".replace(" ", "_")


def age_of(info: Mapping[str, Any]) -> str:
    """Whatever a filesystem tells of a file's age."""
    return next((str(info[key]) for key in _MODIFIED if info.get(key) is not None), "")


@dataclass
class _Held:
    """The archives that this process keeps open, the one used last at the end."""

    by_uri: OrderedDict[str, _Archive] = field(default_factory=OrderedDict[str, _Archive])
    lock: Any = field(default_factory=threading.RLock)


_held = _Held()


def _archive(url: str, modified: str) -> _Archive:
    uri = url.removeprefix("file://")
    with _held.lock:
        known = _held.by_uri.get(uri)
        if known is None or not modified.startswith(known.contents.version + " "):
            fs, path = filesystem(uri)
            version = version_of(fs.info(path))
            if known is None or known.contents.version != version:
                known = _held.by_uri[uri] = _read(uri, version)
        _held.by_uri.move_to_end(uri)
        while len(_held.by_uri) > _MAX_HELD or (_n_held_bytes() > _MAX_HELD_BYTES and len(_held.by_uri) > 1):
            _held.by_uri.popitem(last=False)  # whoever still reads it keeps its file open
        return known


def _n_held_bytes() -> int:
    return sum(archive.n_bytes for archive in _held.by_uri.values())


def _read(uri: str, version: str) -> _Archive:
    kind = format_of(uri)
    file, n_bytes, failure = _local_copy(uri, kind)
    members, broken, open_member = (_unzipped if kind.name == "zip" else _untarred)(file)
    found = tuple(members[path] for path in sorted(members))
    return _Archive(Contents(version, found, failure or broken), open_member, n_bytes)


def _local_copy(uri: str, kind: Format) -> tuple[Any, int, str]:
    """The archive's bytes, decompressed, as a file that has a descriptor: (file, bytes of temporary space, what is missing)."""
    fs, path = filesystem(uri)
    if is_local(fs) and kind.compression is None:
        return open(path, "rb"), 0, ""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open as long as the archive is kept
    with _plain(uri) as file:
        failure = _spool(byte_blocks(file, kind.compression), copy)
    return copy, os.fstat(copy.fileno()).st_size, failure


def _clean(name: str) -> str:
    """A member's path, from the archive's top, in valid UTF-8: `/x`, `./x` and `../x` are `x`; `::`, which ends it in a URL, is
    `%3A%3A`."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\\", "/").replace("::", "%3A%3A")
    parts = posixpath.normpath("/" + text).split("/")
    return "/".join(part for part in parts if part)


_Found = tuple[dict[str, Member], str, Callable[[str], io.RawIOBase]]


def _untarred(file: Any) -> _Found:
    members, places, failure = dict[str, Member](), dict[str, tuple[int, int]](), ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _infos(tar):
                path = _clean(info.name)
                place = places.get(_clean(info.linkname)) if info.islnk() else (info.offset_data, info.size)
                if path and place is not None and (info.islnk() or (info.isreg() and not info.issparse())):
                    places[path] = place
                    members[path] = Member(path, place[1], f"{info.mtime}")
            file.seek(tar.offset)
            if any(end := file.read(_TAR_BLOCK)) or not end:
                failure = "the tar archive is cut off or damaged"
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        failure = f"the tar archive is damaged: {type(error).__name__}"

    def open_member(path: str) -> io.RawIOBase:
        if path not in places:
            raise FileNotFoundError(path)
        return _Slice(file, *places[path])

    return members, failure, open_member


def _infos(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        tar.members.clear()  # it would keep them all
        yield info


def _unzipped(file: Any) -> _Found:
    members, infos, failure = dict[str, Member](), dict[str, zipfile.ZipInfo](), ""
    archive: zipfile.ZipFile | None = None
    try:
        archive = zipfile.ZipFile(file)
        for info in archive.infolist():
            if (path := _clean(info.filename)) and not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                infos[path] = info
                members[path] = Member(path, info.file_size, f"{info.CRC:08x}")
    except _DAMAGE as error:
        failure = f"the zip archive is damaged: {type(error).__name__}"

    def open_member(path: str) -> io.RawIOBase:
        if archive is None or path not in infos:
            raise FileNotFoundError(path)
        return _Inflated(archive, infos[path])

    return members, failure, open_member


class _Chain:
    """Files, one after the other, to be read from the start."""

    def __init__(self, files: list[Any]) -> None:
        self._files = files

    def read(self, n: int = -1, /) -> bytes:
        """The next bytes: at most `n`, of one file; all that are left with -1."""
        if n < 0:
            return b"".join(file.read() for file in self._files)
        while self._files:
            if data := self._files[0].read(n):
                return data
            del self._files[0]
        return b""


class _Slice(io.RawIOBase):
    """A part of a file, read without moving the file's own position: many may be read at once."""

    def __init__(self, file: Any, start: int, n_bytes: int) -> None:
        self._file = file
        self._start = start
        self._n_bytes = n_bytes
        self._at = 0
        self._was_told = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        wanted = max(0, min(len(buffer), self._n_bytes - self._at))
        data = os.pread(self._file.fileno(), wanted, self._start + self._at)
        if wanted and not data and not self._was_told:
            self._was_told = True
            raise Unreadable("the archive ends in the middle of this file")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Inflated(io.RawIOBase):
    """A member of a zip from its start to its end or its damage."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._failure = "the zip archive encrypts this file" if info.flag_bits & 1 else ""
        self._was_told = False
        self._file: Any = None
        if not self._failure:
            try:
                self._file = archive.open(info)
            except _DAMAGE as error:
                self._failure = _damage(error)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n_bytes = 0
        while not self._failure and n_bytes < len(buffer) and (sip := self._sip(len(buffer) - n_bytes)):
            buffer[n_bytes : n_bytes + len(sip)] = sip
            n_bytes += len(sip)
        if self._failure and not n_bytes and not self._was_told:
            self._was_told = True
            raise Unreadable(self._failure)
        return n_bytes

    def _sip(self, n_bytes: int) -> bytes:
        try:
            return self._file.read(min(n_bytes, _SIP))
        except _DAMAGE as error:
            self._failure = _damage(error)
            return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _damage(error: Exception) -> str:
    return f"this file is damaged in its zip archive: {type(error).__name__}"
