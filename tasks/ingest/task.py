"""The door of the ingest stage: raw files into `records/*`, `quarantine` and the `sources` ledger.

Rows in = rows in the table + rows in quarantine + rows suppressed. A file that the ledger knows is not read again; a changed file
replaces its own rows; a file that is gone keeps its rows, unless the run prunes; a file whose columns do not fit is stopped and
says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, connect
from infra.contracts import DataFile, LetheError, Snapshot
from infra.discretion import discreet
from infra.lake import Lake
from infra.lineage import code_digest
from infra.retired import absent
from infra.settings import ConfigError, Settings
from tasks.ingest import frames, holding, keys, ledger, readings
from tasks.ingest.columns import is_unsettled, refuse_missing
from tasks.ingest.commits import Run, commit_quarantine, commit_table, records
from tasks.ingest.contract import refuse_unruly
from tasks.ingest.dialect import refuse_options
from tasks.ingest.forced import kinds_of
from tasks.ingest.frames import Written
from tasks.ingest.infer import Shapes, columns_of, from_json, join_all, schema_of, to_json
from tasks.ingest.ledger import Entry, Ledger
from tasks.ingest.passes import Reading, Site
from tasks.ingest.plan import ADOPTED, Plan, Target, fits, groups, options_of, plans, remembered, target
from tasks.ingest.sources import RawFile, SourceError, raw_files, why_empty

_COMMITTERS = 4
_UNKNOWN = -1  # the size of a file that no listing finds

Progress = Callable[[str, int, int], None]


class QuarantineLimit(LetheError):
    """A table lost more rows to quarantine than its `max_quarantine_fraction` allows; nothing of it was committed."""


@dataclass(frozen=True)
class IngestedTable:
    """A table as ingest left it: all its rows, what its files lost to quarantine and suppression, how many files it stands on
    (gone ones included), the snapshot, whether nothing had to be read (`found`), and this table's share of the run's seconds.

    `n_stopped` files were not taken in, `n_vanished` are no longer there (their rows are).
    """

    name: str
    rows: int
    quarantined: int
    files: int
    version: int
    digest: str
    n_suppressed: int
    found: bool
    seconds: float
    n_stopped: int = 0
    n_vanished: int = 0


@task(name="ingest", persist_result=False)
@discreet
def ingest(
    settings: Settings,
    tables: tuple[str, ...] | None = None,
    *,
    prune: bool = False,
    anew: Collection[str] = (),
    scheduler: Scheduler = None,
    progress: Progress | None = None,
) -> list[IngestedTable]:
    """Bring `records/<table>` up to date with the raw files of all tables and collections, or of those named. `prune` takes the
    rows of files that are gone out of tables that still have files. Tables that were given up stay so, but for those to be taken
    in `anew`.

    `progress(table, n_done, n)` is called after each table. Raises `SourceError` where a table has no file and never had one,
    `ColumnError` where a column that lethe.toml names is not there or a subject's column is nested, and, when all other tables
    are done, `QuarantineLimit`.
    """
    lake = Lake.open(settings)
    known = ledger.read(lake)
    listing = raw_files(settings, tables)
    _refuse_options(settings, listing)
    gone = absent(lake, anew=anew)
    planned = plans(listing, known, {name: options_of(settings.table(name)) for name in listing}, gone)
    _refuse_empty(settings, planned, prune=prune)
    report = _Report(progress, len(planned))
    with connect(scheduler) as workers:
        site = Site(lake.folder("quarantine"), lake.keys, ledger.suppressed(lake))
        run = Run(lake, settings, workers, site, code_digest("tasks.ingest"))
        held = holding.hold(run, planned, gone, prune=prune)
        for plan in (plan for plan in planned if plan.table in gone):
            report.done(plan.table, holding.snapshot_of(gone[plan.table]))
        known = ledger.merge(lake, held.entries) if held.entries else known
        work = [plan for plan in planned if plan.table not in held.tables and not _is_settled(run, plan, prune=prune)]
        for group in groups(work):
            started = time.monotonic()
            entries, gone = _group(run, group, report, prune=prune)
            known = ledger.merge(lake, entries, gone)
            report.took({plan.table: (time.monotonic() - started) / len(group) for plan in group})
    report.raise_failures()
    return _results(lake, planned, known, report)


class _Report:
    """How far the run is, what each table took, and which tables failed."""

    def __init__(self, progress: Progress | None, n: int) -> None:
        self.seconds = dict[str, float]()
        self.snapshots = dict[str, Snapshot]()
        self.failures = list[str]()
        self._progress = progress
        self._n = n
        self._n_done = 0

    def done(self, table: str, snapshot: Snapshot) -> None:
        self.snapshots[table] = snapshot
        self.skipped(table)

    def skipped(self, table: str) -> None:
        """Count a table, whatever became of it."""
        self._n_done += 1
        if self._progress is not None:
            self._progress(table, self._n_done, self._n)

    def took(self, seconds: dict[str, float]) -> None:
        self.seconds.update(seconds)

    def raise_failures(self) -> None:
        if self.failures:
            raise QuarantineLimit("; ".join(self.failures))


def _refuse_options(settings: Settings, tables: Iterable[str]) -> None:
    """Options of readers that cannot be meant are refused before anything is read, under the heading where they stand."""
    for section, table in {settings.section(name): settings.table(name) for name in tables}.items():
        try:
            kinds_of(table.types)
            refuse_options(table)
        except ConfigError as error:
            raise ConfigError(f"lethe.toml: {section}: {error}") from None


def _refuse_empty(settings: Settings, planned: Iterable[Plan], *, prune: bool) -> None:
    for plan in planned:
        if plan.files or (plan.entries and not (prune and plan.vanished)):
            continue
        adopted = [source for source in settings.table(plan.table).source if source.startswith(ADOPTED)]
        if adopted:
            raise SourceError(f"tables.{plan.table}: its source is another writer's table. Run: lethe adopt {plan.table}")
        reasons = "; ".join(why_empty(settings.home, source) for source in settings.table(plan.table).source)
        if not plan.entries:
            raise SourceError(f"tables.{plan.table}: no file: {reasons}. Correct its source in lethe.toml")
        raise SourceError(f"tables.{plan.table}: --prune would take all its rows, for no file is there: {reasons}")


def _is_settled(run: Run, plan: Plan, *, prune: bool) -> bool:
    """Whether nothing has to be read for a table. What lethe.toml says of its columns may be news to it, though."""
    if plan.todo or plan.doubtful or (prune and plan.vanished):
        return False
    if not (plan.entries and run.lake.exists(records(plan.table))):
        return False
    section = run.settings.table(plan.table)
    if not section.subjects and section.text is None:
        return True
    shapes = remembered(plan)
    if sum(entry.n_rows for entry in plan.entries.values()):
        refuse_missing(run.settings, plan.table, _schema(run, plan.table, shapes))
    return not is_unsettled(section, shapes)


def _schema(run: Run, table: str, shapes: Mapping[str, Shapes]) -> pa.Schema:
    """A table's columns as its files name them; where those disagree on the case, as the table itself does."""
    columns = columns_of(shapes.values())
    if {name for one in shapes.values() for name in one} == {name for name, _ in columns}:
        return schema_of(columns)
    return run.lake.schema(run.lake.snapshot(records(table)))


# --- one group of tables ------------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """A group of tables under way, by table: what was written, one reading a raw file, what each table will look like, and the
    quarantine files of what was stopped."""

    written: dict[str, list[Written]]
    readings: dict[str, dict[str, Reading]]
    targets: dict[str, Target] = field(default_factory=dict[str, Target])
    stopped: dict[str, list[DataFile]] = field(default_factory=dict[str, list[DataFile]])

    def take(self, more: Iterable[Written]) -> None:
        """Add what was just written."""
        for one in more:
            self.written[one.pack.table].append(one)
        for table, ones in self.written.items():
            self.put(table, ones)

    def put(self, table: str, written: list[Written]) -> None:
        """Have this in place of what was written of a table."""
        self.written[table] = written
        self.readings[table] = readings.by_file(written)


def _group(run: Run, group: Sequence[Plan], report: _Report, *, prune: bool) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Ingest some tables; the ledger's new entries, and the (table, uri) of those that go."""
    doubtful = {raw: plan.entries[raw.uri].content_digest for plan in group for raw in plan.doubtful}
    same = readings.unchanged(run, doubtful)
    work = _Work({plan.table: [] for plan in group}, {plan.table: {} for plan in group})
    work.take(readings.read(run, [raw for plan in group for raw in (*plan.todo, *plan.doubtful) if raw not in same]))
    work.targets = {plan.table: _target(run, plan, work, prune=prune) for plan in group}
    _read_the_others(run, group, work)
    _stop(run, work)
    for plan in group:
        _refuse_columns(run, plan, work.targets[plan.table].schema, work)
    _second_reading(run, work)
    for plan in group:
        gone = [entry.uri for entry in plan.vanished if prune]
        work.put(plan.table, keys.enforced(run, plan, work.targets[plan.table], work.written[plan.table], gone))
    kept = [plan for plan in group if not _fails(run, plan, work, report)]
    pruned = [(plan.table, entry.uri) for plan in kept if prune for entry in plan.vanished]
    doubts = [entry for plan in kept for entry in _doubts(run, plan, work, prune=prune)]
    ledger.merge(run.lake, doubts)
    try:
        _commit_all(run, kept, work, pruned, report)
    except LetheError:  # another writer may have settled what is in doubt again
        ledger.merge(run.lake, doubts)
        raise
    touched = [_touched(plan.entries[raw.uri], raw) for plan in group for raw in plan.doubtful if raw in same]
    return [*touched, *(entry for plan in kept for entry in _entries(run, plan, work))], pruned


def _touched(entry: Entry, raw: RawFile) -> Entry:
    """The entry of a file that only looked changed."""
    return replace(entry, n_bytes=raw.n_bytes, modified=raw.modified)


def _target(run: Run, plan: Plan, work: _Work, *, prune: bool) -> Target:
    if prune:
        gone = {entry.uri for entry in plan.vanished}
        plan = replace(plan, entries={uri: entry for uri, entry in plan.entries.items() if uri not in gone})
    found = list(work.readings[plan.table].values())
    section, table = run.settings.table(plan.table), records(plan.table)
    if not run.lake.exists(table):
        wanted = target(plan, found, None, section, run.settings.section(plan.table))
        return replace(wanted, rewrite=bool(plan.entries))
    base = run.lake.snapshot(table)
    schema = run.lake.schema(base)
    user = pa.schema([f for f in schema if f.name != "row_id"])
    wanted = target(plan, found, user, section, run.settings.section(plan.table))
    moved = bool(found) and run.lake.partitioning(base) != section.partition_by
    mixed = bool(found) and holding.is_mixed(run, base)
    return replace(wanted, rewrite=wanted.rewrite or moved or mixed, whole=mixed)


def _read_the_others(run: Run, group: Sequence[Plan], work: _Work) -> None:
    """Where a column changes its type, the files that did not change are read again too; not those that are stopped."""
    others = [
        raw
        for plan in group
        if work.targets[plan.table].rewrite
        for raw in plan.files
        if raw.uri not in work.readings[plan.table] and not (raw.uri in plan.entries and plan.entries[raw.uri].stopped)
    ]
    work.take(readings.read(run, others))


def _stop(run: Run, work: _Work) -> None:
    """Take the files that do not fit their tables out of what was written, and say why in quarantine."""
    for table, wanted in work.targets.items():
        if wanted.stopped:
            again, kept = readings.without_stopped(run, work.written[table], wanted)
            work.written[table] = kept
            _write_again(run, work, again)
            work.stopped[table] = readings.quarantine_stopped(run, table, wanted.stopped)


def _second_reading(run: Run, work: _Work) -> None:
    """Packs whose own types are not those of their table are written again with the table's."""
    again = [one for table, ones in work.written.items() for one in ones if not fits(one.schema, work.targets[table].schema)]
    for old in again:
        readings.discard(run, old)
        work.written[old.pack.table].remove(old)
    _write_again(run, work, again)


def _write_again(run: Run, work: _Work, packs: Sequence[Written]) -> None:
    """Write packs with their tables' types; the lines of segments are counted over their files."""
    fresh = run.workers.map(frames.write, packs, work.targets, run.site)
    work.take(readings.relined(run, fresh, [*fresh, *(one for ones in work.written.values() for one in ones)]))


def _refuse_columns(run: Run, plan: Plan, schema: pa.Schema, work: _Work) -> None:
    """Hold a table to the columns that lethe.toml names, once it has a row."""
    section, read = run.settings.table(plan.table), work.readings[plan.table]
    n_read = sum(one.n_rows + one.n_quarantined for one in read.values())
    if schema.names and (n_read or any(e.n_rows for uri, e in plan.entries.items() if uri not in read)):
        refuse_missing(run.settings, plan.table, schema)
        refuse_unruly(plan.table, section, schema)


def _fails(run: Run, plan: Plan, work: _Work, report: _Report) -> bool:
    """Whether a table lost too many rows to be committed; then nothing of it stays."""
    found = work.readings[plan.table].values()
    n_bad, n_good = sum(one.n_quarantined for one in found), sum(one.n_rows for one in found)
    limit = run.settings.table(plan.table).max_quarantine_fraction
    if n_bad <= limit * (n_bad + n_good):
        return False
    for one in work.written[plan.table]:
        readings.discard(run, one)
    frames.discard(run.site.quarantine, work.stopped.get(plan.table, []))
    report.skipped(plan.table)
    report.failures.append(
        f"table {plan.table}: {n_bad} of {n_bad + n_good} rows would go to quarantine, more than max_quarantine_fraction = "
        f"{limit}; nothing of it was committed. Correct its files, its contract or the limit in lethe.toml"
    )
    return True


def _commit_all(run: Run, group: Sequence[Plan], work: _Work, pruned: Sequence[tuple[str, str]], report: _Report) -> None:
    tables = {plan.table for plan in group}
    rejects = [file for table in tables for one in work.written[table] for file in one.quarantine]
    rejects += [file for table in tables for file in work.stopped.get(table, [])]
    sources = {(table, uri) for table in tables for uri in (*work.readings[table], *work.targets[table].stopped)}
    commit_quarantine(run, rejects, {*sources, *pruned})

    def one(plan: Plan) -> Snapshot:
        contents = {uri: reading.content_digest for uri, reading in work.readings[plan.table].items()}
        contents |= {uri: "" for table, uri in pruned if table == plan.table}
        files = [file for one in work.written[plan.table] for file in one.files]
        return commit_table(run, plan, work.targets[plan.table], files, contents)

    with ThreadPoolExecutor(_COMMITTERS) as pool:
        for plan, snapshot in zip(group, pool.map(one, group), strict=True):
            report.done(plan.table, snapshot)


def _doubts(run: Run, plan: Plan, work: _Work, *, prune: bool) -> list[Entry]:
    """What the ledger says of files while they are committed: nobody knows yet with which content they are in the table. A run
    that is killed now leaves entries that no file matches, so that the next one reads the files again, whatever they are then."""
    read = {entry.uri: entry for entry in _entries(run, plan, work)}
    met = [_either(plan.entries[uri], entry) if uri in plan.entries else entry for uri, entry in read.items()]
    gone = plan.vanished if prune else []
    return [replace(entry, n_bytes=_UNKNOWN, content_digest="") for entry in (*met, *gone)]


def _either(old: Entry, new: Entry) -> Entry:
    """A file that has one content or the other, with the columns of both."""
    return replace(old, columns=to_json(join_all([from_json(old.columns), from_json(new.columns)])))


def _entries(run: Run, plan: Plan, work: _Work) -> list[Entry]:
    """The ledger's entries of the files that were read."""
    options = options_of(run.settings.table(plan.table))
    made = [_entry(reading, options) for reading in work.readings[plan.table].values()]
    for uri, why in work.targets[plan.table].stopped.items():
        raw = next(raw for raw in plan.files if raw.uri == uri)
        old = plan.entries.get(uri) or Entry(plan.table, uri, 0, "", "", "{}", 0, 0, 0)
        made.append(replace(old, n_bytes=raw.n_bytes, modified=raw.modified, n_quarantined=1, options=options, stopped=why))
    return made


def _entry(reading: Reading, options: str) -> Entry:
    raw = reading.raw
    return Entry(
        raw.table,
        raw.uri,
        raw.n_bytes,
        raw.modified,
        reading.content_digest,
        to_json(reading.shapes),
        reading.n_rows,
        reading.n_quarantined,
        reading.n_suppressed,
        reading.dialect,
        options,
    )


# --- results ----------------------------------------------------------------------------------------------------------------


def _results(lake: Lake, planned: Sequence[Plan], known: Ledger, report: _Report) -> list[IngestedTable]:
    entries: dict[str, list[Entry]] = {plan.table: [] for plan in planned}
    for (table, _), entry in known.items():
        if table in entries:
            entries[table].append(entry)
    with ThreadPoolExecutor(_COMMITTERS) as pool:
        missing = [records(plan.table) for plan in planned if plan.table not in report.snapshots]
        snapshots = {s.table: s for s in [*report.snapshots.values(), *pool.map(lake.snapshot, missing)]}
    return [_result(p, snapshots[records(p.table)], entries[p.table], report.seconds.get(p.table)) for p in planned]


def _result(plan: Plan, snapshot: Snapshot, entries: Sequence[Entry], seconds: float | None) -> IngestedTable:
    listed = {raw.uri for raw in plan.files}
    return IngestedTable(
        name=plan.table,
        rows=snapshot.n_rows,
        quarantined=sum(entry.n_quarantined for entry in entries),
        files=len(entries),
        version=snapshot.version,
        digest=snapshot.digest,
        n_suppressed=sum(entry.n_suppressed for entry in entries),
        found=seconds is None,
        seconds=seconds or 0.0,
        n_stopped=sum(bool(entry.stopped) for entry in entries),
        n_vanished=sum(entry.uri not in listed and not entry.uri.startswith(ADOPTED) for entry in entries),
    )
