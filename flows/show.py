"""Results as documents (for --json) and as short texts (for people). Tables are drawn by rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows import documents as d
from flows.plan_text import plan_lines, plan_rows
from flows.select_documents import SelectDocument
from flows.show_parts import grid, harmless, ran, short
from flows.show_selection import selected, selection_lines
from tasks.dedup.savings import Savings, sentence

if TYPE_CHECKING:
    from flows.curate import Curated
    from flows.forget import Forgotten
    from flows.maintain import Maintained
    from flows.retire import RetireResult
    from infra.foreign import Registered
    from tasks.dedup.give_up import GivenUp
    from tasks.dedup.restore import Restored
    from tasks.dedup.task import DedupResult
    from tasks.dedup.why_task import WhyResult
    from tasks.ingest.foreign import Adopted
    from tasks.ingest.task import IngestedTable
    from tasks.prune.task import PruneResult
    from tasks.train.task import TrainResult


# --- documents --------------------------------------------------------------------------------------------------------

_MOST = 60  # edges that are printed; the rest is in the page and in --json


def ingested(tables: tuple[IngestedTable, ...]) -> d.IngestDocument:
    return d.IngestDocument(tables=[d.Ingested.model_validate(t) for t in tables])


def deduped(result: DedupResult, report: Path | None = None) -> d.DedupDocument:
    return d.DedupDocument(
        n_tables=result.n_tables,
        edges=[d.Edge.model_validate(e) for e in result.edges],
        near=[d.Edge.model_validate(e) for e in result.near],
        covers=[d.Cover.model_validate(c) for c in result.covers],
        renames=[d.Rename.model_validate(r) for r in result.renames],
        apart=[d.ListedApart(table=t, reason=r, bits=result.evidence.get(t)) for t, r in result.listed_apart.items()],
        plan=[d.PlanRow(bytes=p.n_bytes, parent=", ".join(p.parents), **asdict(p)) for p in result.plan],
        savings=plan_savings(result.savings),
        bytes_read=result.bytes_read,
        seconds=result.seconds,
        found=result.found,
        listed_apart=list(result.listed_apart),
        settled=dict(result.settled),
        unreadable=dict(result.unreadable),
        report=str(report or ""),
    )


def plan_savings(savings: Savings) -> d.SavingsDocument:
    needs = [d.Need(said=sentence(need), **asdict(need)) for need in savings.needs]
    return d.SavingsDocument.model_validate({**asdict(savings), "needs": needs})


def retiring(result: RetireResult) -> d.DedupDocument:
    """The scan, and what became of the tables that were to be retired."""
    proposal = result.proposal
    proposed = [
        d.Retirement(
            table=t.table,
            parents=list(t.parents),
            kind=t.recipe.kind,
            bytes=t.n_bytes,
            monthly_saving=t.monthly_saving,
            rebuild_s=t.rebuild_s,
        )
        for t in proposal.tables
    ]
    retirement = d.RetirementDocument(
        plan=proposal.digest,
        proposed=proposed,
        refused=dict(proposal.refused),
        approved=result.approved,
        retired=list(result.retired),
    )
    return deduped(result.scanned).model_copy(update={"retirement": retirement})


def explained(result: WhyResult) -> d.DedupDocument:
    """One pair of tables, and no scan of the others."""
    why = d.WhyDocument.model_validate({**asdict(result.why), "fractions": dict(result.why.fractions)})
    return d.DedupDocument(n_tables=2, edges=[], plan=[], bytes_read=result.bytes_read, seconds=result.seconds, why=why)


def restored(tables: tuple[Restored, ...]) -> d.RestoreDocument:
    return d.RestoreDocument(
        tables=[
            d.RestoredTable(
                table=t.table,
                parents=list(t.parents),
                rows=t.n_rows,
                bytes=t.n_bytes,
                version=t.version,
                digest=t.digest,
                seconds=t.seconds,
                from_raw=t.from_raw,
                same=t.same,
                rows_retired=t.n_rows_retired,
                n_suppressed=t.n_suppressed,
            )
            for t in tables
        ]
    )


def given_up(tables: Sequence[GivenUp], datasets: Mapping[str, Sequence[str]]) -> d.RestoreDocument:
    return d.RestoreDocument(
        tables=[],
        given_up=[
            d.GivenUpTable(
                table=t.table,
                given_up=t.given_up,
                reason=t.reason,
                missing=list(t.missing),
                rows=t.n_rows,
                datasets=list(datasets.get(t.table, ())),
            )
            for t in tables
        ],
    )


def maintained(result: Maintained, report: Path | None = None) -> d.MaintainDocument:
    return d.MaintainDocument(
        compacted=[d.CompactedTable.model_validate(one) for one in result.compacted],
        tidied=[d.TidiedTable.model_validate(one) for one in result.tidied],
        dedup=deduped(result.scanned, report),
        problems={name: found for name, found in result.problems.items() if found},
        seconds=result.seconds,
        renewed=list(result.renewed),
    )


def entered(entry: Registered, *, removed: bool = False) -> d.RegisterDocument:
    return d.RegisterDocument(
        name=f"foreign/{entry.name}",
        uri=entry.uri,
        rows=entry.n_rows,
        bytes=entry.n_bytes,
        version=entry.version,
        digest=entry.digest,
        removed=removed,
    )


def adopted(result: Adopted) -> d.AdoptDocument:
    return d.AdoptDocument(
        table=result.table,
        outside=result.outside,
        source_version=result.source_version,
        source_digest=result.source_digest,
        source_rows=result.n_source_rows,
        rows=result.n_rows,
        quarantined=result.n_quarantined,
        n_suppressed=result.n_suppressed,
        version=result.version,
        digest=result.digest,
        subjects=list(result.subjects),
        found=result.found,
        seconds=result.seconds,
    )


def pruned(result: PruneResult) -> d.PruneDocument:
    return d.PruneDocument(
        dataset=result.dataset,
        method=result.method,
        n_in=result.n_in,
        n_kept=result.n_kept,
        n_holdout=result.n_holdout,
        n_control=result.n_control,
        found=result.found,
        seconds=result.seconds,
        version=result.snapshot.version,
        digest=result.snapshot.digest,
    )


def curated(result: Curated) -> d.CurateDocument:
    return d.CurateDocument(
        dataset=result.dataset,
        ingest=ingested(result.ingest),
        dedup=deduped(result.dedup),
        select=selected(result.select, result.dataset) if result.select else None,
        prune=pruned(result.prune),
        left_out=result.left_out,
        seconds=result.seconds,
    )


def trained(result: TrainResult) -> d.TrainDocument:
    return d.TrainDocument.model_validate(result)


def forgotten(result: Forgotten | None) -> d.ForgetDocument:
    if result is None:
        return d.ForgetDocument(requests=[])
    tables = [t.table for t in result.erased.tables if t.n_erased]
    return d.ForgetDocument(
        requests=[
            d.Forgotten(
                request_id=c.request_id,
                certificate=str(c.path),
                rows_erased=result.erased.n_rows,
                tables=[t.removeprefix("records/") for t in tables],
                shards_retrained=result.redone.n_shards_retrained,
                residue_hits=c.residue_hits,
            )
            for c in result.certificates
        ],
        retired_again=list(result.resumed.retired),
        kept=dict(result.resumed.kept),
    )


# --- texts ------------------------------------------------------------------------------------------------------------


def text(document: BaseModel) -> None:
    """Print a document for a person, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # nobody's window: long names need not be folded
        console.width = max(console.width, _PIPE_WIDTH)
    for line in _TEXTS[type(document)](document):
        console.print(line)


_PIPE_WIDTH = 200


def _ingest(doc: d.IngestDocument) -> list[Any]:
    if not doc.tables:
        return ["lethe.toml names no table yet: add a section such as " + escape("[tables.posts]")]
    rows = [(t.name, t.rows, t.quarantined, t.files, t.version, short(t.digest), ran(t.found, t.seconds)) for t in doc.tables]
    shown = rows if len(rows) <= 60 else rows[:50]
    more = [f"... and {len(rows) - 50} more tables"] if len(rows) > 60 else []
    return [grid("table rows quarantined files version digest what", shown), *more, *_unsettled(doc)]


def _unsettled(doc: d.IngestDocument) -> list[str]:
    """What a person should look at after an ingest."""
    n_stopped, n_vanished = sum(t.n_stopped for t in doc.tables), sum(t.n_vanished for t in doc.tables)
    n_rejected = sum(t.quarantined for t in doc.tables)
    return [
        *(
            [f"{n_stopped:,} files were not taken in: their columns do not fit their tables. See which: lethe quarantine"]
            if n_stopped
            else []
        ),
        *([f"{n_vanished:,} files are gone; their rows stay until: lethe ingest --prune"] if n_vanished else []),
        *([f"{n_rejected:,} rows are in quarantine. See why: lethe quarantine"] if n_rejected else []),
    ]


def _maintain(doc: d.MaintainDocument) -> list[Any]:
    joined = [(c.table, c.n_files_before, c.n_files, c.n_bytes_before, c.n_bytes) for c in doc.compacted]
    gone = [(t.table, t.n_files_deleted, t.n_bytes_deleted) for t in doc.tidied]
    return [
        grid("table files_before files bytes_before bytes", joined) if joined else "No table has small files to join.",
        grid("table files_removed bytes_removed", gone) if gone else "No killed run left a file.",
        *([f"renewed the recipes of {', '.join(doc.renewed)}"] if doc.renewed else []),
        *_dedup(doc.dedup),
        *(f"{name}: {'; '.join(found)}" for name, found in doc.problems.items()),
    ]


def _dedup(doc: d.DedupDocument) -> list[Any]:
    if doc.retirement is not None:
        return _retirement(doc.retirement)
    if doc.why is not None:
        return _why(doc.why)
    kind = {(True, True): "every row, with its copies", (True, False): "every row"}
    edges = [(e.child, e.parent, kind.get((e.set, e.multiset), ""), e.step) for e in doc.edges]
    edges += [(e.child, e.parent, _nearly(e), e.step) for e in doc.near]
    edges += [(c.child, ", ".join(c.parents), kind[True, c.multiset] + ", in all together", "exact") for c in doc.covers]
    edges += [(r.child, r.parent, f"{kind[True, r.multiset]}, {_renamed(r)}", "exact") for r in doc.renames]
    acts = plan_rows(doc.plan)
    head = f"{doc.n_tables} tables, {len(doc.edges)} containments, {doc.bytes_read:,} bytes read; {ran(doc.found, doc.seconds)}"
    more = [f"and {len(edges) - _MOST:,} more"] if len(edges) > _MOST else []
    plan = [*([grid("table action MB saved_a_month parent reason", acts)] if acts else []), *map(escape, plan_lines(doc))]
    left_out = [f"not compared: {name}: {reason}" for name, reason in doc.unreadable.items()]
    report = [f"the graph and all tables: {doc.report}"] if doc.report else []
    return [head, grid("child parent what step", edges[:_MOST]), *more, *plan, *left_out, *report]


def _nearly(edge: d.Edge) -> str:
    about = "" if edge.exact else f" ± {edge.error:.4f}, estimated"
    return f"{edge.fraction:.4f}{about}; {edge.n_residual:,} rows are not"


def _renamed(rename: d.Rename) -> str:
    return ", ".join(f"{ours} for {theirs}" for ours, theirs in rename.columns if ours != theirs)


def _why(doc: d.WhyDocument) -> list[Any]:
    verdict = "is contained" if doc.multiset else "is contained as a set" if doc.contained else "is not contained"
    head = escape(f"{doc.child} {verdict} in {doc.parent} (settled by: {doc.step})")
    poor = [(escape(name), f"{fraction:.4f}") for name, fraction in doc.fractions.items() if fraction < 1.0]
    return [head, escape(doc.text), *([grid("column found", poor[:60])] if poor else [])]


def _retirement(doc: d.RetirementDocument) -> list[Any]:
    rows = [
        (t.table, ", ".join(t.parents), t.kind, t.bytes, f"{t.monthly_saving:.2g}", f"{t.rebuild_s:.1f}") for t in doc.proposed
    ]
    if doc.retired:
        said = f"retired {len(doc.retired)} tables; each comes back with: lethe restore TABLE"
    else:
        said = f"Nothing was removed. Plan {doc.plan}" if rows else "Nothing to retire."
    return [
        *([grid("table parent kind bytes $_a_month rebuilt_in_s", rows)] if rows else []),
        *(escape(f"not retired: {table}: {reason}") for table, reason in doc.refused.items()),
        said,
    ]


def _restore(doc: d.RestoreDocument) -> list[Any]:
    rows = [(t.table, ", ".join(t.parents), t.rows, t.bytes, short(t.digest), f"{t.seconds:.1f} s") for t in doc.tables]
    return [
        *([grid("table parent rows bytes digest what", rows)] if rows else []),
        *(_from_raw(t) for t in doc.tables if t.from_raw),
        *(line for t in doc.given_up for line in _given_up(t)),
    ]


def _from_raw(table: d.RestoredTable) -> str:
    if table.same:
        return escape(f"{table.table}: its raw files gave the {table.rows:,} rows that were retired")
    return escape(
        f"{table.table}: its raw files gave {table.rows:,} rows, not the {table.rows_retired:,} that were retired; "
        f"{table.n_suppressed:,} of subjects who asked to be erased were refused"
    )


def _given_up(table: d.GivenUpTable) -> Iterator[str]:
    lacks = f" ({', '.join(table.missing)})" if table.missing else ""
    yield escape(f"{table.table}: given up, {table.rows:,} rows: {table.reason}{lacks}. The next certificates say so")
    if table.datasets:
        yield escape(f"take {table.table} out of these datasets of lethe.toml: {', '.join(table.datasets)}")


def _register(doc: d.RegisterDocument) -> list[Any]:
    if doc.removed:
        return [f"{doc.name} is off the list; the data at {doc.uri} are as they were"]
    return [f"{doc.name}: {doc.rows:,} rows of version {doc.version} at {doc.uri}; lethe dedup compares it, nothing writes to it"]


def _adopt(doc: d.AdoptDocument) -> list[Any]:
    went = f"{doc.rows:,} in the table, {doc.quarantined:,} in quarantine, {doc.n_suppressed:,} of erased subjects left out"
    whose = (
        f"subject: {', '.join(doc.subjects)}" if doc.subjects else f"no subject: lethe.toml has no [tables.{doc.table}] with one"
    )
    return [
        f"{doc.table}: {doc.source_rows:,} rows of version {doc.source_version}: {went}; {ran(doc.found, doc.seconds)}",
        escape(whose),
        f"The data at {doc.outside} are a copy that no erasure here reaches: delete it yourself.",
    ]


def _prune(doc: d.PruneDocument) -> list[Any]:
    kept = f"kept {doc.n_kept:,} of {doc.n_in:,} records by {doc.method}"
    apart = f"{doc.n_holdout:,} held out, {doc.n_control:,} in the control"
    return [f"prune {doc.dataset}: {kept}; {apart}; {ran(doc.found, doc.seconds)}"]


def _curate(doc: d.CurateDocument) -> list[Any]:
    left_out = [f"left out {child}: contained in {parent}" for child, parent in doc.left_out.items()]
    chosen = selection_lines(doc.select) if doc.select else []
    return [*_ingest(doc.ingest), *_dedup(doc.dedup), *left_out, *chosen, *_prune(doc.prune)]


def _train(doc: d.TrainDocument) -> list[Any]:
    rows = [(str(s.shard), short(s.digest), "found" if s.found else "trained") for s in doc.shards]
    metrics = [(name, f"{value:.4f}") for name, value in sorted(doc.metrics.items())]
    head = f"model {doc.model} version {doc.version}, digest {short(doc.digest)}; {ran(doc.found, doc.seconds)}"
    return [head, grid("shard digest what", rows), grid("metric value", metrics)]


def _forget(doc: d.ForgetDocument) -> list[Any]:
    if not doc.requests:
        return ["no deletion request is open"]
    rows = [
        (r.request_id, r.rows_erased, ", ".join(r.tables), r.shards_retrained, r.residue_hits, r.certificate)
        for r in doc.requests
    ]
    kept = (escape(f"{table} was retired and is kept now: {reason}") for table, reason in doc.kept.items())
    return [grid("request rows_erased table shards_retrained residue_hits what", rows), *kept]


def _verify(doc: d.VerifyDocument) -> list[Any]:
    return ["valid"] if doc.valid else ["NOT VALID", *doc.problems]


def _status(doc: d.StatusDocument) -> list[Any]:
    others = [(t["name"], t["rows"], t["version"], t["uri"]) for t in doc.foreign]
    gone = [(t["name"], ", ".join(t["parents"]), t["rows"], t["bytes"], "retired: bytes saved") for t in doc.retired]
    return [
        grid("table rows version digest", [(t["name"], t["rows"], t["version"], short(t["digest"])) for t in doc.tables]),
        grid("dataset records kept version", [(s["name"], s["n_records"], s["n_kept"], s["version"]) for s in doc.datasets]),
        grid("model version digest state", [(m["name"], m["version"], short(m["digest"]), m["state"]) for m in doc.models]),
        grid("request state at", [(r["request_id"], r["state"], r["at"]) for r in doc.requests]),
        *(f"{n:,} pairs to review: lethe select {name} --neighbours" for name, n in doc.neighbours.items()),
        *([grid("table rows version what", others)] if others else []),
        *([grid("table parent rows bytes what", gone)] if gone else []),
        *(escape(f"{t['name']} was given up on {t['given_up'][:10]}: {t['reason']}") for t in doc.given_up),
    ]


def _quarantine(doc: d.QuarantineDocument) -> list[Any]:
    tables = [t for t in doc.tables if t.n_quarantined or t.stopped or not t.adds_up]
    sums = [
        (escape(t.name), t.n_in, t.n_rows, t.n_quarantined, f"{t.fraction:.2%}", t.n_suppressed, t.n_erased, _adds_up(t))
        for t in tables
    ]
    messages = {(t.name, s.message) for t in tables for s in t.stopped}
    reasons = [(t, r) for t in tables for r in t.reasons if (t.name, r.reason) not in messages]
    told = [(escape(t.name), escape(r.reason), r.n_rows, r.n_files, escape(_places(r.examples))) for t, r in reasons]
    return [
        *_balance(doc),
        *(["", grid("table in rows quarantined fraction suppressed erased what", sums[:60])] if sums else []),
        *([f"... and {len(sums) - 60} more tables"] if len(sums) > 60 else []),
        *(["", grid("table reason rows files first", told)] if told else []),
        *(Text(f"\nstopped: {t.name}, {s.file}: {s.message}") for t in tables for s in t.stopped),
        *_raw_rows(reasons),
    ]


def _places(examples: list[str]) -> str:
    """Places file:line as a person writes them: a file's name once, then its lines."""
    shown, last = list[str](), ""
    for place in examples:
        file, colon, line = place.rpartition(":")
        shown.append(line if colon and file == last else place)
        last = file if colon else place
    return ", ".join(shown)


def _balance(doc: d.QuarantineDocument) -> list[str]:
    """Where all rows went, in one sum."""
    erased = f" + {doc.n_erased:,} erased since" if doc.n_erased else ""
    lost = f" + {doc.n_given_up:,} given up" if doc.n_given_up else ""
    parts = f"{doc.n_rows:,} in tables + {doc.n_quarantined:,} in quarantine + {doc.n_suppressed:,} suppressed{erased}{lost}"
    clean = sum(not (t.n_quarantined or t.stopped) for t in doc.tables)
    wrong = [t for t in doc.tables if not t.adds_up]
    return [
        f"{doc.n_in:,} rows in {'!=' if wrong else '='} {parts}",
        *([f"The rows of {len(wrong)} tables DO NOT ADD UP. Run: lethe ingest"] if wrong else []),
        f"{clean:,} of {len(doc.tables):,} tables have no rejected row",
    ]


def _adds_up(table: d.QuarantinedTable) -> str:
    missing = table.n_in - table.n_rows - table.n_quarantined - table.n_suppressed - table.n_erased - table.n_given_up
    return "adds up" if table.adds_up else f"{missing:,} missing"


def _raw_rows(reasons: list[tuple[d.QuarantinedTable, d.QuarantineReason]]) -> list[Text]:
    shown = [Text(f"{t.name}, {r.reason}:\n" + "\n".join(f"  {harmless(row)}" for row in r.raw)) for t, r in reasons if r.raw]
    return [Text("\nrejected rows as they came (they may hold personal data)"), *shown] if shown else []


def _demo(doc: d.DemoDocument) -> list[Any]:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "what it did", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for step in doc.steps:
        table.add_row(step.step, step.what, f"{step.seconds:.1f}")
    config = Path(doc.report).with_name("lethe.toml")
    return [
        table,
        f"\n{doc.seconds:.0f} s in all. Where to look:",
        f"  the report          {doc.report}",
        f"  the certificate     {doc.certificate}",
        f"  runs and models     lethe up --config {config}, then http://127.0.0.1:5000",
        f"  the lake            lethe status --config {config}",
    ]


_TEXTS: dict[type[BaseModel], Callable[[Any], list[Any]]] = {
    d.InitDocument: lambda doc: [f"wrote {doc.config}; edit it, then run: lethe ingest"],
    d.IngestDocument: _ingest,
    d.DedupDocument: _dedup,
    d.MaintainDocument: _maintain,
    d.RestoreDocument: _restore,
    d.RegisterDocument: _register,
    d.AdoptDocument: _adopt,
    SelectDocument: selection_lines,
    d.PruneDocument: _prune,
    d.CurateDocument: _curate,
    d.TrainDocument: _train,
    d.ForgetDocument: _forget,
    d.VerifyDocument: _verify,
    d.StatusDocument: _status,
    d.ExportDocument: lambda doc: [
        f"wrote {doc.n_rows:,} records of {doc.dataset} to {doc.to} ({doc.n_files} files, {doc.n_bytes:,} bytes)"
    ],
    d.QuarantineDocument: _quarantine,
    d.UpDocument: lambda doc: [
        f"Prefect  {doc.prefect}",
        f"MLflow   {doc.mlflow}",
        "deployments: " + ", ".join(doc.deployments),
        "Ctrl-C stops them all",
    ],
    d.DemoDocument: _demo,
}
