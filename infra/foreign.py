"""Delta tables of other writers (Spark, delta-rs): the lake's list of them, and their rows exactly as their log has them.

Nothing here writes to such a table. Its log is held to what can be read right (deletion vectors are honoured; partition columns
come from the log); anything else is refused with the feature's name, for a row too few or too many would be silent. Statistics of
other writers may be truncated or wrong and are not used at all.

Two small tables of the lake: `foreign` (name, uri, version, digest, rows, bytes, when) and `foreign_files`, the digests of the
data files that were hashed: they are immutable, so that a table that moved costs only its new files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as pt

from infra import delta
from infra.cluster import Workers
from infra.contracts import TIMESTAMP, CommitConflict, DataFile, LetheError, Lineage, Snapshot
from infra.files import filesystem, write_part
from infra.ids import Digest, key_of
from infra.lake import Lake, no_table
from infra.rowhash import row_hashes

PREFIX = "foreign/"
TABLE, FILES = "foreign", "foreign_files"
_T = TypeVar("_T")
_OPENERS = 8
_TRIES = 20
_BATCH_ROWS = 65_536
_ITEM_BYTES = 64 << 20
_READABLE = frozenset({"deletionVectors", "timestampNtz", "v2Checkpoint"})
_WAYS_OUT = {
    "deletionVectors": "REORG TABLE t APPLY (PURGE), then ALTER TABLE t DROP FEATURE deletionVectors, in Spark",
    "columnMapping": "ALTER TABLE t DROP FEATURE columnMapping in Spark, or copy it with CREATE TABLE ... AS SELECT",
    "v2Checkpoint": "ALTER TABLE t DROP FEATURE v2Checkpoint in Spark",
}
_COPY = "copy it into a plain Delta table (CREATE TABLE ... AS SELECT)"
_ABSOLUTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
_FEATURE = re.compile(r"[Ff]eature '([A-Za-z0-9-]+)'")
_FAMILIES = (
    pt.is_integer,
    pt.is_floating,
    pt.is_decimal,
    pt.is_boolean,
    pt.is_temporal,
    lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_binary(t) or pt.is_large_binary(t) or pt.is_fixed_size_binary(t),
)
_REGISTRY = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("digest", pa.string()),
        pa.field("n_rows", pa.int64()),
        pa.field("n_bytes", pa.int64()),
        pa.field("registered", TIMESTAMP),
    ]
)
_CACHE = pa.schema([pa.field("name", pa.string()), pa.field("file", pa.string()), pa.field("digest", pa.string())])


class ForeignUnreadable(LetheError):
    """A table of another writer is gone, or cannot be read without the risk of wrong rows. `table` is its name here."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(table, reason)
        self.table = table
        self.reason = reason

    def __str__(self) -> str:
        return f"{PREFIX}{self.table}: {self.reason}"


@dataclass(frozen=True)
class ForeignPart:
    """One data file of another writer, to be read as `schema`.

    `file` has the log's path and bytes, no statistics, and its rows and digest once it was hashed. `written` maps the schema's
    names to those in files, `constants` holds the values of partition columns, `deleted` the bits (first row first) of rows that
    a deletion vector hides. Equal `key`: equal rows.
    """

    table: str
    uri: str
    file: DataFile
    schema: pa.Schema
    written: Mapping[str, str]
    constants: Mapping[str, pa.Scalar]
    deleted: bytes = field(default=b"", repr=False)
    key: str = ""

    @property
    def shown(self) -> str:
        """The file's name without the folders, which are named for values of its rows."""
        return self.file.path.rpartition("/")[2]


@dataclass(frozen=True)
class ForeignTable:
    """One version of another writer's table; `schema` has the columns under the names that ingest would give them."""

    name: str
    uri: str
    version: int
    schema: pa.Schema
    parts: tuple[ForeignPart, ...]

    @property
    def n_bytes(self) -> int:
        return sum(part.file.n_bytes for part in self.parts)

    @property
    def snapshot(self) -> Snapshot:
        """The table as `foreign/<name>`. Its parts must have been hashed."""
        digest = sum((Digest.parse(part.file.digest) for part in self.parts), Digest())
        return Snapshot(PREFIX + self.name, self.version, str(digest), digest.n_rows)


# --- what a log says ----------------------------------------------------------------------------------------------------------


def open_foreign(name: str, uri: str) -> ForeignTable:
    """The newest version of a table, its parts not hashed yet. Raises `ForeignUnreadable`."""
    try:
        table = delta.open_table(uri)
        features = _features(table)
        if unreadable := sorted(features - _READABLE):
            raise ForeignUnreadable(name, _needs(unreadable[0]))
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        hidden = _hidden(table) if "deletionVectors" in features else {}
        schema = pa.schema(table.schema().to_arrow())
        metadata = table.metadata()
    except (delta.NotReadable, delta.DeltaError, OSError, ValueError) as error:
        raise ForeignUnreadable(name, _why_closed(uri, error)) from None
    described = _Described(name, uri, str(metadata.id), schema, tuple(metadata.partition_columns))
    parts = [_part(described, action, hidden) for action in actions]
    if hidden:
        raise ForeignUnreadable(name, _needs("deletionVectors"))
    return ForeignTable(name, uri, table.version(), described.plain, tuple(sorted(parts, key=lambda part: part.uri)))


def _features(table: Any) -> set[str]:
    """The features a reader must know. Column mapping of the second reader version is a property, not a feature."""
    mapped = str(table.metadata().configuration.get("delta.columnMapping.mode", "none")).lower() != "none"
    return {*(table.protocol().reader_features or ()), *(("columnMapping",) if mapped else ())}


def _needs(feature: str) -> str:
    return f"it uses the Delta feature {feature}, which is not read here. Way out: {_WAYS_OUT.get(feature, _COPY)}"


def _why_closed(uri: str, error: Exception) -> str:
    """Why a log cannot be read. What the library says may quote statistics, which are values of rows: only a feature is taken."""
    named = _FEATURE.search(str(error))
    if named:
        return _needs(named[1])
    kind = type(error.__cause__ or error).__name__
    return f"no Delta table can be read at {uri} ({kind}). Correct the address, or take it off the list: lethe register --remove"


def _hidden(table: Any) -> dict[str, bytes]:
    """The rows that deletion vectors hide, as bits, by the data file's path in the table."""
    found = pa.table(table.deletion_vectors().read_all())
    root = str(table.table_uri)
    masks = zip(found.column("filepath").to_pylist(), found.column("selection_vector"), strict=True)
    return {_local(path.removeprefix(root)): _bits(mask.values) for path, mask in masks}


def _bits(kept: pa.Array) -> bytes:
    """Which rows go, a bit each, from which rows stay."""
    return np.packbits(~np.asarray(kept.to_numpy(zero_copy_only=False), np.bool_)).tobytes()


def _local(uri: str) -> str:
    return unquote(uri.removeprefix("file://"))


@dataclass(frozen=True)
class _Described:
    """What the parts of one table share."""

    name: str
    uri: str
    id: str
    schema: pa.Schema
    partition: tuple[str, ...]

    @property
    def plain(self) -> pa.Schema:
        """The schema under the names that ingest gives: no blanks around or between, `row_id` is ours."""
        return pa.schema([pa.field(_plain_name(f.name), f.type) for f in self.schema])


def _plain_name(name: str) -> str:
    bare = " ".join(name.split())
    return "row_id_" if bare.lower() == "row_id" else bare


def _part(table: _Described, action: Mapping[str, Any], hidden: dict[str, bytes]) -> ForeignPart:
    """One file of the log; what a deletion vector hides in it is taken out of `hidden`. Times among partition values have no zone
    in a log; they are read as UTC."""
    path = _local(action["path"])
    uri = path if path.startswith("/") or _ABSOLUTE.match(path) else f"{table.uri}/{path}"
    plain = table.plain
    constants = {
        _plain_name(name): pa.scalar(_value(action[f"partition.{name}"]), plain.field(_plain_name(name)).type)
        for name in table.partition
    }
    deleted = hidden.pop(path, b"")
    n_bytes = int(action["size_bytes"])
    shown = {name: str(value) for name, value in constants.items()}
    columns = [f"{f.name}: {f.type}" for f in plain]
    hides = hashlib.sha256(deleted).hexdigest()
    key = key_of(table.id, action["path"], n_bytes, action["modification_time"], hides, shown, columns)
    written = {_plain_name(f.name): f.name for f in table.schema}
    file = DataFile(path, 0, n_bytes, str(Digest()))
    return ForeignPart(table.name, uri, file, plain, written, constants, deleted, key)


def _value(value: Any) -> Any:
    """An empty partition value is NULL by protocol; not every reader says so."""
    return None if value in ("", b"") else value


# --- rows ---------------------------------------------------------------------------------------------------------------------


def read_foreign(part: ForeignPart, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of one file that no deletion vector hides, some at a time, with exactly the schema's columns and types.

    Raises `ForeignUnreadable` where the file is gone or is not what the log says.
    """
    wanted = part.schema if columns is None else pa.schema([part.schema.field(name) for name in columns])
    try:
        with _opened(part) as parquet:
            yield from _rows(part, parquet, wanted)
    except FileNotFoundError:
        raise ForeignUnreadable(part.table, f"data file {part.shown} is gone. Refresh it where it is written") from None
    except (OSError, pa.ArrowException) as error:
        said = f"data file {part.shown} cannot be read as its log says ({type(error).__name__})"
        raise ForeignUnreadable(part.table, f"{said}. Repair it where it is written") from None


@contextmanager
def _opened(part: ForeignPart) -> Iterator[pq.ParquetFile]:
    fs, path = filesystem(part.uri)
    n_bytes = int(fs.size(path))
    if n_bytes != part.file.n_bytes:
        said = f"data file {part.shown} has {n_bytes} bytes and its log says {part.file.n_bytes}"
        raise ForeignUnreadable(part.table, f"{said}. Repair it where it is written")
    source = pa.memory_map(path) if part.uri.startswith("/") else fs.open(path, "rb")
    # Nanoseconds since 1677 do not hold Spark's instants (INT96), microseconds do.
    with source, pq.ParquetFile(source, coerce_int96_timestamp_unit="us") as parquet:
        yield parquet


def _rows(part: ForeignPart, parquet: pq.ParquetFile, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    names = parquet.schema_arrow.names
    here = {name.lower(): name for name in names}
    if len(here) < len(names):
        raise ForeignUnreadable(part.table, f"data file {part.shown} has column names that differ only in case")
    stored = {f.name: here[low] for f in wanted if f.name not in part.constants and (low := part.written[f.name].lower()) in here}
    deleted = np.unpackbits(np.frombuffer(part.deleted, np.uint8)).astype(np.bool_)
    start = 0
    # With no column asked for, there would be no batch either.
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=[*stored.values()] or names[:1], use_threads=False):
        kept = _visible(batch, deleted[start : start + batch.num_rows])
        start += batch.num_rows
        arrays = [_column(part, kept, f, stored.get(f.name)) for f in wanted]
        yield pa.RecordBatch.from_arrays(arrays, schema=wanted) if len(wanted) else kept.select([])


def _visible(batch: pa.RecordBatch, deleted: np.ndarray) -> pa.RecordBatch:
    """The rows that are not deleted; a mask that ends early deletes nothing behind its end."""
    if not deleted.any():
        return batch
    keep = np.ones(batch.num_rows, np.bool_)
    keep[: len(deleted)] = ~deleted
    return batch.filter(pa.array(keep))


def _column(part: ForeignPart, batch: pa.RecordBatch, wanted: pa.Field, stored: str | None) -> pa.Array:
    if wanted.name in part.constants:
        return pa.repeat(part.constants[wanted.name], batch.num_rows)
    if stored is None:
        return pa.nulls(batch.num_rows, wanted.type)
    column = batch.column(stored)
    if column.type == wanted.type or pt.is_null(column.type):
        return column.cast(wanted.type)
    if not _is_readable_as(column.type, wanted.type):
        said = f"column {wanted.name!r} is {column.type} in data file {part.shown} and {wanted.type} in the log"
        raise ForeignUnreadable(part.table, f"{said}. Rewrite the table where it is written")
    return column.cast(wanted.type)


def _is_readable_as(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a cast means the same values or fails: within one family of types, and with no field whose name differs in case
    alone, which would be read as NULL."""
    if stored == wanted or pt.is_null(stored):
        return True
    if pt.is_dictionary(stored):
        return _is_readable_as(stored.value_type, wanted)
    if pt.is_struct(stored) and pt.is_struct(wanted):
        inner = {field.name.lower(): field for field in wanted}
        known = [(field, inner[field.name.lower()]) for field in stored if field.name.lower() in inner]
        return all(a.name == b.name and _is_readable_as(a.type, b.type) for a, b in known)
    if pt.is_map(stored) and pt.is_map(wanted):
        return _is_readable_as(stored.key_type, wanted.key_type) and _is_readable_as(stored.item_type, wanted.item_type)
    if pt.is_list(stored) and pt.is_list(wanted):
        return _is_readable_as(stored.value_type, wanted.value_type)
    return any(test(stored) and test(wanted) for test in _FAMILIES)


# --- digests ------------------------------------------------------------------------------------------------------------------


def measured(
    tables: Sequence[ForeignTable], known: Mapping[str, str], workers: Workers, row_key: bytes
) -> list[ForeignTable | str]:
    """The tables with the rows and digests of their files, in order; the reason instead of one that cannot be read.

    `known` are digests by key of a file: only other files are read, each once, by the workers.
    """
    todo = [part for table in tables for part in table.parts if part.key not in known]
    found = dict(known)
    reasons = dict[str, str]()
    for key, table, outcome in (one for some in workers.map(hash_parts, _items(todo), row_key) for one in some):
        if isinstance(outcome, Digest):
            found[key] = str(outcome)
        else:
            reasons.setdefault(table, outcome)
    return [reasons.get(table.name) or _with_digests(table, found) for table in tables]


def _items(parts: Iterable[ForeignPart]) -> list[list[ForeignPart]]:
    """Files in batches of about 64 MiB: work for one worker at a time."""
    made, size = [list[ForeignPart]()], 0
    for part in parts:
        if made[-1] and size + part.file.n_bytes > _ITEM_BYTES:
            made.append([])
            size = 0
        made[-1].append(part)
        size += part.file.n_bytes
    return [item for item in made if item]


def hash_parts(parts: Sequence[ForeignPart], row_key: bytes) -> list[tuple[str, str, Digest | str]]:
    """Worker: (key, table, digest of the file's rows, or why it cannot be read). One bad table must not stop the others."""
    return [(part.key, part.table, _digest(part, row_key)) for part in parts]


def _digest(part: ForeignPart, row_key: bytes) -> Digest | str:
    total = Digest()
    try:
        for batch in read_foreign(part):
            total += Digest.of(row_hashes(batch, batch.schema.names, row_key))
    except ForeignUnreadable as error:
        return error.reason
    return total


def _with_digests(table: ForeignTable, digests: Mapping[str, str]) -> ForeignTable:
    parts = [
        replace(part, file=replace(part.file, n_rows=Digest.parse(digests[part.key]).n_rows, digest=digests[part.key]))
        for part in table.parts
    ]
    return replace(table, parts=tuple(parts))


# --- the list of tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Registered:
    """One entry of the lake's list: where a table of another writer lies, and what it was when it was last read."""

    name: str
    uri: str
    version: int
    digest: str
    n_rows: int
    n_bytes: int
    registered: dt.datetime


@dataclass(frozen=True)
class Refreshed:
    """The registered tables as they are now, hashed; and why others cannot be read, by name."""

    tables: tuple[ForeignTable, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict[str, str])

    def without(self, lost: ForeignUnreadable) -> Refreshed:
        """The same, less a table that was lost while it was read."""
        left = tuple(table for table in self.tables if table.name != lost.table)
        return Refreshed(left, {**self.unreadable, lost.table: lost.reason})


def registered(lake: Lake) -> tuple[Registered, ...]:
    """The lake's list, by name. Opens no other writer's table."""
    return tuple(sorted(_books(lake).entries.values()))


def refreshed(lake: Lake, workers: Workers) -> Refreshed:
    """Every registered table at its newest version; what moved is read and noted in the lake's list. Never raises for a table
    that is gone."""
    books = _books(lake)
    if not books.entries:
        return Refreshed()
    with ThreadPoolExecutor(_OPENERS) as openers:
        opened = dict(zip(books.entries, openers.map(_opened_or_not, books.entries.values()), strict=True))
    there = [table for table in opened.values() if isinstance(table, ForeignTable)]
    known = {key: digest for digests in books.digests.values() for key, digest in digests.items()}
    hashed = measured(there, known, workers, lake.keys.row)
    outcomes = opened | dict(zip([table.name for table in there], hashed, strict=True))
    tables = tuple(table for table in outcomes.values() if isinstance(table, ForeignTable))
    _amend(lake, lambda now: _noted(now, tables))
    return Refreshed(tables, {name: reason for name, reason in outcomes.items() if isinstance(reason, str)})


def _opened_or_not(entry: Registered) -> ForeignTable | str:
    try:
        return open_foreign(entry.name, entry.uri)
    except ForeignUnreadable as error:
        return error.reason


def register(lake: Lake, name: str, uri: str, workers: Workers) -> Registered:
    """Put a table of another writer on the lake's list, or bring its entry up to date. Raises `ForeignUnreadable`."""
    books = _books(lake)
    (table,) = measured([open_foreign(name, uri)], books.digests.get(name, {}), workers, lake.keys.row)
    if isinstance(table, str):
        raise ForeignUnreadable(name, table)
    old = books.entries.get(name)
    entry = _entry(table, old.registered if old is not None else dt.datetime.now(dt.UTC))
    _amend(lake, lambda now: _noted(replace(now, entries={**now.entries, name: entry}), [table]))
    return entry


def forget_registration(lake: Lake, name: str) -> None:
    """Take a table off the lake's list, if it is on it. Its data stay as they are."""
    _amend(lake, lambda now: replace(now, entries=_without(now.entries, name), digests=_without(now.digests, name)))


def _entry(table: ForeignTable, when: dt.datetime) -> Registered:
    snapshot = table.snapshot
    return Registered(table.name, table.uri, table.version, snapshot.digest, snapshot.n_rows, table.n_bytes, when)


# --- the two tables that hold it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Books:
    """The list by name, for each name the digests of its files by key, and the snapshots that both were read from."""

    entries: Mapping[str, Registered]
    digests: Mapping[str, Mapping[str, str]]
    bases: tuple[Snapshot, Snapshot] = field(compare=False)


def _books(lake: Lake) -> _Books:
    bases = tuple(lake.snapshot(table) if lake.exists(table) else no_table(table) for table in (TABLE, FILES))
    listed, hashed = (lake.read(base).to_pylist() if base.version >= 0 else [] for base in bases)
    digests = dict[str, dict[str, str]]()
    for row in hashed:
        digests.setdefault(row["name"], {})[row["file"]] = row["digest"]
    return _Books({row["name"]: Registered(**row) for row in listed}, digests, (bases[0], bases[1]))


def _noted(books: _Books, tables: Sequence[ForeignTable]) -> _Books:
    """What tables are now, where they are still on the list for the same address."""
    listed = {t.name: t for t in tables if t.name in books.entries and books.entries[t.name].uri == t.uri}
    entries = {name: _entry(table, books.entries[name].registered) for name, table in listed.items()}
    digests = {name: {part.key: part.file.digest for part in table.parts} for name, table in listed.items()}
    return replace(books, entries={**books.entries, **entries}, digests={**books.digests, **digests})


def _without(books: Mapping[str, _T], name: str) -> dict[str, _T]:
    return {key: value for key, value in books.items() if key != name}


def _amend(lake: Lake, change: Callable[[_Books], _Books]) -> None:
    """Change the list as it is now; nothing is written where nothing changes. On a conflict it is changed as it is then."""
    for _ in range(_TRIES):
        now = _books(lake)
        if (fresh := change(now)) == now:
            return
        try:
            _write(lake, fresh)
        except CommitConflict:
            continue
        return
    raise CommitConflict(f"{TABLE}: {_TRIES} writes in a row met another writer. Run the command again")


def _write(lake: Lake, books: _Books) -> None:
    """Replace both tables, the digests first: without them the list is only slower."""
    entries = [asdict(entry) for entry in sorted(books.entries.values())]
    files = [
        {"name": n, "file": key, "digest": d} for n, some in sorted(books.digests.items()) for key, d in sorted(some.items())
    ]
    for base, schema, rows in ((books.bases[1], _CACHE, files), (books.bases[0], _REGISTRY, entries)):
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        parts = [write_part(lake.folder(base.table), [batch], schema)] if rows else []
        lineage = Lineage("register", key_of(base.table, [part.digest for part in parts]), "")
        lake.commit(base.table, schema, parts, lineage=lineage, overwrite=True, expect=base)
