"""The door of the ingest stage: raw files into `records/*`, `quarantine` and the `sources` ledger.

Rows in = rows in the table + rows in quarantine + rows suppressed. A file that the ledger knows is not read again; a changed file
replaces its own rows; a file that is gone keeps its rows. The order of the three writes makes a crash harmless: quarantine
(replaced by source), then one commit a table (found again by its lineage), then the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import QUARANTINE, DataFile, Lineage, Snapshot
from infra.discretion import discreet
from infra.files import quarantine_source, source_key
from infra.ids import key_of
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import Settings
from tasks.ingest import frames, ledger
from tasks.ingest.columns import is_unsettled, refuse_missing, refuse_nested
from tasks.ingest.frames import Job, Site, Survey, Written
from tasks.ingest.infer import Shapes, to_json
from tasks.ingest.ledger import Entry, Ledger
from tasks.ingest.plan import Plan, Target, batches, entry_of, fits, groups, plans, remembered, target
from tasks.ingest.rows import subject_index, table_schema
from tasks.ingest.sources import RawFile, SourceError, raw_files, why_empty

_LOG = logging.getLogger("lethe.ingest")
_STAGE = "ingest"
_COMMITTERS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class IngestedTable:
    """A table as ingest left it: all its rows, what its files lost to quarantine and suppression, how many files it stands on
    (gone ones included), the snapshot, whether nothing had to be read (`found`), and this table's share of the run's seconds."""

    name: str
    rows: int
    quarantined: int
    files: int
    version: int
    digest: str
    n_suppressed: int
    found: bool
    seconds: float


@dataclass(frozen=True)
class _Run:
    lake: Lake
    settings: Settings
    workers: Workers
    site: Site
    code: str


@task(name="ingest", persist_result=False)
@discreet
def ingest(
    settings: Settings, tables: tuple[str, ...] | None = None, *, scheduler: Scheduler = None, progress: Progress | None = None
) -> list[IngestedTable]:
    """Bring `records/<table>` up to date with the raw files of all tables and collections, or of those named.

    `progress(table, n_done, n)` is called after each table. Raises `SourceError` where a table has no file and never had one,
    `ColumnError` where a column that lethe.toml names is not there, or a subject's column is nested.
    """
    lake = Lake.open(settings)
    known = ledger.read(lake)
    planned = plans(raw_files(settings, tables), known)
    _refuse_empty(settings, planned)
    report = _Report(progress, len(planned))
    with connect(scheduler) as workers:
        run = _Run(lake, settings, workers, _site(lake), code_digest("tasks.ingest"))
        work = [plan for plan in planned if not _is_settled(run, plan)]
        for group in groups(work):
            started = time.monotonic()
            known = ledger.updated(known, _group(run, group, report))
            ledger.write(lake, known)
            report.took({plan.table: (time.monotonic() - started) / len(group) for plan in group})
    return _results(lake, planned, known, report)


class _Report:
    """How far the run is, and what each table took."""

    def __init__(self, progress: Progress | None, n: int) -> None:
        self.seconds = dict[str, float]()
        self.snapshots = dict[str, Snapshot]()
        self._progress = progress
        self._n = n
        self._n_done = 0

    def done(self, table: str, snapshot: Snapshot) -> None:
        self.snapshots[table] = snapshot
        self._n_done += 1
        if self._progress is not None:
            self._progress(table, self._n_done, self._n)

    def took(self, seconds: dict[str, float]) -> None:
        self.seconds.update(seconds)


def _records(table: str) -> str:
    return f"records/{table}"


def _site(lake: Lake) -> Site:
    """Where rejects go, and who asked to be erased: whatever the state of the request, these subjects do not come back."""
    tokens = frozenset[str]()
    if lake.exists("requests"):
        tokens = frozenset(t for t in lake.read(lake.snapshot("requests"), ["subject"]).column("subject").to_pylist() if t)
    return Site(lake.folder("quarantine"), lake.keys, tokens)


def _refuse_empty(settings: Settings, planned: Iterable[Plan]) -> None:
    for plan in planned:
        if not plan.files and not plan.entries:
            reasons = "; ".join(why_empty(settings.home, source) for source in settings.table(plan.table).source)
            raise SourceError(f"tables.{plan.table}: no file: {reasons}. Correct its source in lethe.toml")


def _is_settled(run: _Run, plan: Plan) -> bool:
    """Whether nothing has to be read for a table. What lethe.toml says of its columns may be news to it, though."""
    if plan.todo or not (plan.entries and run.lake.exists(_records(plan.table))):
        return False
    section = run.settings.table(plan.table)
    if section.subject is None and section.text is None:
        return True
    shapes = remembered(plan)
    if sum(entry.n_rows for entry in plan.entries.values()):
        refuse_missing(run.settings, plan.table, _names(run, plan.table, shapes))
    return not is_unsettled(run.settings, plan.table, shapes)


def _names(run: _Run, table: str, shapes: Mapping[str, Shapes]) -> list[str]:
    """A table's columns as its files name them; where those disagree on the case, as the table itself does."""
    names = list(dict.fromkeys(name for columns in shapes.values() for name in columns))
    if len({name.lower() for name in names}) == len(names):
        return names
    return [name for name in run.lake.schema(run.lake.snapshot(_records(table))).names if name != "row_id"]


def _job(run: _Run, raw: RawFile, known_digest: str | None = None) -> Job:
    table = run.settings.table(raw.table)
    return Job(raw, run.lake.folder(_records(raw.table)), table.subject, table.text, known_digest)


# --- one group of tables ------------------------------------------------------------------------------------------------------


def _group(run: _Run, group: Sequence[Plan], report: _Report) -> list[Entry]:
    """Ingest some tables; the ledger's new entries."""
    written, touched = _first_reading(run, group)
    targets = {plan.table: _target(run, plan, written[plan.table]) for plan in group}
    _read_the_others(run, group, targets, written)
    for plan in group:
        _refuse_columns(run, plan, targets[plan.table].schema, written[plan.table])
    _second_reading(run, targets, written)
    kept = _recast(run, [plan for plan in group if targets[plan.table].rewrite], targets)
    _commit_quarantine(run, [one for ones in written.values() for one in ones])
    _commit_all(run, group, targets, written, kept, report)
    return [*touched, *(_entry(one) for ones in written.values() for one in ones)]


def _first_reading(run: _Run, group: Sequence[Plan]) -> tuple[dict[str, list[Written]], list[Entry]]:
    """Files with new content, written with their own types, by table; and the entries of those that only look new."""
    entries = {(plan.table, uri): entry for plan in group for uri, entry in plan.entries.items()}
    digests = {key: entry.content_digest for key, entry in entries.items()}
    jobs = [_job(run, raw, digests.get((raw.table, raw.uri))) for plan in group for raw in plan.todo]
    written: dict[str, list[Written]] = {plan.table: [] for plan in group}
    touched = list[Entry]()
    for one in _read(run, jobs):
        if isinstance(one, Survey):
            entry = entries[one.raw.table, one.raw.uri]
            touched.append(replace(entry, n_bytes=one.raw.n_bytes, modified=one.raw.modified))
        else:
            written[one.survey.raw.table].append(one)
    return written, touched


def _read(run: _Run, jobs: Sequence[Job]) -> list[Written | Survey]:
    return [one for ones in run.workers.map(frames.read, batches(jobs), run.site) for one in ones]


def _target(run: _Run, plan: Plan, written: Sequence[Written]) -> Target:
    surveys = [one.survey for one in written]
    table = _records(plan.table)
    subject = run.settings.table(plan.table).subject
    column = subject.column if subject is not None else None
    if not plan.entries:
        return target(plan, surveys, None, column)
    if not run.lake.exists(table):
        return replace(target(plan, surveys, None, column), rewrite=True)
    schema = run.lake.schema(run.lake.snapshot(table))
    return target(plan, surveys, pa.schema([field for field in schema if field.name != "row_id"]), column)


def _read_the_others(run: _Run, group: Sequence[Plan], targets: dict[str, Target], written: dict[str, list[Written]]) -> None:
    """Where a column changes its type, the files that did not change are read again too."""
    jobs = list[Job]()
    for plan in group:
        if targets[plan.table].rewrite:
            done = {one.survey.raw for one in written[plan.table]}
            jobs += [_job(run, raw) for raw in plan.files if raw not in done]
    for one in _read(run, jobs):
        if isinstance(one, Written):
            written[one.survey.raw.table].append(one)


def _second_reading(run: _Run, targets: dict[str, Target], written: dict[str, list[Written]]) -> None:
    """Files whose own types are not those of their table are written again with the table's."""
    again = [
        one
        for table, ones in written.items()
        for one in ones
        if one.file is not None and not fits(one.schema, targets[table].schema)
    ]
    schemas = {one.survey.raw.table: targets[one.survey.raw.table].schema for one in again}
    shapes = {table: targets[table].known for table in schemas}
    items = [(_job(run, one.survey.raw), one.survey) for one in again]
    for old, new in zip(again, run.workers.map(frames.write, items, schemas, shapes, run.site), strict=True):
        table = old.survey.raw.table
        frames.discard(run.lake.folder(_records(table)), [old.file] if old.file is not None else [])
        frames.discard(run.site.quarantine, old.quarantine)
        written[table][written[table].index(old)] = new


def _recast(run: _Run, rewritten: Sequence[Plan], targets: dict[str, Target]) -> dict[str, list[DataFile]]:
    """New files of the rows whose raw files are gone, for tables whose types change."""
    items = list[tuple[Job, Any]]()
    for plan in rewritten:
        table = _records(plan.table)
        gone = {source_key(entry.uri): entry for entry in plan.vanished}
        parts = run.lake.parts(run.lake.snapshot(table)) if gone and run.lake.exists(table) else []
        for part in parts:
            if (entry := gone.get(part.file.source)) is not None:
                items.append((_job(run, RawFile(plan.table, entry.uri, entry.n_bytes, entry.modified)), part))
    schemas = {plan.table: targets[plan.table].schema for plan in rewritten}
    shapes = {plan.table: targets[plan.table].known for plan in rewritten}
    kept: dict[str, list[DataFile]] = {plan.table: [] for plan in rewritten}
    files = run.workers.map(frames.recast, items, schemas, shapes, run.site)
    for (job, _), file in zip(items, files, strict=True):
        if file is not None:
            kept[job.raw.table].append(file)
    return kept


def _refuse_columns(run: _Run, plan: Plan, schema: pa.Schema, written: Sequence[Written]) -> None:
    """Hold a table to the columns that lethe.toml names, once it has a row."""
    read = {one.survey.raw.uri for one in written}
    n_rows = sum(one.n_rows for one in written) + sum(e.n_rows for uri, e in plan.entries.items() if uri not in read)
    if n_rows:
        refuse_missing(run.settings, plan.table, schema.names)
        refuse_nested(plan.table, run.settings.table(plan.table).subject, schema)


def _entry(one: Written) -> Entry:
    return entry_of(one.survey, to_json(one.survey.shapes), one.n_rows, one.n_quarantined, one.n_suppressed)


# --- commits ----------------------------------------------------------------------------------------------------------------


def _commit_quarantine(run: _Run, written: Sequence[Written]) -> None:
    """Replace the rejects of every file that was read again: the second of two equal runs changes nothing."""
    add = [file for one in written for file in one.quarantine]
    sources = {source_key(quarantine_source(one.survey.raw.table, one.survey.raw.uri)) for one in written}
    remove = list[DataFile]()
    if run.lake.exists("quarantine"):
        remove = [part.file for part in run.lake.parts(run.lake.snapshot("quarantine")) if part.file.source in sources]
    if add or remove:
        key = key_of("quarantine", sorted(file.path for file in add))
        lineage = Lineage(_STAGE, key, run.code, summary={"n_rows": sum(file.n_rows for file in add)})
        run.lake.commit("quarantine", QUARANTINE, add, lineage=lineage, remove=remove)


def _commit_all(
    run: _Run,
    group: Sequence[Plan],
    targets: dict[str, Target],
    written: dict[str, list[Written]],
    kept: dict[str, list[DataFile]],
    report: _Report,
) -> None:
    def one(plan: Plan) -> Snapshot:
        return _commit(run, plan, targets[plan.table], written[plan.table], kept.get(plan.table, []))

    with ThreadPoolExecutor(_COMMITTERS) as pool:
        for plan, snapshot in zip(group, pool.map(one, group), strict=True):
            report.done(plan.table, snapshot)


def _commit(run: _Run, plan: Plan, wanted: Target, written: Sequence[Written], kept: Sequence[DataFile]) -> Snapshot:
    """One commit: new files in, the same sources' old files out. Nothing, if the newest commit says that it was made already."""
    table = _records(plan.table)
    contents = {one.survey.raw.uri: one.survey.content_digest for one in written}
    base = run.lake.snapshot(table) if run.lake.exists(table) else None
    if base is not None and not wanted.rewrite and (not contents or run.lake.lineage(base).summary.get("contents") == contents):
        return base
    overwrite = wanted.rewrite or not plan.entries
    add = [*(one.file for one in written if one.file is not None), *kept]
    sources = {source_key(uri) for uri in contents}
    parts = run.lake.parts(base) if base is not None and not overwrite else []
    remove = [part.file for part in parts if part.file.source in sources]
    params = {"table": plan.table, "contents": contents, "base": base.digest if base else ""}
    key = stage_key(_STAGE, run.code, (), params)
    said = {"subject": _declared(run, plan.table, wanted.schema)}
    lineage = Lineage(_STAGE, key, run.code, params=said, summary=_summary(contents, written))
    version = -1 if base is None else base.version
    app_id = key_of(plan.table, version, sorted(contents.items()))
    schema = table_schema(wanted.schema)
    _LOG.info("%s: %d rows from %d files", plan.table, sum(one.n_rows for one in written), len(written))
    return run.lake.commit(table, schema, add, lineage=lineage, remove=remove, overwrite=overwrite, app_id=app_id)


def _declared(run: _Run, table: str, schema: pa.Schema) -> list[str] | None:
    """[kind, column] of a table's subjects, None where it has none: the log still tells when lethe.toml has the table no more."""
    subject = run.settings.table(table).subject
    return [subject.kind, subject.column] if subject is not None and subject_index(schema, subject) is not None else None


def _summary(contents: dict[str, str], written: Sequence[Written]) -> dict[str, Any]:
    return {
        "contents": contents,
        "n_rows": sum(one.n_rows for one in written),
        "n_quarantined": sum(one.n_quarantined for one in written),
        "n_suppressed": sum(one.n_suppressed for one in written),
        "encodings": {one.survey.raw.uri: one.survey.encoding for one in written if one.survey.encoding != "utf-8"},
    }


# --- results ----------------------------------------------------------------------------------------------------------------


def _results(lake: Lake, planned: Sequence[Plan], known: Ledger, report: _Report) -> list[IngestedTable]:
    entries: dict[str, list[Entry]] = {plan.table: [] for plan in planned}
    for (table, _), entry in known.items():
        if table in entries:
            entries[table].append(entry)
    with ThreadPoolExecutor(_COMMITTERS) as pool:
        missing = [_records(plan.table) for plan in planned if plan.table not in report.snapshots]
        snapshots = {s.table: s for s in [*report.snapshots.values(), *pool.map(lake.snapshot, missing)]}
    return [_result(snapshots[_records(p.table)], entries[p.table], report.seconds.get(p.table)) for p in planned]


def _result(snapshot: Snapshot, entries: Sequence[Entry], seconds: float | None) -> IngestedTable:
    return IngestedTable(
        name=snapshot.table.removeprefix("records/"),
        rows=snapshot.n_rows,
        quarantined=sum(entry.n_quarantined for entry in entries),
        files=len(entries),
        version=snapshot.version,
        digest=snapshot.digest,
        n_suppressed=sum(entry.n_suppressed for entry in entries),
        found=seconds is None,
        seconds=seconds or 0.0,
    )
