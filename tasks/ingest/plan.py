"""What a run has to read: files that the ledger does not know, or knows with another size or age. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.ingest.frames import Job, Survey
from tasks.ingest.infer import Shape, Shapes, as_subject, columns_of, from_json, schema_of
from tasks.ingest.ledger import Entry, Ledger
from tasks.ingest.sources import RawFile

GROUP_TABLES = 512
_BATCH_FILES = 64
_BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class Plan:
    """One table: its raw files as they are now, those to read, and the ledger's entries of the table by uri."""

    table: str
    files: tuple[RawFile, ...]
    todo: tuple[RawFile, ...]
    entries: Mapping[str, Entry]

    @property
    def vanished(self) -> list[Entry]:
        """Entries of files that are gone; their rows stay."""
        listed = {raw.uri for raw in self.files}
        return [entry for uri, entry in sorted(self.entries.items()) if uri not in listed]


@dataclass(frozen=True)
class Target:
    """What a table will look like. `rewrite`: a column changes its type, so every file is written again."""

    schema: pa.Schema
    known: dict[str, Shape]
    rewrite: bool


def plans(listing: Mapping[str, Sequence[RawFile]], ledger: Ledger) -> list[Plan]:
    """One plan a table, in order of the listing."""
    entries = defaultdict[str, dict[str, Entry]](dict)
    for (table, uri), entry in ledger.items():
        entries[table][uri] = entry
    made = list[Plan]()
    for table, files in listing.items():
        known = entries.get(table, {})
        todo = tuple(raw for raw in files if not _is_known(raw, known))
        made.append(Plan(table, tuple(files), todo, known))
    return made


def _is_known(raw: RawFile, known: Mapping[str, Entry]) -> bool:
    entry = known.get(raw.uri)
    return entry is not None and (entry.n_bytes, entry.modified) == (raw.n_bytes, raw.modified)


def groups(work: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Tables to be ingested between two writes of the ledger: what a crash loses at most."""
    for start in range(0, len(work), GROUP_TABLES):
        yield list(work[start : start + GROUP_TABLES])


def batches(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs in batches of some megabytes, one worker call each: a call costs more than a tiny file."""
    made, held, n_bytes = list[list[Job]](), list[Job](), 0
    for job in jobs:
        if held and (len(held) >= _BATCH_FILES or n_bytes + job.raw.n_bytes > _BATCH_BYTES):
            made.append(held)
            held, n_bytes = [], 0
        held.append(job)
        n_bytes += job.raw.n_bytes
    return [*made, held] if held else made


def fits(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether a file written with `schema` is one of a table with `wanted`: columns may lack, types may not differ."""
    types = {field.name: field.type for field in wanted}
    return all(types.get(field.name) == field.type for field in schema)


def remembered(plan: Plan) -> dict[str, Shapes]:
    """The columns of the files that are there and that the ledger knows, by uri."""
    return {raw.uri: from_json(plan.entries[raw.uri].columns) for raw in plan.files if raw.uri in plan.entries}


def target(plan: Plan, surveys: Sequence[Survey], current: pa.Schema | None, subject: str | None = None) -> Target:
    """The schema that all files of a table have together: the surveyed ones, and those that the ledger remembers.

    It depends on the set of files alone. `current` is the table's schema (user columns), if it exists; `subject` the column
    of its subjects.
    """
    surveyed = {seen.raw.uri: seen.shapes for seen in surveys}
    others = {uri: from_json(entry.columns) for uri, entry in plan.entries.items() if uri not in surveyed}
    shapes = [columns for _, columns in sorted({**surveyed, **others}.items())]
    if subject is not None:  # the ledger may be older than what lethe.toml says of this column
        shapes = [as_subject(columns, subject) for columns in shapes]
    present = {name.lower() for columns in shapes for name in columns}
    columns = columns_of(shapes, [name for name in (current.names if current else ()) if name.lower() in present])
    schema = schema_of(columns)
    rewrite = current is not None and not fits(current, schema)
    return Target(schema, {name.lower(): shape for name, shape in columns}, rewrite)


def entry_of(survey: Survey, columns: str, n_rows: int, n_quarantined: int, n_suppressed: int) -> Entry:
    """The ledger's entry of a file as it was just read."""
    raw = survey.raw
    return Entry(
        raw.table, raw.uri, raw.n_bytes, raw.modified, survey.content_digest, columns, n_rows, n_quarantined, n_suppressed
    )
