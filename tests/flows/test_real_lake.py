"""Every file of the shared packs with one lethe.toml: nothing is lost, and a second run reads nothing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from flows.quarantine import quarantine_report
from infra.settings import load_settings
from tasks.ingest.task import ingest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_every_file_of_the_packs_is_accounted_for(tmp_path: Path, shared_data: Path) -> None:
    sections = {"lake": "lake/*.tar.gz", "subjects": "subjects.tar.gz", "text": "text/*"}
    text = "".join(f'[collections.{name}]\nsource = "{shared_data / source}"\n' for name, source in sections.items())
    (tmp_path / "lethe.toml").write_text(text, encoding="utf-8")
    results = ingest.fn(load_settings(tmp_path))
    packs = [*(shared_data / "lake").glob("*.tar.gz"), shared_data / "subjects.tar.gz"]
    assert len(results) == sum(_n_data_files(pack) for pack in packs) + len(list((shared_data / "text").iterdir()))
    report = quarantine_report(tmp_path, None)
    assert report.adds_up
    assert (report.n_rows, report.n_quarantined) == (sum(r.rows for r in results), sum(r.quarantined for r in results))
    assert report.n_quarantined < report.n_in / 10_000
    again = ingest.fn(load_settings(tmp_path))
    assert all(result.found for result in again)
    assert [result.digest for result in again] == [result.digest for result in results]


def _n_data_files(pack: Path) -> int:
    with tarfile.open(pack) as tar:
        return sum(member.isfile() and member.name.endswith((".csv", ".parquet", ".json")) for member in tar)
