"""Tables of other writers: onto the lake's list, or taken over as records. Their data are never written to.

What is taken over becomes a table of records like any other: row ids, order by subject, no rows of erased subjects, rejects in
quarantine. Rows in = rows in the table + rows in quarantine + rows suppressed. The ledger knows the origin as `delta+<uri>`, the
`source` that lethe.toml may name for such a table.

The order of the writes makes a crash harmless: quarantine (replaced by source), the records in one commit (found again by its
parameters), the ledger, and last the list of tables. Run it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import DataFile, LetheError, Lineage, Snapshot
from infra.discretion import discreet
from infra.foreign import (
    PREFIX,
    ForeignPart,
    ForeignTable,
    ForeignUnreadable,
    Registered,
    forget_registration,
    open_foreign,
    read_foreign,
    registered,
)
from infra.foreign import register as enter
from infra.ids import Digest, key_of
from infra.lake import Lake, no_table
from infra.layout import table_schema
from infra.lineage import code_digest, stage_key
from infra.retired import retired, why_retired
from infra.rowhash import row_hashes
from infra.settings import Settings, TableSettings, resolve
from infra.settings_check import NAME
from infra.subjects import declared, missing
from tasks.ingest import contract, ledger, readers_parquet, rows
from tasks.ingest.blocks import Reject
from tasks.ingest.columns import ColumnError
from tasks.ingest.commits import Run, commit_quarantine, records
from tasks.ingest.infer import to_json, type_shape
from tasks.ingest.ledger import Entry
from tasks.ingest.packs import Job
from tasks.ingest.parts import data_files
from tasks.ingest.passes import Sink, Site
from tasks.ingest.plan import ADOPTED
from tasks.ingest.sources import RawFile
from tasks.ingest.unique import key_rules

_LOG = logging.getLogger("lethe.ingest")
STAGE = "adopt"
_CALL_BYTES = 128 << 20


class NameTaken(LetheError):
    """A name that is to be given to a table belongs to another one, or is none."""


class ContractBroken(LetheError):
    """What lethe.toml demands of a table's rows does not hold of another writer's, or is not looked at here."""


class NotRegistered(LetheError):
    """A table of another writer that the lake's list does not have."""


@dataclass(frozen=True)
class Adopted:
    """A table that was taken over, and where its rows went. `outside` is the copy that is left as it was, beyond Lethe's reach.

    `found`: it had been taken over before, and nothing was read.
    """

    table: str
    outside: str
    source_version: int
    source_digest: str
    n_source_rows: int
    n_rows: int
    n_quarantined: int
    n_suppressed: int
    subjects: tuple[str, ...]
    version: int
    digest: str
    found: bool
    seconds: float


# --- the lake's list ----------------------------------------------------------------------------------------------------------


@task(name="register", persist_result=False)
@discreet
def register(settings: Settings, name: str, uri: str, *, scheduler: Scheduler = None) -> Registered:
    """Put the Delta table of another writer on the lake's list as `foreign/<name>`, to be compared by dedup; the same name and
    address again bring the entry up to date. Reads the table once.

    Raises `NameTaken`, and `ForeignUnreadable` where the table cannot be read right.
    """
    lake = Lake.open(settings)
    place = address(settings, uri)
    _refuse_name(lake, settings, name, place)
    with connect(scheduler) as workers:
        return enter(lake, name, place, workers)


@task(name="unregister", persist_result=False)
@discreet
def unregister(settings: Settings, name: str) -> Registered:
    """Take a table off the lake's list, which is all that happens. Raises `NotRegistered`."""
    lake = Lake.open(settings)
    entry = _registered(lake, name)
    if entry is None:
        raise _unknown(lake, name)
    forget_registration(lake, name)
    return entry


def address(settings: Settings, uri: str) -> str:
    """An address as it is kept: a URL, or an absolute folder. Relative ones are taken from the folder of lethe.toml."""
    return resolve(settings.home, uri.removeprefix(ADOPTED).removeprefix("file://")).rstrip("/")


def _registered(lake: Lake, name: str) -> Registered | None:
    return next((entry for entry in registered(lake) if entry.name == name), None)


def _unknown(lake: Lake, name: str) -> NotRegistered:
    known = ", ".join(entry.name for entry in registered(lake)) or "none"
    return NotRegistered(f"no table {name!r} is registered; there is: {known}. Run: lethe register {name} URI")


def _refuse_name(lake: Lake, settings: Settings, name: str, place: str) -> None:
    if not NAME.match(name) or ".." in name:
        raise NameTaken(f"{name!r} is no name: letters, digits, '_', '-', '.', with '/' between parts")
    if place == lake.root or place.startswith(lake.root + "/"):
        raise NameTaken(f"{place} is a table of this lake already; dedup knows it")
    if lake.exists(records(name)) or name in retired(lake) or _is_other(settings, name, place):
        raise NameTaken(f"the lake has a table {name} of its own. Choose another name")
    entry = _registered(lake, name)
    if entry is not None and entry.uri != place:
        raise NameTaken(f"{name} is registered for {entry.uri}. Choose another name, or: lethe register --remove {name}")


def _is_other(settings: Settings, name: str, place: str) -> bool:
    """Whether lethe.toml gives a name to raw files, or to another table than the one at `place`."""
    if name in settings.tables:
        return any(not s.startswith(ADOPTED) or address(settings, s) != place for s in settings.tables[name].source)
    return any(name == c or name.startswith(f"{c}/") for c in settings.collections)


# --- taking over --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Taking:
    """What is to be taken over: the registered name, the address, the table it becomes, and what lethe.toml says of that."""

    name: str
    place: str
    table: str
    section: TableSettings

    @property
    def source(self) -> str:
        """The origin as the ledger names it."""
        return ADOPTED + self.place


@task(name="adopt", persist_result=False)
@discreet
def adopt(
    settings: Settings, name: str, uri: str | None = None, *, table: str | None = None, scheduler: Scheduler = None
) -> Adopted:
    """Take over the registered table `name` (or the one at `uri`) as `records/<table>` (`name`, if None).

    A section [tables.<table>] with `source = "delta+<uri>"` says whose data the rows are and which rules they keep, as for every
    table; without one the table has no subjects. Again, after a crash or not: what is missing is done. Raises `NameTaken`,
    `NotRegistered`, `ContractBroken`, `ColumnError` where the table lacks a column that the section names, `ForeignUnreadable`.
    """
    start = time.perf_counter()
    lake = Lake.open(settings)
    taking = _taking(lake, settings, name, uri, table or name)
    found = _done(lake, taking)
    with connect(scheduler) as workers:
        said = found or _take_over(lake, settings, taking, workers)
    ledger.merge(lake, [_ledger_entry(taking, said)])
    forget_registration(lake, name)
    return _result(lake, taking, said, found=found is not None, seconds=time.perf_counter() - start)


def _taking(lake: Lake, settings: Settings, name: str, uri: str | None, table: str) -> _Taking:
    entry = _registered(lake, name)
    place = address(settings, uri) if uri is not None else entry.uri if entry is not None else _origin(lake, table)
    if place is None:
        raise _unknown(lake, name)
    if entry is not None and entry.uri != place:
        raise NameTaken(f"{name} is registered for {entry.uri}. Choose another name, or leave the address out")
    if not NAME.match(table) or ".." in table:
        raise NameTaken(f"{table!r} is no name: letters, digits, '_', '-', '.', with '/' between parts")
    if _is_other(settings, table, place):
        raise NameTaken(f'table {table} has another source in lethe.toml. Write source = "{ADOPTED}{place}", or take --as OTHER')
    return _Taking(name, place, table, settings.tables.get(table) or TableSettings(source=(ADOPTED + place,)))


def _origin(lake: Lake, table: str) -> str | None:
    """Where a table was taken over from, if it was."""
    return next((uri.removeprefix(ADOPTED) for t, uri in ledger.read(lake) if t == table and uri.startswith(ADOPTED)), None)


def _done(lake: Lake, taking: _Taking) -> dict[str, Any] | None:
    """What the commit that took the table over said, if there is one. Raises `NameTaken` where the table is another one."""
    table = records(taking.table)
    if taking.table in retired(lake):
        raise NameTaken(f"{why_retired(taking.table)}, or name another table with --as")
    if not lake.exists(table):
        return None
    said = lake.lineage(lake.snapshot(table)).params.get("adopted")
    if said is None or said["uri"] != taking.place:
        raise NameTaken(f"the lake has a table {taking.table} of its own. Name another one with --as")
    return said


def _take_over(lake: Lake, settings: Settings, taking: _Taking, workers: Workers) -> dict[str, Any]:
    """Read the newest version once and commit it; what the commit says."""
    opened = open_foreign(taking.name, taking.place)
    schema = opened.schema
    _refuse_columns(taking, schema)
    raw = RawFile(taking.table, taking.source, opened.n_bytes, f"version {opened.version}")
    job = Job(raw, lake.folder(records(taking.table)), taking.section)
    site = Site(lake.folder("quarantine"), lake.keys, ledger.suppressed(lake))
    taken = workers.map(take, _calls(opened.parts), schema, job, site)
    said = _said(taking, opened, taken)
    _check(lake, taking, said)
    run = Run(lake, settings, workers, site, code_digest("tasks.ingest", "infra.foreign"))
    commit_quarantine(run, [file for one in taken for file in one.quarantine], [(taking.table, taking.source)])
    _commit(lake, taking, schema, [file for one in taken for file in one.files], said, run.code)
    _LOG.info("%s: %d rows of %s", taking.table, said["n_rows"], taking.name)
    return said


def _refuse_columns(taking: _Taking, schema: pa.Schema) -> None:
    """Hold the table to the columns that its section names, and to names that differ."""
    if key_rules(taking.section):
        said = "primary_key and unique are not looked at while a table is taken over"
        raise ContractBroken(f"table {taking.table}: {said}. Leave them out of lethe.toml")
    contract.refuse_unruly(taking.table, taking.section, schema)
    if len({name.lower() for name in schema.names}) < len(schema.names):
        raise ColumnError(f"table {taking.table}: columns of {taking.place} differ only in case or blanks. Rename them there")
    for subject in taking.section.subjects:
        if (said := missing(schema, subject)) is not None:
            raise ColumnError(f"table {taking.table}, subject: {said}. Correct lethe.toml")
    text = taking.section.text
    if text is not None and text not in schema.names:
        raise ColumnError(f"table {taking.table}, text: there is no column {text!r}. It has: {', '.join(schema.names)}")


def _said(taking: _Taking, opened: ForeignTable, taken: Sequence[Taken]) -> dict[str, Any]:
    """What the commit keeps of the origin. It goes with the table's parameters, which later rewrites carry on."""
    source = sum((Digest.parse(one.source) for one in taken), Digest())
    return {
        "uri": taking.place,
        "version": opened.version,
        "digest": str(source),
        "n_bytes": opened.n_bytes,
        "columns": to_json({f.name: type_shape(f.type) for f in opened.schema}),
        "n_rows": sum(one.n_rows for one in taken),
        "n_quarantined": sum(one.n_quarantined for one in taken),
        "n_suppressed": sum(one.n_suppressed for one in taken),
    }


def _check(lake: Lake, taking: _Taking, said: dict[str, Any]) -> None:
    """Every row went somewhere, not too many of them to quarantine; and they are those that were registered, if it is that
    version."""
    n_source = Digest.parse(said["digest"]).n_rows
    if n_source != said["n_rows"] + said["n_quarantined"] + said["n_suppressed"]:
        raise AssertionError(f"{n_source} rows were read and {said['n_rows']} written")
    limit = taking.section.max_quarantine_fraction
    if said["n_quarantined"] > limit * n_source:
        lost = f"{said['n_quarantined']} of {n_source} rows would go to quarantine, more than max_quarantine_fraction = {limit}"
        raise ContractBroken(f"table {taking.table}: {lost}. Nothing was taken over; correct the rules or the rows")
    entry = _registered(lake, taking.name)
    if entry is not None and entry.version == said["version"] and entry.digest != said["digest"]:
        reason = f"version {entry.version} holds other rows than when it was registered. Repair it where it is written"
        raise ForeignUnreadable(taking.name, reason)


def _commit(lake: Lake, taking: _Taking, schema: pa.Schema, files: list[DataFile], said: dict[str, Any], code: str) -> Snapshot:
    table = records(taking.table)
    source = Snapshot(PREFIX + taking.name, said["version"], said["digest"], Digest.parse(said["digest"]).n_rows)
    params = {"subjects": declared(schema, taking.section.subjects), "adopted": said}
    key = stage_key(STAGE, code, [source], {"table": taking.table})
    counts = {name: said[name] for name in ("n_rows", "n_quarantined", "n_suppressed")}
    return lake.commit(
        table,
        table_schema(schema),
        files,
        lineage=Lineage(STAGE, key, code, (source,), params, counts),
        app_id=key_of(STAGE, taking.table, taking.source),
        expect=no_table(table),
        partition_by=taking.section.partition_by,
    )


def _ledger_entry(taking: _Taking, said: dict[str, Any]) -> Entry:
    return Entry(
        table=taking.table,
        uri=taking.source,
        n_bytes=said["n_bytes"],
        modified=f"version {said['version']}",
        content_digest=said["digest"],
        columns=said["columns"],
        n_rows=said["n_rows"],
        n_quarantined=said["n_quarantined"],
        n_suppressed=said["n_suppressed"],
    )


def _result(lake: Lake, taking: _Taking, said: dict[str, Any], *, found: bool, seconds: float) -> Adopted:
    snapshot = lake.snapshot(records(taking.table))
    return Adopted(
        table=taking.table,
        outside=taking.place,
        source_version=said["version"],
        source_digest=said["digest"],
        n_source_rows=Digest.parse(said["digest"]).n_rows,
        n_rows=said["n_rows"],
        n_quarantined=said["n_quarantined"],
        n_suppressed=said["n_suppressed"],
        subjects=tuple(subject.column for subject in taking.section.subjects),
        version=snapshot.version,
        digest=snapshot.digest,
        found=found,
        seconds=seconds,
    )


# --- what workers do ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """What became of some files: data and quarantine files, the digest of all rows as they were, and where they went."""

    files: tuple[DataFile, ...]
    quarantine: tuple[DataFile, ...]
    source: str
    n_rows: int
    n_quarantined: int
    n_suppressed: int


def _calls(parts: Sequence[ForeignPart]) -> list[list[ForeignPart]]:
    """Files by worker call: small ones become one data file together."""
    made, n_bytes = [list[ForeignPart]()], 0
    for part in parts:
        if made[-1] and n_bytes + part.file.n_bytes > _CALL_BYTES:
            made.append([])
            n_bytes = 0
        made[-1].append(part)
        n_bytes += part.file.n_bytes
    return [call for call in made if call]


def take(parts: Sequence[ForeignPart], schema: pa.Schema, job: Job, site: Site) -> Taken:
    """Worker: some files of another writer as data files of the lake, in bounded memory. May run twice: each run writes files of
    its own."""
    state = _Take(Sink(job.raw, site.quarantine))
    files = data_files(job, schema, state.rows(parts, schema, job, site), site.keys)
    quarantine = state.sink.close()
    return Taken(files, quarantine, str(state.source), state.n_rows, state.sink.n_rows, state.n_suppressed)


@dataclass
class _Take:
    """One worker call under way."""

    sink: Sink
    source: Digest = field(default_factory=Digest)
    n_rows: int = 0
    n_suppressed: int = 0

    def rows(self, parts: Sequence[ForeignPart], schema: pa.Schema, job: Job, site: Site) -> Iterator[pa.RecordBatch]:
        """Rows without row ids; what breaks a rule goes to quarantine, text that is not UTF-8 and times that no calendar has as
        well (as from Parquet)."""
        rules = contract.compile_rules(job.raw.table, job.table, schema)
        for batch in (batch for part in parts for batch in read_foreign(part)):
            self.source += Digest.of(row_hashes(batch, schema.names, site.keys.row))
            good, rejects = readers_parquet.typed(batch, schema, {})
            self._reject(rejects, job, site)
            kept, n_gone = rows.suppress(good, job.table.subjects, site.keys, site.suppressed)
            self.n_suppressed += n_gone
            kept, _, rejects = contract.check(kept, None, rules)
            self._reject(rejects, job, site)
            self.n_rows += kept.num_rows
            yield kept

    def _reject(self, rejects: Sequence[Reject], job: Job, site: Site) -> None:
        kept, n_gone = rows.suppress_rejects(rejects, job.table.subjects, site.keys, site.suppressed)
        self.n_suppressed += n_gone
        self.sink.add(kept)
