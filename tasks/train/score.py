"""A trained model as a score: the probability of a label for every record of a pool, which selection can go by.

Stages meet in the lake: the scores are the table `model_scores/<dataset>`, one data file for each file of the pool, its rows in
the order of that file's (see `infra.per_file`), and selection reads them there. A file that was scored by the same bits of the
model is not read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from prefect import task
from torch import Tensor, nn

from infra import per_file
from infra import tracking as store_of_runs
from infra.cluster import Scheduler, connect
from infra.contracts import MODEL_SCORES, DataFile, LetheError, Lineage, Snapshot
from infra.discretion import discreet
from infra.files import Folder, Part, read_part, source_key, write_part
from infra.ids import F64
from infra.lake import Lake
from infra.lineage import code_digest, stage_key
from infra.settings import ConfigError, Settings
from tasks.train.checkpoints import load
from tasks.train.ensemble import Makeup
from tasks.train.environment import deterministic
from tasks.train.features import Features, Spec, encode
from tasks.train.frames import MAIN
from tasks.train.models import tensors
from tasks.train.publish import MANIFEST, results_of
from tasks.train.task import checkpoint_store

_RECORDS = "records/"
_ROWS = 4096
_BLOCK = 512
_GRID = {torch.float64: 1 << 24, torch.float32: 1 << 14}
_CODE = (
    *("tasks.kernels.ngrams", "tasks.kernels.tokens"),
    *(f"tasks.train.{name}" for name in ("checkpoints", "ensemble", "environment", "features", "models", "score")),
)


class NotTrained(LetheError):
    """A dataset selects by the scores of a model that has no trained version, or none that knows the label."""


@dataclass(frozen=True)
class Scorer:
    """A trained ensemble: what it is, the last checkpoints of its shards and their store, and which class it scores by."""

    makeup: Makeup
    store: str
    checkpoints: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class ScorePart:
    """One file of the pool, and what its columns are called where the model has another name: (theirs, ours)."""

    table: str
    part: Part
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> str:
        return f"{self.table}/{self.part.file.path}"


@dataclass(frozen=True)
class _Model:
    """The version of a model that the alias names, as its run tells of it: its bits, the code that made them (a factory of the
    user's too), the label asked for, and the tables it was trained from."""

    scorer: Scorer
    digest: str
    code: str
    label: str
    inputs: tuple[Snapshot, ...]


@task(name="score", persist_result=False)
@discreet
def score_pool(settings: Settings, dataset: str, pool: tuple[Snapshot, ...], *, scheduler: Scheduler = None) -> Snapshot:
    """Score every record of a pool by the model that a dataset's `select.score` names, and commit `model_scores/<dataset>`.

    A score is the probability of the label asked for, the mean of the shards' softmax; NULL for a record whose text has no token.
    Files scored by the same bits of the model are not read again; when no file is new and none is gone, the table is found.
    Raises `NotTrained`, and `ConfigError` for a table that has nothing the model could look at.
    """
    lake, model = Lake.open(settings), _model(settings, dataset)
    table = f"model_scores/{dataset}"
    wanted = {source_key(part.source): part for part in _parts(settings, lake, model, sorted(pool))}
    params = _params(settings, dataset, model, wanted.values())
    code = code_digest(*_CODE)
    inputs = tuple(dict.fromkeys((*sorted(pool), *model.inputs)))
    lineage = Lineage("score", stage_key("score", code, sorted(pool), params), code, inputs, params)

    def run(fresh: Sequence[ScorePart]) -> list[DataFile]:
        with connect(scheduler) as workers:
            return workers.map(score_file, fresh, model.scorer, lake.folder(table))

    return per_file.updated(lake, table, wanted, run, schema=MODEL_SCORES, lineage=lineage)


def _params(settings: Settings, dataset: str, model: _Model, parts: Iterable[ScorePart]) -> dict[str, Any]:
    """What a file's scores are a function of, beside the file and the code."""
    asked = settings.dataset(dataset).select.score
    renames = {part.table: [list(pair) for pair in part.renames] for part in parts}
    named = {"model": asked.model if asked else None, "label": model.label}
    return {**named, "digest": model.digest, "code": model.code, "renames": renames}


# --- the model -----------------------------------------------------------------------------------------------------------------


def _model(settings: Settings, dataset: str) -> _Model:
    """The newest version of the model that a dataset selects by. Raises `NotTrained`."""
    asked = settings.dataset(dataset).select.score
    if asked is None or asked.model is None or asked.label is None:
        raise ConfigError(f"datasets.{dataset}.select.score names no model. Add model and label to it")
    tracking = store_of_runs.open_tracking(settings)
    record = store_of_runs.find_version(tracking, asked.model, settings.tracking.alias)
    if record is None or record.revoked:
        raise NotTrained(
            f"dataset {dataset!r} selects by the scores of model {asked.model!r}, which has no trained version. "
            f"Run: lethe train {asked.model}"
        )
    manifest = store_of_runs.read_json(tracking, record.run_id, MANIFEST)
    makeup = Makeup(manifest["settings"]["kind"], tuple(manifest["classes"]), Spec.parse(manifest["spec"]))
    if asked.label not in makeup.classes:
        raise NotTrained(
            f"dataset {dataset!r} selects by label {asked.label!r}, and model {asked.model!r} was trained on no row that has it. "
            f"Correct datasets.{dataset}.select.score.label, or train the model on rows that have it"
        )
    finals = tuple(shard.checkpoints[-1] for shard in results_of(manifest, MAIN))
    scorer = Scorer(makeup, checkpoint_store(settings, asked.model), finals, makeup.classes.index(asked.label))
    return _Model(
        scorer, manifest["digest"], manifest["code"], asked.label, tuple(Snapshot(**told) for told in manifest["inputs"])
    )


def _parts(settings: Settings, lake: Lake, model: _Model, pool: Sequence[Snapshot]) -> Iterator[ScorePart]:
    spec = model.scorer.makeup.spec
    for snapshot in pool:
        name = snapshot.table.removeprefix(_RECORDS)
        text, schema = settings.table(name).text, lake.schema(snapshot)
        renames = ((text, spec.columns[0]),) if spec.view == "text" and text and text != spec.columns[0] else ()
        seen = [column for column in _read_columns(renames, spec, schema) if column != "row_id"]
        if not seen:
            raise ConfigError(
                f"table {name!r} has none of the columns that model looks at ({', '.join(spec.columns)}); it has: "
                + ", ".join(column for column in schema.names if column != "row_id")
            )
        yield from (ScorePart(snapshot.table, part, renames) for part in lake.parts(snapshot))


def _read_columns(renames: Sequence[tuple[str, str]], spec: Spec, schema: pa.Schema) -> list[str]:
    back = {ours: theirs for theirs, ours in renames}
    return [name for name in ("row_id", *(back.get(column, column) for column in spec.columns)) if name in schema.names]


# --- in the workers ------------------------------------------------------------------------------------------------------------


def score_file(part: ScorePart, scorer: Scorer, folder: Folder) -> DataFile:
    """Score one file of the pool and write what came out, in the order of its rows."""
    return write_part(folder, _scored(part, scorer), MODEL_SCORES, source=part.source)


def _scored(part: ScorePart, scorer: Scorer) -> Iterator[pa.RecordBatch]:
    spec, models, names = scorer.makeup.spec, _models(scorer), dict(part.renames)
    for whole in read_part(part.part, _read_columns(part.renames, spec, part.part.schema)):
        for start in range(0, whole.num_rows, _ROWS):
            batch = whole.slice(start, _ROWS)
            features = encode(batch.rename_columns([names.get(name, name) for name in batch.schema.names]), spec)
            scores = label_chances(models, features, scorer)
            if spec.view == "text":
                scores[np.diff(features.offsets) == 0] = np.nan
            yield pa.record_batch([batch.column("row_id"), pa.array(scores, from_pandas=True)], schema=MODEL_SCORES)


def _models(scorer: Scorer) -> tuple[nn.Module, ...]:
    """The constituent models on the CPU. Loaded for each file: no worker is left with a model that is revoked since."""
    found = list[nn.Module]()
    for name in scorer.checkpoints:
        checkpoint = load(scorer.store, name)
        if checkpoint is None:
            raise NotTrained(f"checkpoint {name[:16]} of the model that scores is gone from {scorer.store}. Run: lethe train")
        module = scorer.makeup.module(checkpoint.weights)
        found.append(widened(module) if _precision(scorer) == torch.float64 else module)
    return tuple(found)


def widened(module: nn.Module) -> nn.Module:
    """The same model in float64. Bags of embeddings stay in float32, where they are six times as fast, and sum each row apart."""
    for part in module.double().modules():
        if isinstance(part, nn.EmbeddingBag):
            part.float().register_forward_hook(_as_double)
    return module


def _as_double(_part: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.double()


def _precision(scorer: Scorer) -> torch.dtype:
    return torch.float32 if ":" in scorer.makeup.kind else torch.float64


@torch.no_grad()
def label_chances(models: Sequence[nn.Module], features: Features, scorer: Scorer) -> F64:
    """The probability of the scorer's label, (n,): the mean over the models of their softmax.

    A row's score must not depend on the rows beside it, and products of matrices round by their shape. So all blocks have one
    shape, sums are in float64 (a factory of the user's has float32), and what rounding may leave is rounded away.
    """
    totals, precision = np.zeros(len(features)), _precision(scorer)
    with deterministic():
        for start in range(0, len(features), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(features)))
            block = np.concatenate([rows, np.full(_BLOCK - len(rows), rows[0])])
            dense, tokens, offsets = tensors(features.take(block), "cpu")
            for model in models:
                logits = model(dense.to(precision), tokens, offsets)
                totals[rows] += torch.softmax(logits.double(), dim=1).numpy()[: len(rows), scorer.label]
    return np.rint(totals / len(models) * _GRID[precision]) / _GRID[precision]
