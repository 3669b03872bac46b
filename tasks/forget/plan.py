"""The plan of an erasure: which rows of which files go, found before anything is written. It changes nothing.

Rows of a subject are found by the table's subject columns, any of them. Copies of them in tables that lack such a column are
found by content, along the containments that the dedup stage found; rejected rows by what their raw text says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import MIXED, DataFile, LetheError, Snapshot
from infra.files import quarantine_source, source_key, source_number
from infra.ids import I64, U64
from infra.lake import Lake
from infra.retired import entries
from infra.settings import Settings, SubjectSettings
from infra.subjects import Mask, is_absent, missing, remembered
from tasks.forget.frames import (
    Columns,
    Copies,
    Hash,
    Hits,
    Rewrite,
    count_retained,
    find_copies,
    locate_part,
    locate_quarantined,
    user_columns,
)
from tasks.forget.locate import hidden_name
from tasks.forget.seal import Entry, lost_rows, no_rows

RECORDS = "records/"
QUARANTINE_TABLE = "quarantine"
BY_SUBJECT, BY_COPY, BY_BOTH, BY_TEXT = "subject", "copy", "both", "text"

_NO_NUMBERS = np.empty(0, np.int64)

Subjects = tuple[SubjectSettings, ...]
Doomed = list[tuple[Hits, Mask]]


class UnreadableSubjectError(LetheError):
    """A table has a subject's column, but its type holds no ids where lethe.toml says."""


@dataclass(frozen=True)
class Change:
    """One table's plan: its seal entry, the rows it loses and the files to write again."""

    entry: Entry
    rows: pa.Table
    jobs: tuple[Rewrite, ...]


@dataclass(frozen=True)
class Ground:
    """What a plan is made on: the lake, the settings, the tokens asked for by kind, the scan whose containments lead to copies
    (None: nobody looked for any), and who does the work.
    """

    lake: Lake
    settings: Settings
    sought: dict[str, frozenset[str]]
    containment: Snapshot | None
    workers: Workers

    @cached_property
    def snapshots(self) -> dict[str, Snapshot]:
        """The tables of records as they stand."""
        return {table: self.lake.snapshot(table) for table in self.lake.tables("records")}

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """The user's columns of each table."""
        return {table: tuple(user_columns(self.lake.schema(snapshot))) for table, snapshot in self.snapshots.items()}

    @cached_property
    def subjects(self) -> dict[str, Subjects]:
        """The subjects of a kind asked for that each table has, if any. Not every table of a collection has their columns; raises
        `UnreadableSubjectError` where a column is there, or must be, and no ids are found.
        """
        found = {table: self._subjects_of(table, snapshot) for table, snapshot in self.snapshots.items()}
        return {table: subjects for table, subjects in found.items() if subjects}

    def _subjects_of(self, table: str, snapshot: Snapshot) -> Subjects:
        schema = pa.schema([field for field in self.lake.schema(snapshot) if field.name != "row_id"])
        is_fixed = table.removeprefix(RECORDS) in self.settings.tables and len(schema) > 0
        asked = [subject for subject in subjects_of(self.lake, self.settings, table) if subject.kind in self.sought]
        present = tuple(subject for subject in asked if is_fixed or not is_absent(schema, subject))
        for subject in present:
            if (why := missing(schema, subject)) is not None:
                raise UnreadableSubjectError(f"{table}, subject: {why}. Correct lethe.toml, then run: lethe forget")
        return present

    @cached_property
    def edges(self) -> list[Edge]:
        return _edges(self.lake, self.containment) if self.containment is not None else []

    @cached_property
    def sources(self) -> dict[int, tuple[str, str]]:
        return {source_number(key): names for key, names in sources_of(self.lake).items()}


@dataclass(frozen=True)
class _Found:
    """A table whose subject columns were searched: what was found in its files, and the neighbours that may hold copies."""

    table: str
    near: tuple[tuple[str, bool], ...]
    hits: tuple[Hits, ...]

    @property
    def n_rows(self) -> int:
        return sum(len(hits.positions) for hits in self.hits)


def plan(ground: Ground) -> list[Change]:
    """The changes in the order of their commits: copies first, then the rows they were found by, then rejected rows.

    A table may hold both: rows that its own subject columns tell of, and copies of rows that another table's column tells of.
    """
    found = [one for one in (_search(ground, table) for table in ground.subjects) if one.n_rows]
    own = {one.table: _all_gone(one.hits) for one in found}
    copies = _copies(ground, found, own)
    alone = [_change(ground, BY_COPY, table, doomed) for table, doomed in copies.items() if table not in own]
    both = [_change(ground, BY_BOTH, table, union([own[table], copies[table]])) for table in own if table in copies]
    originals = [_change(ground, BY_SUBJECT, table, doomed) for table, doomed in own.items() if table not in copies]
    return [*alone, *both, *originals, *_rejected(ground)]


def as_sealed(ground: Ground, entry: Entry, rows: pa.Table) -> Change:
    """What a table was to lose when an earlier run sealed its plan, found again by content: what led to it may be gone by now."""
    wanted, n_doomed = _distinct(np.column_stack([np.asarray(rows["low"]), np.asarray(rows["high"])]))
    snapshot = ground.lake.snapshot(entry.table)
    columns = tuple(user_columns(ground.lake.schema(snapshot)))
    copies = ground.workers.map(find_copies, ground.lake.parts(snapshot), columns, wanted, ground.lake.keys)
    n_kept = _counted([one.indices for one in copies], len(wanted)) - n_doomed
    return _change(ground, entry.how, entry.table, choose(copies, n_doomed, n_kept, multiset=True))


def _search(ground: Ground, table: str) -> _Found:
    """Which rows of a table name a requested subject, by its subject columns."""
    near = _neighbours(ground, table)
    shared = [shared_columns(ground.columns[table], ground.columns[name]) for name, _ in near]
    parts = ground.lake.parts(ground.snapshots[table])
    hits = ground.workers.map(locate_part, parts, ground.subjects[table], ground.sought, shared, ground.lake.keys)
    return _Found(table, near, tuple(hits))


def _rejected(ground: Ground) -> list[Change]:
    if not ground.lake.exists(QUARANTINE_TABLE):
        return []
    parts = ground.lake.parts(ground.lake.snapshot(QUARANTINE_TABLE))
    subjects = subjects_of_tables(ground.lake, ground.settings)
    hits = ground.workers.map(locate_quarantined, parts, subjects, ground.sought, ground.lake.keys)
    change = _change(ground, BY_TEXT, QUARANTINE_TABLE, _all_gone(hits))
    return [change] if change.jobs else []


def _all_gone(hits: Sequence[Hits]) -> Doomed:
    return [(one, np.ones(len(one.positions), np.bool_)) for one in hits]


def _change(ground: Ground, how: str, table: str, doomed: Doomed) -> Change:
    before = ground.lake.snapshot(table)
    touched = [(one, gone) for one, gone in doomed if len(one.positions)]
    jobs = tuple(Rewrite(one.part, one.positions, _source_of(ground, one.part.file)) for one, _ in touched)
    numbers = np.unique(np.concatenate([_NO_NUMBERS, *(one.sources for one, _ in touched)])).tolist()
    uris = {ground.sources[number][1] for number in numbers if number in ground.sources}
    sources = tuple(sorted(hidden_name(uri, ground.lake.keys) for uri in uris))
    rows = pa.concat_tables([no_rows(), *(lost_rows(table, one.row_ids, one.hashes, gone) for one, gone in touched)])
    return Change(Entry(table, how, before, len(jobs), sources), rows, jobs)


def _source_of(ground: Ground, file: DataFile) -> str:
    """The source that a data file was written for, as its writer named it; empty where there are several or none is known."""
    known = ground.sources.get(source_number(file.source)) if file.source not in ("", MIXED) else None
    return known[0] if known is not None else ""


# --- what the settings and the lake say -----------------------------------------------------------------------------------------


def knows(settings: Settings, table: str) -> bool:
    """Whether lethe.toml has a table of records (its name with or without `records/`), by itself or in a collection."""
    name = table.removeprefix(RECORDS)
    return name in settings.tables or any(name.startswith(f"{collection}/") for collection in settings.collections)


def subjects_of(lake: Lake, settings: Settings, table: str) -> Subjects:
    """The subjects of a table of records (its name with or without `records/`), none or several.

    Of a table that lethe.toml has no more, its log still tells what ingest went by; of one that is retired or given up, its row.
    """
    name = table.removeprefix(RECORDS)
    return settings.table(name).subjects if knows(settings, name) else _declared(lake, RECORDS + name)


def _declared(lake: Lake, table: str) -> Subjects:
    if lake.exists(table):
        return remembered(lake.lineage(lake.snapshot(table)).params)
    entry = entries(lake).get(table.removeprefix(RECORDS))
    return remembered(entry.params) if entry is not None else ()


def subject_kinds(lake: Lake, settings: Settings) -> frozenset[str]:
    """All kinds of subjects that some table has, in lethe.toml or in the lake alone."""
    sections = [section.subjects for section in (*settings.tables.values(), *settings.collections.values())]
    left = [_declared(lake, table) for table in lake.tables("records") if not knows(settings, table)]
    left += [remembered(entry.params) for entry in entries(lake).values()]
    return frozenset(subject.kind for subjects in (*sections, *left) for subject in subjects)


def subjects_of_tables(lake: Lake, settings: Settings) -> dict[str, Subjects]:
    """The subjects of each table that has any, by the name that the quarantine gives it."""
    names = {table.removeprefix(RECORDS) for table in lake.tables("records")} | set(settings.tables)
    if lake.exists(QUARANTINE_TABLE):
        names |= set(lake.read(lake.snapshot(QUARANTINE_TABLE), ["table"])["table"].unique().to_pylist())
    found = {name: subjects_of(lake, settings, name) for name in names if name}
    return {name: subjects for name, subjects in found.items() if subjects}


def sources_of(lake: Lake) -> dict[str, tuple[str, str]]:
    """By the key in a data file's name: the source as its writer named it, and the raw file. Rejects are kept apart by table."""
    if not lake.exists("sources"):
        return {}
    rows = lake.read(lake.snapshot("sources"), ["table", "uri"]).to_pylist()
    named = [(name, row["uri"]) for row in rows for name in (row["uri"], quarantine_source(row["table"], row["uri"]))]
    return {source_key(name): (name, uri) for name, uri in named}


# --- copies in tables that lack the subject column ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edge:
    """A child that is contained in a parent, as the dedup stage found it; `multiset`: with at most as many copies."""

    child: str
    parent: str
    multiset: bool

    def other(self, table: str) -> str | None:
        """The table at the other end; None where the edge does not touch this one."""
        return self.child if table == self.parent else self.parent if table == self.child else None


def _edges(lake: Lake, containment: Snapshot) -> list[Edge]:
    rows = lake.read(containment, ["child", "parent", "multiset", "relation"]).to_pylist()
    found = (r for r in rows if r["relation"] == "contained")
    return sorted({Edge(RECORDS + r["child"], RECORDS + r["parent"], bool(r["multiset"])) for r in found}, key=str)


def _neighbours(ground: Ground, table: str) -> tuple[tuple[str, bool], ...]:
    """Tables joined to this one by containment that lack one of its subjects, with `multiset`.

    A child holds some of the columns. A parent (nobody declared its subject) holds the whole row and more.
    """
    joined = ((edge.other(table), edge.multiset) for edge in ground.edges)
    return tuple((other, multiset) for other, multiset in joined if other in ground.snapshots and _lacks(ground, other, table))


def _lacks(ground: Ground, other: str, table: str) -> bool:
    """Whether rows that one of a table's subjects tells of would not be told of by the same subject of another table."""
    theirs = {(subject.kind, subject.column.casefold()) for subject in ground.subjects.get(other, ())}
    return any((subject.kind, subject.column.casefold()) not in theirs for subject in ground.subjects[table])


def shared_columns(mine: Sequence[str], theirs: Sequence[str]) -> Columns:
    """My names of the columns that both have, whatever the case; empty unless one table's columns contain the other's."""
    folded = {name.casefold() for name in theirs}
    shared = tuple(name for name in mine if name.casefold() in folded)
    return shared if len(shared) == min(len(mine), len(theirs)) else ()


def _copies(ground: Ground, found: Sequence[_Found], own: Mapping[str, Doomed]) -> dict[str, Doomed]:
    """For each table that holds copies of erased rows: which of its rows go, and whether any like them stay. `own` are the rows
    that tables lose anyway."""
    per_table = dict[str, list[Doomed]]()
    for original in found:
        for edge, (name, multiset) in enumerate(original.near):
            doomed = _doomed(ground, original, edge, name, own.get(name, []), multiset=multiset)
            if any(len(hits.positions) for hits, _ in doomed):
                per_table.setdefault(name, []).append(doomed)
    return {name: union(plans) for name, plans in sorted(per_table.items())}


def _doomed(ground: Ground, original: _Found, edge: int, name: str, own: Doomed, *, multiset: bool) -> Doomed:
    """Along one edge, the rows of a neighbour to erase in each of its files, beside those that it loses anyway."""
    theirs, mine = ground.columns[name], ground.columns[original.table]
    wanted, n_erased = _distinct(np.concatenate([hits.projected[edge] for hits in original.hits]))
    shared = shared_columns(mine, theirs)
    if not wanted or not shared:
        return []
    counts = ground.workers.map(count_retained, original.hits, shared, wanted, ground.lake.keys)
    parts = ground.lake.parts(ground.snapshots[name])
    copies = ground.workers.map(find_copies, parts, shared_columns(theirs, mine), wanted, ground.lake.keys)
    n_kept = sum(counts, np.zeros(len(wanted), np.int64))
    return choose(copies, n_erased, n_kept, multiset=multiset, taken=[hits.positions for hits, _ in own])


def _distinct(hashes: U64) -> tuple[dict[Hash, int], I64]:
    """Distinct row hashes with an index each, and how often each occurs."""
    unique, counts = np.unique(hashes, axis=0, return_counts=True)
    return {(int(low), int(high)): i for i, (low, high) in enumerate(unique)}, counts.astype(np.int64)


def choose(copies: Sequence[Copies], n_erased: I64, n_kept: I64, *, multiset: bool, taken: Sequence[I64] = ()) -> Doomed:
    """Which of the rows that equal erased ones go: so many that containment holds again.

    Of a row that the original keeps nowhere, all copies go. Of one that it still has `n_kept` times (as another person's), a
    contained multiset keeps as many; a set loses at most as many as the original lost. Equal rows are alike: the first ones stay,
    but those at the positions `taken` (a file each) go in any case and count.
    """
    taken = taken or [_NO_NUMBERS] * len(copies)
    free = [~np.isin(one.hits.positions, positions) for one, positions in zip(copies, taken, strict=True)]
    n_found = _counted([one.indices for one in copies], len(n_erased))
    n_free = _counted([one.indices[mine] for one, mine in zip(copies, free, strict=True)], len(n_erased))
    surplus = np.maximum(n_found - n_kept, 0)
    n_doomed = surplus if multiset else np.where(n_kept == 0, n_found, np.minimum(surplus, n_erased))
    n_stay = np.minimum(n_found - n_doomed, n_free)
    seen = np.zeros(len(n_erased), np.int64)
    chosen = Doomed()
    for one, mine in zip(copies, free, strict=True):
        rank = np.full(len(mine), -1, np.int64)
        rank[mine] = _ranks(one.indices[mine], seen)
        doomed = rank >= n_stay[one.indices]
        gone = (n_stay == 0)[one.indices]
        chosen.append((_subset(one.hits, doomed), gone[doomed]))
    return chosen


def _counted(indices: Sequence[I64], n: int) -> I64:
    """How often each index occurs, int64 (n,)."""
    return np.bincount(np.concatenate([_NO_NUMBERS, *indices]), minlength=n).astype(np.int64)


def _ranks(indices: I64, seen: I64) -> I64:
    """For each entry, how often its index came before it; `seen` is carried from file to file."""
    ranks = np.empty(len(indices), np.int64)
    for i, index in enumerate(indices):
        ranks[i] = seen[index]
        seen[index] += 1
    return ranks


def _subset(hits: Hits, mask: Mask) -> Hits:
    return Hits(hits.part, hits.positions[mask], hits.row_ids[mask], hits.hashes[mask], hits.sources[mask])


def union(plans: Sequence[Doomed]) -> Doomed:
    """A neighbour of several originals loses what any of them dooms."""
    return [_joined(per_file) for per_file in zip(*plans, strict=True)]


def _joined(doomed: Sequence[tuple[Hits, Mask]]) -> tuple[Hits, Mask]:
    positions, gone = (np.concatenate(arrays) for arrays in zip(*((one.positions, flags) for one, flags in doomed), strict=True))
    distinct, first = np.unique(positions, return_index=True)
    ids = np.concatenate([one.row_ids for one, _ in doomed])[first]
    hashes = np.concatenate([one.hashes for one, _ in doomed])[first]
    sources = np.concatenate([one.sources for one, _ in doomed])[first]
    return Hits(doomed[0][0].part, distinct, ids, hashes, sources), np.isin(distinct, positions[gone])
