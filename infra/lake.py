"""The catalogue: Delta tables by name, their snapshots, and one atomic commit a stage.

Workers write Parquet files; the driver makes them visible with one commit that carries the lineage (input snapshots, parameters,
code, output digest). A killed writer leaves files that no log names; `tidy` and `purge` collect them. Whoever writes holds the
lake's lease (`writing`): stages that only add share it, what deletes files has it alone.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra import delta as deltas
from infra import lease, purge, store
from infra.contracts import CommitConflict, DataFile, LetheError, Lineage, Snapshot, StaleSnapshot, UnknownTable
from infra.files import Folder, Part, filesystem, read_part_table
from infra.ids import Digest, Keys
from infra.purge import PurgeReport, TidyReport
from infra.secret import SecretError, load_keys
from infra.settings import Settings

_LOG = logging.getLogger("lethe.lake")
_MARK = "lethe.json"
_LOCKS = "_locks"
_PROBED = "probe.json"
_SCRATCH = "_scratch"
_SLASH = "~"  # stands for the slashes of a table's name in its folder's name; no name may hold it
_TRIES = 24
_N_REQUESTS = 16
_N_LOOKED_BACK = 64
DERIVED = (  # in this order: what a table was derived from comes before it
    "ngram_counts",
    "signals",
    "signatures",
    "contamination",
    "neighbours",
    "model_scores",
    "selection",
    "scores",
    "training_set",
)
_STAGES = ("records", *DERIVED, "members", "residual")
_SINGLE = (
    "quarantine",
    "sources",
    "profiles",
    "containment",
    "retention",
    "recipes",
    "requests",
    "certificates",
    "foreign",
    "foreign_files",
)


class Lake:
    """All tables under one root. Holds the root, the keys, and the folder where what is no part of the lake lies."""

    def __init__(self, root: str, keys: Keys, private_dir: Path) -> None:
        self.root = root.rstrip("/")
        self.keys = keys
        self._private_dir = private_dir
        self._single_writer: bool | None = None if store.is_remote(self.root) else False

    @staticmethod
    def open(settings: Settings) -> Lake:
        settings.private_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lake = Lake(settings.lake_uri, load_keys(settings.private_dir), settings.private_dir)
        lake._check_secret()
        return lake

    def _check_secret(self) -> None:
        """Another secret gives other ids and finds no subject: better no lake than one of two secrets."""
        try:
            text = store.read(f"{self.root}/{_MARK}")
        except store.failures(self.root) as error:
            raise LetheError(
                f"the lake at {self.root} cannot be reached ({type(error).__name__}). "
                "Check its root in lethe.toml, and for s3:// AWS_ENDPOINT_URL, the credentials and the network"
            ) from None
        if text is not None and json.loads(text)["key_check"] != _key_check(self.keys):
            raise SecretError(
                f"the lake at {self.root} was made with another secret. Put back its .lethe/secret, or set LETHE_SECRET to it"
            )

    def _mark(self) -> None:
        """Remember the secret's mark: of several committers that make the first table at once, one says which it is."""
        told = {"format": 1, "key_check": _key_check(self.keys), "made_by": uuid.uuid4().hex}
        if store.read(f"{self.root}/{_MARK}") is None and not store.create(f"{self.root}/{_MARK}", json.dumps(told).encode()):
            self._check_secret()

    # --- names -----------------------------------------------------------------------------------------------------------------

    def uri(self, table: str) -> str:
        """Where a table lies. Names come from outside (files, tickets): they cannot leave the lake."""
        if not table or any(part in ("", ".", "..") for part in table.split("/")):
            raise UnknownTable(f"{table!r} is not a table name")
        stage, _, name = table.partition("/")
        # Tables never lie in one another's folders: what purges the outer one would take the inner one along.
        return f"{self.root}/{stage}/{name.replace('/', _SLASH)}".rstrip("/")

    def folder(self, table: str) -> Folder:
        return Folder(self.uri(table), self.keys.row)

    def exists(self, table: str) -> bool:
        return deltas.is_table(self.uri(table))

    def tables(self, prefix: str = "") -> list[str]:
        """Names of all tables that start with a prefix of whole parts (`records`, `records/exports`), sorted."""
        names = [name for name, is_there in self._candidates() if is_there]
        return sorted(name for name in names if not prefix or name == prefix or name.startswith(prefix.rstrip("/") + "/"))

    def _candidates(self) -> list[tuple[str, bool]]:
        """Every name that may be a table, and whether it is one; on an object store asked for together."""
        names = [f"{stage}/{folder.replace(_SLASH, '/')}" for stage in _STAGES for folder in self._folders(stage)]
        with self._pool() as pool:
            return [*zip([*_SINGLE, *names], pool.map(self.exists, [*_SINGLE, *names]), strict=True)]

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_N_REQUESTS if store.is_remote(self.root) else 1)

    def _folders(self, stage: str) -> list[str]:
        fs, path = filesystem(f"{self.root}/{stage}")
        if not fs.exists(path):
            return []
        return [
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
            for entry in fs.ls(path, detail=True)
            if entry["type"] == "directory"
        ]

    # --- snapshots -------------------------------------------------------------------------------------------------------------

    def snapshot(self, table: str, version: int | None = None) -> Snapshot:
        """The latest version of a table, or the one asked for. Raises `UnknownTable` or `StaleSnapshot`."""
        found: int = self._newest(table) if version is None else self._delta(table, version).version()
        return _snapshot(table, found, deltas.said_by(self.uri(table), found))

    def lineage(self, snapshot: Snapshot) -> Lineage:
        """Why a snapshot exists, as the stage that committed it said."""
        return _lineage_of(deltas.said_by(self.uri(snapshot.table), snapshot.version))

    def find(self, table: str, key: str) -> Snapshot | None:
        """A readable version that a stage with this key wrote; None if there is none."""
        newest = deltas.newest_version(self.uri(table))
        if newest is None:
            return None
        newest_commit = None
        for version, meta in deltas.sayings(self.uri(table), newest):
            newest_commit = newest_commit or meta["commit"]
            if meta["key"] == key:
                # Commits that change no row carry the newest lineage on: their version is the one to read.
                return self._readable(_snapshot(table, newest if meta["commit"] == newest_commit else version, meta), newest)
        return None

    def reuse(self, table: str, key: str) -> Snapshot | None:
        """As `find`, and what is found becomes the newest version again.

        Whoever reads the table next must meet it, and a purge must not take it for history.
        """
        found = self.find(table, key)
        latest = self.snapshot(table) if found is not None else None
        if found is None or latest is None or found.version == latest.version:
            return found
        files, current = ([part.file for part in self.parts(s)] for s in (found, latest))
        columns = self.partitioning(found)
        shared = {f.path for f in files} & {f.path for f in current} if columns == self.partitioning(latest) else set[str]()
        return self.commit(
            table,
            self.schema(found),
            [f for f in files if f.path not in shared],
            remove=[f for f in current if f.path not in shared] if shared else None,
            overwrite=not shared,
            lineage=self.lineage(found),
            expect=latest,
            partition_by=columns,
        )

    def _readable(self, snapshot: Snapshot, newest: int) -> Snapshot | None:
        if snapshot.version == newest:
            return snapshot
        try:
            old = self._delta(snapshot.table, snapshot.version)
        except StaleSnapshot:
            return None
        fs, path = filesystem(self.uri(snapshot.table))
        return snapshot if all(fs.exists(f"{path}/{name}") for name in deltas.paths_of(old)) else None

    def schema(self, snapshot: Snapshot) -> pa.Schema:
        return deltas.schema_of(self._delta(snapshot.table, snapshot.version))

    def parts(self, snapshot: Snapshot) -> list[Part]:
        """The files of a snapshot, ready to be read by workers; sorted by name."""
        delta = self._delta(snapshot.table, snapshot.version)
        schema = deltas.schema_of(delta)
        return [Part(f"{self.uri(snapshot.table)}/{f.path}", f, schema) for f in deltas.files_of(delta)]

    def read(self, snapshot: Snapshot, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a snapshot: for small tables only."""
        schema = self.schema(snapshot)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables([wanted.empty_table(), *(read_part_table(part, columns) for part in self.parts(snapshot))])

    def partitioning(self, snapshot: Snapshot) -> tuple[str, ...]:
        """The columns that a table is partitioned by."""
        return tuple(deltas.partition_columns(self._delta(snapshot.table, snapshot.version)))

    def _newest(self, table: str) -> int:
        """The number of the latest version, for which nothing is opened."""
        version = deltas.newest_version(self.uri(table))
        if version is None:
            raise UnknownTable(_unknown(table))
        return version

    def _delta(self, table: str, version: int | None = None) -> Any:
        try:
            return deltas.open_table(self.uri(table), version)
        except deltas.NotReadable:
            if not self.exists(table):
                raise UnknownTable(_unknown(table)) from None
            if version is None:
                raise
            oldest = deltas.oldest_version(self.uri(table))
            raise StaleSnapshot(
                f"{table}@{version} is gone; the oldest readable version is {oldest}. Run the stage that writes it again"
            ) from None

    # --- commits ---------------------------------------------------------------------------------------------------------------

    def commit(
        self,
        table: str,
        schema: pa.Schema,
        add: Sequence[DataFile],
        *,
        lineage: Lineage,
        remove: Sequence[DataFile] | None = None,
        overwrite: bool = False,
        app_id: str | None = None,
        expect: Snapshot | None = None,
        partition_by: Sequence[str] | None = None,
    ) -> Snapshot:
        """Make written files visible, and removed ones invisible, in one commit.

        `overwrite` replaces all rows; `app_id` makes a repeated commit a no-op; `expect` refuses if the rows moved since that
        snapshot, or if there is a table where it is `no_table`. `partition_by`: the columns whose values the added files say in
        `partition` (None: as the table is); another partitioning than the table's wants `overwrite`, and none of them may be
        missing in `schema`. Raises `CommitConflict` when a file to remove is gone or `expect` does not hold: read again and plan
        again. Raises `LeaseLost`, and `LetheError` when an added file is not there or not whole. Files of other writers are never
        lost: a conflict is met on what they left.
        """
        self._check_files(table, add)
        columns = None if partition_by is None else tuple(partition_by)
        files, gone = tuple(add), tuple(remove or ())
        return self._made(
            _Wanted(self.uri(table), table, uuid.uuid4().hex, schema, files, gone, lineage, overwrite, app_id, expect, columns)
        )

    def _made(self, wanted: _Wanted) -> Snapshot:
        """The snapshot that a commit makes, on whatever version other writers have left."""
        for attempt in range(_TRIES):
            self._check_lease()
            made = self._attempt(wanted)
            if made is not None:
                self._check_lease()
                return made
            _LOG.info("%s: another writer committed first (attempt %d)", wanted.table, attempt + 1)
            time.sleep(random.random() * min(4.0, 0.05 * 2**attempt))
        raise CommitConflict(f"{wanted.table}: {_TRIES} commits in a row met another writer. Run the command again")

    def _check_lease(self) -> None:
        """A commit needs a lease that is still held, where one was taken."""
        for place in self._lock_places():
            lease.check(place)

    def _attempt(self, wanted: _Wanted) -> Snapshot | None:
        """The snapshot that a commit made; None if another writer was first."""
        try:
            return self._try_commit(wanted)
        except deltas.Raced:
            return self._landed(wanted)

    def _landed(self, wanted: _Wanted) -> Snapshot | None:
        """The version of a commit that is there although its answer was lost and a second try met it; None if it is not."""
        newest = deltas.newest_version(wanted.uri)
        for version, meta in islice(deltas.sayings(wanted.uri, -1 if newest is None else newest), _N_LOOKED_BACK):
            if meta["commit"] == wanted.commit:
                return _snapshot(wanted.table, version, meta)
        return None

    def _try_commit(self, wanted: _Wanted) -> Snapshot:
        if not self.exists(wanted.table):
            expected = wanted.expect is None or wanted.expect.version < 0
            _refuse_unless(expected and not wanted.remove, f"{wanted.table} does not exist")
            return self._create(wanted)
        delta = self._delta(wanted.table)
        if wanted.app_id is not None and delta.transaction_version(wanted.app_id) is not None:
            return self.snapshot(wanted.table)
        return self._commit_on(self._with_retention(wanted.uri, delta), wanted)

    def _create(self, wanted: _Wanted) -> Snapshot:
        digest, columns = wanted.digest_after(Digest()), wanted.partition_by or ()
        wanted.refuse_unless_partitioned_by(columns)
        self._mark()
        deltas.create(wanted.uri, wanted.schema, wanted.add, partition_by=columns, meta=wanted.meta(digest), app_id=wanted.app_id)
        return _snapshot_of(wanted.table, 0, digest)

    def _commit_on(self, delta: Any, wanted: _Wanted) -> Snapshot:
        before = Digest.parse(deltas.said_by(wanted.uri, delta.version())["digest"])
        expected = wanted.expect is None or (wanted.expect.version >= 0 and str(before) == wanted.expect.digest)
        _refuse_unless(expected, f"{wanted.table} moved while it was being planned on")
        _refuse_removed(delta, wanted)
        digest = wanted.digest_after(before)
        meta, app_id = wanted.meta(digest), wanted.app_id
        has = deltas.partition_columns(delta)
        columns = has if wanted.partition_by is None else wanted.partition_by
        wanted.refuse_unless_partitioned_by(columns)
        if wanted.is_partitioned_anew(has):
            version = deltas.make_anew(
                wanted.uri, delta, wanted.schema, wanted.add, partition_by=columns, meta=meta, app_id=app_id
            )
        else:
            delta, files = delta if wanted.overwrite else self._with_columns(delta, wanted), (wanted.add, wanted.remove)
            version = deltas.write(wanted.uri, delta, wanted.schema, *files, overwrite=wanted.overwrite, meta=meta, app_id=app_id)
        return _snapshot_of(wanted.table, version, digest)

    def _with_columns(self, delta: Any, wanted: _Wanted) -> Any:
        """New columns are a commit of their own: a crash between the two leaves a table with columns of NULLs, which hash as
        absent."""
        missing = deltas.new_columns(delta, wanted.schema)
        if not missing:
            return delta
        return deltas.add_columns(wanted.uri, delta, missing, purge.carried(wanted.uri, delta))

    def _with_retention(self, uri: str, delta: Any) -> Any:
        """Give back the history that a purge, killed half-way, left switched off."""
        wanted, configuration = deltas.NO_RETENTION, delta.metadata().configuration
        if any(configuration.get(name) != value for name, value in wanted.items()):
            return delta
        return deltas.set_properties(uri, delta, deltas.RETENTIONS, purge.carried(uri, delta))

    def _check_files(self, table: str, add: Sequence[DataFile]) -> None:
        """A Delta commit does not look whether its files exist; a lost one would be found only by a reader. Files are flushed to
        the disk here and not when they are written: no log names one that a power cut can take, and committers flush together."""
        fs, path = filesystem(self.uri(table))
        for file, size in zip(add, _sizes(fs, [f"{path}/{file.path}" for file in add]), strict=True):
            if size != file.n_bytes:
                raise LetheError(
                    f"{table}: {file.path} was written with {file.n_bytes} bytes and now has {size}. Run the stage again"
                )

    # --- room to work in -------------------------------------------------------------------------------------------------------

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder under `<lake>/_scratch/` for one stage's parts; removed at the end."""
        uri = f"{self.root}/_scratch/{uuid.uuid4().hex}"
        fs, path = filesystem(uri)
        fs.makedirs(path, exist_ok=True)
        try:
            yield uri
        finally:
            if fs.exists(path):
                fs.rm(path, recursive=True)

    @contextmanager
    def writing(self, shared: bool = False) -> Iterator[None]:
        """Hold the lake's lease: `shared` with other writers that only add, or alone, as whatever deletes files must.

        Waits for others, whatever machine they are on, and says for whom. Nests, but for an exclusive lease inside a shared one.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(lease.leased(self._lock_place(), shared=shared and not self.single_writer))
            except OSError as error:
                place = self._lock_place()
                raise LetheError(f"nothing can be written under {place}: {os.strerror(error.errno or 0)}") from None
            yield

    @property
    def single_writer(self) -> bool:
        """Whether the store gives no object to exactly one of those that make it at once; then leases are of this machine only,
        and always exclusive. Raced for on first use, and remembered in the lake."""
        if self._single_writer is None:
            self._single_writer = not self._is_store_sound()
            if self._single_writer:
                _LOG.warning(
                    "%s does not honour conditional puts (If-None-Match: *): SINGLE-WRITER MODE. Commands of this machine wait "
                    "for each other; let no other machine write to this lake, or commits are lost without an error",
                    self.root,
                )
        return self._single_writer

    def _is_store_sound(self) -> bool:
        """What the race said when it was run on this endpoint; runs it now, if it never was."""
        place, endpoint = f"{self.root}/{_LOCKS}/{_PROBED}", _endpoint()
        known = json.loads(store.read(place) or b"{}")
        if known.get("endpoint") != endpoint:
            n_rounds = store.probe(f"{self.root}/{_LOCKS}")
            known = {"endpoint": endpoint, "sound": n_rounds is not None, "rounds": n_rounds or 0, "racers": store.RACERS}
            store.put(place, json.dumps(known).encode())
        return bool(known["sound"])

    def _lock_place(self) -> str:
        return self._lock_places()[1 if self.single_writer else 0]

    def _lock_places(self) -> tuple[str, str]:
        return f"{self.root}/{_LOCKS}", f"{self._private_dir}/{_LOCKS}"

    # --- purging ---------------------------------------------------------------------------------------------------------------

    def purge(self, tables: Sequence[str]) -> list[PurgeReport]:
        """Give up the history of tables: old files, old log entries, and everything no log names. Current rows stay as they are.

        Only call it with `writing()` held.
        """
        self._check_lease()
        return purge.purge({table: self.uri(table) for table in tables})

    def tidy(self, grace_s: float = 0.0) -> list[TidyReport]:
        """Remove what killed commands left: files that no readable version of a table names, folders of tables that never came to
        be, scratch, drafts. Tables, rows and history stay as they are. Reports where something went.

        `grace_s`: how old an unnamed file of a table must be, in seconds. Only call it with `writing()` held.
        """
        self._check_lease()
        with self._pool() as pool:
            reports = list(pool.map(lambda table: purge.tidy(table, self.uri(table), grace_s=grace_s), self.tables()))
        reports += [purge.tidy_folder(name, self.uri(name)) for name in self._never_made()]
        reports.append(purge.tidy_folder(_SCRATCH, f"{self.root}/{_SCRATCH}"))
        for draft in (name for name in store.names(self.root) if name.startswith("draft-")):
            store.delete(f"{self.root}/{draft}")
        lease.clear(self._lock_place())
        return [report for report in reports if report.n_files_deleted]

    def drop(self, table: str) -> None:
        """Remove a derived table whole, history and all. Records are refused: only erasure takes rows from them."""
        if table.split("/", maxsplit=1)[0] not in _STAGES[1:]:
            raise LetheError(f"{table} is not a derived table; it cannot be dropped")
        self._check_lease()
        purge.remove_folder(self.uri(table))

    def retire(self, table: str) -> None:
        """Remove a table of records whole, history and all: one that a recipe rebuilds. A removal that was killed leaves a table
        that still tells the digest of its newest version. Only call it with `writing()` held."""
        if not table.startswith("records/"):
            raise LetheError(f"{table} is not a table of records; it cannot be retired")
        self._check_lease()
        log = f"{self.uri(table)}/_delta_log"
        *older, _ = sorted(name for name in store.names(log) if name.endswith(".json")) or [""]
        purge.delete(log, older)
        purge.remove_folder(self.uri(table))

    def is_readable(self, snapshot: Snapshot) -> bool:
        """Whether a version can still be read: the newest, or one whose files are all there."""
        newest = deltas.newest_version(self.uri(snapshot.table))
        return newest is not None and self._readable(snapshot, newest) is not None

    def sweep(self) -> int:
        """Remove the folders of tables that never came to be: files of a run that was killed before its first commit. Returns how
        many. Only call it with `writing()` held."""
        return sum(purge.remove_folder(self.uri(name)) for name in self._never_made())

    def _never_made(self) -> list[str]:
        """Tables that have a folder and no log; names without a folder may be among them."""
        return [name for name, is_there in self._candidates() if not is_there]

    def clear_scratch(self) -> int:
        """Remove what killed runs left under `_scratch/`; returns how many files. Only call it with `writing()` held."""
        return purge.tidy_folder(_SCRATCH, f"{self.root}/{_SCRATCH}").n_files_deleted


def _unknown(table: str) -> str:
    return f"the lake has no table {table}; see: lethe status"


def no_table(table: str) -> Snapshot:
    """What a commit expects that must be the table's first."""
    return Snapshot(table, -1, "", 0)


def _key_check(keys: Keys) -> str:
    """What a lake remembers of its secret: enough to tell another one, nothing to compute it from."""
    return hmac.digest(keys.row, b"lethe key check", "sha256").hex()[:32]


# --- what is committed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """One commit as it was asked for, whatever version it lands on; `commit` tells it from every other."""

    uri: str
    table: str
    commit: str
    schema: pa.Schema
    add: tuple[DataFile, ...]
    remove: tuple[DataFile, ...]
    lineage: Lineage
    overwrite: bool
    app_id: str | None
    expect: Snapshot | None
    partition_by: tuple[str, ...] | None

    @property
    def added(self) -> Digest:
        return _sum(self.add)

    def digest_after(self, before: Digest) -> Digest:
        return self.added if self.overwrite else before + self.added - _sum(self.remove)

    def meta(self, digest: Digest) -> dict[str, Any]:
        """What the commit says: its lineage and the digest of the rows after it."""
        inputs = [vars(snapshot) for snapshot in self.lineage.inputs]
        return {**vars(self.lineage), "inputs": inputs, "digest": str(digest), "commit": self.commit}

    def refuse_unless_partitioned_by(self, columns: Sequence[str]) -> None:
        """Nobody can open a table that lacks a column it is partitioned by, and a file that does not say its partition values
        would be read as NULLs by everybody else.
        """
        missing = [name for name in columns if name not in self.schema.names]
        if missing:
            raise LetheError(f"{self.table} would be partitioned by {', '.join(missing)}, which it does not have")
        wrong = next((file for file in self.add if set(file.partition) != set(columns)), None)
        if wrong is not None:
            asked, said = (", ".join(names) or "nothing" for names in (columns, wrong.partition))
            raise LetheError(
                f"{self.table} is partitioned by {asked}, and {wrong.path} by {said}; say them when the file is written"
            )

    def is_partitioned_anew(self, columns: Sequence[str]) -> bool:
        """Whether all rows of a table with these partition columns are replaced under others. Raises `LetheError` where rows
        would be put beside rows that are partitioned otherwise.
        """
        if self.partition_by is None or self.partition_by == tuple(columns):
            return False
        if not self.overwrite:
            has, asked = (", ".join(names) or "nothing" for names in (columns, self.partition_by))
            raise LetheError(
                f"{self.table} is partitioned by {has} and would be by {asked}; put partition_by back, or have it written anew"
            )
        return True


def _sum(files: Sequence[DataFile]) -> Digest:
    return sum((Digest.parse(f.digest) for f in files), Digest())


def _snapshot_of(table: str, version: int, digest: Digest) -> Snapshot:
    return Snapshot(table, version, str(digest), digest.n_rows)


def _snapshot(table: str, version: int, meta: dict[str, Any]) -> Snapshot:
    return _snapshot_of(table, version, Digest.parse(meta["digest"]))


def _lineage_of(meta: dict[str, Any]) -> Lineage:
    inputs = tuple(Snapshot(**s) for s in meta["inputs"])
    return Lineage(meta["stage"], meta["key"], meta["code"], inputs, meta["params"], meta["summary"])


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise CommitConflict(f"{message}. Run the command again")


def _refuse_removed(delta: Any, wanted: _Wanted) -> None:
    active = set(deltas.paths_of(delta)) if wanted.remove else set[str]()
    gone = [file for file in wanted.remove if file.path not in active]
    _refuse_unless(not gone, f"{wanted.table}: a file to be replaced is no longer part of the table")


def _sizes(fs: Any, paths: Sequence[str]) -> list[int]:
    """The bytes of files, -1 for one that is not there: local ones flushed to the disk, others asked for together."""
    if fs.protocol == ("file", "local"):
        return [_flushed(path) for path in paths]
    with ThreadPoolExecutor(_N_REQUESTS) as pool:
        return list(pool.map(lambda path: _size(fs, path), paths))


def _flushed(path: str) -> int:
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return -1


def _size(fs: Any, path: str) -> int:
    try:
        return int(fs.size(path))
    except FileNotFoundError:
        return -1


def _endpoint() -> str:
    """The object store that the usual variables name."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "default"
