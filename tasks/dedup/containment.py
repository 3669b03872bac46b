"""A containment scan from the logs to one commit of `containment`, found again while nothing it depends on changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from infra.cluster import Scheduler, connect
from infra.contracts import CONTAINMENT, LetheError, Lineage, Snapshot
from infra.files import write_part
from infra.foreign import PREFIX as FOREIGN
from infra.foreign import ForeignTable, ForeignUnreadable, Refreshed
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import DedupSettings, Settings
from tasks.dedup.beyond import Answers, affected, at_versions, children_to_ask, find_covers, find_renames, planned_renames
from tasks.dedup.edges import Cover, Edge, Rename
from tasks.dedup.evidence import MAX_BITS, why_apart
from tasks.dedup.exact import Counted
from tasks.dedup.frames import Reader
from tasks.dedup.logs import of_text
from tasks.dedup.profiles import Profiles
from tasks.dedup.remembered import CONTAINED, NEAR, REFUTED, answer_rows, answered, before, load, save
from tasks.dedup.scan import AnyPart, Candidates, Facts, Settled, board, edges_of
from tasks.dedup.schema_graph import kinds_of
from tasks.dedup.settle import Before, Ledger, evidence, settle

ROW_ID = "row_id"
RECORDS = "records/"
TABLE = "containment"
_READERS = 8
_STEPS = ("schema_graph", "fingerprints", "bounds", "scan", "sketches", "exact", "sorting", "runs", "transitive", "settle")
_BESIDE = ("beyond", "containment", "covers", "edges", "evidence", "rename_plan", "renames")
_READING = ("frames", "known", "logs", "profiles", "remembered")
_CODE = (*(f"tasks.dedup.{name}" for name in (*_STEPS, *_BESIDE, *_READING)), "infra.rowhash", "infra.files", "infra.foreign")


@dataclass(frozen=True)
class Found:
    """What a scan says: containments, near ones, covers and renames."""

    edges: tuple[Edge, ...] = ()
    near: tuple[Edge, ...] = ()
    covers: tuple[Cover, ...] = ()
    renames: tuple[Rename, ...] = ()


@dataclass(frozen=True)
class Scan:
    """A finished scan: the tables that took part, what it says, its snapshot, and the figures that its commit carries.

    `unreadable` says why others did not. `n_bytes` are the sizes of the lake's own tables, where the scan had to look at their
    logs; None where it was found.
    """

    inputs: tuple[Snapshot, ...]
    unreadable: dict[str, str]
    found: Found
    snapshot: Snapshot
    summary: dict[str, Any]
    n_bytes: dict[str, int] | None

    @property
    def is_found(self) -> bool:
        return self.n_bytes is None


def table_name(snapshot: Snapshot) -> str:
    """The table's name as the user knows it; those of other writers are `foreign/<name>`."""
    return snapshot.table.removeprefix(RECORDS)


def scan(lake: Lake, settings: Settings, ours: tuple[Snapshot, ...], foreign: Refreshed, scheduler: Scheduler) -> Scan:
    """The scan of the tables, once more without a table of another writer that was lost while it was read."""
    try:
        return _scan(lake, settings, ours, foreign, scheduler)
    except ForeignUnreadable as lost:
        return scan(lake, settings, ours, foreign.without(lost), scheduler)


def _scan(lake: Lake, settings: Settings, ours: tuple[Snapshot, ...], foreign: Refreshed, scheduler: Scheduler) -> Scan:
    inputs = tuple(sorted((*ours, *(table.snapshot for table in foreign.tables))))
    unreadable = {FOREIGN + name: reason for name, reason in sorted(foreign.unreadable.items())}
    code, params = code_digest(*_CODE), settings.dedup.model_dump()
    key = stage_key(TABLE, code, inputs, params)
    if (snapshot := lake.reuse(TABLE, key)) is not None and _same_columns(lake, lake.lineage(snapshot).inputs, inputs):
        return Scan(inputs, unreadable, read_found(lake, snapshot), snapshot, lake.lineage(snapshot).summary, None)
    kept = load(lake)
    facts = all_facts(lake, inputs, foreign.tables, kept.logs)
    newest = lake.snapshot(TABLE) if lake.exists(TABLE) else None
    known = before(lake, newest, facts, code, params)
    answers = Answers(answered(lake, newest) if newest is not None and known.counted else {})
    candidate = _candidates(facts, settings.dedup, known, answers)
    memory_bytes, approximate = settings.cluster.local_bytes, settings.dedup.approximate
    with lake.scratch() as scratch, connect(scheduler) as workers:
        reader = Reader(facts, kept.profiles(), workers, lake.keys.row, scratch, memory_bytes)
        plan = affected(planned_renames(facts, candidate), candidate.stable) if settings.dedup.renames else None
        values = plan.wanted() if plan is not None else {}
        ledger = settle(facts, candidate, known, reader, approximate=approximate, values=values)
        if settings.dedup.unions:
            find_covers(facts, candidate, ledger.found, reader, answers)
        if plan is not None:
            find_renames(facts, plan, candidate.stable, reader, answers)
    at_versions(answers, {one.name: one.snapshot.version for one in facts})
    edges = edges_of(facts, candidate.groups, ledger.found)
    found = Found(*_halves(edge for edge, _ in edges), tuple(answers.covers()), tuple(answers.renames()))
    summary = _summary(facts, candidate, reader, ledger, known)
    save(lake, kept, reader.profiles, facts)
    rows = _rows(facts, edges, ledger, answers)
    snapshot = commit(lake, TABLE, rows, Lineage(TABLE, key, code, inputs, params, summary))
    return Scan(inputs, unreadable, found, snapshot, summary, sizes(facts))


def _candidates(facts: Sequence[Facts], wanted: DedupSettings, known: Before, answers: Answers) -> Candidates:
    """The pairs to be settled, and those to be looked at for covers."""
    whole = board(facts)
    stable = frozenset(i for i, one in enumerate(facts) if known.is_stable(one))
    found = whole.candidates(overlaps=wanted.approximate < 1.0 or wanted.unions, stable=stable)
    if not (wanted.unions and stable):
        return found
    children = children_to_ask(facts, found, known.contained(), known.gone, answers.known.values())
    return replace(found, asked=whole.overlapping(children, stable.intersection(found.groups)))


# --- what the logs say ---------------------------------------------------------------------------------------------------------


def all_facts(
    lake: Lake,
    snapshots: Sequence[Snapshot],
    foreign: Sequence[ForeignTable] = (),
    logs: Mapping[tuple[str, int], str] | None = None,
) -> list[Facts]:
    """What the logs say of all tables, or said: `logs` by name and version. Opening one is waiting, so several are opened at a
    time.
    """
    facts = {table.snapshot: _facts(table.snapshot, table.parts) for table in foreign}
    for snapshot in snapshots:
        text = (logs or {}).get((table_name(snapshot), snapshot.version))
        if text is not None and snapshot.n_rows:
            facts[snapshot] = _facts(snapshot, *of_text(text, lake.uri(snapshot.table)))
    unread = [snapshot for snapshot in snapshots if snapshot not in facts]
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(lambda snapshot: lake.parts(snapshot) if snapshot.n_rows else (), unread)
        facts |= {snapshot: _facts(snapshot, parts) for snapshot, parts in zip(unread, found, strict=True)}
    return [facts[snapshot] for snapshot in snapshots]


def sizes(facts: Sequence[Facts]) -> dict[str, int]:
    """The bytes of the lake's own tables: only they can be retired."""
    return {one.name: one.n_bytes for one in facts if one.snapshot.table.startswith(RECORDS)}


def _facts(snapshot: Snapshot, parts: Sequence[AnyPart], kinds: dict[str, str] | None = None) -> Facts:
    """What the log says of a table; one whose columns cannot be told apart has none that are compared. `kinds`, if known."""
    parts = tuple(parts)
    written = [name for name in (parts[0].schema.names if parts else ()) if name.lower() != ROW_ID]
    if kinds is None:
        kinds = kinds_of([parts[0].schema.field(name) for name in written], [part.file for part in parts]) if parts else {}
    names = {name.lower(): name for name in written if name.lower() in kinds}
    return Facts(table_name(snapshot), snapshot, parts, names, kinds)


def _same_columns(lake: Lake, before: Sequence[Snapshot], now: Sequence[Snapshot]) -> bool:
    """Whether tables with the rows that they had have the columns that they had: a column of NULLs is no part of a digest."""
    moved = [(old, new) for old, new in zip(before, now, strict=True) if old.version != new.version]
    return all(_columns(lake, new) is not None and _columns(lake, old) == _columns(lake, new) for old, new in moved)


def _columns(lake: Lake, snapshot: Snapshot) -> list[tuple[str, str]] | None:
    """Names and kinds of columns; None where the version cannot be read any more."""
    try:
        facts = _facts(snapshot, lake.parts(snapshot))
    except LetheError:
        return None
    return sorted(facts.kinds.items())


# --- what is committed ---------------------------------------------------------------------------------------------------------


def _summary(facts: Sequence[Facts], found: Candidates, reader: Reader, ledger: Ledger, known: Before) -> dict[str, Any]:
    """The figures of a scan; which tables are listed apart and why, and the bits of evidence of others that have few."""
    children = {one.child for one in ledger.found} | {t for t, equals in found.groups.items() if len(equals) > 1}
    apart, bits = dict[str, str](), dict[str, float]()
    for representative, equals in found.groups.items():
        measured = MAX_BITS, False
        if representative in children and facts[representative].kinds:
            measured = _measured(facts[representative], known if representative in found.stable else Before(), reader.profiles)
        for table in equals:
            one = facts[table]
            reason = why_apart(one.snapshot.n_rows, len(one.kinds), all_null=measured[1])
            if reason is not None:
                apart[one.name] = reason
            if representative in children:
                bits[one.name] = round(measured[0], 2)
    settled = found.settled | ledger.steps
    said = {"n_pairs": found.n_pairs, "settled": settled, "bytes_read": reader.n_bytes, "apart": apart, "bits": bits}
    return {**said, "gb_s": reader.gb_s}


def _measured(table: Facts, known: Before, profiles: Profiles) -> tuple[float, bool]:
    """The evidence of a table, and whether it holds no value; what was measured of the same rows stands."""
    if table.name in known.bits:
        return known.bits[table.name], table.name in known.empty
    return evidence(table, profiles)


def _rows(facts: Sequence[Facts], edges: Sequence[tuple[Edge, Counted]], ledger: Ledger, answers: Answers) -> pa.Table:
    """The rows of `containment`. Pairs that were counted in vain are there as well: the next scan need not count them again."""
    digests = {one.name: one.snapshot.digest for one in facts}
    rows = [_row(edge, CONTAINED if edge.set else NEAR, counted, digests) for edge, counted in edges]
    rows += [_refuted(facts, one, digests) for one in ledger.refuted]
    rows += answer_rows(answers)
    return pa.Table.from_pylist(rows, schema=CONTAINMENT)


def _row(edge: Edge, relation: str, counted: Counted, digests: Mapping[str, str]) -> dict[str, Any]:
    return {**_counts(counted), **vars(edge), **_digests(edge.child, edge.parent, digests), "relation": relation}


def _refuted(facts: Sequence[Facts], one: Settled, digests: Mapping[str, str]) -> dict[str, Any]:
    child, parent = facts[one.child], facts[one.parent]
    versions = {"child_version": child.snapshot.version, "parent_version": parent.snapshot.version}
    said = {"child": child.name, "parent": parent.name, "fraction": one.counted.fraction, "set": False, "multiset": False}
    extra = {"exact": True, "step": one.step, "error": 0.0, "relation": REFUTED}
    return {**_counts(one.counted), **said, **versions, **extra, **_digests(child.name, parent.name, digests)}


def _counts(counted: Counted) -> dict[str, int]:
    return {
        "n_rows": counted.n_rows,
        "n_distinct": counted.n_distinct,
        "n_missing": counted.n_missing_distinct,
        "n_residual": counted.n_residual,
    }


def _digests(child: str, parent: str, digests: Mapping[str, str]) -> dict[str, str]:
    return {"child_digest": digests[child], "parent_digest": digests[parent]}


def read_found(lake: Lake, snapshot: Snapshot) -> Found:
    """What a scan said."""
    names = list(Edge.__dataclass_fields__)
    rows = lake.read(snapshot, [*names, "relation"]).to_pylist()
    said: Iterable[Edge] = (Edge(**{n: row[n] for n in names}) for row in rows if row["relation"] in (CONTAINED, NEAR))
    answers = Answers(given=answered(lake, snapshot))
    at_versions(answers, {table_name(one): one.version for one in lake.lineage(snapshot).inputs})
    edges = sorted(said, key=lambda edge: (edge.child, edge.parent))
    return Found(*_halves(edges), tuple(answers.covers()), tuple(answers.renames()))


def _halves(said: Iterable[Edge]) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Containments, and near ones."""
    edges = [*said]
    return tuple(e for e in edges if e.set), tuple(e for e in edges if not e.set)


def commit(lake: Lake, table: str, rows: pa.Table, lineage: Lineage) -> Snapshot:
    """Replace a table's rows in one commit."""
    files = [write_part(lake.folder(table), rows.to_batches(), rows.schema)] if rows.num_rows else []
    return lake.commit(table, rows.schema, files, lineage=lineage, overwrite=True)
