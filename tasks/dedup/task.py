"""The door of dedup: which tables of the lake are contained in others, and which of them need not be stored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, connect
from infra.contracts import CONTAINMENT, RETENTION, Lineage, Snapshot
from infra.discretion import discreet
from infra.files import write_part
from infra.foreign import PREFIX as FOREIGN
from infra.foreign import ForeignTable, ForeignUnreadable, Refreshed, refreshed
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import Settings
from tasks.dedup.edges import Cover, Edge, Rename
from tasks.dedup.evidence import MAX_BITS, why_apart
from tasks.dedup.frames import Hashes, gather, hash_item, items, readings, settle
from tasks.dedup.retention import PlanRow, retention_plan
from tasks.dedup.scan import AnyPart, Candidates, Facts, Ledger, candidates, edges_of
from tasks.dedup.schema_graph import kind_of

ROW_ID = "row_id"
PREFIX = "records/"
TABLE, PLAN = "containment", "retention"
_READERS = 8


@dataclass(frozen=True)
class DedupResult:
    """What a scan found. `edges` are the true containments; `settled` counts pairs by the step that settled them and sums to
    `n_pairs`.

    `listed_apart` says for a table why its containments prove nothing: it is never retired. `bytes_read` counts the data
    files opened, 0 where `found` says that the same tables were scanned before. Tables of other writers take part as
    `foreign/<name>`; `unreadable` says of those that could not why not.
    """

    n_tables: int
    edges: tuple[Edge, ...]
    plan: tuple[PlanRow, ...]
    bytes_read: int
    seconds: float
    n_pairs: int
    settled: dict[str, int]
    listed_apart: dict[str, str]
    found: bool
    containment: Snapshot
    retention: Snapshot
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    near: tuple[Edge, ...] = ()
    covers: tuple[Cover, ...] = ()
    renames: tuple[Rename, ...] = ()


@dataclass(frozen=True)
class _Scan:
    """A finished scan: the tables that took part, its edges, its snapshot, and the figures that its commit carries.

    `unreadable` says why others did not. `n_bytes` are the sizes of the lake's own tables, where the scan had to look at their
    logs; None where it was found.
    """

    inputs: tuple[Snapshot, ...]
    unreadable: dict[str, str]
    edges: list[Edge]
    snapshot: Snapshot
    summary: dict[str, Any]
    n_bytes: dict[str, int] | None

    @property
    def found(self) -> bool:
        return self.n_bytes is None


@task(name="dedup", persist_result=False)
@discreet
def dedup(settings: Settings, snapshots: tuple[Snapshot, ...], *, scheduler: Scheduler = None) -> DedupResult:
    """Find every table whose rows are all in another one, and plan which tables to retire.

    The registered tables of other writers are compared as well, at their newest versions. They are nobody's to retire here, nor
    a source to rebuild from: their writers may change them at any time. One that cannot be read is left out and named.

    Writes `containment` and `retention`, one commit each; both are found again while the tables' digests, the code and, for
    the plan, the price book stay the same. A scan that moves neither is free of data reads.
    """
    start = time.perf_counter()
    lake = Lake.open(settings)
    inputs = tuple(sorted(snapshots))
    foreign = _foreign(lake, inputs, scheduler)
    scan = _readable_scan(lake, settings, inputs, foreign, scheduler)
    apart = _apart(scan.summary, settings)
    retention, plan, plan_found = _plan(lake, settings, inputs, scan, apart)
    return DedupResult(
        n_tables=len(scan.inputs),
        edges=tuple(scan.edges),
        plan=tuple(plan),
        bytes_read=0 if scan.found else scan.summary["bytes_read"],
        seconds=time.perf_counter() - start,
        n_pairs=scan.summary["n_pairs"],
        settled=scan.summary["settled"],
        listed_apart=apart,
        found=scan.found and plan_found,
        containment=scan.snapshot,
        retention=retention,
        unreadable=scan.unreadable,
    )


def table_name(snapshot: Snapshot) -> str:
    """The table's name as the user knows it; those of other writers are `foreign/<name>`."""
    return snapshot.table.removeprefix(PREFIX)


def _apart(summary: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Why tables are listed apart: as the scan saw, or because their evidence is under the settings' bound."""
    bound = min(settings.retention.min_evidence_bits, MAX_BITS)
    weak = {name: "low evidence" for name, bits in summary["bits"].items() if bits < bound}
    return dict(sorted((weak | summary["apart"]).items()))


def _foreign(lake: Lake, ours: Sequence[Snapshot], scheduler: Scheduler) -> Refreshed:
    """The registered tables of other writers; in edges they must not be taken for a table of ours."""
    with connect(scheduler) as workers:
        found = refreshed(lake, workers)
    names = {table_name(snapshot) for snapshot in ours}
    for table in found.tables:
        if FOREIGN + table.name in names:
            found = found.without(ForeignUnreadable(table.name, "the lake has a table of that name. Register it under another"))
    return found


# --- the scan ------------------------------------------------------------------------------------------------------------------


def _readable_scan(lake: Lake, settings: Settings, ours: tuple[Snapshot, ...], foreign: Refreshed, scheduler: Scheduler) -> _Scan:
    """The scan, once more without a table of another writer that was lost while it was read."""
    try:
        return _scan(lake, settings, ours, foreign, scheduler)
    except ForeignUnreadable as lost:
        return _readable_scan(lake, settings, ours, foreign.without(lost), scheduler)


def _scan(lake: Lake, settings: Settings, ours: tuple[Snapshot, ...], foreign: Refreshed, scheduler: Scheduler) -> _Scan:
    inputs = tuple(sorted((*ours, *(table.snapshot for table in foreign.tables))))
    unreadable = {FOREIGN + name: reason for name, reason in sorted(foreign.unreadable.items())}
    code = code_digest("tasks.dedup", "infra.rowhash", "infra.files", "infra.foreign")
    key = stage_key(TABLE, code, inputs, {})
    if (snapshot := lake.reuse(TABLE, key)) is not None:
        return _Scan(inputs, unreadable, _read_edges(lake, snapshot), snapshot, lake.lineage(snapshot).summary, None)
    facts = _all_facts(lake, inputs, foreign.tables)
    found = candidates(facts)
    hashes, ledger = _look(lake, settings, facts, found, scheduler)
    edges = edges_of(facts, found.groups, ledger)
    summary = _summary(facts, found, hashes, ledger)
    rows = _containment_rows(edges, {table_name(s): s.digest for s in inputs})
    snapshot = _commit(lake, TABLE, rows, Lineage(TABLE, key, code, inputs, {}, summary))
    return _Scan(inputs, unreadable, edges, snapshot, summary, _sizes(facts))


def _look(
    lake: Lake, settings: Settings, facts: Sequence[Facts], found: Candidates, scheduler: Scheduler
) -> tuple[Hashes, Ledger]:
    """Hash the tables that the log could not tell apart, and settle their pairs."""
    memory_bytes = settings.cluster.local_bytes
    with lake.scratch() as scratch, connect(scheduler) as workers:
        work = items(readings(facts, found, scratch, memory_bytes))
        hashes = gather(one for some in workers.map(hash_item, work, lake.keys.row) for one in some)
        return hashes, settle(workers, facts, found, hashes, memory_bytes)


def _all_facts(lake: Lake, snapshots: Sequence[Snapshot], foreign: Sequence[ForeignTable] = ()) -> list[Facts]:
    """What the logs say of all tables; opening a log is waiting, so several are opened at a time."""
    opened = {table.snapshot: table.parts for table in foreign}
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda s: _facts(s, opened[s] if s in opened else lake.parts(s) if s.n_rows else ()), snapshots))


def _sizes(facts: Sequence[Facts]) -> dict[str, int]:
    """The bytes of the lake's own tables: only they can be retired."""
    return {one.name: one.n_bytes for one in facts if one.snapshot.table.startswith(PREFIX)}


def _facts(snapshot: Snapshot, parts: Sequence[AnyPart]) -> Facts:
    """What the log says of a table.

    Columns whose names differ only in case cannot be told apart: such a table is not compared.
    """
    parts = tuple(parts)
    fields = [field for field in (parts[0].schema if parts else ()) if field.name.lower() != ROW_ID]
    kinds = {field.name.lower(): kind_of(field.type) for field in fields}
    if len(kinds) < len(fields):
        return Facts(table_name(snapshot), snapshot, parts, {}, {})
    return Facts(table_name(snapshot), snapshot, parts, {field.name.lower(): field.name for field in fields}, kinds)


def _summary(facts: Sequence[Facts], found: Candidates, hashes: Hashes, ledger: Ledger) -> dict[str, Any]:
    apart, bits = dict[str, str](), dict[str, float]()
    for representative, equals in found.groups.items():
        measured = hashes.bits.get(representative)
        for table in equals:
            one = facts[table]
            all_null = representative in hashes.all_null
            reason = why_apart(one.snapshot.n_rows, len(one.kinds), all_null=all_null)
            if reason is not None:
                apart[one.name] = reason
            elif measured is not None and measured < MAX_BITS:
                bits[one.name] = measured
    settled = found.settled | ledger.settled
    return {"n_pairs": found.n_pairs, "settled": settled, "bytes_read": hashes.n_bytes, "apart": apart, "bits": bits}


def _containment_rows(edges: Sequence[Edge], digests: Mapping[str, str]) -> pa.Table:
    rows = [{**asdict(e), "child_digest": digests[e.child], "parent_digest": digests[e.parent], "relation": "contained"} for e in edges]
    return pa.Table.from_pylist(rows, schema=CONTAINMENT)


def _read_edges(lake: Lake, snapshot: Snapshot) -> list[Edge]:
    names = list(Edge.__dataclass_fields__)
    edges = [Edge(**row) for row in lake.read(snapshot, names).to_pylist()]
    return sorted(edges, key=lambda edge: (edge.child, edge.parent))


# --- the plan ------------------------------------------------------------------------------------------------------------------


def _plan(
    lake: Lake, settings: Settings, inputs: tuple[Snapshot, ...], scan: _Scan, apart: Mapping[str, str]
) -> tuple[Snapshot, list[PlanRow], bool]:
    """The retention plan of the lake's own tables as a snapshot and as rows, and whether it was there already."""
    code = code_digest("tasks.dedup")
    params = settings.retention.model_dump()
    key = stage_key(PLAN, code, inputs, params)
    if (snapshot := lake.reuse(PLAN, key)) is not None:
        rows = [PlanRow(**{**row, "parents": tuple(row["parents"])}) for row in lake.read(snapshot).to_pylist()]
        return snapshot, sorted(rows, key=lambda row: row.table), True
    n_bytes = scan.n_bytes or _sizes(_all_facts(lake, inputs))
    edges = [(e.child, e.parent) for e in scan.edges if e.multiset and e.child in n_bytes and e.parent in n_bytes]
    plan = retention_plan(n_bytes, edges, apart, settings.retention)
    rows = pa.Table.from_pylist([asdict(row) for row in plan], schema=RETENTION)
    summary = {"n_retired": sum(bool(row.parents) for row in plan), "monthly_cost": sum(row.monthly_cost for row in plan)}
    return _commit(lake, PLAN, rows, Lineage(PLAN, key, code, (*inputs, scan.snapshot), params, summary)), plan, False


def _commit(lake: Lake, table: str, rows: pa.Table, lineage: Lineage) -> Snapshot:
    """Replace a table's rows in one commit."""
    files = [write_part(lake.folder(table), rows.to_batches(), rows.schema)] if rows.num_rows else []
    return lake.commit(table, rows.schema, files, lineage=lineage, overwrite=True)
