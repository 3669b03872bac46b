"""The doors of forgetting: file requests, erase, and, after the ordinary stages have run again, certify."""

from __future__ import annotations

import json
import logging
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task

from infra.cluster import Scheduler, Workers, connect
from infra.contracts import CERTIFICATES, Lineage, Snapshot
from infra.discretion import discreet
from infra.files import write_part
from infra.foreign import registered
from infra.ids import key_of
from infra.lake import Lake
from infra.settings import Settings
from tasks.forget import erase as erasing
from tasks.forget import ledger, seal
from tasks.forget.certificate import digest_of, public_pem, sign
from tasks.forget.merkle import absence
from tasks.forget.plan import subject_kinds
from tasks.forget.returns import given_up_facts
from tasks.forget.scan import Residue, refuse_residue, scan, tracking_file

_LOG = logging.getLogger("lethe.forget")
_TABLE = "certificates"
_PACKAGES = ("lethe", "deltalake", "pyarrow", "numpy", "torch")
_NOT_COVERED = (
    "backups, replicas and object versions of the storage",
    "exports, and copies that left the lake",
    "models and predictions that were handed out before",
    "printable runs only were looked at in opaque objects (images, unknown formats, freed pages of databases)",
)
_NOT_LOOKED_INTO = "the raw files of {} tables that were given up: nothing can tell any more whose rows they hold"


@dataclass(frozen=True)
class EraseResult:
    """What an erasure took away: of all its requests together, for rows are counted by table and not by person.

    `n_rows` counts all erased rows, copies and rejected lines too; times are ISO 8601.
    """

    requests: tuple[str, ...]
    tables: tuple[erasing.TableErasure, ...]
    n_rows: int
    hidden: str
    erased: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> EraseResult:
        tables = tuple(erasing.TableErasure.of_json(table) for table in document["tables"])
        fields: dict[str, Any] = {**document, "requests": tuple(document["requests"]), "tables": tables}
        return EraseResult(**fields)


@dataclass(frozen=True)
class CertificateResult:
    """One signed certificate and where it lies."""

    request_id: str
    path: str
    residue_hits: int
    n_mentions: int


# --- requests -------------------------------------------------------------------------------------------------------------------


def register_requests(settings: Settings, subjects: Sequence[tuple[str, Any]]) -> list[str]:
    """File deletion requests for (kind, id) subjects, durably, in one commit; returns their ids in the same order.

    Raises `ledger.UnknownKindError` for a kind that no table has, neither in lethe.toml nor in the lake.
    """
    lake = Lake.open(settings)
    return ledger.register(lake, subjects, kinds=subject_kinds(lake, settings))


def open_requests(settings: Settings, request_ids: Sequence[str] | None = None) -> list[str]:
    """Ids of the requests without a certificate: all of them, or those among the named ones. Raises `UnknownRequestError`."""
    lake = Lake.open(settings)
    found = ledger.requests(lake) if request_ids is None else ledger.pick(lake, request_ids)
    return [request.request_id for request in found if request.state != ledger.CERTIFIED]


def purge_derived(settings: Settings) -> list[str]:
    """Give up the old versions of all derived tables, which may know erased row ids; returns the tables' names."""
    return erasing.purge_derived(Lake.open(settings))


# --- erase ----------------------------------------------------------------------------------------------------------------------


@task(name="erase", persist_result=False)
@discreet
def erase(
    settings: Settings, request_ids: Sequence[str], *, containment: Snapshot | None, scheduler: Scheduler = None
) -> EraseResult:
    """Erase the subjects of the requests from all tables and their history. What was erased before is told from the ledger.

    `containment` is a dedup scan of all tables as they stand: along its edges copies are found in tables that lack the subject
    column. With None, none are looked for.
    """
    lake = Lake.open(settings)
    requests = ledger.pick(lake, request_ids)
    results = _recorded(request.details.get(ledger.ERASED) for request in requests)
    fresh = [request for request in requests if request.state == ledger.RECEIVED]
    # One kind after the other: a table may have subjects of one kind, and copies of the rows of another kind's.
    for kind in sorted({request.kind for request in fresh}):
        with connect(scheduler) as workers:
            results.append(_erased(lake, settings, [r for r in fresh if r.kind == kind], containment, workers))
    return _joined(results)


def _erased(
    lake: Lake, settings: Settings, requests: Sequence[ledger.Request], containment: Snapshot | None, workers: Workers
) -> EraseResult:
    """Erase the subjects of some requests of one kind, and note it in the ledger."""
    start = time.perf_counter()
    done = erasing.erase_subjects(lake, settings, requests, containment, workers)
    ids = tuple(request.request_id for request in requests)
    seconds = round(time.perf_counter() - start, 3)
    result = EraseResult(ids, done.tables, _n_rows(done.tables), done.hidden, done.erased, seconds)
    ledger.advance(lake, ids, ledger.ERASED, result.as_json())
    _LOG.info("erased %d rows of %d requests from %d tables", result.n_rows, len(ids), len(result.tables))
    return result


def _n_rows(tables: Sequence[erasing.TableErasure]) -> int:
    return sum(table.n_erased for table in tables)


def _recorded(details: Any) -> list[EraseResult]:
    """Results of earlier erasures, each once (all requests of a batch tell the same)."""
    texts = dict.fromkeys(json.dumps(detail, sort_keys=True) for detail in details if detail)
    return [EraseResult.of_json(json.loads(text)) for text in texts]


def _joined(results: Sequence[EraseResult]) -> EraseResult:
    if len(results) == 1:
        return results[0]
    tables = tuple(table for result in results for table in result.tables)
    requests = tuple(dict.fromkeys(request for result in results for request in result.requests))
    hidden, erased = max((r.hidden for r in results), default=""), max((r.erased for r in results), default="")
    return EraseResult(requests, tables, _n_rows(tables), hidden, erased, sum(r.seconds for r in results))


# --- certify --------------------------------------------------------------------------------------------------------------------


@task(name="certify", persist_result=False)
@discreet
def certify(
    settings: Settings,
    request_ids: Sequence[str],
    *,
    erased: EraseResult,
    redone: Mapping[str, Any],
    scheduler: Scheduler = None,
) -> list[CertificateResult]:
    """Scan everything for residues and, if there are none, sign one certificate a request, each naming the one before.

    `redone` is what the stages run again say (plain JSON): stages, models, revoked, retired, and optionally `retrained` (a time),
    `environment`, `not_covered`, and `subjects` (retained tokens, for a proof of absence). A certificate that a killed run had
    issued already is the certificate. Raises `ResidueError` with places.
    """
    lake = Lake.open(settings)
    ledger.advance(lake, list(request_ids), ledger.RETRAINED, {key: redone[key] for key in redone if key != "subjects"})
    requests = [r for r in ledger.pick(lake, request_ids) if r.state != ledger.CERTIFIED]
    seals = seal.load(settings.private_dir / "requests", request_ids)
    with lake.writing(), connect(scheduler) as workers:
        residue = scan(lake, settings, erasing.tokens_by_kind(requests), seals, workers)
        refuse_residue(residue)
        issued = _issued(lake)
        fresh = [request for request in requests if request.request_id not in issued]
        signed = _envelopes(lake, settings, fresh, erased, redone, residue, last=next(reversed(issued.values()), b""))
        envelopes = {r.request_id: issued.get(r.request_id) or signed[r.request_id] for r in requests}
        paths = _publish(lake, settings, envelopes, new=signed)
    ledger.advance(lake, list(envelopes), ledger.CERTIFIED, {"mentions": list(residue.mentions[:50])})
    seal.drop(seals, {r.request_id for r in ledger.requests(lake) if r.state == ledger.CERTIFIED})
    return [CertificateResult(name, str(path), len(residue.hits), len(residue.mentions)) for name, path in paths.items()]


def _envelopes(
    lake: Lake,
    settings: Settings,
    requests: Sequence[ledger.Request],
    erased: EraseResult,
    redone: Mapping[str, Any],
    residue: Residue,
    *,
    last: bytes,
) -> dict[str, bytes]:
    """The signed envelope of each request; each names the digest of the one before it, the first that of `last`, if any."""
    given_up = given_up_facts(lake, erasing.tokens_by_kind(requests))
    common = {**_common(lake, settings, erased, redone, residue), "given_up": given_up}
    common["not_covered"] += [_NOT_LOOKED_INTO.format(len(given_up))] if given_up else []
    previous, signed = digest_of(last) if last else "", dict[str, bytes]()
    for request in requests:
        proof = {"absence": absence(redone["subjects"], request.subject)} if "subjects" in redone else {}
        certificate = {**common, **proof, **_of_request(request, erased, redone), "previous": previous}
        signed[request.request_id] = sign(certificate, lake.keys)
        previous = digest_of(signed[request.request_id])
    return signed


def _common(lake: Lake, settings: Settings, erased: EraseResult, redone: Mapping[str, Any], residue: Residue) -> dict[str, Any]:
    tables = [{**table.as_json(), "purge": dict(table.purge or {})} for table in erased.tables]
    return {
        "batch": list(erased.requests),
        "tables": [{**table, "before": _plain(table["before"]), "after": _plain(table["after"])} for table in tables],
        "redone": {key: redone[key] for key in ("stages", "models", "revoked", "retired") if key in redone},
        "residue": residue.as_json(),
        "environment": dict(redone.get("environment") or environment()),
        "not_covered": _not_covered(settings, erased, redone, residue, n_foreign=len(registered(lake))),
        "replay": _replay(redone),
    }


def _replay(redone: Mapping[str, Any]) -> str:
    """The commands that lead to the same decisions and models from the tables as they are now."""
    datasets = sorted({stage["dataset"] for stage in redone.get("stages", ()) if "dataset" in stage})
    models = sorted({model["model"] for model in redone.get("models", ())})
    commands = [f"lethe curate {name}" for name in datasets] + [f"lethe train {name}" for name in models]
    return " && ".join(commands) or "lethe status"


def _plain(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {name: snapshot[name] for name in ("version", "digest", "n_rows")}


def _of_request(request: ledger.Request, erased: EraseResult, redone: Mapping[str, Any]) -> dict[str, Any]:
    retrained = _moment(redone.get("retrained"), erased.erased)
    times = {"received": request.times[ledger.RECEIVED], "hidden": erased.hidden, "erased": erased.erased, "retrained": retrained}
    return {"request_id": request.request_id, "subject": {"kind": request.kind, "token": request.subject}, "times": times}


def _moment(told: Any, earliest: str) -> str:
    """The time that the flow tells, which may count whole seconds only, and never one before the rows were erased."""
    moment = datetime.fromisoformat(str(told)) if told else datetime.now(UTC)
    return max(moment, datetime.fromisoformat(earliest)).isoformat(timespec="microseconds")


def _not_covered(
    settings: Settings, erased: EraseResult, redone: Mapping[str, Any], residue: Residue, *, n_foreign: int
) -> list[str]:
    """What the certificate does not vouch for. Raw files stand under keyed names: their own may say whose they are."""
    raw = sorted({source for table in erased.tables for source in table.sources})
    said = {
        "the database of the tracking server (its artifacts were scanned)": tracking_file(settings) is None,
        f"{len(raw)} raw files are not rewritten; the subject's rows in them are refused at ingest. The lake's table `sources` "
        f"has their names, here they are keyed: {', '.join(raw)}": bool(raw),
        f"{n_foreign} registered tables of other writers, to which Lethe does not write": n_foreign > 0,
        f"{residue.n_names} tables and raw files have the id of a requested subject in their name, and keep it": residue.n_names
        > 0,
    }
    return [*_NOT_COVERED, *(text for text, holds in said.items() if holds), *redone.get("not_covered", ())]


def environment() -> dict[str, str]:
    """What made the certificate: the interpreter, the machine and the packages that read, wrote and hashed."""
    facts = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    return {**facts, **{name: found for name in _PACKAGES if (found := _version(name))}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _issued(lake: Lake) -> dict[str, bytes]:
    """Every envelope that the lake holds, by its request, oldest first."""
    if not lake.exists(_TABLE):
        return {}
    rows = lake.read(lake.snapshot(_TABLE)).sort_by("issued").to_pylist()
    return {row["request_id"]: row["envelope"].encode() for row in rows}


def _publish(lake: Lake, settings: Settings, envelopes: Mapping[str, bytes], *, new: Mapping[str, bytes]) -> dict[str, Path]:
    """Write the certificates and the public key beside the lake, and the new envelopes into it: once, however often it is run."""
    folder = settings.home / "certificates"
    _write(settings.private_dir / "public_key.pem", public_pem(lake.keys))
    for request_id, envelope in envelopes.items():
        _write(folder / f"{request_id}.json", envelope)
    start = datetime.now(UTC)
    rows = [
        {"request_id": request_id, "issued": start + timedelta(microseconds=i), "envelope": envelope.decode("ascii")}
        for i, (request_id, envelope) in enumerate(new.items())
    ]
    if rows:
        file = write_part(lake.folder(_TABLE), pa.Table.from_pylist(rows, schema=CERTIFICATES).to_batches(), CERTIFICATES)
        lineage = Lineage("certify", key_of("certify", file.digest), "")
        lake.commit(_TABLE, CERTIFICATES, [file], lineage=lineage, app_id=key_of("certify", sorted(new)))
    return {request_id: folder / f"{request_id}.json" for request_id in envelopes}


def _write(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader meets the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"draft-{uuid.uuid4().hex}")
    draft.write_bytes(content)
    draft.replace(path)
