"""The driver's side of `unique` and primary keys: new rows that break one go to quarantine before the commit."""

from __future__ import annotations

from collections.abc import Sequence

from infra.contracts import DataFile
from infra.files import Part, source_key
from infra.layout import table_schema
from tasks.ingest import frames, unique
from tasks.ingest.commits import Run, exchanged, records
from tasks.ingest.frames import Written
from tasks.ingest.plan import Plan, Target


def enforced(run: Run, plan: Plan, wanted: Target, written: Sequence[Written], gone: Sequence[str]) -> list[Written]:
    """What was written of a table, without the rows that break a key. Files have the table's types by now; `gone` are the uris of
    files that leave in the same commit."""
    rules = unique.key_rules(run.settings.table(plan.table))
    if not rules:
        return list(written)
    sources = {source_key(uri) for uri in (*gone, *(reading.raw.uri for one in written for reading in one.readings))}
    base = run.lake.snapshot(records(plan.table)) if run.lake.exists(records(plan.table)) else None
    more, replaced = exchanged(run, plan, wanted, base, sources)
    stays = [] if base is None or wanted.rewrite else [part for part in run.lake.parts(base) if part.file not in replaced]
    new = _parts(run, plan.table, wanted, [file for one in written for file in one.files])
    with run.lake.scratch() as scratch:
        old = [*stays, *_parts(run, plan.table, wanted, more)]
        losers = unique.enforce(new, old, rules, run.workers.map, scratch, run.lake.keys.row)
    frames.discard(run.lake.folder(records(plan.table)), more)  # the commit makes them again, on what is there then
    return _taken_out(run, written, losers, rules)


def _parts(run: Run, table: str, wanted: Target, files: Sequence[DataFile]) -> list[Part]:
    folder, schema = run.lake.folder(records(table)).uri, table_schema(wanted.schema)
    return [Part(f"{folder}/{file.path}", file, schema) for file in files]


def _taken_out(
    run: Run, written: Sequence[Written], losers: dict[str, unique.Losers], rules: Sequence[unique.KeyRule]
) -> list[Written]:
    touched = [one for one in written if any(file.path in losers for file in one.files)]
    items = [(one, {file.path: losers[file.path] for file in one.files if file.path in losers}) for one in touched]
    clean = run.workers.map(frames.without_losers, items, rules, run.site)
    for one, lost in items:
        frames.discard(one.pack.jobs[0].folder, [file for file in one.files if file.path in lost])
    return [*(one for one in written if one not in touched), *clean]
