"""What goes from a table's folder: a purge gives up all history, a tidy only what no readable version names.

Both delete files, so both want the lake's exclusive lease: a shared holder may have written files that no log names yet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra import delta as deltas
from infra.files import filesystem

_KEPT_FOR_MS = 7 * 86_400_000  # as long as `deltas.RETENTIONS` keeps removed files
_N_DELETERS = 16


@dataclass(frozen=True)
class PurgeReport:
    """What a purge took away. Versions before `version` cannot be read any more."""

    table: str
    version_before: int
    version: int
    n_files_deleted: int
    n_log_files_deleted: int


@dataclass(frozen=True)
class TidyReport:
    """What a tidy took from one folder: files that no version names that can still be read."""

    table: str
    n_files_deleted: int
    n_bytes_deleted: int


# --- giving up history --------------------------------------------------------------------------------------------------


def purge(uris: Mapping[str, str]) -> list[PurgeReport]:
    """Give up the history of tables (URIs by name): old files, old log entries, and everything no log names.

    The order matters (vacuum before log clean-up, or the log forgets which files to delete), and the retention clocks count
    whole seconds.
    """
    before = {table: deltas.open_table(uri).version() for table, uri in uris.items()}
    settled_s = time.time() - max((deltas.committed_at(uri, before[table]) for table, uri in uris.items()), default=0.0)
    for uri in uris.values():
        delta = deltas.open_table(uri)
        deltas.set_properties(uri, delta, deltas.NO_RETENTION, carried(uri, delta))
    time.sleep(max(0.0, 1.1 - settled_s))
    files = {table: vacuum(uri) for table, uri in uris.items()}
    logs = {table: clean_log(uri) for table, uri in uris.items()}
    return [PurgeReport(t, before[t], deltas.open_table(uri).version(), files[t], logs[t]) for t, uri in uris.items()]


def carried(uri: str, delta: Any) -> dict[str, Any]:
    """What the newest commit said, for commits that change no row, so that the latest version always tells its digest."""
    return deltas.said_by(uri, delta.version())


def vacuum(uri: str) -> int:
    """Delete every file that the newest version does not name; how many."""
    before = set(files_outside_log(uri))
    for full in (False, True):
        delta = deltas.open_table(uri)
        said = deltas.properties(carried(uri, delta))
        delta.vacuum(0, dry_run=False, enforce_retention_duration=False, full=full, commit_properties=said)
    keep = set(deltas.paths_of(deltas.open_table(uri)))
    # What vacuum reports is no evidence of what is there.
    delete(uri, (name for name in files_outside_log(uri) if name not in keep))
    return len(before - set(files_outside_log(uri)))


def clean_log(uri: str) -> int:
    """Delete every log entry that the newest version does not need; how many."""
    fs, path = filesystem(uri)
    log = f"{path}/_delta_log"
    n_before = len(fs.find(log))
    delta = deltas.open_table(uri)
    version = delta.version()
    delta.create_checkpoint()
    delta.cleanup_metadata()
    names = (str(found)[len(log) + 1 :] for found in fs.find(log))
    delete(f"{uri}/_delta_log", [name for name in names if not _still_needed(name, version)])
    remove_empty_folders(path)
    delta = deltas.open_table(uri)
    deltas.set_properties(uri, delta, deltas.RETENTIONS, carried(uri, delta))
    return max(0, n_before - len(fs.find(log)))


def _still_needed(name: str, version: int) -> bool:
    return name == "_last_checkpoint" or (deltas.LOG_NAME.match(name) is not None and int(name[:20]) >= version)


# --- tidying ----------------------------------------------------------------------------------------------------------


def tidy(table: str, uri: str, *, grace_s: float) -> TidyReport:
    """Delete what no version names that can still be read: files of killed writers, drafts, files removed over a week ago.

    Files younger than `grace_s` stay, for writers that know no lease.
    """
    now = time.time()
    active = set(deltas.paths_of(deltas.open_table(uri)))
    kept = active | {name for name, removed in _removed(uri).items() if removed > now * 1000 - _KEPT_FOR_MS}
    fs, path = filesystem(uri)
    found = {str(name)[len(path) + 1 :]: info for name, info in fs.find(path, detail=True).items()}
    gone = {
        name: int(info.get("size") or 0)
        for name, info in found.items()
        if name not in kept and _may_go(name) and now - _written_at(info) >= grace_s
    }
    delete(uri, gone)
    return TidyReport(table, len(gone), sum(gone.values()))


def _may_go(name: str) -> bool:
    """Whether a file that no log names is one of ours: in the log's folder only what a killed committer had not finished."""
    return not name.startswith("_delta_log/") or ".tmp" in name or "#" in name or name.startswith("_delta_log/draft-")


def tidy_folder(name: str, uri: str) -> TidyReport:
    """Remove a folder that no log is about."""
    fs, path = filesystem(uri)
    sizes = [int(info.get("size") or 0) for info in fs.find(path, detail=True).values()] if fs.exists(path) else []
    remove_folder(uri)
    return TidyReport(name, len(sizes), sum(sizes))


def _written_at(info: Mapping[str, Any]) -> float:
    """When a file was last written, in seconds since the epoch."""
    if "mtime" in info:
        return float(info["mtime"])
    return float(info["LastModified"].timestamp())


def _removed(uri: str) -> dict[str, float]:
    """When the log's removed files went, in milliseconds since the epoch, as its commits and checkpoints tell."""
    removed = dict[str, float]()
    for action in _removals(uri):
        removed[action["path"]] = max(removed.get(action["path"], 0.0), float(action.get("deletionTimestamp") or 0))
    return removed


def _removals(uri: str) -> Iterator[Mapping[str, Any]]:
    fs, path = filesystem(f"{uri}/_delta_log")
    for name in deltas.log_files(uri):
        with fs.open(f"{path}/{name}", "rb") as file:
            if name.endswith(".json"):
                actions = (json.loads(line) for line in file.read().splitlines() if line.strip())
                yield from (action["remove"] for action in actions if "remove" in action)
            else:
                column = pq.read_table(file, columns=["remove"]).column("remove")
                yield from (action for action in column.to_pylist() if action and action.get("path"))


# --- files ------------------------------------------------------------------------------------------------------------


def files_outside_log(uri: str) -> list[str]:
    """Names of all files in a table's folder but the log's."""
    fs, path = filesystem(uri)
    names = (str(found)[len(path) + 1 :] for found in fs.find(path))
    return [name for name in names if not name.startswith("_delta_log/")]


def delete(uri: str, names: Iterable[str]) -> None:
    """Delete files of a folder, several at once where each takes a request."""
    fs, path = filesystem(uri)
    with ThreadPoolExecutor(_N_DELETERS if "://" in uri else 1) as pool:
        list(pool.map(lambda name: fs.rm_file(f"{path}/{name}"), names))


def remove_folder(uri: str) -> bool:
    """Remove a folder, its log first: a table is gone at once or not at all."""
    fs, path = filesystem(uri)
    places = [place for place in (f"{path}/_delta_log", path) if fs.exists(place)]
    for place in places:
        fs.rm(place, recursive=True)
    return bool(places)


def remove_empty_folders(path: str) -> None:
    """Empty partition folders keep a value in their name. Object stores have no folders."""
    if "://" in path or not os.path.isdir(path):
        return
    for folder in sorted(Path(path).rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
