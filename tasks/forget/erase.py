"""Erasing subjects from the lake: plan, seal, rewrite copies first and originals last, then give up the history.

The plan is sealed before the first commit, and copies go before the rows they are found by. A run that is killed anywhere is run
again: what was committed is not found any more, and its figures come from the seal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from infra.cluster import Workers
from infra.contracts import DataFile, Lineage, Snapshot
from infra.ids import Digest, key_of
from infra.lake import Lake
from infra.settings import Settings
from tasks.forget.frames import rewrite_part
from tasks.forget.ledger import Request
from tasks.forget.locate import hidden_name, telling_names
from tasks.forget.plan import QUARANTINE_TABLE, RECORDS, Change, Ground, as_sealed, plan
from tasks.forget.seal import Entry, Seal, digest_of, load, no_rows, save

_NOT_DERIVED = (RECORDS, QUARANTINE_TABLE, "sources", "requests", "certificates")


@dataclass(frozen=True)
class TableErasure:
    """What one table lost. `how`: by its subject columns, as copies of such rows, by both, or by the text of rejected rows.

    `sources` are keyed names of raw files (`locate.hidden_name`); so is the name of a table that holds the id of a subject.
    """

    table: str
    how: str
    before: Snapshot
    after: Snapshot
    n_erased: int
    n_files: int
    sources: tuple[str, ...] = ()
    purge: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> TableErasure:
        before, after = Snapshot(**document["before"]), Snapshot(**document["after"])
        fields: dict[str, Any] = {**document, "before": before, "after": after, "sources": tuple(document["sources"])}
        return TableErasure(**fields)


@dataclass(frozen=True)
class Erasure:
    """The tables that lost rows, and when the rows were out of sight and out of the history (ISO 8601)."""

    tables: tuple[TableErasure, ...]
    hidden: str
    erased: str


def erase_subjects(
    lake: Lake, settings: Settings, requests: Sequence[Request], containment: Snapshot | None, workers: Workers
) -> Erasure:
    """Erase the subjects of the requests from every table, and the history of every table that could have held them.

    `containment` is the scan of the tables as they stand now, by which their copies are found.
    """
    ground = Ground(lake, settings, tokens_by_kind(requests), containment, workers)
    with lake.writing():
        ids = [request.request_id for request in requests]
        earlier = load(settings.private_dir / "requests", ids)
        finished = set(_finished(lake, [seal for seal in earlier if set(seal.requests) >= set(ids)]))
        changes = _as_planned(ground, [change for change in plan(ground) if change.entry.table not in finished], earlier)
        done = _committed_before(lake, earlier, changes)
        _seal(settings, ids, earlier, changes)
        tables = [*done, *(_commit(lake, change, ids, workers) for change in changes)]
        hidden = now()
        purged = _purge(ground, tables)
    telling = telling_names(purged, ground.sought, lake.keys)
    told = (replace(table, purge=purged[table.table]) for table in tables)
    return Erasure(tuple(_renamed(lake, t) if t.table in telling else t for t in told), hidden, now())


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def tokens_by_kind(requests: Sequence[Request]) -> dict[str, frozenset[str]]:
    """The tokens asked for, by kind of subject."""
    kinds = {request.kind for request in requests}
    return {kind: frozenset(r.subject for r in requests if r.kind == kind) for kind in sorted(kinds)}


# --- doing it -------------------------------------------------------------------------------------------------------------------


def _seal(settings: Settings, ids: Sequence[str], earlier: Sequence[Seal], changes: Sequence[Change]) -> None:
    """Seal the plan together with what an earlier, killed run of the same batch had sealed."""
    same = [seal for seal in earlier if set(seal.requests) == set(ids)]
    planned = {change.entry.table for change in changes}
    kept = [(entry, seal.of(entry.table)) for seal in same for entry in seal.entries if entry.table not in planned]
    entries = (*(entry for entry, _ in kept), *(change.entry for change in changes))
    rows = pa.concat_tables([no_rows(), *(rows for _, rows in kept), *(change.rows for change in changes)])
    save(settings.private_dir / "requests", Seal(tuple(ids), entries, rows))


def _committed_before(lake: Lake, earlier: Sequence[Seal], changes: Sequence[Change]) -> list[TableErasure]:
    """Tables that a killed run had sealed and committed: their rows are not found any more."""
    planned = {change.entry.table for change in changes}
    return [_from_seal(lake, seal, entry) for seal in earlier for entry in seal.entries if entry.table not in planned]


def _as_planned(ground: Ground, changes: Sequence[Change], earlier: Sequence[Seal]) -> list[Change]:
    """The changes of this run, and those of a killed one that it did not come to and that this run cannot find in full: what led
    to copies may have gone first, where two tables lead to each other."""
    planned = {change.entry.table: change for change in changes}
    for seal, entry in ((sealed, entry) for sealed in earlier for entry in sealed.entries):
        rows, now_planned = seal.of(entry.table), planned.get(entry.table)
        n_planned = now_planned.rows.num_rows if now_planned is not None else 0
        if n_planned < rows.num_rows and ground.lake.snapshot(entry.table).digest == entry.before.digest:
            planned[entry.table] = as_sealed(ground, entry, rows)
    return list(planned.values())


def _finished(lake: Lake, earlier: Sequence[Seal]) -> Iterator[str]:
    """Tables that stand exactly as a sealed plan leaves them. Of a row that others have too, looking again would take more."""
    for seal, entry in ((sealed, entry) for sealed in earlier for entry in sealed.entries):
        left = Digest.parse(entry.before.digest) - digest_of(seal.of(entry.table))
        if lake.exists(entry.table) and lake.snapshot(entry.table).digest == str(left) != entry.before.digest:
            yield entry.table


def _from_seal(lake: Lake, seal: Seal, entry: Entry) -> TableErasure:
    lost = digest_of(seal.of(entry.table))
    digest = Digest.parse(entry.before.digest) - lost
    after = Snapshot(entry.table, lake.snapshot(entry.table).version, str(digest), digest.n_rows)
    return TableErasure(entry.table, entry.how, entry.before, after, lost.n_rows, entry.n_files, entry.sources)


def _commit(lake: Lake, change: Change, ids: Sequence[str], workers: Workers) -> TableErasure:
    """Replace the files of one table by ones without the rows; the log names files and counts, no value."""
    entry, table = change.entry, change.entry.table
    files: list[DataFile | None] = workers.map(rewrite_part, change.jobs, lake.folder(table))
    key = key_of("erase", table, entry.before.digest, sorted(ids))
    # What ingest says of a table stays said: it may be all that tells whose rows they are.
    params = {**lake.lineage(entry.before).params, "requests": sorted(ids)}
    lineage = Lineage("erase", key, "", (entry.before,), params, {"n_erased": change.rows.num_rows})
    schema = lake.schema(entry.before)
    added, removed = [file for file in files if file is not None], [job.part.file for job in change.jobs]
    after = lake.commit(table, schema, added, remove=removed, lineage=lineage, expect=entry.before)
    return TableErasure(table, entry.how, entry.before, after, change.rows.num_rows, entry.n_files, entry.sources)


def _purge(ground: Ground, tables: Sequence[TableErasure]) -> dict[str, dict[str, Any]]:
    """Give up the history of every table that lost rows or has such subjects: an old version may hold them still."""
    names = {table.table for table in tables} | set(ground.subjects)
    if ground.lake.exists(QUARANTINE_TABLE):
        names.add(QUARANTINE_TABLE)
    return {report.table: asdict(report) for report in ground.lake.purge(sorted(names))}


def _renamed(lake: Lake, table: TableErasure) -> TableErasure:
    """As ledgers and certificates tell of a table that is named for a subject."""
    name = f"{table.table.split('/')[0]}/{hidden_name(table.table, lake.keys)}"
    before, after = replace(table.before, table=name), replace(table.after, table=name)
    return replace(table, table=name, before=before, after=after, purge={**(table.purge or {}), "table": name})


def purge_derived(lake: Lake) -> list[str]:
    """Give up the history of every table that stages derive (decisions, counts, containment); returns their names.

    Call it after they were written again: their current rows then know nothing of the erased, their old versions would.
    """
    names = [name for name in lake.tables() if not name.startswith(_NOT_DERIVED)]
    with lake.writing():
        lake.purge(names)
    return names
