"""deletion request -> erase -> the ordinary stages again -> certificate. There is no second code path (law 3).

A run may be killed at any point: requests are durable before anything else, each step is recorded, and the next run goes on with
whatever is still open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import flow

from flows.curate import Curated, curate_again
from flows.train import train_again
from flows.workspace import Workspace, opened
from infra.lake import Lake
from infra.settings import load_settings
from tasks.dedup.task import dedup
from tasks.forget.task import CertificateResult, EraseResult, certify, erase, open_requests, purge_derived, register_requests
from tasks.train.task import TrainResult, retire_superseded


@dataclass(frozen=True)
class Forgotten:
    """What became of the requests of one run."""

    erased: EraseResult
    redone: Redone
    certificates: tuple[CertificateResult, ...]


@dataclass(frozen=True)
class Redone:
    """The stages run again after an erasure: what changed was redone, the rest was found."""

    datasets: tuple[Curated, ...] = ()
    models: tuple[TrainResult, ...] = ()
    revoked: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    @property
    def n_shards_retrained(self) -> int:
        return sum(not shard.found for model in self.models for shard in model.shards)


def request(subjects: Sequence[tuple[str, str]], config: str) -> list[str]:
    """File deletion requests for (kind, id) subjects; on disk before this returns. The ids go into an HMAC and nowhere else."""
    settings = load_settings(config)
    with Lake.open(settings).writing():
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
        erased = erase(work.settings, wanted, scheduler=work.scheduler)
        redone = again(work)
        purge_derived(work.settings)
        certificates = certify(work.settings, wanted, erased=erased, redone=as_facts(redone), scheduler=work.scheduler)
        return Forgotten(erased, redone, tuple(certificates))


def again(work: Workspace) -> Redone:
    """Every dataset and model that the lake holds, through the ordinary stages; superseded model versions are revoked and
    purged.
    """
    scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
    held = [name for name in sorted(work.settings.datasets) if work.lake.exists(f"training_set/{name}")]
    datasets = tuple(curate_again(work, name, scanned) for name in held)
    models, revoked = list[TrainResult](), list[dict[str, Any]]()
    for name, model in sorted(work.settings.models.items()):
        if model.dataset in held and is_registered(work, name):
            models.append(train_again(work, name))
            revoked += retire_superseded(work.settings, name)
    return Redone(datasets, tuple(models), tuple(revoked))


def is_registered(work: Workspace, model: str) -> bool:
    """Whether a model was trained before: forgetting trains nothing that nobody asked for."""
    from tasks.train.task import registered_versions  # noqa: PLC0415

    return bool(registered_versions(work.settings, model))


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
    }
