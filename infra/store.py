"""Single small objects at a URI, in a folder or on an object store: made only if absent, read, replaced, deleted, listed.

`create` is what leases rest on: of all who create one object at once, exactly one is told that it did. A folder gives that by
hard links, an object store by conditional puts (`If-None-Match: *`). Stores that take the condition and ignore it lose updates
without a word, so `probe` races for it before anybody relies on it.
"""

from __future__ import annotations

import errno
import os
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError

from infra.contracts import LetheError
from infra.files import filesystem

TRANSIENT = (OSError, BotoCoreError)  # what an object store's client raises when it has given up for now
ROUNDS = 20
RACERS = 8
_MIN_ROUNDS = 5
_TRIES = 8
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def create(uri: str, data: bytes) -> bool:
    """Make an object if there is none; whether this call made it. No two calls may bring the same data: a put whose answer was
    lost is known by it when it is sent again.
    """
    fs, path = filesystem(uri)
    return _create_remote(fs, path, data) if is_remote(uri) else _create_local(path, data)


def _create_local(path: str, data: bytes) -> bool:
    """Written elsewhere and linked into place: nobody sees half an object."""
    folder, _, name = path.rpartition("/")
    os.makedirs(folder, exist_ok=True)
    draft = f"{folder}/draft-{uuid.uuid4().hex}-{name}"
    try:
        with open(draft, "xb") as file:
            file.write(data)
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_without_links(path, data)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    return True


def _create_without_links(path: str, data: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _create_remote(fs: Any, path: str, data: bytes) -> bool:
    for attempt in range(_TRIES):
        try:
            fs.pipe_file(path, data, mode="create")
            return True
        except FileExistsError:
            return _content(fs, path) == data
        except OSError as error:
            code = _code(error)
            if code == 412:
                return _content(fs, path) == data
            # 409: another conditional put of the same object was under way; which of the two counts is open.
            if code != 409 or attempt == _TRIES - 1:
                raise
        time.sleep(random.random() * 0.05 * 2**attempt)
    raise AssertionError("unreachable")


def _code(error: OSError) -> int:
    """The HTTP status behind an error of s3fs; 0 where there is none."""
    response = getattr(error.__cause__, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def failures(uri: str) -> tuple[type[Exception], ...]:
    """What a store that is away, or refuses, raises."""
    if not is_remote(uri):
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - s3fs brought it along, and takes its time

    return (OSError, BotoCoreError, ClientError)


def read(uri: str) -> bytes | None:
    """The object's bytes; None if it is not there."""
    return _content(*filesystem(uri))


def _content(fs: Any, path: str) -> bytes | None:
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None


def put(uri: str, data: bytes) -> None:
    """Make or replace an object."""
    fs, path = filesystem(uri)
    if not is_remote(uri):
        os.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, data)


def overwrite(uri: str, data: bytes) -> bool:
    """Replace an object's bytes by as many others; False if it is not there. An object store makes it again instead."""
    fs, path = filesystem(uri)
    if is_remote(uri):
        fs.pipe_file(path, data)
        return True
    try:
        with open(path, "r+b", buffering=0) as file:
            file.write(data)
    except FileNotFoundError:
        return False
    return True


def delete(uri: str) -> None:
    """Remove an object, if it is there."""
    fs, path = filesystem(uri)
    with suppress(FileNotFoundError):
        fs.rm_file(path)


def age_s(uri: str) -> float:
    """Seconds since an object was written, by this machine's clock; 0 if it is not there."""
    fs, path = filesystem(uri)
    try:
        return time.time() - fs.modified(path).timestamp()
    except FileNotFoundError:
        return 0.0


def names(uri: str) -> list[str]:
    """Names of the objects in a folder, sorted; none if there is no such folder."""
    fs, path = filesystem(uri)
    try:
        found = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(str(name).rpartition("/")[2] for name in found)


def probe(uri: str, *, rounds: int = ROUNDS, budget_s: float = 10.0, make: Callable[[str, bytes], bool] = create) -> int | None:
    """Race `RACERS` creators for one object under a folder, round after round; how many rounds had exactly one winner, or None as
    soon as one had not. After `budget_s` seconds a few rounds are enough. What was made is removed.
    """
    end = time.monotonic() + budget_s
    with ThreadPoolExecutor(RACERS) as pool:
        for number in range(rounds):
            if number >= _MIN_ROUNDS and time.monotonic() > end:
                return number
            if not _one_wins(f"{uri}/probe-{uuid.uuid4().hex}", pool, make):
                return None
    return rounds


def _one_wins(uri: str, pool: ThreadPoolExecutor, make: Callable[[str, bytes], bool]) -> bool:
    entries = [f"{number} {uuid.uuid4().hex}".encode() for number in range(RACERS)]
    try:
        won = [entry for entry, made in zip(entries, pool.map(lambda e: _tried(make, uri, e), entries), strict=True) if made]
        return len(won) == 1 and read(uri) == won[0] and not make(uri, b"late")
    finally:
        delete(uri)


def _tried(make: Callable[[str, bytes], bool], uri: str, entry: bytes) -> bool:
    """A store that refuses the condition itself (501) gives nobody the object."""
    try:
        return make(uri, entry)
    except PermissionError as error:
        raise LetheError(f"nothing can be written under {uri.rpartition('/')[0]}: give these credentials that right") from error
    except OSError as error:
        if _code(error) in (400, 501):
            return False
        raise
