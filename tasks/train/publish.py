"""What a training leaves in MLflow: a run that explains the model, the model as plain files, a version; and their end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from infra import tracking as store_of_runs
from infra.contracts import LetheError, Snapshot
from infra.ids import key_of
from infra.tracking import ModelRecord, Tracking
from tasks.train import pictures
from tasks.train.checkpoints import load
from tasks.train.ensemble import Makeup, save_ensemble
from tasks.train.fit import Recipe, ShardResult
from tasks.train.frames import CONTROL, MAIN
from tasks.train.versions import DIGEST

MANIFEST = "manifest.json"
KEY, CHECKPOINTS = "lethe.key", "lethe.checkpoints"
LAKE = "lethe.lake"  # whose model it is: lakes may share a registry
SUPERSEDED = "superseded: trained on rows that were erased since"
# What has to travel with a model for it to be loaded where Lethe is not installed.
_SERVING = (
    *("infra.contracts", "infra.ids", "infra.rowhash", "tasks.kernels.ngrams", "tasks.kernels.tokens"),
    *(f"tasks.train.{name}" for name in ("environment", "ensemble", "features", "models", "pyfunc_model", "weights")),
)
_REQUIREMENTS = ("mlflow", "numba", "numpy", "pandas", "pyarrow", "safetensors", "torch")


@dataclass(frozen=True)
class Trained:
    """What the workers made: recipes and shards by role (main, control), the metrics, and where it was done."""

    recipes: dict[str, Recipe]
    results: dict[str, tuple[ShardResult, ...]]
    metrics: dict[str, float]
    environment: dict[str, str]

    def checkpoints(self) -> list[str]:
        """Names of all checkpoints that the two ensembles rest on, sorted."""
        return sorted({name for of in self.results.values() for result in of for name in result.checkpoints})


@dataclass(frozen=True)
class Told:
    """What a run tells beside what was trained: its inputs, the model's settings, figures by path, tags."""

    inputs: tuple[Snapshot, ...]
    settings: Mapping[str, Any]
    tags: dict[str, str]
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])


def publish(tracking: Tracking, model: str, alias: str, trained: Trained, told: Told, checkpoints: str) -> ModelRecord:
    """Log the run and the model, register a version and let the alias name it. `checkpoints` is their store."""
    shards, recipe = trained.results[MAIN], trained.recipes[MAIN]
    makeup = Makeup(recipe.kind, recipe.classes, recipe.spec)
    with (
        store_of_runs.running(tracking, model, tags=told.tags) as run_id,
        tempfile.TemporaryDirectory(prefix="lethe-") as scratch,
    ):
        folder = Path(scratch)
        digest = save_ensemble(folder / "model", makeup, _final_weights(checkpoints, shards))
        _log_run(tracking, run_id, trained, told, _manifest(model, digest, trained, told))
        model_id = store_of_runs.log_model(
            tracking,
            run_id,
            model,
            folder / "model",
            loader_module="tasks.train.pyfunc_model",
            code=copy_code(folder / "code"),
            requirements=_REQUIREMENTS,
            metadata={DIGEST: digest, "columns": list(recipe.spec.columns)},
        )
    names = trained.checkpoints()
    tags = {**told.tags, DIGEST: digest, CHECKPOINTS: f"{len(names)}:{key_of(names)}"}
    record = store_of_runs.register(tracking, model, run_id=run_id, model_id=model_id, tags=tags)
    store_of_runs.set_alias(tracking, model, alias, record.version)
    return record


def _final_weights(store: str, shards: Sequence[ShardResult]) -> Iterator[dict[str, Tensor]]:
    for shard in shards:
        checkpoint = load(store, shard.checkpoints[-1])
        if checkpoint is None:
            raise LetheError(f"the last checkpoint of shard {shard.shard} is gone from {store}. Run: lethe train")
        yield checkpoint.weights


def _manifest(model: str, digest: str, trained: Trained, told: Told) -> dict[str, Any]:
    """The run in one document: whole digests, which MLflow's own fields are too short for."""
    recipe = trained.recipes[MAIN]
    return {
        "model": model,
        "digest": digest,
        "inputs": [asdict(s) for s in told.inputs],
        "settings": dict(told.settings),
        "classes": list(recipe.classes),
        "spec": asdict(recipe.spec),
        "plan": asdict(recipe.plan),
        "code": recipe.code,
        "environment": trained.environment,
        "metrics": trained.metrics,
        "results": {role: [asdict(r) for r in of] for role, of in trained.results.items()},
        "checkpoints": trained.checkpoints(),
    }


def _log_run(tracking: Tracking, run_id: str, trained: Trained, told: Told, manifest: dict[str, Any]) -> None:
    shards = trained.results[MAIN]
    environment = {f"environment.{name}": value for name, value in trained.environment.items()}
    store_of_runs.log_params(tracking, run_id, {**told.settings, **environment, "n_classes": len(manifest["classes"])})
    store_of_runs.log_inputs(tracking, run_id, told.inputs)
    store_of_runs.log_metrics(tracking, run_id, trained.metrics)
    store_of_runs.log_series(tracking, run_id, {"train_loss": _mean_curve(shards)})
    store_of_runs.log_json(tracking, run_id, manifest, MANIFEST)
    curves = pictures.learning_curves({s.shard: s.losses for s in shards})
    for path, figure in {"figures/learning_curves.png": curves, **told.figures}.items():
        store_of_runs.log_figure(tracking, run_id, figure, path)


def _mean_curve(shards: Sequence[ShardResult]) -> list[float]:
    """Mean over shards of the loss of each epoch, as long as the shortest curve that is not empty."""
    curves = [s.losses for s in shards if s.losses]
    return [sum(values) / len(values) for values in zip(*curves, strict=False)]


def results_of(manifest: Mapping[str, Any], role: str) -> tuple[ShardResult, ...]:
    """The shards that a run's manifest tells of, as found: nothing was trained to have them now."""
    return tuple(_as_found(result) for result in manifest["results"].get(role, ()))


def _as_found(result: dict[str, Any]) -> ShardResult:
    told = ShardResult(**result)
    names = tuple(told.checkpoints)
    return replace(told, found=True, n_slices_found=len(names), n_steps=0, checkpoints=names, losses=tuple(told.losses))


def checkpoints_of(tracking: Tracking, record: ModelRecord) -> set[str]:
    """Names of the checkpoints that a version rests on."""
    manifest = store_of_runs.read_json(tracking, record.run_id, MANIFEST)
    return {name for role in (MAIN, CONTROL) for result in results_of(manifest, role) for name in result.checkpoints}


def named_models(tracking: Tracking, lake: str) -> set[str]:
    """The models of a lake (its tag, see `LAKE`) that have a version."""
    found, token = set[str](), None
    while token != "":
        page = tracking.client.search_model_versions(f"tags.`{LAKE}` = '{lake}'", page_token=token)
        found |= {str(version.tags[store_of_runs.MODEL]) for version in page}
        token = page.token or ""
    return found


def retire(tracking: Tracking, model: str, keep: ModelRecord | None, reason: str = SUPERSEDED) -> list[dict[str, Any]]:
    """Revoke and purge every version but `keep`, and every run of the model that came to nothing; one dict a version."""
    kept = keep.run_id if keep is not None else ""
    old = [r for r in store_of_runs.versions(tracking, model) if keep is None or r.version != keep.version]
    for record in old:
        store_of_runs.revoke(tracking, model, record.version, reason)
    stray = [run_id for run_id in store_of_runs.runs(tracking, model) if run_id != kept]
    purged = store_of_runs.purge(tracking, model, [r.version for r in old], run_ids=stray)
    return [
        {
            "model": model,
            "version": str(r.version),
            "run_id": r.run_id,
            "digest": r.tags.get(DIGEST, ""),
            "reason": reason,
            "left": list(purged.left),
        }
        for r in old
    ]


# --- the code that travels -----------------------------------------------------------------------------------------------------


def copy_code(folder: Path) -> list[Path]:
    """Copy the modules that loading a model takes into a folder, as the packages `infra` and `tasks`; returns those two."""
    for module in _SERVING:
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            _copy_module(".".join(parts[:depth]), folder)
    return [folder / "infra", folder / "tasks"]


def _copy_module(module: str, folder: Path) -> None:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    place = module.replace(".", "/")
    target = folder / (f"{place}/__init__.py" if spec.submodule_search_locations else f"{place}.py")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(spec.origin, target)
