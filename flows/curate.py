"""raw files -> training set: ingest, dedup, select, prune. Every stage is found, not run, when nothing it depends on changed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefect import flow

from flows.progress import count_tables, say
from flows.selection_report import show_selection
from flows.workspace import Workspace, opened
from infra.contracts import Snapshot
from infra.retired import TableRetired, retired, why_retired
from infra.settings import Settings
from tasks.dedup.edges import Edge
from tasks.dedup.restore import holds
from tasks.dedup.task import DedupResult, dedup
from tasks.ingest.task import IngestedTable, ingest
from tasks.prune.task import PruneResult, prune
from tasks.select.task import SelectResult, select


@dataclass(frozen=True)
class Curated:
    """The outcome of one curation; `left_out` names pool tables that are wholly contained in another, with that other's name."""

    dataset: str
    ingest: tuple[IngestedTable, ...]
    dedup: DedupResult
    select: SelectResult | None
    prune: PruneResult
    pool: tuple[Snapshot, ...]
    left_out: dict[str, str]
    seconds: float


@flow(name="curate", persist_result=False, validate_parameters=False)
def curate(names: list[str] | None = None, config: str = "lethe.toml") -> tuple[Curated, ...]:
    """Curate the named datasets; every dataset of lethe.toml, if None. Raises `NotTrained` where one selects by the scores of a
    model that is not trained yet, and has curated before what needs no such model.
    """
    with opened(config, shared=True) as work:
        return tuple(_curate_one(work, name) for name in names or in_order(work.settings, work.settings.datasets))


def _curate_one(work: Workspace, name: str) -> Curated:
    start = time.perf_counter()
    dataset = work.settings.dataset(name)
    wanted = tuple(dict.fromkeys((*dataset.pool, *dataset.beside)))
    say("dataset %s: ingest", name)
    ingested = tuple(ingest(work.settings, wanted, scheduler=work.scheduler, progress=count_tables))
    say("dataset %s: dedup", name)
    scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
    return _decided(work, name, ingested, scanned, start)


def _decided(work: Workspace, name: str, ingested: tuple[IngestedTable, ...], scanned: DedupResult, start: float) -> Curated:
    pool, left_out = pool_of(work, name, scanned)
    selected = selection_of(work, name, pool)
    say("dataset %s: prune", name)
    pruned = prune(work.settings, name, pool, selected.snapshot if selected else None, scheduler=work.scheduler)
    return Curated(name, ingested, scanned, selected, pruned, pool, left_out, time.perf_counter() - start)


def pool_of(work: Workspace, name: str, scanned: DedupResult) -> tuple[tuple[Snapshot, ...], dict[str, str]]:
    """The pool's snapshots without the tables that another pool table contains, copy for copy, and those left out."""
    named = work.settings.dataset(name).pool
    gone = retired_in(work, name, named)
    names = [n for n in named if n not in gone]
    left_out = contained_in(names, scanned.edges)
    return work.records(n for n in names if n not in left_out), left_out | {n: left_out.get(p, p) for n, p in gone.items()}


def retired_in(work: Workspace, dataset: str, names: Sequence[str]) -> dict[str, str]:
    """The retired tables among the names of a pool, and for each a parent there: its rows are in the pool all the same.

    Raises `TableRetired` where the pool names no such parent, or that has lost some of the rows.
    """
    listed = {name: entry for name, entry in retired(work.lake).items() if name in names}
    for name, entry in listed.items():
        if not set(entry.parents) <= set(names):
            missing = ", ".join(sorted(set(entry.parents) - set(names)))
            raise TableRetired(f"dataset {dataset} wants {name}, and not {missing}, which has its rows. {why_retired(name)}")
        if not holds(work.settings, name, scheduler=work.scheduler):
            raise TableRetired(f"dataset {dataset}: {', '.join(entry.parents)} lacks rows of {name} by now. {why_retired(name)}")
    return {name: entry.parents[0] for name, entry in listed.items()}


def contained_in(names: Sequence[str], edges: Iterable[Edge]) -> dict[str, str]:
    """Tables among `names` whose every row, with its copies, is in another of them, and one that stays for each.

    Of equal tables the first name stays. Edges are transitively closed, so a table that stays is always among the parents.
    """
    pairs = {(e.child, e.parent) for e in edges if e.multiset and e.child in names and e.parent in names}
    above = defaultdict[str, list[str]](list)
    for child, parent in sorted(pairs):
        if (parent, child) not in pairs or parent < child:
            above[child].append(parent)
    return {child: next(p for p in parents if p not in above) for child, parents in above.items()}


def selection_of(work: Workspace, name: str, pool: tuple[Snapshot, ...]) -> SelectResult | None:
    """The selection decisions of a dataset; None when there is nothing to decide."""
    dataset = work.settings.dataset(name)
    if not dataset.selects:
        return None
    scores = scores_of(work, name, pool)
    say("dataset %s: select", name)
    result = select(work.settings, name, pool, work.records(dataset.beside), scores, scheduler=work.scheduler)
    show_selection(work, result)
    return result


def scores_of(work: Workspace, name: str, pool: tuple[Snapshot, ...]) -> Snapshot | None:
    """What a model says of the pool of a dataset that selects by it, as that model is trained now; None for any other dataset.

    Raises `NotTrained`.
    """
    asked = work.settings.dataset(name).select.score
    if asked is None or asked.model is None:
        return None
    from tasks.train.score import score_pool  # noqa: PLC0415 - torch takes seconds to import, and few datasets are scored so

    say("dataset %s: score by model %s", name, asked.model)
    return score_pool(work.settings, name, pool, scheduler=work.scheduler)


def in_order(settings: Settings, names: Iterable[str]) -> list[str]:
    """Datasets by name, those that wait for a model's scores after those that the model is trained on."""
    return sorted(names, key=lambda name: (len(settings.scorers(name)), name))


def curate_again(work: Workspace, name: str, scanned: DedupResult) -> Curated:
    """The same stages over what the lake holds now, without looking at raw files: what forgetting runs."""
    return _decided(work, name, (), scanned, time.perf_counter())


@flow(name="ingest", persist_result=False, validate_parameters=False)
def ingest_tables(tables: list[str] | None = None, config: str = "lethe.toml", prune: bool = False) -> tuple[IngestedTable, ...]:
    """Bring the named tables (all, if None) up to their raw files; `prune` takes the rows of files that are gone out."""
    with opened(config, tables=tables, shared=True) as work:
        wanted = tuple(tables) if tables else None
        return tuple(ingest(work.settings, wanted, prune=prune, scheduler=work.scheduler, progress=count_tables))


@flow(name="select", persist_result=False, validate_parameters=False)
def select_records(name: str, config: str = "lethe.toml") -> SelectResult | None:
    """Selection alone, over the tables as they are in the lake."""
    with opened(config, shared=True) as work:
        scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        return selection_of(work, name, pool_of(work, name, scanned)[0])


@flow(name="prune", persist_result=False, validate_parameters=False)
def prune_records(name: str, config: str = "lethe.toml") -> PruneResult:
    """Pruning alone, after the selection as it is found."""
    with opened(config, shared=True) as work:
        scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        return curate_again(work, name, scanned).prune
