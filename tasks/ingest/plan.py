"""What a run has to read: files that the ledger does not know, or knows with another size, age or reading; and what a table will
look like with them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from infra.ids import key_of
from infra.settings import ReadSettings, TableSettings
from tasks.ingest import drift
from tasks.ingest.forced import kinds_of
from tasks.ingest.infer import Shape, Shapes, as_subject, columns_of, from_json, schema_of
from tasks.ingest.ledger import Entry, Ledger
from tasks.ingest.passes import Reading
from tasks.ingest.sources import RawFile

GROUP_TABLES = 512
ADOPTED = "delta+"  # the uri of what another writer's table gave, which no listing finds
_RULES = ("drift", "primary_key", "partition_by", "contract")
HELD = ("retired", "restored", "given up")  # how reasons begin that have nothing to do with a file's columns


@dataclass(frozen=True)
class Plan:
    """One table: its raw files as they are now; those to read; those whose bytes tell whether they are to be read (they look
    changed); and the ledger's entries of the table by uri."""

    table: str
    files: tuple[RawFile, ...]
    todo: tuple[RawFile, ...]
    doubtful: tuple[RawFile, ...]
    entries: Mapping[str, Entry]

    @property
    def vanished(self) -> list[Entry]:
        """Entries of files that are gone; their rows stay unless the run prunes."""
        listed = {raw.uri for raw in self.files}
        return [entry for uri, entry in sorted(self.entries.items()) if uri not in listed and not uri.startswith(ADOPTED)]


@dataclass(frozen=True)
class Target:
    """What a table will look like. `rewrite`: a column changes its type, so every file is written again; `whole`: all of them are
    read again, so nothing of the table as it is stays. `stopped`: why a file's columns cannot join the others, by uri."""

    schema: pa.Schema
    known: dict[str, Shape]
    rewrite: bool
    stopped: dict[str, str] = field(default_factory=dict[str, str])
    whole: bool = False


def options_of(table: TableSettings) -> str:
    """A digest of everything in lethe.toml by which a table's files are read and judged; empty while all of it is the default."""
    names = (*ReadSettings.model_fields, *_RULES)
    said = table.model_dump(mode="json", include=set(names), exclude_defaults=True)
    return key_of(said)[:16] if said else ""


def plans(
    listing: Mapping[str, Sequence[RawFile]], ledger: Ledger, options: Mapping[str, str], retired: Collection[str] = ()
) -> list[Plan]:
    """One plan a table, in order of the listing; `options` by table. Files that were stopped because their table was retired are
    read where it is not among the `retired`."""
    entries = defaultdict[str, dict[str, Entry]](dict)
    for (table, uri), entry in ledger.items():
        entries[table][uri] = entry
    return [
        _plan(table, tuple(files), entries.get(table, {}), options[table], is_retired=table in retired)
        for table, files in listing.items()
    ]


def _plan(table: str, files: tuple[RawFile, ...], entries: dict[str, Entry], options: str, *, is_retired: bool) -> Plan:
    free = {uri for uri, entry in entries.items() if entry.stopped.startswith(HELD) and not is_retired}
    todo = tuple(raw for raw in files if raw.uri not in entries or raw.uri in free or entries[raw.uri].options != options)
    known = set(files) - set(todo)
    changed = [raw for raw in files if raw in known and not _is_same(raw, entries[raw.uri])]
    # What stopped a file may have changed with any other file.
    stopped = tuple(raw for raw in files if raw in known and entries[raw.uri].stopped and (todo or changed))
    return Plan(table, files, (*todo, *stopped), tuple(raw for raw in changed if raw not in stopped), entries)


def _is_same(raw: RawFile, entry: Entry) -> bool:
    return (entry.n_bytes, entry.modified) == (raw.n_bytes, raw.modified)


def groups(work: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Tables to be ingested between two writes of the ledger: what a crash loses at most."""
    for start in range(0, len(work), GROUP_TABLES):
        yield list(work[start : start + GROUP_TABLES])


def fits(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether a file written with `schema` is one of a table with `wanted`: columns may lack, types may not differ."""
    types = {field.name: field.type for field in wanted}
    return all(types.get(field.name) == field.type for field in schema)


def remembered(plan: Plan) -> dict[str, Shapes]:
    """The columns of the files that are there and that the ledger knows, by uri."""
    return {raw.uri: from_json(plan.entries[raw.uri].columns) for raw in plan.files if raw.uri in plan.entries}


def forced_types(table: TableSettings, names: Iterable[str]) -> dict[str, pa.DataType]:
    """The types that lethe.toml demands of some of these columns, under their names here."""
    asked = {name.lower(): kind for name, kind in kinds_of(table.types).items()}
    return {name: asked[name.lower()] for name in names if name.lower() in asked}


def target(plan: Plan, readings: Sequence[Reading], current: pa.Schema | None, table: TableSettings, section: str = "") -> Target:
    """The schema that all files of a table have together: those just read, and those that the ledger remembers.

    It depends on the set of files alone, but for the files that are stopped: with `drift = "stop"`, files in order of their uri
    must not make a typed column of those before them text. `current` is the table's schema (user columns), if it exists;
    `section` where lethe.toml speaks of it.
    """
    read = {reading.raw.uri: reading.shapes for reading in readings}
    shapes = {uri: from_json(entry.columns) for uri, entry in plan.entries.items() if uri not in read}
    stopped = {uri: why.replace("tables.NAME", section) for uri, why in _stopped(table, shapes, read).items()}
    shapes |= {uri: columns for uri, columns in read.items() if uri not in stopped}
    shapes |= {uri: from_json(plan.entries[uri].columns) for uri in stopped if uri in plan.entries}
    columns = _columns([columns for _, columns in sorted(shapes.items())], table, current)
    schema = schema_of(columns)
    forced = forced_types(table, schema.names)
    schema = pa.schema([pa.field(f.name, forced.get(f.name, f.type)) for f in schema])
    rewrite = current is not None and not fits(current, schema)
    return Target(schema, {name.lower(): shape for name, shape in columns}, rewrite, stopped)


def _columns(shapes: list[Shapes], table: TableSettings, current: pa.Schema | None) -> list[tuple[str, Shape]]:
    for subject in table.subjects:  # the ledger may be older than what lethe.toml says of this column
        shapes = [as_subject(columns, subject.column) for columns in shapes]
    present = {name.lower() for columns in shapes for name in columns}
    return columns_of(shapes, [name for name in (current.names if current else ()) if name.lower() in present])


def _stopped(table: TableSettings, standing: Mapping[str, Shapes], read: Mapping[str, Shapes]) -> dict[str, str]:
    """Why files cannot join those before them, by uri."""
    if table.drift != "stop":
        return {}
    known = dict(_lowered(_columns(list(standing.values()), table, None)))
    # Types that lethe.toml names do not drift, and ids are the same as text.
    settled = {name.lower() for name in (*table.types, *(subject.column for subject in table.subjects))}
    stopped = dict[str, str]()
    for uri, columns in sorted(read.items()):
        if (why := drift.conflict(known, columns, settled)) is not None:
            stopped[uri] = why
            continue
        known = dict(_lowered(columns_of([dict(known), columns])))
    return stopped


def _lowered(columns: Iterable[tuple[str, Shape]]) -> Iterator[tuple[str, Shape]]:
    return ((name.lower(), shape) for name, shape in columns)
