"""`lethe demo`: the whole walk on data that every installation has, timed, with a report at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.orchestration import get_client
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows.curate import Curated, curate, ingest_tables
from flows.demo_data import write_raw
from flows.documents import DemoDocument, DemoStep
from flows.forget import Forgotten, forget, request
from flows.maintain import scan
from flows.report import write_report
from flows.selection_charts import in_order
from flows.selection_page import page_name
from flows.train import train
from infra.contracts import LetheError
from tasks.dedup.task import DedupResult
from tasks.forget.certificate import problems_of
from tasks.ingest.task import IngestedTable
from tasks.select.task import SelectResult
from tasks.train.task import TrainResult

_T = TypeVar("_T")
N_STEPS = 10


class DemoFailed(LetheError):
    """A step of the demonstration did not give what it must."""


@dataclass
class _Walk:
    """The steps taken so far, drawn as a progress bar on stderr."""

    progress: Progress
    steps: list[DemoStep] = field(default_factory=list[DemoStep])

    def step(self, name: str, work: Callable[[], _T], said: Callable[[_T], str]) -> _T:
        bar = self.progress.task_ids[0]
        self.progress.update(bar, description=name)
        start = time.perf_counter()
        result = work()
        self.steps.append(DemoStep(step=name, what=said(result), seconds=round(time.perf_counter() - start, 2)))
        self.progress.advance(bar)
        return result


def demo(directory: Path) -> DemoDocument:
    """Curate, train, forget and verify in `directory`; a second run finds what the first one made."""
    start = time.perf_counter()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        progress.add_task("starting", total=N_STEPS)
        walk = _Walk(progress)
        report, certificate = _walk_through(walk, directory)
    problems = problems_of(certificate, directory / ".lethe" / "public_key.pem")
    return DemoDocument(
        steps=walk.steps,
        report=str(report),
        certificate=str(certificate),
        valid=not problems,
        seconds=round(time.perf_counter() - start, 1),
    )


def _walk_through(walk: _Walk, directory: Path) -> tuple[Path, Path]:
    config = str(directory / "lethe.toml")
    package = walk.step(
        "write raw files",
        lambda: write_raw(directory),
        lambda _: "docstrings of the installed packages, scikit-learn's tables, digits",
    )
    walk.step("start Prefect", _server_version, lambda version: f"a temporary server {version} of this command")
    tables = walk.step("ingest", lambda: ingest_tables(None, config), _ingested)
    scanned = walk.step("dedup", lambda: scan(config), _scanned)
    curated = walk.step("curate docs", lambda: curate(["docs"], config)[0], _curated)
    digits = walk.step("curate digits", lambda: curate(["digits"], config)[0], _curated)
    models = walk.step("train", lambda: train(None, config), _trained)
    forgotten = walk.step("forget one package", lambda: _forget(package, config), _forgotten)
    path = forgotten.certificates[0].path
    walk.step("verify the certificate", lambda: _verified(Path(path), directory), lambda _: f"valid: {path}")
    facts: dict[str, Any] = {
        "tables": tables,
        "scanned": scanned,
        "curated": [curated, digits],
        "models": models,
        "forgotten": forgotten,
    }
    report = walk.step("report", lambda: write_report(directory, facts, walk.steps), str)
    return report, Path(path)


def _server_version() -> str:
    with get_client(sync_client=True) as client:
        return client.api_version()


def _forget(package: str, config: str) -> Forgotten:
    result = forget(request([("package", package)], config), config)
    if result is None:
        raise DemoFailed("the deletion request was not found again in the ledger")
    return result


def _verified(certificate: Path, directory: Path) -> None:
    if problems := problems_of(certificate, directory / ".lethe" / "public_key.pem"):
        raise DemoFailed(f"the certificate {certificate} does not verify: {'; '.join(problems)}")


# --- one line a step --------------------------------------------------------------------------------------------------


def _ingested(tables: tuple[IngestedTable, ...]) -> str:
    rows, bad = sum(t.rows for t in tables), sum(t.quarantined for t in tables)
    return f"{len(tables)} tables, {rows:,} rows, {bad} quarantined"


def _scanned(result: DedupResult) -> str:
    retire = sum(p.action == "retire" for p in result.plan)
    return f"{len(result.edges)} containments among {result.n_tables} tables; {retire} could be retired"


def _curated(result: Curated) -> str:
    left = f"left out {', '.join(result.left_out)}; " if result.left_out else ""
    chosen = _selected(result.select) if result.select else ""
    return f"{left}{chosen}kept {result.prune.n_kept:,} of {result.prune.n_in:,} by {result.prune.method}"


def _selected(result: SelectResult) -> str:
    ends: dict[str, int] = result.figures["n_by_reason"]
    lost = ", ".join(f"{ends[end]:,} {end.replace('_', ' ')}" for end in in_order(ends) if end != "kept")
    nearer = "" if result.kl_reduction is None else f"kl_reduction {result.kl_reduction:+.3f}, "
    page = f"reports/{page_name(result.dataset)}"
    return f"selected {result.n_kept:,} of {result.n_raw:,} ({lost}; {nearer}see {page}); "


def _trained(models: tuple[TrainResult, ...]) -> str:
    return "; ".join(
        f"{m.model}: accuracy {m.metrics['accuracy']:.3f} (random control {m.metrics.get('control_accuracy', float('nan')):.3f})"
        for m in models
    )


def _forgotten(result: Forgotten) -> str:
    n_shards = sum(len(m.shards) for m in result.redone.models)
    return (
        f"{result.erased.n_rows:,} rows erased from {sum(t.n_erased > 0 for t in result.erased.tables)} tables; "
        f"{result.redone.n_shards_retrained} of {n_shards} shards retrained; {result.certificates[0].residue_hits} residues"
    )
