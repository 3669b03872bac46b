"""Upkeep: small files joined, leftovers of killed runs removed, the containment scan and its plan, certificates checked."""

from __future__ import annotations

import time
from dataclasses import dataclass

from prefect import flow

from flows.graph import show_containment
from flows.progress import say
from flows.workspace import opened
from infra.purge import TidyReport
from tasks.dedup.restore import renew
from tasks.dedup.retire import settle
from tasks.dedup.task import DedupResult, dedup
from tasks.forget.certificate import problems_of_files
from tasks.ingest.compact import Compacted, compact


@dataclass(frozen=True)
class Maintained:
    """What a maintenance run did and found: tables whose files were joined, retired tables whose recipes were renewed, what
    nobody named and is gone, the scan, and the problems of certificates that do not verify, by file."""

    compacted: tuple[Compacted, ...]
    tidied: tuple[TidyReport, ...]
    scanned: DedupResult
    problems: dict[str, list[str]]
    seconds: float
    renewed: tuple[str, ...] = ()


@flow(name="dedup", persist_result=False, validate_parameters=False)
def scan(config: str = "lethe.toml") -> DedupResult:
    """Find contained tables and compute the retention plan; nothing is removed."""
    with opened(config, shared=True) as work:
        say("dedup")
        result = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        show_containment(work, result)
        return result


@flow(name="maintain", persist_result=False, validate_parameters=False)
def maintain(config: str = "lethe.toml") -> Maintained:
    """Keep a lake in order; no table changes a row. It waits until nobody else writes."""
    start = time.perf_counter()
    with opened(config) as work:
        settle(work.lake)
        say("maintain: join small files")
        compacted = tuple(compact(work.settings, scheduler=work.scheduler))
        say("maintain: renew recipes")
        renewed = renew(work.settings, scheduler=work.scheduler)  # before old versions go, which they may rest on
        say("maintain: remove leftovers")
        tidied = tuple(work.lake.tidy())
        say("maintain: dedup")
        scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        show_containment(work, scanned)
        problems = problems_of_files(work.settings.home / "certificates")
        return Maintained(compacted, tidied, scanned, problems, time.perf_counter() - start, renewed)
