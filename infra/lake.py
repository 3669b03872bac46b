"""The catalogue: Delta tables by name, their snapshots, and one atomic commit a stage. The only importer of deltalake.

Workers write Parquet files; the driver makes them visible with one commit that carries the lineage (input snapshots, parameters,
code, output digest). A killed writer leaves files that no log names; `purge` and `vacuum` collect them.
"""

from __future__ import annotations

import hmac
import json
import os
import random
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions
from filelock import FileLock

from infra.contracts import CommitConflict, DataFile, LetheError, Lineage, Snapshot, StaleSnapshot, UnknownTable
from infra.files import Folder, Part, filesystem, parse_name, read_part_table
from infra.ids import Digest, Keys
from infra.secret import SecretError, load_keys
from infra.settings import Settings

_META = "lethe"
_MARK = "lethe.json"
_SLASH = "~"  # stands for the slashes of a table's name in its folder's name; no name may hold it
_TRIES = 12
_RETENTIONS = {"delta.logRetentionDuration": "interval 30 days", "delta.deletedFileRetentionDuration": "interval 7 days"}
_NO_RETENTION = "interval 0 seconds"
_STAGES = ("records", "ngram_counts", "selection", "scores", "training_set")
_SINGLE = ("quarantine", "sources", "containment", "retention", "requests", "certificates")
_KEPT_LOG = re.compile(r"^\d{20}\.(json|checkpoint(\.\d+\.\d+)?\.parquet)$")


@dataclass(frozen=True)
class PurgeReport:
    """What a purge took away. Versions before `version` cannot be read any more."""

    table: str
    version_before: int
    version: int
    n_files_deleted: int
    n_log_files_deleted: int


class Lake:
    """All tables under one root. Holds the root, the keys, and the lock that keeps writers of one machine apart."""

    def __init__(self, root: str, keys: Keys, lock: FileLock) -> None:
        self.root = root.rstrip("/")
        self.keys = keys
        self._lock = lock

    @staticmethod
    def open(settings: Settings) -> Lake:
        settings.private_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(str(settings.private_dir / "lake.lock"), is_singleton=True)
        lake = Lake(settings.lake_uri, load_keys(settings.private_dir), lock)
        lake._check_secret()
        return lake

    def _check_secret(self) -> None:
        """Another secret gives other ids and finds no subject: better no lake than one of two secrets."""
        fs, path = filesystem(f"{self.root}/{_MARK}")
        if fs.exists(path) and json.loads(fs.cat_file(path))["key_check"] != _key_check(self.keys):
            raise SecretError(
                f"the lake at {self.root} was made with another secret. Put back its .lethe/secret, or set LETHE_SECRET to it"
            )

    def _mark(self) -> None:
        """Remember the secret's mark, in one move: several committers may make the first table at once."""
        fs, path = filesystem(f"{self.root}/{_MARK}")
        if not fs.exists(path):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            draft = f"{path}.{uuid.uuid4().hex}"
            fs.pipe_file(draft, json.dumps({"format": 1, "key_check": _key_check(self.keys)}).encode())
            fs.mv(draft, path)

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
        if "://" in self.root:
            return DeltaTable.is_deltatable(self.uri(table), _storage(self.root))
        try:
            return any(_KEPT_LOG.match(name) for name in os.listdir(f"{self.uri(table)}/_delta_log"))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def tables(self, prefix: str = "") -> list[str]:
        """Names of all tables that start with a prefix of whole parts (`records`, `records/exports`), sorted."""
        found = [name for name in _SINGLE if self.exists(name)]
        for stage in _STAGES:
            names = (f"{stage}/{folder.replace(_SLASH, '/')}" for folder in self._folders(stage))
            found += [name for name in names if self.exists(name)]
        return sorted(name for name in found if not prefix or name == prefix or name.startswith(prefix.rstrip("/") + "/"))

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
        if version is not None:
            self._delta(table, version)  # raises StaleSnapshot if the log has given it up
        delta = self._delta(table)
        meta = _newest_meta(delta, version)
        return Snapshot(table, delta.version() if version is None else version, meta["digest"], _n_rows(meta))

    def lineage(self, snapshot: Snapshot) -> Lineage:
        """Why a snapshot exists, as the stage that committed it said."""
        return _lineage_of(_newest_meta(self._delta(snapshot.table), snapshot.version))

    def find(self, table: str, key: str) -> Snapshot | None:
        """A readable version that a stage with this key wrote; None if there is none."""
        if not self.exists(table):
            return None
        delta = self._delta(table)
        for entry in delta.history():
            meta = _meta_of(entry)
            if meta and meta["key"] == key:
                return self._readable(table, int(entry["version"]), meta, delta)
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
        shared = {f.path for f in files} & {f.path for f in current}
        return self.commit(
            table,
            self.schema(found),
            [f for f in files if f.path not in shared],
            remove=[f for f in current if f.path not in shared] if shared else None,
            overwrite=not shared,
            lineage=self.lineage(found),
            expect=latest,
        )

    def _readable(self, table: str, version: int, meta: dict[str, Any], latest: DeltaTable) -> Snapshot | None:
        newest = _newest_meta(latest)
        if newest["commit"] == meta["commit"]:
            return Snapshot(table, latest.version(), meta["digest"], _n_rows(meta))
        try:
            old = self._delta(table, version)
        except StaleSnapshot:
            return None
        fs, path = filesystem(self.uri(table))
        if not all(fs.exists(f"{path}/{name}") for name in _paths(old)):
            return None
        return Snapshot(table, version, meta["digest"], _n_rows(meta))

    def schema(self, snapshot: Snapshot) -> pa.Schema:
        return pa.schema(self._delta(snapshot.table, snapshot.version).schema().to_arrow())

    def parts(self, snapshot: Snapshot) -> list[Part]:
        """The files of a snapshot, ready to be read by workers; sorted by name."""
        delta = self._delta(snapshot.table, snapshot.version)
        schema = pa.schema(delta.schema().to_arrow())
        return [Part(f"{self.uri(snapshot.table)}/{f.path}", f, schema) for f in _data_files(delta)]

    def read(self, snapshot: Snapshot, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a snapshot: for small tables only."""
        schema = self.schema(snapshot)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables([wanted.empty_table(), *(read_part_table(part, columns) for part in self.parts(snapshot))])

    def _delta(self, table: str, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(self.uri(table), version=version, storage_options=_storage(self.root))
        except DeltaError as error:
            if not self.exists(table):
                raise UnknownTable(f"the lake has no table {table}; see: lethe status") from None
            if version is None:
                raise LetheError(f"{table} cannot be opened: {error}") from error
            oldest = min((int(e["version"]) for e in self._delta(table).history()), default=0)
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
    ) -> Snapshot:
        """Make written files visible, and removed ones invisible, in one commit.

        `overwrite` replaces all rows; `app_id` makes a repeated commit a no-op; `expect` refuses if the rows moved since that
        snapshot. Raises `CommitConflict` when a file to remove is gone or `expect` does not hold, `LetheError` when an added file
        is not there or not whole. Files of other writers are never lost: the commit is planned again on every conflict.
        """
        self._check_files(table, add)
        for attempt in range(_TRIES):
            try:
                return self._try_commit(table, schema, add, lineage, list(remove or ()), overwrite, app_id, expect)
            except CommitFailedError as conflict:
                if attempt == _TRIES - 1:
                    raise CommitConflict(f"{table}: {_TRIES} commits in a row met another writer: {conflict}") from conflict
                time.sleep(min(2.0, 0.02 * 2**attempt) * random.random())
        raise AssertionError("unreachable")

    def _try_commit(
        self,
        table: str,
        schema: pa.Schema,
        add: Sequence[DataFile],
        lineage: Lineage,
        remove: Sequence[DataFile],
        overwrite: bool,
        app_id: str | None,
        expect: Snapshot | None,
    ) -> Snapshot:
        added = sum((Digest.parse(f.digest) for f in add), Digest())
        if not self.exists(table):
            _refuse_unless(expect is None and not remove, f"{table} does not exist")
            self._create(table, schema, add, _properties(lineage, added, app_id))
            return Snapshot(table, 0, str(added), added.n_rows)
        delta = self._delta(table)
        if app_id is not None and delta.transaction_version(app_id) is not None:
            return self.snapshot(table)
        delta = self._with_retention(table, delta)
        before = Digest.parse(_newest_meta(delta)["digest"])
        _refuse_unless(expect is None or str(before) == expect.digest, f"{table} moved while it was being planned on")
        removed = sum((Digest.parse(f.digest) for f in remove), Digest())
        digest = added if overwrite else before + added - removed
        actions = [*_adds(add), *_removes(delta, table, remove)]
        if not overwrite and (missing := _new_columns(delta, schema)):
            # New columns are a commit of their own: a crash between the two leaves a table with columns of NULLs, which hash as
            # absent.
            delta.alter.add_columns(missing, commit_properties=_carried(delta))
            delta = self._delta(table)
        mode = "overwrite" if overwrite else "append"
        delta.create_write_transaction(actions, mode, schema, commit_properties=_properties(lineage, digest, app_id))
        # Without retries it is the next version or a conflict, so nobody has to look.
        return Snapshot(table, delta.version() + 1, str(digest), digest.n_rows)

    def _with_retention(self, table: str, delta: DeltaTable) -> DeltaTable:
        """Give back the history that a purge, killed half-way, left switched off."""
        if delta.metadata().configuration.get("delta.logRetentionDuration") != _NO_RETENTION:
            return delta
        delta.alter.set_table_properties(_RETENTIONS, commit_properties=_carried(delta))
        return self._delta(table)

    def _create(self, table: str, schema: pa.Schema, add: Sequence[DataFile], properties: CommitProperties) -> None:
        self._mark()
        create_table_with_add_actions(
            self.uri(table),
            DeltaSchema.from_arrow(schema),
            _adds(add),
            mode="error",
            configuration=_configuration(add),
            storage_options=_storage(self.root),
            commit_properties=properties,
        )

    def _check_files(self, table: str, add: Sequence[DataFile]) -> None:
        """A Delta commit does not look whether its files exist; a lost one would be found only by a reader. Files are flushed to
        the disk here and not when they are written: no log names one that a power cut can take, and committers flush together."""
        fs, path = filesystem(self.uri(table))
        for file in add:
            place = f"{path}/{file.path}"
            try:
                size = int(fs.size(place)) if "://" in self.root else _flushed(place)
            except FileNotFoundError:
                size = -1
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
    def writing(self) -> Iterator[None]:
        """Keep this machine's other writers out: purging must not meet files that are written and not yet committed."""
        with self._lock:
            yield

    # --- purging ---------------------------------------------------------------------------------------------------------------

    def purge(self, tables: Sequence[str]) -> list[PurgeReport]:
        """Give up the history of tables: old files, old log entries, and everything no log names. Current rows stay as they are.

        The order matters (vacuum before log clean-up, or the log forgets which files to delete), and the retention clocks count
        whole seconds. Only call it with `writing()` held.
        """
        before = {table: self._delta(table).version() for table in tables}
        settled = time.time() - max((self._committed_at(table) for table in tables), default=0.0)
        for table in tables:
            zero = dict.fromkeys(_RETENTIONS, _NO_RETENTION)
            delta = self._delta(table)
            delta.alter.set_table_properties(zero, commit_properties=_carried(delta))
        time.sleep(max(0.0, 1.1 - settled))
        files = {table: self._vacuum(table) for table in tables}
        logs = {table: self._clean_log(table) for table in tables}
        return [PurgeReport(t, before[t], self._delta(t).version(), files[t], logs[t]) for t in tables]

    def _committed_at(self, table: str) -> float:
        """When the newest commit was made, in seconds since the epoch."""
        (entry,) = self._delta(table).history(1)
        return float(entry["timestamp"]) / 1000

    def _vacuum(self, table: str) -> int:
        fs, path = filesystem(self.uri(table))
        n_before = len(self._outside_log(table))
        for full in (False, True):
            delta = self._delta(table)
            delta.vacuum(0, dry_run=False, enforce_retention_duration=False, full=full, commit_properties=_carried(delta))
        keep = set(_paths(self._delta(table)))
        for name in self._outside_log(table):
            if name not in keep:
                fs.rm_file(f"{path}/{name}")
        return n_before - len(self._outside_log(table))

    def _outside_log(self, table: str) -> list[str]:
        """Names of all files in a table's folder but the log's: what vacuum reports is no evidence of what is there."""
        fs, path = filesystem(self.uri(table))
        names = (str(found)[len(path) + 1 :] for found in fs.find(path))
        return [name for name in names if not name.startswith("_delta_log/")]

    def _clean_log(self, table: str) -> int:
        fs, path = filesystem(self.uri(table))
        log = f"{path}/_delta_log"
        n_before = len(fs.find(log))
        delta = self._delta(table)
        version = delta.version()
        delta.create_checkpoint()
        delta.cleanup_metadata()
        for found in fs.find(log):
            name = str(found)[len(log) + 1 :]
            if name != "_last_checkpoint" and not (_KEPT_LOG.match(name) and int(name[:20]) >= version):
                fs.rm_file(found)
        _remove_empty_folders(path)
        delta = self._delta(table)
        delta.alter.set_table_properties(_RETENTIONS, commit_properties=_carried(delta))
        return max(0, n_before - len(fs.find(log)))

    def drop(self, table: str) -> None:
        """Remove a derived table whole, history and all. Records are refused: only erasure takes rows from them."""
        if table.split("/", maxsplit=1)[0] not in _STAGES[1:]:
            raise LetheError(f"{table} is not a derived table; it cannot be dropped")
        self._remove_folder(self.uri(table))

    def sweep(self) -> int:
        """Remove the folders of tables that never came to be: files of a run that was killed before its first commit. Returns how
        many. Only call it with `writing()` held."""
        names = [f"{stage}/{folder.replace(_SLASH, '/')}" for stage in _STAGES for folder in self._folders(stage)]
        dead = [name for name in (*names, *_SINGLE) if not self.exists(name) and self._remove_folder(self.uri(name))]
        return len(dead)

    def _remove_folder(self, uri: str) -> bool:
        """Remove a folder, its log first: a table is gone at once or not at all."""
        fs, path = filesystem(uri)
        places = [place for place in (f"{path}/_delta_log", path) if fs.exists(place)]
        for place in places:
            fs.rm(place, recursive=True)
        return bool(places)

    def clear_scratch(self) -> int:
        """Remove what killed runs left under `_scratch/`; returns how many files. Only call it with `writing()` held."""
        fs, path = filesystem(f"{self.root}/_scratch")
        if not fs.exists(path):
            return 0
        n_files = len(fs.find(path))
        fs.rm(path, recursive=True)
        return n_files


def _key_check(keys: Keys) -> str:
    """What a lake remembers of its secret: enough to tell another one, nothing to compute it from."""
    return hmac.digest(keys.row, b"lethe key check", "sha256").hex()[:32]


# --- what a commit says -----------------------------------------------------------------------------------------------


def _properties(lineage: Lineage, digest: Digest, app_id: str | None) -> CommitProperties:
    meta = {**asdict(lineage), "digest": str(digest), "commit": uuid.uuid4().hex}
    transactions = [Transaction(app_id, 1)] if app_id is not None else None
    # No silent retries: the digest in the commit holds only for the version it was planned on.
    return CommitProperties({_META: json.dumps(meta, sort_keys=True)}, max_commit_retries=0, app_transactions=transactions)


def _carried(delta: DeltaTable) -> CommitProperties:
    """The newest lineage again, for commits that change no row, so that the latest version always tells its digest."""
    return CommitProperties({_META: json.dumps(_newest_meta(delta), sort_keys=True)})


def _meta_of(entry: dict[str, Any]) -> dict[str, Any] | None:
    text = entry.get(_META)
    return json.loads(text) if isinstance(text, str) else None


def _newest_meta(latest: DeltaTable, version: int | None = None) -> dict[str, Any]:
    """What the newest commit of ours says, up to a version.

    Ask the latest table only: the history of a table that was opened at an older version holds the newer commits all the same,
    under wrong numbers (deltalake 1.6).
    """
    for limit in (1, 8, None):
        for entry in latest.history(limit):
            if (version is None or int(entry["version"]) <= version) and (meta := _meta_of(entry)):
                return meta
    raise LetheError(f"{latest.table_uri} was not written by Lethe: its log carries no digest")


def _n_rows(meta: dict[str, Any]) -> int:
    return Digest.parse(meta["digest"]).n_rows


def _lineage_of(meta: dict[str, Any]) -> Lineage:
    inputs = tuple(Snapshot(**s) for s in meta["inputs"])
    return Lineage(meta["stage"], meta["key"], meta["code"], inputs, meta["params"], meta["summary"])


def _flushed(path: str) -> int:
    """The bytes of a local file, all of them on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise CommitConflict(f"{message}. Run the command again")


def _configuration(add: Sequence[DataFile]) -> dict[str, str | None]:
    """Table properties: no deletion vectors (erased rows would stay readable under them), no bounds but those that the writer
    named.
    """
    named = sorted({column for file in add for column in file.stats if "`" not in column})
    skipping = (
        {"delta.dataSkippingStatsColumns": ",".join(f"`{c}`" for c in named)}
        if named
        else {"delta.dataSkippingNumIndexedCols": "0"}
    )
    return {"delta.enableDeletionVectors": "false", **skipping}


# --- files in the log -------------------------------------------------------------------------------------------------


def _paths(delta: DeltaTable) -> list[str]:
    return [str(p) for p in pa.table(delta.get_add_actions(flatten=True)).column("path").to_pylist()]


def _data_files(delta: DeltaTable) -> list[DataFile]:
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    return sorted((_data_file(action) for action in actions), key=lambda f: f.path)


def _data_file(action: dict[str, Any]) -> DataFile:
    named = parse_name(action["path"])
    digest, source = named if named else (Digest(int(action["num_records"] or 0), 0), "")
    stats = dict[str, dict[str, Any]]()
    for key, value in action.items():
        what, _, column = key.partition(".")
        if what in ("min", "max", "null_count") and value is not None:
            stats.setdefault(column, {})["n_nulls" if what == "null_count" else what] = _json_value(value)
    return DataFile(action["path"], digest.n_rows, int(action["size_bytes"]), str(digest), stats, source)


def _json_value(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _adds(files: Sequence[DataFile]) -> list[AddAction]:
    now = int(time.time() * 1000)
    return [AddAction(f.path, f.n_bytes, {}, now, True, _delta_stats(f)) for f in files]


def _delta_stats(file: DataFile) -> str:
    """Bounds in the log are numbers and ISO times; decimals, whose log form loses digits, stay out."""
    bounded = {c: s for c, s in file.stats.items() if s.get("min") is not None and _loggable(s["min"])}
    stats = {
        "numRecords": file.n_rows,
        "minValues": {c: s["min"] for c, s in bounded.items()},
        "maxValues": {c: s["max"] for c, s in bounded.items()},
        "nullCount": {c: s["n_nulls"] for c, s in file.stats.items()},
    }
    return json.dumps(stats)


def _loggable(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value) is not None)


def _removes(delta: DeltaTable, table: str, files: Sequence[DataFile]) -> list[RemoveAction]:
    active = set(_paths(delta))
    for file in files:
        _refuse_unless(file.path in active, f"{table}: a file to be replaced is no longer part of the table")
    now = int(time.time() * 1000)
    return [
        RemoveAction(path=f.path, data_change=True, deletion_timestamp=now, size=f.n_bytes, partition_values={}) for f in files
    ]


def _new_columns(delta: DeltaTable, schema: pa.Schema) -> list[Any]:
    """Columns to add before an append; a changed type cannot be appended and is refused."""
    current = {f.name: f for f in delta.schema().fields}
    coming = DeltaSchema.from_arrow(schema).fields
    for field in coming:
        if field.name in current and current[field.name].type != field.type:
            raise LetheError(
                f"{delta.table_uri}: column {field.name} is {current[field.name].type} and would become {field.type}; "
                "rewrite the table with the wider type"
            )
    return [field for field in coming if field.name not in current]


def _remove_empty_folders(path: str) -> None:
    """Empty partition folders keep a value in their name. Object stores have no folders."""
    if "://" in path or not os.path.isdir(path):
        return
    for folder in sorted(Path(path).rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _storage(root: str) -> dict[str, str] | None:
    """Credentials and endpoints come from the usual AWS variables; nothing of them is kept here."""
    return None if "://" not in root else {}
