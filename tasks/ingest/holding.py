"""Tables that no raw file may change: retired ones, those given up, and restored ones whose rows cannot be told apart by file.

Their unchanged files are nothing to do. New and changed ones are stopped, as files are whose columns do not fit: the ledger and
`lethe quarantine` say why, and the other tables go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from infra.contracts import Snapshot
from infra.ids import Digest
from infra.retired import Retired, why_absent
from tasks.ingest import readings
from tasks.ingest.commits import Run, commit_quarantine, records
from tasks.ingest.ledger import Entry
from tasks.ingest.plan import HELD, Plan, options_of


@dataclass(frozen=True)
class Held:
    """The tables that a run leaves alone, and the ledger's entries of their files."""

    tables: frozenset[str] = frozenset()
    entries: tuple[Entry, ...] = field(default_factory=tuple)


def snapshot_of(entry: Retired) -> Snapshot:
    """A retired table as a result tells of it: the rows that it had, under no version. One that was given up has none."""
    digest = Digest() if entry.is_given_up else Digest.parse(entry.digest)
    return Snapshot(records(entry.table), -1, str(digest), digest.n_rows)


def is_mixed(run: Run, base: Snapshot) -> bool:
    """Whether a table was restored without knowing which of its rows came from which of several raw files: where one of them
    changes, all are read again."""
    return run.lake.lineage(base).params.get("restored") == "mixed"


def hold(run: Run, planned: Sequence[Plan], absent: Mapping[str, Retired], *, prune: bool) -> Held:
    """Stop what is to be read of tables that must stay as they are."""
    held = [(plan, why) for plan in planned if (why := _why_held(run, plan, absent, prune=prune)) is not None]
    told = {plan.table: list(_stopped(run, plan, why)) for plan, why in held}
    stopped = {table: {entry.uri: entry.stopped for entry in entries if entry.stopped} for table, entries in told.items()}
    rejects = [file for table, files in stopped.items() for file in readings.quarantine_stopped(run, table, files)]
    if rejects:
        commit_quarantine(run, rejects, [(table, uri) for table, files in stopped.items() for uri in files])
    return Held(frozenset(told), tuple(entry for entries in told.values() for entry in entries))


def _why_held(run: Run, plan: Plan, absent: Mapping[str, Retired], *, prune: bool) -> str | None:
    if (entry := absent.get(plan.table)) is not None:
        return f"{'given up' if entry.is_given_up else 'retired'}: {why_absent(entry)}"
    if not (plan.todo or plan.doubtful) or not run.lake.exists(records(plan.table)):
        return None
    unread = [entry for entry in plan.entries.values() if entry.stopped and entry.n_rows and not entry.stopped.startswith(HELD)]
    lost = [*(entry for entry in plan.vanished if not prune), *unread]
    if not lost or not is_mixed(run, run.lake.snapshot(records(plan.table))):
        return None
    return (
        f"restored: nobody knows any more which rows of {plan.table} came from {len(lost)} files that are gone or stopped. "
        "Take them out: lethe ingest --prune"
    )


def _stopped(run: Run, plan: Plan, why: str) -> Iterator[Entry]:
    """The ledger's entries of files that are new or changed, and of those that only looked so."""
    doubtful = {raw: plan.entries[raw.uri].content_digest for raw in plan.doubtful if not plan.entries[raw.uri].stopped}
    same = readings.unchanged(run, doubtful)
    yield from (replace(plan.entries[raw.uri], n_bytes=raw.n_bytes, modified=raw.modified) for raw in sorted(same))
    options = options_of(run.settings.table(plan.table))
    for raw in (raw for raw in (*plan.todo, *plan.doubtful) if raw not in same):
        old = plan.entries.get(raw.uri) or Entry(plan.table, raw.uri, 0, "", "", "{}", 0, 0, 0)
        fresh = replace(old, n_bytes=raw.n_bytes, modified=raw.modified, n_quarantined=1, options=options, stopped=why)
        if fresh != old:
            yield fresh
