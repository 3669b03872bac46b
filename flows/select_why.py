"""Records of a selection for a person's eyes: why one was kept or dropped, and some that were drawn to be read.

Read without Prefect and without the lake's lock: what is asked for here is in no run, log or event. Only `--samples` leaves a
page beside the others, which `remove_samples` deletes when anybody is forgotten.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.select_documents import SelectDocument
from flows.selection_page import neighbours_page, page_name, samples_page
from flows.show_selection import explained, reviewed, sampled
from infra.settings import Settings, load_settings
from tasks.select.explain_task import samples, why
from tasks.select.review_task import review

_SAMPLES = "-samples.html"


def why_selected(name: str, row_id: int, config: str | Path = "lethe.toml") -> SelectDocument:
    """Why a record of a dataset's pool was kept or dropped."""
    return explained(why(load_settings(config), name, row_id))


def sampled_records(name: str, n: int, config: str | Path = "lethe.toml") -> SelectDocument:
    """`n` kept and `n` dropped records of a dataset's pool, shown and written to a page that only its owner may read."""
    settings = load_settings(config)
    kept, dropped = samples(settings, name, n)
    path = samples_path(settings, name)
    document = sampled(name, kept, dropped, path)
    _write_privately(path, samples_page(document))
    return document


def near_records(name: str, n: int, config: str | Path = "lethe.toml", *, texts: bool = False) -> SelectDocument:
    """The `n` records nearest to evaluation items; with their texts also on a page that only its owner may read."""
    settings = load_settings(config)
    found = review(settings, name, n, texts=texts)
    if not texts:
        return reviewed(found)
    path = neighbours_path(settings, name)
    document = reviewed(found, path)
    _write_privately(path, neighbours_page(document))
    return document


def samples_path(settings: Settings, name: str) -> Path:
    """Where the page of a dataset's sampled records lies."""
    return settings.home / "reports" / page_name(name).replace(".html", _SAMPLES)


def neighbours_path(settings: Settings, name: str) -> Path:
    """Where the page of the records near to evaluation items lies: no dataset has an @ in its name."""
    return samples_path(settings, f"{name}@neighbours")


def remove_samples(settings: Settings) -> int:
    """Delete the pages with records' texts, which may be of whoever is forgotten; returns how many there were."""
    pages = list((settings.home / "reports").glob(f"selection-*{_SAMPLES}"))
    for page in pages:
        page.unlink(missing_ok=True)
    return len(pages)


def _write_privately(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
