"""deletion request -> erase -> the ordinary stages again -> certificate. There is no second code path (law 3).

A run may be killed at any point: requests are durable before anything else, each step is recorded, and the next run goes on with
whatever is still open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import flow

from flows.curate import Curated, curate_again
from flows.select_why import remove_samples
from flows.train import train_again
from flows.workspace import Workspace, opened
from infra.contracts import Snapshot
from infra.lake import DERIVED, Lake
from infra.settings import Settings, load_settings
from infra.views import NothingToEmbed
from tasks.dedup.restore import Resumed, resume, suspend
from tasks.dedup.task import DedupResult, dedup
from tasks.forget.task import CertificateResult, EraseResult, certify, erase, open_requests, purge_derived, register_requests
from tasks.prune.task import EmptySample
from tasks.select.plan import EmptyTarget
from tasks.train.score import NotTrained
from tasks.train.task import (
    NothingToTrain,
    TrainResult,
    held_models,
    inputs_of,
    retire_model,
    retire_superseded,
    retrained_since,
)
from tasks.train.versions import registered_versions

_NOTHING_LEFT = (EmptyTarget, EmptySample, NothingToEmbed, NotTrained)
_NO_LONGER_MADE = "lethe.toml does not make it any more, and it rests on rows that have changed since"


@dataclass(frozen=True)
class Forgotten:
    """What became of the requests of one run, and of retired tables: they were brought back for it, and retired again."""

    erased: EraseResult
    redone: Redone
    certificates: tuple[CertificateResult, ...]
    resumed: Resumed = field(default_factory=Resumed)


@dataclass(frozen=True)
class Redone:
    """The stages run again after an erasure: what changed was redone, the rest was found.

    `revoked` model versions are gone; `retired` are derived tables that went without a successor, and why.
    """

    datasets: tuple[Curated, ...] = ()
    models: tuple[TrainResult, ...] = ()
    revoked: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    retired: tuple[dict[str, str], ...] = field(default_factory=tuple)

    @property
    def n_shards_retrained(self) -> int:
        return sum(not shard.found for model in self.models for shard in model.shards)


def request(subjects: Sequence[tuple[str, str]], config: str) -> list[str]:
    """File deletion requests for (kind, id) subjects; on disk before this returns. The ids go into an HMAC and nowhere else."""
    settings = load_settings(config)
    with Lake.open(settings).writing(shared=True):
        return register_requests(settings, subjects)


@flow(name="forget", persist_result=False, validate_parameters=False)
def forget(requests: list[str] | None = None, config: str = "lethe.toml") -> Forgotten | None:
    """Carry out deletion requests (all open ones, if None): erase, run the stages again, revoke, purge, certify. None: nothing is
    open.
    """
    with opened(config) as work:
        wanted = open_requests(work.settings, requests)
        if not wanted:
            return None
        work.lake.clear_scratch()
        remove_samples(work.settings)
        work.lake.sweep()
        suspend(work.settings, scheduler=work.scheduler)  # persons go from tables, not from recipes
        erased = erase(work.settings, wanted, containment=scanned(work).containment, scheduler=work.scheduler)
        redone = again(work, erased)
        resumed = resume(work.settings, scheduler=work.scheduler)
        purge_derived(work.settings)
        certificates = certify(work.settings, wanted, erased=erased, redone=as_facts(redone), scheduler=work.scheduler)
        return Forgotten(erased, redone, tuple(certificates), resumed)


def scanned(work: Workspace) -> DedupResult:
    """Which tables are contained in which, as they stand now: copies are found along these edges and no older ones."""
    return dedup(work.settings, work.all_records(), scheduler=work.scheduler)


def again(work: Workspace, erased: EraseResult) -> Redone:
    """Every dataset and model that the lake holds, through the ordinary stages, in the order in which they wait for each other.

    Superseded model versions are revoked and purged. What lethe.toml does not make any more, or what nothing is left for, cannot
    be made again: it goes without a successor, unless it rests on exactly the rows that the lake still holds.
    """
    scan, failed, made = scanned(work), dict[str, str](), list[Curated]()
    models, revoked, retired = list[TrainResult](), list[dict[str, Any]](), list[dict[str, str]]()
    waiting = {name for name in work.settings.datasets if work.lake.exists(f"training_set/{name}")}
    for datasets, names in rounds(work.settings, waiting, held_models(work.settings)):
        made += curated_again(work, datasets, scan, failed)
        waiting.difference_update(datasets)
        there = {c.dataset for c in made}
        retired += dropped(work, there | waiting, failed)
        for name in names:
            asked = work.settings.models.get(name)
            trains = asked is not None and asked.dataset in there
            result, gone = retrained(work, name, erased) if trains else (None, without_successor(work, name, _NO_LONGER_MADE))
            models += [result] if result is not None else []
            revoked += gone
    return Redone(tuple(made), tuple(models), tuple(revoked), tuple(retired))


def rounds(settings: Settings, datasets: Iterable[str], models: Iterable[str]) -> list[tuple[list[str], list[str]]]:
    """(datasets, then models), round by round: a dataset that selects by a model's scores comes in the round after the model, and
    a model in the round of its dataset. A model that lethe.toml has no more is of the last round."""
    n_before = {name: len(settings.scorers(name)) for name in {*settings.datasets, *datasets}}
    last = max(n_before.values(), default=0)
    of_models = {name: n_before[settings.models[name].dataset] if name in settings.models else last for name in models}
    ranks = sorted({last, *of_models.values(), *(n_before[name] for name in datasets)})
    return [
        (sorted(d for d in datasets if n_before[d] == rank), sorted(m for m, of in of_models.items() if of == rank))
        for rank in ranks
    ]


def stands(lake: Lake, inputs: Iterable[Snapshot] | None) -> bool:
    """Whether every table among these inputs still has the rows it had."""
    return inputs is not None and all(lake.exists(s.table) and lake.snapshot(s.table).digest == s.digest for s in inputs)


# --- datasets -------------------------------------------------------------------------------------------------------------------


def curated_again(work: Workspace, names: Iterable[str], scan: DedupResult, failed: dict[str, str]) -> list[Curated]:
    """Datasets decided again; those that nothing is left for are noted in `failed`, with the error's name."""
    datasets = list[Curated]()
    for name in names:
        try:
            datasets.append(curate_again(work, name, scan))
        except _NOTHING_LEFT as error:
            failed[name] = type(error).__name__
    return datasets


def dropped(work: Workspace, made: Iterable[str], failed: Mapping[str, str]) -> list[dict[str, str]]:
    """Derived tables that were not written again are dropped, unless the rows that they were decided on are still the lake's.

    A model's scores come of a training set and go into a selection: after each round something further down may not stand.
    """
    written = {table for name in made for table in tables_of(work, name)}
    retired = list[dict[str, str]]()
    while more := list(fallen(work, written)):
        for table in more:
            work.lake.drop(table)
            retired.append({"table": table, "reason": failed.get(table.partition("/")[2], _NO_LONGER_MADE)})
    return retired


def fallen(work: Workspace, written: Collection[str]) -> Iterator[str]:
    """Derived tables, but for those just written, that rest on a table which is gone or has other rows by now."""
    for table in (table for stage in DERIVED for table in work.lake.tables(stage) if table not in written):
        if not stands(work.lake, work.lake.lineage(work.lake.snapshot(table)).inputs):
            yield table


def tables_of(work: Workspace, dataset: str) -> list[str]:
    """The derived tables that curating a dataset writes, as lethe.toml stands."""
    asked = work.settings.dataset(dataset)
    written = {
        "ngram_counts": asked.method == "importance",
        "signals": asked.select.measures_signals,
        "signatures": asked.select.near_duplicates is not None,
        "contamination": asked.select.decontaminate is not None,
        "neighbours": asked.select.reviews,
        "model_scores": asked.select.score is not None and asked.select.score.model is not None,
        "selection": asked.selects,
        "scores": asked.prune.method in ("density", "prototypes"),
        "training_set": True,
    }
    return [f"{stage}/{dataset}" for stage in DERIVED if written[stage]]


# --- models ---------------------------------------------------------------------------------------------------------------------


def retrained(work: Workspace, name: str, erased: EraseResult) -> tuple[TrainResult | None, list[dict[str, Any]]]:
    """A model trained again, and its versions that went. Forgetting trains nothing that nobody asked for: of a model without a
    version, what a killed training left goes.
    """
    if not registered_versions(work.settings, name):
        return None, retire_superseded(work.settings, name)
    try:
        result = train_again(work, name)
    except NothingToTrain as error:
        return None, without_successor(work, name, type(error).__name__)
    since = dt.datetime.fromisoformat(erased.erased)
    return retrained_since(work.settings, result, since), retire_superseded(work.settings, name)


def without_successor(work: Workspace, name: str, why: str) -> list[dict[str, Any]]:
    """The versions of a model that is not trained again which went: all of them, or all but the one that may stay."""
    if stands(work.lake, inputs_of(work.settings, name)):
        return retire_superseded(work.settings, name)
    return retire_model(work.settings, name, why)


def as_facts(redone: Redone) -> dict[str, Any]:
    """What the certificate says of the stages run again."""
    return {
        "retrained": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "stages": [
            {"stage": stage, "dataset": c.dataset, "found": result.found}
            for c in redone.datasets
            for stage, result in (("dedup", c.dedup), ("select", c.select), ("prune", c.prune))
            if result is not None
        ],
        "models": [
            {
                "model": m.model,
                "version": m.version,
                "digest": m.digest,
                "run_id": m.run_id,
                "shards": [{"shard": s.shard, "digest": s.digest, "found": s.found} for s in m.shards],
            }
            for m in redone.models
        ],
        "revoked": list(redone.revoked),
        "retired": list(redone.retired),
    }
