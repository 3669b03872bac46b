"""What pydantic cannot see of a lethe.toml: names, and references from one section to another. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from infra.contract_check import contract_complaints

if TYPE_CHECKING:  # the settings ask this module
    from infra.settings import Settings

Complaint = tuple[list[str], str]  # keys, and what is wrong there
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")
_FOREIGN = "foreign"
_EVALUATION = ["select", "decontaminate", "tables"]


def complaints(settings: Settings) -> Iterator[Complaint]:
    """What cannot be meant: names, and what one section says of another; nothing, if all is well."""
    yield from _bad_names(settings)
    yield from _bad_contracts(settings)
    yield from _dangling(settings)
    yield from _unevaluable(settings)
    yield from _disagreeing(settings)
    yield from _unscorable(settings)
    yield from _unmixable(settings)


def _bad_names(settings: Settings) -> Iterator[Complaint]:
    for section in ("tables", "collections", "datasets", "models"):
        for name in getattr(settings, section):
            if not NAME.match(name) or ".." in name:
                yield [section, name], "a name is letters, digits, '_', '-', '.', with '/' between parts"
            elif name == _FOREIGN or name.startswith(f"{_FOREIGN}/"):
                yield [section, name], f"{_FOREIGN!r} stands for registered tables of other writers"


def _bad_contracts(settings: Settings) -> Iterator[Complaint]:
    for kind, sections in (("tables", settings.tables), ("collections", settings.collections)):
        for name, section in sections.items():
            yield from (([kind, name, *keys], said) for keys, said in contract_complaints(section))


def _dangling(settings: Settings) -> Iterator[Complaint]:
    def known(table: str) -> bool:
        return table in settings.tables or any(table.startswith(c + "/") for c in settings.collections)

    for name, dataset in settings.datasets.items():
        named = ((["pool"], dataset.pool), (["target"], tuple(dataset.target)), (_EVALUATION, dataset.evaluations))
        for keys, tables in named:
            for table in dict.fromkeys(tables):
                if not known(table):
                    yield ["datasets", name, *keys], f"table {table!r} is not in [tables] or [collections]"
    for name, model in settings.models.items():
        if model.dataset not in settings.datasets:
            yield ["models", name, "dataset"], f"{model.dataset!r} is not in [datasets]"


def _unevaluable(settings: Settings) -> Iterator[Complaint]:
    for name, dataset in settings.datasets.items():
        for table in dict.fromkeys(dataset.evaluations):
            if table in dataset.pool:
                yield (
                    ["datasets", name, *_EVALUATION],
                    f"table {table!r} is in the pool as well, and every record of it would count as contaminated. Take it out of "
                    "pool, where it is for evaluation; out of decontaminate.tables, where it is to be trained on",
                )


def _disagreeing(settings: Settings) -> Iterator[Complaint]:
    plans: dict[str, tuple[str, int, int]] = {}
    for name, model in settings.models.items():
        first, shards, slices = plans.setdefault(model.dataset, (name, model.shards, model.slices))
        if (shards, slices) != (model.shards, model.slices):
            yield ["models", name], f"shards and slices must equal those of models.{first}, which trains on the same dataset"


def _unscorable(settings: Settings) -> Iterator[Complaint]:
    for name, dataset in settings.datasets.items():
        keys, score, scorers = ["datasets", name, "select", "score"], dataset.select.score, settings.scorers(name)
        if scorers and scorers[0] not in settings.models:
            yield [*keys, "model"], f"{scorers[0]!r} is not in [models]"
        elif any(model in settings.models and settings.models[model].dataset == name for model in scorers):
            yield [*keys, "model"], f"a circle: the dataset waits for model {scorers[0]!r}, and that one for the dataset"
        if score is not None and dataset.method not in ("score", "none") and not score.is_bound:
            yield keys, f"records are drawn by {dataset.method} here, so the score can only drop: add a threshold or a percentile"


def _unmixable(settings: Settings) -> Iterator[Complaint]:
    for name, dataset in settings.datasets.items():
        for table in dataset.mixture.weights if dataset.mixture and dataset.mixture.by == "table" else ():
            if table not in dataset.pool:
                yield ["datasets", name, "mixture", "weights"], f"table {table!r} is not in the pool: {', '.join(dataset.pool)}"
