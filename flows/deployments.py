"""Schedules, work pools and triggers, once: `prefect.yaml` and `lethe up` both come from here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectAlreadyExists

POOL = "lethe"
_CONFIG = "{{ $LETHE_CONFIG }}"


@dataclass(frozen=True)
class Deployment:
    """One way a flow is run: on a schedule (`cron`, UTC), on demand, or by an event."""

    name: str
    flow: str
    description: str
    cron: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    triggers: tuple[dict[str, Any], ...] = ()


def all_of() -> tuple[Deployment, ...]:
    """The deployments. `curate` and `train` take `names` when they are triggered; without, everything in lethe.toml. `retire`
    takes `tables`, or `plan`, and pauses until somebody approves; `restore` takes `tables`."""
    return (
        Deployment(
            "curate", "flows.curate:curate", "raw files to training sets, for every dataset of lethe.toml", cron="0 2 * * *"
        ),
        Deployment("train", "flows.train:train", "train every model of lethe.toml; unchanged shards are found", cron="0 4 * * *"),
        Deployment(
            "forget",
            "flows.forget:forget",
            "finish all open deletion requests; also on the event lethe.deletion-requested",
            cron="30 * * * *",
            triggers=({"type": "event", "enabled": True, "expect": ["lethe.deletion-requested"]},),
        ),
        Deployment(
            "maintain",
            "flows.maintain:maintain",
            "small files joined, leftovers removed, containment scan, certificates checked",
            cron="0 5 * * 0",
        ),
        Deployment("retire", "flows.retire:retire", "remove tables that others can rebuild, once somebody has approved"),
        Deployment("restore", "flows.retire:restore", "bring retired tables back"),
    )


def as_yaml() -> dict[str, Any]:
    """The content of prefect.yaml."""
    return {
        "name": "lethe",
        "prefect-version": "3.8.8",
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $LETHE_HOME }}"}}],
        "deployments": [_entry(d) for d in all_of()],
    }


def _entry(deployment: Deployment) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": deployment.name,
        "description": deployment.description,
        "entrypoint": _as_path(deployment.flow),
        "parameters": {**deployment.parameters, "config": _CONFIG},
        "work_pool": {"name": POOL},
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "schedules": [{"cron": deployment.cron, "timezone": "UTC", "slug": deployment.name}] if deployment.cron else [],
    }
    return {**entry, "triggers": [dict(t) for t in deployment.triggers]} if deployment.triggers else entry


def _as_path(flow: str) -> str:
    module, _, name = flow.partition(":")
    return f"{module.replace('.', '/')}.py:{name}"


def deploy_all(config: str) -> list[str]:
    """Register the work pool and every deployment with the server of PREFECT_API_URL; returns `flow/deployment` names."""
    asyncio.run(_make_pool())
    return [_deploy(deployment, config) for deployment in all_of()]


async def _make_pool() -> None:
    async with get_client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))


def _deploy(deployment: Deployment, config: str) -> str:
    made = RunnerDeployment.from_entrypoint(
        entrypoint=str(Path(__file__).parents[1] / _as_path(deployment.flow)),
        name=deployment.name,
        description=deployment.description,
        cron=deployment.cron,
        parameters={**deployment.parameters, "config": config},
        triggers=[DeploymentEventTrigger(name=f"{deployment.name} on event", **t) for t in deployment.triggers],
        work_pool_name=POOL,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
    )
    made.apply()
    return f"{made.flow_name}/{made.name}"
