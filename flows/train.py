"""training set -> shard models -> one registered ensemble."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import flow

from flows.progress import say
from flows.training_sets import pool_of_training_set
from flows.workspace import Workspace, opened
from infra.settings import Settings
from tasks.train.task import TrainResult
from tasks.train.task import train as train_model


@flow(name="train", persist_result=False, validate_parameters=False)
def train(names: list[str] | None = None, config: str = "lethe.toml") -> tuple[TrainResult, ...]:
    """Train the named models (all of lethe.toml, if None) on their newest training sets; unchanged shards are found."""
    with opened(config, shared=True) as work:
        return tuple(train_again(work, name) for name in names or models_in_order(work.settings, work.settings.models))


def models_in_order(settings: Settings, names: Iterable[str]) -> list[str]:
    """Models by name, those whose dataset waits for another model's scores after that one."""
    return sorted(names, key=lambda name: (len(settings.scorers(settings.model(name).dataset)), name))


def train_again(work: Workspace, name: str) -> TrainResult:
    """Train inside a workspace that is already open, on the pool that the training set was decided on."""
    training_set, pool = pool_of_training_set(work.lake, work.settings.model(name).dataset)
    say("model %s: train", name)
    return train_model(work.settings, name, pool, training_set, scheduler=work.scheduler)
