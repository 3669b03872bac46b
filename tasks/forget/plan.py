"""The plan of an erasure: which rows of which files go, found before anything is written. It changes nothing.

Rows of a subject are found by the table's subject column. Copies of them in tables that lack the column are found by content,
along the containments that the dedup stage found; rejected lines by the words of their raw text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import Snapshot
from infra.files import quarantine_source, source_key
from infra.ids import I64, U64
from infra.lake import Lake
from infra.settings import Settings, SubjectSettings
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
from tasks.forget.locate import Mask, hidden_name
from tasks.forget.seal import Entry, lost_rows, no_rows

RECORDS = "records/"
QUARANTINE_TABLE = "quarantine"
BY_SUBJECT, BY_COPY, BY_TEXT = "subject", "copy", "text"

Doomed = list[tuple[Hits, Mask]]


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
    def subjects(self) -> dict[str, SubjectSettings]:
        """The subject column of each table that has one of a kind asked for. Not every table of a collection has the column."""
        found = {table: subject_of(self.lake, self.settings, table) for table in self.snapshots}
        return {t: s for t, s in found.items() if s is not None and s.kind in self.sought and s.column in self.columns[t]}

    @cached_property
    def edges(self) -> list[Edge]:
        return _edges(self.lake, self.containment) if self.containment is not None else []

    @cached_property
    def sources(self) -> dict[str, tuple[str, str]]:
        return sources_of(self.lake)


@dataclass(frozen=True)
class _Found:
    """A table whose subject column was searched: what was found in its files, and the neighbours that may hold copies."""

    table: str
    near: tuple[tuple[str, bool], ...]
    hits: tuple[Hits, ...]

    @property
    def n_rows(self) -> int:
        return sum(len(hits.positions) for hits in self.hits)


def plan(ground: Ground) -> list[Change]:
    """The changes in the order of their commits: copies first, then the rows they were found by, then rejected lines."""
    found = [one for one in (_search(ground, table) for table in ground.subjects) if one.n_rows]
    copies = [_change(ground, BY_COPY, table, doomed) for table, doomed in _copies(ground, found)]
    originals = [_change(ground, BY_SUBJECT, one.table, _all_gone(one.hits)) for one in found]
    return [*copies, *originals, *_rejected(ground)]


def _search(ground: Ground, table: str) -> _Found:
    """Who of the requested subjects is in a table, by its subject column."""
    subject = ground.subjects[table]
    near = _neighbours(ground, table, subject.kind)
    shared = [shared_columns(ground.columns[table], ground.columns[name]) for name, _ in near]
    parts = ground.lake.parts(ground.snapshots[table])
    hits = ground.workers.map(locate_part, parts, subject, ground.sought[subject.kind], shared, ground.lake.keys)
    return _Found(table, near, tuple(hits))


def _rejected(ground: Ground) -> list[Change]:
    if not ground.lake.exists(QUARANTINE_TABLE):
        return []
    parts = ground.lake.parts(ground.lake.snapshot(QUARANTINE_TABLE))
    kinds = kinds_of_tables(ground.lake, ground.settings)
    hits = ground.workers.map(locate_quarantined, parts, kinds, ground.sought, ground.lake.keys)
    change = _change(ground, BY_TEXT, QUARANTINE_TABLE, _all_gone(hits))
    return [change] if change.jobs else []


def _all_gone(hits: Sequence[Hits]) -> Doomed:
    return [(one, np.ones(len(one.positions), np.bool_)) for one in hits]


def _change(ground: Ground, how: str, table: str, doomed: Doomed) -> Change:
    before = ground.lake.snapshot(table)
    touched = [(one, gone) for one, gone in doomed if len(one.positions)]
    named = [ground.sources.get(one.part.file.source, ("", "")) for one, _ in touched]
    jobs = tuple(Rewrite(one.part, one.positions, written) for (one, _), (written, _) in zip(touched, named, strict=True))
    sources = tuple(sorted({hidden_name(uri, ground.lake.keys) for _, uri in named if uri}))
    rows = pa.concat_tables([no_rows(), *(lost_rows(table, one.row_ids, one.hashes, gone) for one, gone in touched)])
    return Change(Entry(table, how, before, len(jobs), sources), rows, jobs)


# --- what the settings and the lake say -----------------------------------------------------------------------------------------


def knows(settings: Settings, table: str) -> bool:
    """Whether lethe.toml has a table of records (its name with or without `records/`), by itself or in a collection."""
    name = table.removeprefix(RECORDS)
    return name in settings.tables or any(name.startswith(f"{collection}/") for collection in settings.collections)


def subject_of(lake: Lake, settings: Settings, table: str) -> SubjectSettings | None:
    """The subject column of a table of records (its name with or without `records/`); None where there is none.

    Of a table that lethe.toml has no more, its log still tells what ingest went by.
    """
    name = table.removeprefix(RECORDS)
    return settings.table(name).subject if knows(settings, name) else _declared(lake, RECORDS + name)


def _declared(lake: Lake, table: str) -> SubjectSettings | None:
    said = lake.lineage(lake.snapshot(table)).params.get("subject") if lake.exists(table) else None
    return SubjectSettings(kind=said[0], column=said[1]) if said else None


def subject_kinds(lake: Lake, settings: Settings) -> frozenset[str]:
    """All kinds of subjects that some table has, in lethe.toml or in the lake alone."""
    sections = [*settings.tables.values(), *settings.collections.values()]
    left = [_declared(lake, table) for table in lake.tables("records") if not knows(settings, table)]
    return frozenset(subject.kind for subject in (*(section.subject for section in sections), *left) if subject is not None)


def kinds_of_tables(lake: Lake, settings: Settings) -> dict[str, str]:
    """The kind of subject of each table that has one, by the name that the quarantine gives it."""
    names = {table.removeprefix(RECORDS) for table in lake.tables("records")} | set(settings.tables)
    if lake.exists(QUARANTINE_TABLE):
        names |= set(lake.read(lake.snapshot(QUARANTINE_TABLE), ["table"])["table"].unique().to_pylist())
    found = {name: subject_of(lake, settings, name) for name in names if name}
    return {name: subject.kind for name, subject in found.items() if subject is not None}


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
    rows = lake.read(containment, ["child", "parent", "multiset"]).to_pylist()
    return sorted({Edge(RECORDS + r["child"], RECORDS + r["parent"], bool(r["multiset"])) for r in rows}, key=str)


def _neighbours(ground: Ground, table: str, kind: str) -> tuple[tuple[str, bool], ...]:
    """Tables joined to this one by containment that have no subject column of the kind, with `multiset`.

    A child holds some of the columns. A parent (nobody declared its subject) holds the whole row and more.
    """
    joined = ((edge.other(table), edge.multiset) for edge in ground.edges)
    return tuple((other, multiset) for other, multiset in joined if other in ground.snapshots and _lacks(ground, other, kind))


def _lacks(ground: Ground, table: str, kind: str) -> bool:
    return table not in ground.subjects or ground.subjects[table].kind != kind


def shared_columns(mine: Sequence[str], theirs: Sequence[str]) -> Columns:
    """My names of the columns that both have, whatever the case; empty unless one table's columns contain the other's."""
    folded = {name.casefold() for name in theirs}
    shared = tuple(name for name in mine if name.casefold() in folded)
    return shared if len(shared) == min(len(mine), len(theirs)) else ()


def _copies(ground: Ground, found: Sequence[_Found]) -> list[tuple[str, Doomed]]:
    """For each table that holds copies of erased rows: which of its rows go, and whether any like them stay."""
    per_table = dict[str, list[Doomed]]()
    for original in found:
        for edge, (name, multiset) in enumerate(original.near):
            doomed = _doomed(ground, original, edge, name, multiset=multiset)
            if any(len(hits.positions) for hits, _ in doomed):
                per_table.setdefault(name, []).append(doomed)
    return [(name, union(plans)) for name, plans in sorted(per_table.items())]


def _doomed(ground: Ground, original: _Found, edge: int, name: str, *, multiset: bool) -> Doomed:
    """Along one edge, the rows of a neighbour to erase in each of its files."""
    theirs, mine = ground.columns[name], ground.columns[original.table]
    wanted, n_erased = _distinct(np.concatenate([hits.projected[edge] for hits in original.hits]))
    shared = shared_columns(mine, theirs)
    if not wanted or not shared:
        return []
    counts = ground.workers.map(count_retained, original.hits, shared, wanted, ground.lake.keys)
    parts = ground.lake.parts(ground.snapshots[name])
    copies = ground.workers.map(find_copies, parts, shared_columns(theirs, mine), wanted, ground.lake.keys)
    return choose(copies, n_erased, sum(counts, np.zeros(len(wanted), np.int64)), multiset=multiset)


def _distinct(hashes: U64) -> tuple[dict[Hash, int], I64]:
    """Distinct row hashes with an index each, and how often each occurs."""
    unique, counts = np.unique(hashes, axis=0, return_counts=True)
    return {(int(low), int(high)): i for i, (low, high) in enumerate(unique)}, counts.astype(np.int64)


def choose(copies: Sequence[Copies], n_erased: I64, n_kept: I64, *, multiset: bool) -> Doomed:
    """Which of the rows that equal erased ones go: so many that containment holds again.

    Of a row that the original keeps nowhere, all copies go. Of one that it still has `n_kept` times (as another person's), a
    contained multiset keeps as many; a set loses at most as many as the original lost. Equal rows are alike: the first ones stay.
    """
    n_found = np.bincount(np.concatenate([np.empty(0, np.int64), *(c.indices for c in copies)]), minlength=len(n_erased))
    surplus = np.maximum(n_found - n_kept, 0)
    n_doomed = surplus if multiset else np.where(n_kept == 0, n_found, np.minimum(surplus, n_erased))
    seen = np.zeros(len(n_erased), np.int64)
    chosen = Doomed()
    for one in copies:
        rank = _ranks(one.indices, seen)
        doomed = rank >= (n_found - n_doomed)[one.indices]
        gone = (n_doomed == n_found)[one.indices]
        chosen.append((_subset(one.hits, doomed), gone[doomed]))
    return chosen


def _ranks(indices: I64, seen: I64) -> I64:
    """For each entry, how often its index came before it; `seen` is carried from file to file."""
    ranks = np.empty(len(indices), np.int64)
    for i, index in enumerate(indices):
        ranks[i] = seen[index]
        seen[index] += 1
    return ranks


def _subset(hits: Hits, mask: Mask) -> Hits:
    return Hits(hits.part, hits.positions[mask], hits.row_ids[mask], hits.hashes[mask])


def union(plans: Sequence[Doomed]) -> Doomed:
    """A neighbour of several originals loses what any of them dooms."""
    return [_joined(per_file) for per_file in zip(*plans, strict=True)]


def _joined(doomed: Sequence[tuple[Hits, Mask]]) -> tuple[Hits, Mask]:
    positions, gone = (np.concatenate(arrays) for arrays in zip(*((one.positions, flags) for one, flags in doomed), strict=True))
    distinct, first = np.unique(positions, return_index=True)
    ids = np.concatenate([one.row_ids for one, _ in doomed])[first]
    hashes = np.concatenate([one.hashes for one, _ in doomed])[first]
    return Hits(doomed[0][0].part, distinct, ids, hashes), np.isin(distinct, positions[gone])
