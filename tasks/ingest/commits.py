"""What a group of tables becomes in the lake: rejects first (replaced by source), then one commit a table, then the ledger.

The order makes a crash harmless: what was committed is found again by its sources, and written anew or left as it is. Another
writer's commit in between is met by planning again on what it left.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infra.cluster import Workers
from infra.contracts import MIXED, QUARANTINE, CommitConflict, DataFile, Lineage, Snapshot
from infra.files import quarantine_source, source_key
from infra.ids import key_of
from infra.lake import Lake, no_table
from infra.layout import table_schema
from infra.lineage import stage_key
from infra.settings import Settings
from infra.subjects import declared
from tasks.ingest import frames
from tasks.ingest.packs import Job
from tasks.ingest.passes import Site
from tasks.ingest.plan import Plan, Target, options_of
from tasks.ingest.sources import RawFile
from tasks.ingest.unique import key_rules

_LOG = logging.getLogger("lethe.ingest")
STAGE = "ingest"
_TRIES = 8


@dataclass(frozen=True)
class Run:
    """One run of the stage."""

    lake: Lake
    settings: Settings
    workers: Workers
    site: Site
    code: str

    def job(self, raw: RawFile) -> Job:
        return Job(raw, self.lake.folder(records(raw.table)), self.settings.table(raw.table))


def records(table: str) -> str:
    """The lake's name of a table of lethe.toml."""
    return f"records/{table}"


def _wait(attempt: int) -> None:
    """Full jitter, so that writers who met once do not meet again."""
    time.sleep(random.random() * min(4.0, 0.05 * 2**attempt))


# --- quarantine ---------------------------------------------------------------------------------------------------------------


def commit_quarantine(run: Run, files: Sequence[DataFile], sources: Collection[tuple[str, str]]) -> None:
    """Replace the rejects of every (table, uri) that was read again: the second of two equal runs changes nothing."""
    keys = {source_key(quarantine_source(table, uri)) for table, uri in sources}
    for attempt in range(_TRIES):
        base = run.lake.snapshot("quarantine") if run.lake.exists("quarantine") else no_table("quarantine")
        parts = run.lake.parts(base) if base.version >= 0 else []
        remove = [part.file for part in parts if part.file.source in keys]
        if not files and not remove:
            return
        key = key_of("quarantine", sorted(file.path for file in files))
        lineage = Lineage(STAGE, key, run.code, summary={"n_rows": sum(file.n_rows for file in files)})
        try:
            run.lake.commit("quarantine", QUARANTINE, files, lineage=lineage, remove=remove, expect=base)
        except CommitConflict:
            _wait(attempt)
            continue
        return
    raise CommitConflict(f"quarantine: {_TRIES} commits in a row met another writer. Run the command again")


# --- records ------------------------------------------------------------------------------------------------------------------


def commit_table(run: Run, plan: Plan, wanted: Target, add: Sequence[DataFile], contents: Mapping[str, str]) -> Snapshot:
    """One commit: new files in, the other rows of the same raw files out (`contents`: their digests by uri; empty for one that is
    pruned). Nothing, if the newest commit says that it was made already."""
    table, mark = records(plan.table), _mark(run, plan, contents)
    _LOG.info("%s: %d rows of %d files", plan.table, sum(file.n_rows for file in add), len(contents))
    for attempt in range(_TRIES):
        base = run.lake.snapshot(table) if run.lake.exists(table) else None
        if base is not None and not wanted.rewrite and (not contents or run.lake.lineage(base).summary.get("contents") == mark):
            return base
        try:
            return _commit(run, plan, wanted, base, {source_key(uri) for uri in contents}, mark, add)
        except CommitConflict:
            # The other writer's columns, or keys, are not in what was planned.
            if wanted.rewrite or key_rules(run.settings.table(plan.table)):
                raise
            _wait(attempt)
    raise CommitConflict(f"{plan.table}: {_TRIES} commits in a row met another writer. Run the command again")


def _mark(run: Run, plan: Plan, contents: Mapping[str, str]) -> str:
    """A digest of what a commit is made of: the contents of raw files, and how lethe.toml has them read."""
    section = run.settings.table(plan.table)
    subjects = [[subject.kind, subject.column] for subject in section.subjects]
    return key_of(sorted(contents.items()), options_of(section), subjects, sorted(run.site.suppressed))


def _commit(
    run: Run,
    plan: Plan,
    wanted: Target,
    base: Snapshot | None,
    sources: Collection[str],
    mark: str,
    add: Sequence[DataFile],
) -> Snapshot:
    table = records(plan.table)
    more, remove = exchanged(run, plan, wanted, base, sources)
    params = {"table": plan.table, "contents": mark, "base": base.digest if base else ""}
    summary = {"contents": mark, "n_files": len(sources)}
    key = stage_key(STAGE, run.code, (), params)
    by = [name for name in run.settings.table(plan.table).partition_by if name in wanted.schema.names]
    return run.lake.commit(
        table,
        table_schema(wanted.schema),
        [_partitioned(file, by) for file in (*add, *more)],
        lineage=Lineage(STAGE, key, run.code, params=_said(run, plan.table, wanted), summary=summary),
        remove=() if wanted.rewrite else remove,
        overwrite=wanted.rewrite,
        app_id=key_of(plan.table, -1 if base is None else base.version, mark),
        expect=base if base is not None else no_table(table),
        partition_by=by,
    )


def _partitioned(file: DataFile, by: Sequence[str]) -> DataFile:
    """A data file of a table that may lack some of the partition columns that lethe.toml names."""
    return replace(file, partition={name: value for name, value in file.partition.items() if name in by})


def exchanged(
    run: Run, plan: Plan, wanted: Target, base: Snapshot | None, sources: Collection[str]
) -> tuple[list[DataFile], list[DataFile]]:
    """The data files that stand for the rest of those to be removed, and those to be removed: whoever holds rows of these
    sources, and everybody where the types change."""
    parts = run.lake.parts(base) if base is not None and not wanted.whole else []
    remove = [part.file for part in parts if part.file.source in sources]
    others = [part for part in parts if part.file.source not in sources and (wanted.rewrite or part.file.source == MIXED)]
    job = run.job(RawFile(plan.table, "", 0, ""))
    items = [(job, part) for part in others]
    more = list[DataFile]()
    if wanted.rewrite:
        for files in run.workers.map(frames.recast, items, {plan.table: wanted}, sources, run.site):
            more += files
        return more, remove
    for part, files in zip(others, run.workers.map(frames.without, items, sources, run.site), strict=True):
        if files is not None:
            more += files
            remove.append(part.file)
    return more, remove


def _said(run: Run, table: str, wanted: Target) -> dict[str, Any]:
    """[kind, column] of a table's subjects: the log still tells when lethe.toml has the table no more."""
    return {"subjects": declared(wanted.schema, run.settings.table(table).subjects)}
