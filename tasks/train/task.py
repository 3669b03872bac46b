"""The door of training: a training set becomes shard models, an ensemble, and a version in the registry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from matplotlib.figure import Figure
from prefect import task

from infra import tracking as store_of_runs
from infra.cluster import Scheduler, Workers, connect
from infra.contracts import LetheError, Snapshot
from infra.discretion import discreet
from infra.files import Part, filesystem, read_part
from infra.ids import Keys, key_of
from infra.lake import Lake
from infra.lineage import code_digest
from infra.settings import ModelSettings, Settings
from infra.subjects import roots
from infra.tracking import ModelRecord, Tracking
from tasks.train import frames, pictures
from tasks.train.checkpoints import delete_except
from tasks.train.evaluate import Tally, metrics
from tasks.train.features import Spec, infer_spec, pixel_column
from tasks.train.fit import Recipe, ShardResult
from tasks.train.frames import CONTROL, HELD_OUT, MAIN, Extract, Members, PoolPart, ShardTask, group_name
from tasks.train.mixture import Mixture, check_mixture, mixture_of
from tasks.train.plan import Plan
from tasks.train.publish import (
    KEY,
    LAKE,
    MANIFEST,
    Told,
    Trained,
    checkpoints_of,
    named_models,
    publish,
    results_of,
    retire,
)
from tasks.train.versions import DIGEST

_HELD_OUT_ROWS = 50_000
# What a shard's bits depend on. A change elsewhere in the stage leaves checkpoints as good as they were.
_FITTING = (
    *("infra.ids", "infra.rowhash", "infra.spans", "tasks.kernels.ngrams", "tasks.kernels.tokens"),
    *(f"tasks.train.{name}" for name in ("environment", "features", "fit", "mixture", "models", "plan")),
)


class NothingToTrain(LetheError):
    """The training set leaves a model without rows or labels."""


@dataclass(frozen=True)
class TrainResult:
    """A registered version. `found`: the current one already is what would be trained; `digest` is that of the model's bits."""

    model: str
    version: str
    run_id: str
    digest: str
    metrics: dict[str, float]
    shards: tuple[ShardResult, ...]
    found: bool
    seconds: float
    control: tuple[ShardResult, ...] = ()
    n_checkpoints_deleted: int = 0


@dataclass(frozen=True)
class _Job:
    """What is to be trained, from what."""

    wanted: ModelSettings
    spec: Spec
    chosen: Members
    parts: tuple[PoolPart, ...]
    checkpoints: str
    device: str
    keys: Keys
    mixture: Mixture | None = None


@task(name="train", persist_result=False)
@discreet
def train(
    settings: Settings, model: str, pool: tuple[Snapshot, ...], training_set: Snapshot, *, scheduler: Scheduler = None
) -> TrainResult:
    """Train a model of the settings from a training set over its pool, evaluate it, register it and move the alias to it.

    A row's id covers its content, so a version is a function of who trains and who is held out, of the model's settings and of
    the code; when the aliased version comes of the same, it is returned as found. Shards whose rows did not change are found by
    their checkpoints. The classes are those of the kept rows: when the last row of a class is erased, every shard is trained
    again without it. Raises `LetheError`s for pools and training sets that do not fit the model.
    """
    started = time.perf_counter()
    lake, tracking = Lake.open(settings), store_of_runs.open_tracking(settings)
    job = _job(lake, settings, model, pool, training_set)
    code = code_digest("tasks.train", *_FITTING, *_factory_module(job.wanted.kind))
    mixture = asdict(job.mixture) if job.mixture else None
    key = key_of("train", code, job.chosen.digest(), job.wanted.model_dump(), asdict(job.spec), mixture)
    current = store_of_runs.find_version(tracking, model, settings.tracking.alias)
    if current is not None and current.tags.get(KEY) == key and not current.revoked:
        return _found(tracking, current, time.perf_counter() - started)
    with connect(scheduler, gpu=True) as workers, lake.scratch() as scratch:
        trained = _trained(workers, job, scratch)
    tags = {
        KEY: key,
        store_of_runs.MODEL: model,
        LAKE: _lake_tag(settings),
        "lethe.training_set": f"{training_set.table}@{training_set.version}",
        "lethe.code": code,
    }
    told = Told((*pool, training_set), job.wanted.model_dump(), tags, _figures(lake, training_set))
    record = publish(tracking, model, settings.tracking.alias, trained, told, job.checkpoints)
    return TrainResult(
        model=model,
        version=str(record.version),
        run_id=record.run_id,
        digest=record.tags[DIGEST],
        metrics=trained.metrics,
        shards=trained.results[MAIN],
        found=False,
        control=trained.results.get(CONTROL, ()),
        n_checkpoints_deleted=delete_except(job.checkpoints, trained.checkpoints()),
        seconds=time.perf_counter() - started,
    )


def retire_superseded(settings: Settings, model: str) -> list[dict[str, Any]]:
    """Revoke and purge every version but the alias's, with its run and artifacts, and delete the checkpoints it rested on.

    One dict a version that went: model, version, run_id, digest, and `left`: what could not be removed from here (a tracking
    server's keeper has to collect it). Runs that came to nothing go with them.
    """
    tracking = store_of_runs.open_tracking(settings)
    current = store_of_runs.find_version(tracking, model, settings.tracking.alias)
    gone = retire(tracking, model, current)
    delete_except(checkpoint_store(settings, model), checkpoints_of(tracking, current) if current is not None else set())
    return gone


def retire_model(settings: Settings, model: str, reason: str) -> list[dict[str, Any]]:
    """Revoke and purge every version of a model, the alias's too, with all runs and checkpoints; what went, as above."""
    gone = retire(store_of_runs.open_tracking(settings), model, None, reason)
    fs, folder = filesystem(checkpoint_store(settings, model))
    if fs.exists(folder):
        fs.rm(folder, recursive=True)
    return gone


def checkpoint_store(settings: Settings, model: str) -> str:
    """Where a model's checkpoints lie: `<lake>/checkpoints/<model>`; only those of its newest version are kept."""
    return f"{_checkpoints(settings)}/{store_of_runs.registered_name(model)}"


def _checkpoints(settings: Settings) -> str:
    return f"{settings.lake_uri.rstrip('/')}/checkpoints"


def _lake_tag(settings: Settings) -> str:
    return key_of("lake", settings.lake_uri.rstrip("/"))[:16]


def held_models(settings: Settings) -> list[str]:
    """Every model of this lake that a version or a checkpoint is left of, whether lethe.toml still has it or not."""
    tracking = store_of_runs.open_tracking(settings)
    asked = {store_of_runs.registered_name(name): name for name in settings.models}
    fs, folder = filesystem(_checkpoints(settings))
    stores = [str(place).rstrip("/").rsplit("/", 1)[-1] for place in fs.ls(folder, detail=False)] if fs.exists(folder) else []
    named = {name: asked.get(name) or _full_name(tracking, name) for name in stores}
    return sorted({*named.values(), *named_models(tracking, _lake_tag(settings))})


def _full_name(tracking: Tracking, registered: str) -> str:
    """The name of a model that lethe.toml has no more, as its versions or runs tell it."""
    told = [record.tags.get(store_of_runs.MODEL, "") for record in store_of_runs.versions(tracking, registered)]
    slashed = registered.replace("--", "/")
    return next((name for name in told if name), slashed if store_of_runs.runs(tracking, slashed) else registered)


def inputs_of(settings: Settings, model: str) -> list[Snapshot] | None:
    """The snapshots that the alias's version was trained from, the training set last; None where nothing can tell."""
    tracking = store_of_runs.open_tracking(settings)
    current = store_of_runs.find_version(tracking, model, settings.tracking.alias)
    if current is None:
        return None
    return [Snapshot(**told) for told in store_of_runs.read_json(tracking, current.run_id, MANIFEST)["inputs"]]


def retrained_since(settings: Settings, result: TrainResult, moment: datetime) -> TrainResult:
    """A found version as the run made it that registered it, if that was after a moment: a killed run trained its shards."""
    tracking = store_of_runs.open_tracking(settings)
    name = store_of_runs.registered_name(result.model)
    made = tracking.client.get_model_version(name, result.version).creation_timestamp
    if not result.found or made / 1000 < moment.timestamp():
        return result
    told = store_of_runs.read_json(tracking, result.run_id, MANIFEST)["results"][MAIN]
    fresh = {shard["shard"] for shard in told if not shard["found"]}
    shards = tuple(replace(shard, found=shard.shard not in fresh) for shard in result.shards)
    return replace(result, shards=shards)


def _found(tracking: Tracking, current: ModelRecord, seconds: float) -> TrainResult:
    manifest = store_of_runs.read_json(tracking, current.run_id, MANIFEST)
    return TrainResult(
        model=current.model,
        version=str(current.version),
        run_id=current.run_id,
        digest=manifest["digest"],
        metrics=manifest["metrics"],
        shards=results_of(manifest, MAIN),
        found=True,
        seconds=seconds,
        control=results_of(manifest, CONTROL),
    )


def _figures(lake: Lake, training_set: Snapshot) -> dict[str, Figure]:
    """Pictures of what selection and pruning said of this training set, where they said it."""
    lineage = lake.lineage(training_set)
    figures = dict[str, Figure]()
    if sizes := [n for n in lineage.summary.get("cluster_sizes", ()) if n]:
        figures["figures/cluster_sizes.png"] = pictures.cluster_sizes(sizes)
    for selection in (s for s in lineage.inputs if s.table.startswith("selection/")):
        said = _summary_of(lake, selection)
        kl = {what: said[f"kl_{what}"] for what in ("raw", "random", "selected") if said.get(f"kl_{what}") is not None}
        if kl:
            figures["figures/kl.png"] = pictures.divergences(kl)
    return figures


def _summary_of(lake: Lake, snapshot: Snapshot) -> dict[str, Any]:
    """What the newest version with these rows said; nothing, when the table has moved on."""
    if not lake.exists(snapshot.table):
        return {}
    latest = lake.snapshot(snapshot.table)
    return lake.lineage(latest).summary if latest.digest == snapshot.digest else {}


# --- the job -------------------------------------------------------------------------------------------------------------------


def _job(lake: Lake, settings: Settings, model: str, pool: Sequence[Snapshot], training_set: Snapshot) -> _Job:
    wanted = settings.model(model)
    if not pool:
        raise NothingToTrain(f"the pool of dataset {wanted.dataset!r} is empty. Run: lethe curate")
    parts = tuple(_pool_parts(lake, settings, wanted, pool))
    check_mixture(settings, wanted.dataset, {name for part in parts for name in part.part.schema.names})
    chosen = frames.members(lake.parts(training_set))
    if not chosen.holds(MAIN).any():
        raise NothingToTrain(f"{training_set.table} keeps no row to train on. Look at the reasons in it")
    spec = _spec(lake, settings, wanted, parts, pool)
    store = checkpoint_store(settings, model)
    return _Job(wanted, spec, chosen, parts, store, settings.cluster.device, lake.keys, mixture_of(settings, wanted.dataset))


def _table_name(snapshot: Snapshot) -> str:
    return snapshot.table.removeprefix("records/")


def _pool_parts(lake: Lake, settings: Settings, wanted: ModelSettings, pool: Sequence[Snapshot]) -> Iterator[PoolPart]:
    """Every file of the pool, its text column renamed to that of the first table. Raises `NothingToTrain` without labels."""
    text, mixture = settings.table(_table_name(pool[0])).text, mixture_of(settings, wanted.dataset)
    for snapshot in pool:
        table = settings.table(_table_name(snapshot))
        if wanted.label not in lake.schema(snapshot).names:
            raise NothingToTrain(
                f"{snapshot.table} has no column {wanted.label!r}. Set label of the model to one that every table has"
            )
        renames = ((table.text, text),) if table.text and text and table.text != text else ()
        for part in lake.parts(snapshot):
            yield PoolPart(part, wanted.label, renames, table.subject, table.text, _table_name(snapshot), mixture)


def _spec(lake: Lake, settings: Settings, wanted: ModelSettings, parts: Sequence[PoolPart], pool: Sequence[Snapshot]) -> Spec:
    tables = [settings.table(_table_name(snapshot)) for snapshot in pool]
    schemas = [lake.schema(snapshot) for snapshot in pool]
    whose = [name for table, schema in zip(tables, schemas, strict=True) for name in roots(schema, table.subjects)]
    exclude = ["row_id", wanted.label, *whose]
    column = pixel_column(schemas[0], exclude)
    n_pixels = _list_length([p.part for p in parts], column) if column is not None else 0
    return infer_spec(wanted.kind, schemas, text=tables[0].text, exclude=exclude, n_pixels=n_pixels)


def _list_length(parts: Sequence[Part], column: str) -> int:
    """The length of the first list in a column; every other list must have it, which encoding checks."""
    for part in (part for part in parts if column in part.schema.names):
        for batch in read_part(part, [column]):
            known = batch.column(0).drop_null()
            if len(known):
                return len(known[0])
    return 0


def _factory_module(kind: str) -> tuple[str, ...]:
    """The module of a user's factory, where it can be found: its code is part of the model's identity."""
    module = kind.partition(":")[0]
    if ":" not in kind:
        return ()
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return ()
    return (module,) if spec is not None and spec.origin is not None else ()


# --- the work ------------------------------------------------------------------------------------------------------------------


def _trained(workers: Workers, job: _Job, scratch: str) -> Trained:
    """Both ensembles: shards are found or trained, then judged on the held-out rows."""
    index = frames.write_index(scratch, job.chosen)
    device, environment = workers.map(frames.probe, [job.device])[0]
    recipes = _recipes(job, workers.map(frames.labels, job.parts, index), environment, device)
    work = [t for role, recipe in recipes.items() for t in _shard_tasks(role, recipe, job)]
    found = workers.map(frames.find_shard, work, job.checkpoints)
    todo = [t for t, result in zip(work, found, strict=True) if result is None]
    n_held_out = -(-int(job.chosen.holds(HELD_OUT).sum()) // _HELD_OUT_ROWS)
    extracts = _extracts(workers, job, index, scratch, todo, n_held_out)
    fresh = iter(workers.map(frames.train_shard, todo, recipes, environment, extracts, job.checkpoints))
    done = [(t.role, result or next(fresh)) for t, result in zip(work, found, strict=True)]
    results = {role: tuple(r for of, r in done if of == role) for role in recipes}
    finals = {role: tuple(r.checkpoints[-1] for r in of) for role, of in results.items()}
    tallies = workers.map(frames.evaluate, list(range(n_held_out)), recipes, finals, extracts, job.checkpoints)
    return Trained(recipes, results, _metrics(tallies, results), environment)


def _recipes(job: _Job, labels: Sequence[dict[str, list[str]]], environment: dict[str, str], device: str) -> dict[str, Recipe]:
    """One recipe an ensemble: the model, and the random control where it is asked for and has rows."""
    wanted = job.wanted
    classes = {role: tuple(sorted({name for of in labels for name in of[role]})) for role in (MAIN, CONTROL)}
    if not classes[MAIN]:
        raise NothingToTrain(
            f"no kept row of dataset {wanted.dataset!r} has a label in {wanted.label!r}. Look at its training set"
        )
    plan = Plan(wanted.slices, wanted.epochs, wanted.batch_size, wanted.learning_rate, wanted.seed, job.mixture)
    code, place = code_digest(*_FITTING, *_factory_module(wanted.kind)), key_of(environment)
    roles = [MAIN, CONTROL] if wanted.control and classes[CONTROL] else [MAIN]
    return {role: Recipe(wanted.kind, job.spec, classes[role], plan, code, place, device) for role in roles}


def _shard_tasks(role: str, recipe: Recipe, job: _Job) -> Iterator[ShardTask]:
    """The shards that have rows; an empty one has nothing to say in the ensemble."""
    for shard in range(job.wanted.shards):
        slices = job.chosen.by_slice(role, shard, recipe.plan.slices)
        n_rows = sum(map(len, slices))
        if n_rows:
            yield ShardTask(role, shard, n_rows, recipe.names(shard, slices))


def _extracts(
    workers: Workers, job: _Job, index: str, scratch: str, todo: Sequence[ShardTask], n_held_out: int
) -> tuple[Extract, ...]:
    """The features of the rows of these shards and of the held-out rows, read once."""
    shards = [group_name(t.role, t.shard) for t in todo]
    groups = frozenset([*shards, *(group_name(HELD_OUT, i) for i in range(n_held_out))])
    if not groups:
        return ()
    made = workers.map(frames.extract, job.parts, index, scratch, job.spec, groups, n_held_out, job.keys)
    return tuple(e for e in made if e is not None)


def _metrics(tallies: Sequence[dict[str, Tally]], results: dict[str, tuple[ShardResult, ...]]) -> dict[str, float]:
    scores = metrics(t[MAIN] for t in tallies)
    if CONTROL in results:
        control = metrics((t[CONTROL] for t in tallies), "control_")
        scores |= {name: value for name, value in control.items() if name != "control_n_holdout"}
    shards = results[MAIN]
    return scores | {"n_rows": float(sum(s.n_rows for s in shards)), "n_shards": float(len(shards))}
