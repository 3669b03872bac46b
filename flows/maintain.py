"""Upkeep: the containment scan with its retention plan, and the certificates' verification, on a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from flows.progress import say
from flows.workspace import opened
from tasks.dedup.task import DedupResult, dedup
from tasks.forget.certificate import problems_of_files


@dataclass(frozen=True)
class Maintained:
    """What a maintenance run found: the scan, files of killed runs removed, and certificates that do not verify."""

    scanned: DedupResult
    n_scratch_files: int
    problems: dict[str, list[str]]


@flow(name="dedup", persist_result=False, validate_parameters=False)
def scan(config: str = "lethe.toml") -> DedupResult:
    """Find contained tables and compute the retention plan; nothing is removed."""
    with opened(config) as work:
        say("dedup")
        return dedup(work.settings, work.all_records(), scheduler=work.scheduler)


@flow(name="maintain", persist_result=False, validate_parameters=False)
def maintain(config: str = "lethe.toml") -> Maintained:
    """The containment scan, the removal of killed runs' scratch files, and a check of every certificate."""
    with opened(config) as work:
        n_files = work.lake.clear_scratch()
        scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        return Maintained(scanned, n_files, problems_of_files(work.settings.home / "certificates"))
