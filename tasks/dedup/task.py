"""The door of dedup: which tables of the lake are contained in others, and which of them need not be stored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, connect
from infra.contracts import RETENTION, Lineage, Snapshot
from infra.discretion import discreet
from infra.foreign import PREFIX as FOREIGN
from infra.foreign import ForeignUnreadable, Refreshed, refreshed
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import Settings
from tasks.dedup.access_logs import logged_accesses
from tasks.dedup.containment import RECORDS, Scan, all_facts, commit, sizes, table_name
from tasks.dedup.containment import scan as run_scan
from tasks.dedup.edges import Cover, Edge, Rename
from tasks.dedup.evidence import MAX_BITS
from tasks.dedup.retention import Plan, PlanRow, plan_from, retention_plan
from tasks.dedup.savings import Savings

PLAN = "retention"
_PLAN_MODULES = ("access", "access_logs", "edges", "options", "prices", "retention", "savings", "sources", "task")
_PLAN_CODE = (*(f"tasks.dedup.{name}" for name in _PLAN_MODULES), "infra.price_book")


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
    savings: Savings
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
    evidence: dict[str, float] = field(default_factory=dict[str, float])


@task(name="dedup", persist_result=False)
@discreet
def dedup(
    settings: Settings,
    snapshots: tuple[Snapshot, ...],
    *,
    scheduler: Scheduler = None,
    needed: Mapping[str, str] | None = None,
) -> DedupResult:
    """Find every table whose rows are all in another one, and plan which tables to retire.

    The registered tables of other writers are compared as well, at their newest versions. They are nobody's to retire here, nor
    a source to rebuild from: their writers may change them at any time. One that cannot be read is left out and named.

    `needed` are tables that the plan must keep, each with the reason, beside those that [readers] name.

    Writes `containment` and `retention`, one commit each; both are found again while the tables' digests, the code and, for
    the plan, the price book stay the same. A scan that moves neither is free of data reads.
    """
    start = time.perf_counter()
    lake = Lake.open(settings)
    inputs = tuple(sorted(snapshots))
    foreign = _foreign(lake, inputs, scheduler)
    scan = run_scan(lake, settings, inputs, foreign, scheduler)
    apart = _apart(scan.summary, settings)
    retention, plan, plan_found = _plan(lake, settings, inputs, scan, apart, _needed(settings, inputs, needed))
    return DedupResult(
        n_tables=len(scan.inputs),
        edges=tuple(scan.found.edges),
        plan=plan.rows,
        savings=plan.savings,
        bytes_read=0 if scan.is_found else scan.summary["bytes_read"],
        seconds=time.perf_counter() - start,
        n_pairs=scan.summary["n_pairs"],
        settled=scan.summary["settled"],
        listed_apart=apart,
        found=scan.is_found and plan_found,
        containment=scan.snapshot,
        retention=retention,
        unreadable=scan.unreadable,
        near=scan.found.near,
        covers=scan.found.covers,
        renames=scan.found.renames,
        evidence=scan.summary["bits"],
    )


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


# --- the plan ------------------------------------------------------------------------------------------------------------------


def _plan(
    lake: Lake,
    settings: Settings,
    inputs: tuple[Snapshot, ...],
    scan: Scan,
    apart: Mapping[str, str],
    needed: Mapping[str, str],
) -> tuple[Snapshot, Plan, bool]:
    """The retention plan of the lake's own tables as a snapshot and as rows, and whether it was there already."""
    ours = [table_name(snapshot) for snapshot in inputs if snapshot.table.startswith(RECORDS)]
    logged, gb_s = logged_accesses(settings, ours), scan.summary["gb_s"]
    params = {
        "prices": settings.retention.model_dump(),
        "dedup": settings.dedup.model_dump(),
        "needed": dict(needed),
        "logged": asdict(logged),
        "gb_s": gb_s,
    }
    code = code_digest(*_PLAN_CODE)
    key = stage_key(PLAN, code, inputs, params)
    if (snapshot := lake.reuse(PLAN, key)) is not None:
        return snapshot, plan_from(lake.read(snapshot).to_pylist(), lake.lineage(snapshot).summary), True
    plan = retention_plan(
        scan.n_bytes or sizes(all_facts(lake, inputs)),
        {table_name(snapshot): snapshot.n_rows for snapshot in inputs},
        (*scan.found.edges, *scan.found.near),
        scan.found.covers,
        apart,
        settings.retention,
        renames=scan.found.renames,
        logged=logged,
        needed=needed,
        bits=scan.summary["bits"],
        measured_gb_s=gb_s,
    )
    rows = pa.Table.from_pylist([vars(row) for row in plan.rows], schema=RETENTION)
    lineage = Lineage(PLAN, key, code, (*inputs, scan.snapshot), params, asdict(plan.savings))
    return commit(lake, PLAN, rows, lineage), plan, False


def _needed(settings: Settings, inputs: Sequence[Snapshot], needed: Mapping[str, str] | None) -> dict[str, str]:
    """Tables that must be kept: those that readers outside name, and what the caller knows."""
    names = [table_name(snapshot) for snapshot in inputs]
    read = {
        table: f"needed by reader {name}"
        for name, reader in settings.readers.items()
        for table in names
        if any(fnmatchcase(table, pattern) for pattern in reader.tables)
    }
    return {**(needed or {}), **read}
