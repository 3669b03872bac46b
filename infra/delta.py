"""One Delta table at a URI, in a folder or on s3://: its files, its log, one commit at a time. The only importer of deltalake.

Commits are made without the library's silent retries: what a commit says (the digest above all) holds only for the version that
it was planned on. Whoever commits plans again on `Raced`. What a commit says is read from the log's own files by their version
number: the library's history of a table that was opened before another commit tells the newer commits under wrong numbers.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from infra import store
from infra.contracts import DataFile, LetheError
from infra.files import filesystem, parse_name
from infra.ids import Digest

META = "lethe"
RETENTIONS = {"delta.logRetentionDuration": "interval 30 days", "delta.deletedFileRetentionDuration": "interval 7 days"}
NO_RETENTION = dict.fromkeys(RETENTIONS, "interval 0 seconds")
LOG_NAME = re.compile(r"^\d{20}\.(json|checkpoint(\.\d+\.\d+)?\.parquet)$")
_CHUNKS = (1, 7, 56, 448)
_NTZ = "timestampNtz"  # the feature that a table with times without a zone must name


class NotReadable(LetheError):
    """No Delta table is at a URI, or not that version of it."""


class Raced(LetheError):
    """Another writer committed first, and this commit did not happen: read again, plan again."""


# --- opening ----------------------------------------------------------------------------------------------------------


def storage_options(uri: str) -> dict[str, str] | None:
    """Credentials and endpoints come from the usual AWS variables; nothing of them is kept here."""
    return None if "://" not in uri else {}


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """The table at a URI, at its newest version or the one asked for. Raises `NotReadable`."""
    try:
        return DeltaTable(uri, version=version, storage_options=storage_options(uri))
    except DeltaError as error:
        which = "" if version is None else f" at version {version}"
        raise NotReadable(f"no Delta table can be opened at {uri}{which}: {error}") from error


def is_table(uri: str) -> bool:
    """Whether a Delta table is at a URI."""
    return bool(log_files(uri))


def features(delta: DeltaTable) -> set[str]:
    """The features that readers and writers of a table must know (`deletionVectors`, `columnMapping`, ...)."""
    protocol = delta.protocol()
    return {*(protocol.reader_features or ()), *(protocol.writer_features or ())}


def schema_of(delta: DeltaTable) -> pa.Schema:
    return pa.schema(delta.schema().to_arrow())


def partition_columns(delta: DeltaTable) -> list[str]:
    return list(delta.metadata().partition_columns)


# --- files ------------------------------------------------------------------------------------------------------------


def paths_of(delta: DeltaTable) -> list[str]:
    """The paths of a table's data files, relative to its folder."""
    return [str(p) for p in pa.table(delta.get_add_actions(flatten=True)).column("path").to_pylist()]


def files_of(delta: DeltaTable) -> list[DataFile]:
    """The data files of a table, sorted by path. Of files that Lethe did not name, the digest knows the row count only."""
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    return sorted((_data_file(action) for action in actions), key=lambda f: f.path)


def _data_file(action: Mapping[str, Any]) -> DataFile:
    named = parse_name(action["path"])
    digest, source = named if named else (Digest(int(action["num_records"] or 0), 0), "")
    stats, partition = dict[str, dict[str, Any]](), dict[str, str | None]()
    for key, value in action.items():
        what, _, column = key.partition(".")
        if what == "partition":
            partition[column] = spelled(value)
        elif what in ("min", "max", "null_count") and value is not None:
            stats.setdefault(column, {})["n_nulls" if what == "null_count" else what] = _json_value(value)
    return DataFile(action["path"], digest.n_rows, int(action["size_bytes"]), str(digest), stats, source, partition)


def _json_value(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def spelled(value: Any) -> str | None:
    """A partition value as Delta's log writes it. The empty string is NULL there; bytes have no form that every reader knows."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        moment = value.astimezone(dt.UTC) if value.tzinfo else value
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, bytes):
        raise LetheError("a table cannot be partitioned by a column of bytes; name another one in partition_by")
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def add_actions(files: Sequence[DataFile]) -> list[AddAction]:
    now = int(time.time() * 1000)
    return [AddAction(f.path, f.n_bytes, dict(f.partition), now, True, _delta_stats(f)) for f in files]


def remove_actions(files: Sequence[DataFile]) -> list[RemoveAction]:
    now = int(time.time() * 1000)
    return [
        RemoveAction(path=f.path, data_change=True, deletion_timestamp=now, size=f.n_bytes, partition_values=dict(f.partition))
        for f in files
    ]


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


# --- what commits say -------------------------------------------------------------------------------------------------


def properties(meta: Mapping[str, Any], app_id: str | None = None) -> CommitProperties:
    """What a commit says, and the application transaction that makes a repeated one a no-op."""
    transactions = [Transaction(app_id, 1)] if app_id is not None else None
    return CommitProperties({META: json.dumps(meta, sort_keys=True)}, max_commit_retries=0, app_transactions=transactions)


def said_by(uri: str, version: int) -> dict[str, Any]:
    """What the newest commit of ours said, up to a version. Raises `LetheError` where no commit said anything."""
    for _, meta in sayings(uri, version):
        return meta
    raise LetheError(f"{uri} was not written by Lethe: its log carries no digest. Read it with: lethe register")


def sayings(uri: str, version: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(version, what the commit said), newest first, of every commit of ours that the log still has up to a version."""
    for number, entries in commits(uri, version):
        for entry in entries:
            text = entry.get("commitInfo", {}).get(META)
            if isinstance(text, str):
                yield number, json.loads(text)


def commits(uri: str, version: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(version, actions) of the log's commits, newest first, down to the oldest that is still there. Raises `NotReadable`."""
    fs, path = filesystem(f"{uri}/_delta_log")
    step = 0
    while version >= 0:
        numbers = range(version, max(-1, version - _CHUNKS[min(step, len(_CHUNKS) - 1)]), -1)
        places = {number: f"{path}/{number:020d}.json" for number in numbers}
        found = _contents(fs, list(places.values()))
        for number, place in places.items():
            if (content := found[place]) is None:
                return
            yield number, _actions(uri, number, content)
        version, step = numbers[-1] - 1, step + 1


def _actions(uri: str, version: int, content: bytes) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError as error:  # what it says may quote the line
        raise NotReadable(f"the log of {uri} is damaged: version {version} is no JSON ({type(error).__name__})") from None


def _contents(fs: Any, places: Sequence[str]) -> dict[str, bytes | None]:
    """The contents of objects, fetched together; None for those that are not there."""
    found: list[Any] = fs.cat_ranges(list(places), None, None, on_error="return")
    for content in found:
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise content
    return {place: None if isinstance(content, Exception) else content for place, content in zip(places, found, strict=True)}


def committed_at(uri: str, version: int) -> float:
    """When a version was committed, in seconds since the epoch."""
    for _, actions in commits(uri, version):
        return float(next((a["commitInfo"]["timestamp"] for a in actions if "commitInfo" in a), 0)) / 1000
    return 0.0


def log_files(uri: str) -> list[str]:
    """Names of the log's own files (commits and checkpoints), sorted."""
    return [name for name in store.names(f"{uri}/_delta_log") if LOG_NAME.match(name)]


def newest_version(uri: str) -> int | None:
    """The newest version that the log's names tell, without opening the table; None if no table is there."""
    return max((int(name[:20]) for name in log_files(uri)), default=None)


def oldest_version(uri: str) -> int:
    """The oldest version that can still be read: the first commit, or the first checkpoint where that is gone."""
    names = log_files(uri)
    checkpoints = [int(name[:20]) for name in names if not name.endswith(".json")]
    return 0 if f"{0:020d}.json" in names else min(checkpoints, default=0)


# --- committing -------------------------------------------------------------------------------------------------------


@contextmanager
def _races() -> Iterator[None]:
    try:
        yield
    except CommitFailedError as conflict:
        raise Raced(str(conflict)) from conflict


def create(
    uri: str,
    schema: pa.Schema,
    files: Sequence[DataFile],
    *,
    partition_by: Sequence[str],
    meta: Mapping[str, Any],
    app_id: str | None,
) -> None:
    """Make a table with its first files. Raises `Raced` where one has come to be meanwhile.

    Written in the protocol's own words: the library takes 4 ms of CPU for it, as much as the rest of a small table's ingest.
    """
    now = int(time.time() * 1000)
    actions = [
        *_said("CREATE TABLE", meta, app_id, now),
        {"protocol": _protocol(schema, None) or {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": _metadata(str(uuid.uuid4()), schema, partition_by, _configuration(), now)},
        *_added(files, now),
    ]
    if is_table(uri):
        raise Raced(f"a table has come to be at {uri}")
    _put_version(uri, 0, actions)


def _configuration() -> dict[str, str | None]:
    """Table properties: no deletion vectors (erased rows would stay readable under them), and a log that tells what it has of
    every column, also of those that come later. Writers name the columns whose bounds go there; null counts tell nobody anything.
    """
    return {"delta.enableDeletionVectors": "false", "delta.dataSkippingNumIndexedCols": "-1"}


def write(
    uri: str,
    delta: DeltaTable,
    schema: pa.Schema,
    add: Sequence[DataFile],
    remove: Sequence[DataFile],
    *,
    overwrite: bool,
    meta: Mapping[str, Any],
    app_id: str | None,
) -> int:
    """Add and remove files (`overwrite`: all others) in one commit on the version that was opened; returns the new version.

    Raises `Raced`.
    """
    columns = partition_columns(delta)
    if overwrite and _protocol(schema, delta) is not None:
        # The library writes such a schema without what the protocol asks for it, and nobody can open the table then.
        return make_anew(uri, delta, schema, add, partition_by=columns, meta=meta, app_id=app_id)
    actions, mode = [*add_actions(add), *remove_actions(remove)], "overwrite" if overwrite else "append"
    with _races():
        delta.create_write_transaction(actions, mode, schema, columns, commit_properties=properties(meta, app_id))
    # Without retries it is the next version or a conflict, so nobody has to look.
    return delta.version() + 1


def make_anew(
    uri: str,
    delta: DeltaTable,
    schema: pa.Schema,
    add: Sequence[DataFile],
    *,
    partition_by: Sequence[str],
    meta: Mapping[str, Any],
    app_id: str | None,
) -> int:
    """Replace all files, the schema and the partitioning in one commit on the version that was opened; returns the new version.

    The library cannot say a new partitioning on a version that the caller has seen, so the log's next file is written here, in
    the protocol's own words, if it is absent. Raises `Raced`.
    """
    now, old, protocol = int(time.time() * 1000), delta.metadata(), _protocol(schema, delta)
    kept = {name: value for name, value in old.configuration.items() if name != "delta.dataSkippingStatsColumns"}
    actions = [
        *_said("WRITE", meta, app_id, now),
        *([{"protocol": protocol}] if protocol is not None else []),
        {"metaData": _metadata(str(old.id), schema, partition_by, {**kept, **_configuration()}, now)},
        *({"remove": _removal(file, now)} for file in files_of(delta)),
        *_added(add, now),
    ]
    _put_version(uri, delta.version() + 1, actions)
    return delta.version() + 1


def _put_version(uri: str, version: int, actions: Iterable[Mapping[str, Any]]) -> None:
    """Make a file of the log if it is absent. Raises `Raced`."""
    # Readers of the log fail at characters that JSON escapes as two (an emoji, some Chinese).
    content = "\n".join(json.dumps(action, ensure_ascii=False) for action in actions).encode()
    if not store.create(f"{uri}/_delta_log/{version:020d}.json", content):
        raise Raced(f"version {version} has come to be at {uri}")


def _said(operation: str, meta: Mapping[str, Any], app_id: str | None, now: int) -> list[dict[str, Any]]:
    """As `properties`, in the log's words."""
    info = {"timestamp": now, "operation": operation, "operationParameters": {}, META: json.dumps(meta, sort_keys=True)}
    transactions = [] if app_id is None else [{"txn": {"appId": app_id, "version": 1, "lastUpdated": now}}]
    return [{"commitInfo": info}, *transactions]


def _protocol(schema: pa.Schema, delta: DeltaTable | None) -> dict[str, Any] | None:
    """The protocol that a schema wants of a table (None: of a new one); None where what it has will do."""
    if not any(_is_local_time(field.type) for field in schema) or (delta is not None and _NTZ in features(delta)):
        return None
    has = None if delta is None else delta.protocol()
    reader, writer = (has.reader_features, has.writer_features) if has is not None else (None, None)
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": sorted({*(reader or ()), _NTZ}),
        "writerFeatures": sorted({*(writer or ()), _NTZ}),
    }


def _is_local_time(kind: pa.DataType) -> bool:
    """Whether values of a type are, or hold, times without a zone."""
    if pa.types.is_dictionary(kind):
        return _is_local_time(kind.value_type)
    inner = (kind.field(place).type for place in range(kind.num_fields))
    return (pa.types.is_timestamp(kind) and kind.tz is None) or any(map(_is_local_time, inner))


def _metadata(
    table_id: str, schema: pa.Schema, partition_by: Sequence[str], configuration: Mapping[str, str | None], now: int
) -> dict[str, Any]:
    return {
        "id": table_id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": DeltaSchema.from_arrow(schema).to_json(),
        "partitionColumns": list(partition_by),
        "configuration": dict(configuration),
        "createdTime": now,
    }


def _added(files: Sequence[DataFile], now: int) -> list[dict[str, Any]]:
    said = {"modificationTime": now, "dataChange": True}
    return [{"add": {**_named(file), **said, "stats": _delta_stats(file)}} for file in files]


def _removal(file: DataFile, now: int) -> dict[str, Any]:
    return {**_named(file), "deletionTimestamp": now, "dataChange": True, "extendedFileMetadata": True}


def _named(file: DataFile) -> dict[str, Any]:
    return {"path": file.path, "partitionValues": dict(file.partition), "size": file.n_bytes}


def add_columns(uri: str, delta: DeltaTable, columns: Sequence[Any], meta: Mapping[str, Any]) -> DeltaTable:
    """Give a table more columns in one commit; returns it as that commit left it. Raises `Raced`."""
    schema = pa.schema(DeltaSchema([*delta.schema().fields, *columns]).to_arrow())
    now, old, protocol = int(time.time() * 1000), delta.metadata(), _protocol(schema, delta)
    actions = [
        *_said("ADD COLUMN", meta, None, now),
        *([{"protocol": protocol}] if protocol is not None else []),
        {"metaData": _metadata(str(old.id), schema, partition_columns(delta), old.configuration, now)},
    ]
    _put_version(uri, delta.version() + 1, actions)
    return open_table(uri, delta.version() + 1)


def set_properties(uri: str, delta: DeltaTable, values: Mapping[str, str], meta: Mapping[str, Any]) -> DeltaTable:
    """Set table properties in one commit; returns the table as that commit left it. Raises `Raced`."""
    version = delta.version() + 1
    with _races():
        delta.alter.set_table_properties(dict(values), commit_properties=properties(meta))
    return open_table(uri, version)


def new_columns(delta: DeltaTable, schema: pa.Schema) -> list[Any]:
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
