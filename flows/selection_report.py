"""A selection told: its page beside lethe.toml, a run in MLflow, a summary in Prefect. None of them holds a record's text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from flows.selection_charts import waterfall
from flows.selection_page import figures_of, page, page_name, percent
from flows.workspace import Workspace
from infra.settings import Settings, load_settings
from infra.tracking import log_file, log_metrics, open_tracking, running
from tasks.select.task import SelectResult

RUN = "select"
_METRICS = (
    *("n_raw", "n_kept", "n_tokens", "n_sample", "threshold", "kl_raw", "kl_selected", "kl_random", "kl_reduction"),
    *("random_kl_reduction", "effective_sample_size", "length_correlation", "seed_overlap"),
)


def report_path(config: str | Path, dataset: str) -> Path:
    """Where the page of a dataset's selection lies."""
    return _page_of(load_settings(config), dataset)


def _page_of(settings: Settings, dataset: str) -> Path:
    return settings.home / "reports" / page_name(dataset)


def show_selection(work: Workspace, result: SelectResult) -> Path:
    """Write the page beside lethe.toml; returns its path.

    A new selection also becomes a run in MLflow with the page as its artifact; within a flow run, Prefect gets a summary.
    """
    path = _page_of(work.settings, result.dataset)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(page(result.dataset, result.figures), encoding="utf-8")
    draft.replace(path)
    if not result.found:
        _track(work.settings, result, path)
    if FlowRunContext.get() is not None:
        key = "lethe-selection-" + re.sub("[^a-z0-9]+", "-", result.dataset.lower()).strip("-")
        create_markdown_artifact(summary(result.dataset, result.figures, path), key=key, description="Selection")
    return path


def _track(settings: Settings, result: SelectResult, path: Path) -> None:
    """The selection as a run: its figures and the page."""
    tracking = open_tracking(settings)
    tags = {"lethe.dataset": result.dataset, "lethe.selection": str(result.snapshot.version)}
    with running(tracking, RUN, tags=tags) as run_id:
        log_metrics(tracking, run_id, metrics_of(result.figures))
        log_file(tracking, run_id, path)


def metrics_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are one number each, and the records by how they ended."""
    told = {name: float(figures[name]) for name in _METRICS if figures.get(name) is not None}
    return told | {f"n_{reason}": float(n) for reason, n in figures.get("n_by_reason", {}).items() if reason != "kept"}


def summary(dataset: str, figures: Mapping[str, Any], path: Path) -> str:
    """The selection in Markdown."""
    lines = [f"| {one.label} | {one.value} | {one.said} |" for one in figures_of(figures)]
    bars = waterfall(figures.get("n_by_reason", {}), figures.get("n_by_signal", {}))
    steps = [f"| {bar.name} | {bar.n:,} | {percent(bar.width)} |" for bar in bars]
    warnings = [f"* **warning** {said}" for said in figures.get("warnings", [])]
    return "\n".join(
        [
            f"Selection of dataset {dataset}. The page is `{path}`.",
            *(["", *warnings] if warnings else []),
            *("", "| figure | value | |", "|---|---|---|", *lines),
            *("", "| records | number | share |", "|---|---|---|", *steps),
        ]
    )
