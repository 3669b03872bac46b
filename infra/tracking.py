"""Runs, dataset inputs, models and revocations in MLflow, through its client alone. The only importer of mlflow.

Nothing here starts a run by accident: every call names its run. Models are folders of plain files (safetensors and JSON) with
the code that loads them; nothing is pickled. Params, tags, metrics and artifacts must hold no personal data: the callers see to
that, `purge` takes away what was trained on erased rows all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

# Before the first import of mlflow, which reads them: no telemetry, and no pickle is ever loaded.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
import sqlalchemy as sql
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, TraceInfo, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.pyfunc import PyFuncModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from infra.contracts import LetheError, Snapshot
from infra.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # half a second that only a training spends

REVOKED = "lethe.revoked"
MODEL = "lethe.model"
_MODEL_ID = "lethe.model_id"
_BATCH = 100
_MAX_PARAM = 6000
_TRACES_PAGE = 100
_NOTHING = "-"
_REDACTED = "REDACTED-SOURCE-PATH"  # what MLflow writes over the source of a deleted version

for _name in ("mlflow.store.db.utils", "alembic", "mlflow.tracking.client"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class TrackingError(LetheError):
    """MLflow's store cannot do what was asked."""


class UnknownModel(TrackingError):
    """No such registered model, version or alias."""


class RevokedModel(TrackingError):
    """The version was revoked: it was trained on rows that were erased since."""


@dataclass(frozen=True)
class Tracking:
    """An open tracking store and registry, and the experiment that runs go to."""

    client: MlflowClient
    uri: str
    experiment_id: str


@dataclass(frozen=True)
class ModelRecord:
    """One version of a registered model. `revoked` is the reason, empty while it stands."""

    model: str
    version: int
    run_id: str
    model_id: str
    source: str
    tags: dict[str, str] = field(default_factory=dict[str, str])
    aliases: tuple[str, ...] = ()

    @property
    def revoked(self) -> str:
        return self.tags.get(REVOKED, "")


@dataclass(frozen=True)
class Purged:
    """What a purge took away, and `left`: what it found afterwards or could not reach, one sentence each."""

    model: str
    versions: tuple[int, ...]
    run_ids: tuple[str, ...]
    model_ids: tuple[str, ...]
    n_dataset_rows: int
    left: tuple[str, ...]


# --- the store -----------------------------------------------------------------------------------------------------------------


def open_tracking(settings: Settings) -> Tracking:
    """Open the store that the settings name; make the SQLite file's folder and the experiment where they are missing."""
    uri = settings.tracking_uri
    _make_folder(uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = settings.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError(f"MLflow experiment {name!r} is deleted. Restore it, or set [tracking] experiment to another name")
    experiment_id = found.experiment_id if found is not None else _create_experiment(client, name, settings)
    return Tracking(client, uri, str(experiment_id))


def _make_folder(uri: str) -> None:
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)


def _create_experiment(client: MlflowClient, name: str, settings: Settings) -> str:
    # A server keeps artifacts where it was told to; only a store that this process opens itself needs a location from us.
    remote = settings.tracking_uri.startswith(("http://", "https://"))
    own = None if remote and settings.tracking.artifacts is None else _as_uri(settings.artifacts_uri)
    try:
        return str(client.create_experiment(name, artifact_location=own))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        found = client.get_experiment_by_name(name)
        if found is None:
            raise TrackingError(f"MLflow experiment {name!r} exists and cannot be read") from error
        return str(found.experiment_id)


def _as_uri(location: str) -> str:
    return location if "://" in location else Path(location).as_uri()


@contextmanager
def _aimed_at(uri: str) -> Iterator[None]:
    """MLflow's process-wide address, for the few calls that look at nothing else; put back afterwards."""
    before: Any = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


# --- runs ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def running(tracking: Tracking, name: str, *, tags: Mapping[str, str] | None = None) -> Iterator[str]:
    """A run that ends FINISHED, or FAILED when the block raises. Yields its id."""
    run = tracking.client.create_run(tracking.experiment_id, run_name=name, tags=dict(tags or {}))
    run_id = str(run.info.run_id)
    try:
        yield run_id
    except BaseException:
        tracking.client.set_terminated(run_id, status="FAILED")
        raise
    tracking.client.set_terminated(run_id, status="FINISHED")


def log_params(tracking: Tracking, run_id: str, params: Mapping[str, Any]) -> None:
    """Plain values as params, cut at MLflow's length."""
    entries = [Param(key, str(value)[:_MAX_PARAM]) for key, value in sorted(params.items())]
    for start in range(0, len(entries), _BATCH):
        tracking.client.log_batch(run_id, params=entries[start : start + _BATCH])


def log_metrics(tracking: Tracking, run_id: str, metrics: Mapping[str, float]) -> None:
    """One value a metric."""
    log_series(tracking, run_id, {name: [value] for name, value in metrics.items()})


def log_series(tracking: Tracking, run_id: str, series: Mapping[str, Sequence[float]]) -> None:
    """Several values a metric, in steps 0, 1, 2 ..., in batches of 1,000 values."""
    now = int(time.time() * 1000)
    entries = [Metric(name, float(v), now, step) for name, values in sorted(series.items()) for step, v in enumerate(values)]
    for start in range(0, len(entries), 1000):
        tracking.client.log_batch(run_id, metrics=entries[start : start + 1000])


def log_inputs(tracking: Tracking, run_id: str, snapshots: Sequence[Snapshot], *, context: str = "training") -> None:
    """Snapshots as the run's datasets: 32 hex digits of digest (MLflow takes 36), `lethe://<table>@<version>`, row count."""
    inputs = [DatasetInput(_dataset(s), [InputTag("mlflow.data.context", context)]) for s in snapshots]
    tracking.client.log_inputs(run_id, datasets=inputs)


def _dataset(snapshot: Snapshot) -> Dataset:
    source = json.dumps({"uri": f"lethe://{snapshot.table}@{snapshot.version}"})
    profile = json.dumps({"num_rows": snapshot.n_rows})
    return Dataset(snapshot.table, snapshot.digest.rpartition(":")[2][:36], "lethe", source, profile=profile)


def inputs_of(tracking: Tracking, run_id: str) -> list[str]:
    """Names of the tables that a run's datasets are, sorted."""
    inputs = tracking.client.get_run(run_id).inputs
    return sorted({str(one.dataset.name) for one in inputs.dataset_inputs}) if inputs is not None else []


def log_text(tracking: Tracking, run_id: str, text: str, path: str) -> None:
    """Text as an artifact of a run."""
    tracking.client.log_text(run_id, text, path)


def log_json(tracking: Tracking, run_id: str, document: Any, path: str) -> None:
    """Plain JSON as an artifact of a run."""
    log_text(tracking, run_id, json.dumps(document, sort_keys=True, indent=1), path)


def log_figure(tracking: Tracking, run_id: str, figure: Figure, path: str) -> None:
    """A matplotlib figure as an artifact of a run (PNG or SVG by the path's ending)."""
    tracking.client.log_figure(run_id, figure, path)


def log_file(tracking: Tracking, run_id: str, path: Path) -> None:
    """A file as an artifact of a run, by its own name."""
    tracking.client.log_artifact(run_id, str(path))


def read_json(tracking: Tracking, run_id: str, path: str) -> Any:
    """The JSON artifact of a run."""
    with tempfile.TemporaryDirectory(prefix="lethe-") as folder:
        return json.loads(Path(tracking.client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8"))


# --- models --------------------------------------------------------------------------------------------------------------------


def registered_name(model: str) -> str:
    """A model's name in the registry, which takes neither '/' nor ':'."""
    return model.replace("/", "--")


def log_model(
    tracking: Tracking,
    run_id: str,
    model: str,
    data: Path,
    *,
    loader_module: str,
    code: Sequence[Path] = (),
    requirements: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Log a folder of plain files as a pyfunc model; returns its LoggedModel id.

    `loader_module` has `_load_pyfunc(path of the data) -> object with predict(frame)`; the packages in `code` travel with the
    model, so that `mlflow.pyfunc.load_model` works in a process that has only the `requirements`.
    """
    client = tracking.client
    name = registered_name(model).replace(".", "-")
    logged = client.create_logged_model(tracking.experiment_id, name=name, source_run_id=run_id, model_type="lethe")
    with tempfile.TemporaryDirectory(prefix="lethe-") as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=loader_module,
            data_path=str(data),
            code_paths=[str(path) for path in code],
            pip_requirements=list(requirements),
            mlflow_model=Model(run_id=run_id, model_id=logged.model_id, artifact_path=logged.artifact_location),
            metadata=dict(metadata or {}),
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def register(tracking: Tracking, model: str, *, run_id: str, model_id: str, tags: Mapping[str, str]) -> ModelRecord:
    """Make a logged model the next version of a registered model."""
    name = registered_name(model)
    try:
        tracking.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    with _aimed_at(tracking.uri):
        version = tracking.client.create_model_version(
            name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags={**tags, _MODEL_ID: model_id}
        )
    return _record(model, version)


def _record(model: str, version: ModelVersion) -> ModelRecord:
    tags = {str(k): str(v) for k, v in version.tags.items()}
    aliases = tuple(str(a) for a in version.aliases)
    model_id = tags.get(_MODEL_ID, "")
    return ModelRecord(model, int(version.version), str(version.run_id), model_id, str(version.source), tags, aliases)


def set_alias(tracking: Tracking, model: str, alias: str, version: int) -> None:
    """Let an alias name a version; it names no other any more."""
    tracking.client.set_registered_model_alias(registered_name(model), alias, str(version))


def version_of(tracking: Tracking, model: str, *, version: int | None = None, alias: str | None = None) -> ModelRecord:
    """One version, by number or by alias. Raises `UnknownModel`."""
    client, name = tracking.client, registered_name(model)
    try:
        if version is not None:
            return _record(model, client.get_model_version(name, str(version)))
        by_alias = client.get_model_version_by_alias(name, alias or "")
        return _record(model, client.get_model_version(name, by_alias.version))
    except MlflowException as error:
        if _is_missing(error):
            what = f"version {version}" if version is not None else f"version with alias {alias!r}"
            raise UnknownModel(f"the registry has no {what} of model {model!r}. Run: lethe train") from None
        raise


def find_version(tracking: Tracking, model: str, alias: str) -> ModelRecord | None:
    """The version that an alias names, or None."""
    try:
        return version_of(tracking, model, alias=alias)
    except UnknownModel:
        return None


def versions(tracking: Tracking, model: str) -> list[ModelRecord]:
    """All versions of a model, oldest first; none where there is no such model."""
    found = list[ModelVersion]()
    token: str | None = None
    while True:
        page = tracking.client.search_model_versions(f"name = '{registered_name(model)}'", page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    # A search leaves the aliases out; a version by itself has them.
    whole = [tracking.client.get_model_version(v.name, v.version) for v in found]
    return sorted((_record(model, v) for v in whole), key=lambda r: r.version)


def revoke(tracking: Tracking, model: str, version: int, reason: str) -> None:
    """Take every alias from a version and mark it and its LoggedModel: `load_model` refuses it from now on."""
    record = version_of(tracking, model, version=version)
    for alias in record.aliases:
        tracking.client.delete_registered_model_alias(registered_name(model), alias)
    tracking.client.set_model_version_tag(registered_name(model), str(version), REVOKED, reason)
    if record.model_id:
        tracking.client.set_logged_model_tags(record.model_id, {REVOKED: reason})


def load_model(settings: Settings, model: str, *, version: int | None = None, alias: str | None = None) -> PyFuncModel:
    """Load a version, by default the one with the settings' alias. Raises `RevokedModel` or `UnknownModel`."""
    tracking = open_tracking(settings)
    record = version_of(tracking, model, version=version, alias=alias or settings.tracking.alias)
    if record.revoked:
        raise RevokedModel(
            f"{model} version {record.version} was revoked ({record.revoked}). "
            f"Load the version with alias {settings.tracking.alias!r}"
        )
    with _aimed_at(tracking.uri), _own_code_first():
        folder = mlflow.artifacts.download_artifacts(record.source)
        loader = Model.load(folder).flavors["python_function"]["loader_module"]
        if importlib.util.find_spec(loader.partition(".")[0]) is not None:
            # Else the copy of the code that travels with the model would stand for this installation's from now on.
            importlib.import_module(loader)
        return mlflow.pyfunc.load_model(folder)


@contextmanager
def _own_code_first() -> Iterator[None]:
    """MLflow puts a model's code in front of the module search path and leaves it there."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def _is_missing(error: MlflowException) -> bool:
    missing = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE")
    return error.error_code in missing


# --- purging -------------------------------------------------------------------------------------------------------------------


def runs(tracking: Tracking, model: str) -> list[str]:
    """Ids of all runs that were started for a model (tag `lethe.model`), also failed and deleted ones; sorted."""
    found = list[str]()
    token: str | None = None
    while True:
        page = tracking.client.search_runs(
            [tracking.experiment_id], f"tags.`{MODEL}` = '{model}'", run_view_type=ViewType.ALL, page_token=token
        )
        found.extend(str(run.info.run_id) for run in page)
        token = page.token
        if not token:
            return sorted(found)


def purge(tracking: Tracking, model: str, doomed: Sequence[int], *, run_ids: Sequence[str] = ()) -> Purged:
    """Remove versions of a model for good, with their runs, logged models, artifacts, traces and dataset rows.

    `run_ids` names further runs, such as failed ones that no version came from. In a database store nothing that names them stays
    but the version's number; a tracking server lets a client only hide runs, and `left` says what its keeper has to collect.
    Raises `TrackingError` where an alias still names a version: `revoke` it first.
    """
    records = [version_of(tracking, model, version=v) for v in sorted(set(doomed))]
    for record in records:
        if record.aliases:
            raise TrackingError(
                f"{model} version {record.version} is still {', '.join(record.aliases)}. Revoke it before the purge"
            )
    run_ids = tuple(sorted({r.run_id for r in records if r.run_id} | set(run_ids)))
    places = _artifact_places(tracking, run_ids)
    model_ids = tuple(sorted(m for run_id in run_ids for m in _logged_models(tracking, run_id)))
    for record in records:
        _delete_version(tracking, record)
    for run_id in run_ids:
        _delete_run(tracking, run_id)
    gone = tuple(r.version for r in records)
    if not _is_database(tracking.uri):
        return Purged(model, gone, run_ids, model_ids, 0, tuple(_hidden(run_ids, model_ids)))
    _collect(tracking, run_ids, model_ids)
    n_rows = _delete_rows(tracking.uri, [*run_ids, *model_ids])
    for place in places:
        _remove_folder(place)
    left = [*residues(tracking, [*run_ids, *model_ids]), *(f"folder {p} is still there" for p in places if p.exists())]
    return Purged(model, gone, run_ids, model_ids, n_rows, tuple(left))


def _is_database(uri: str) -> bool:
    return uri.split(":", 1)[0].split("+", 1)[0] in ("sqlite", "postgresql", "mysql", "mssql")


def _hidden(run_ids: Sequence[str], model_ids: Sequence[str]) -> Iterator[str]:
    for run_id in run_ids:
        yield f"run {run_id} is deleted but not collected: on the server, run: mlflow gc --run-ids {run_id}"
    for model_id in model_ids:
        yield f"model {model_id} is deleted but not collected: on the server, run: mlflow gc --logged-model-ids {model_id}"


def _delete_version(tracking: Tracking, record: ModelRecord) -> None:
    # MLflow keeps the tags of a deleted version: they go first.
    name, version = registered_name(record.model), str(record.version)
    for key in record.tags:
        tracking.client.delete_model_version_tag(name, version, key)
    tracking.client.delete_model_version(name, version)


def _delete_run(tracking: Tracking, run_id: str) -> None:
    client = tracking.client
    while traces := _traces(tracking, run_id):
        for trace in traces:
            # Deleting a trace leaves its spans in the artifact store.
            if (place := trace.tags.get("mlflow.artifactLocation")) is not None:
                _delete_artifacts(place)
        client.delete_traces(tracking.experiment_id, trace_ids=[trace.trace_id for trace in traces])
    for model_id in _logged_models(tracking, run_id):
        client.delete_logged_model(model_id)
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.delete_run(run_id)


def _traces(tracking: Tracking, run_id: str) -> list[TraceInfo]:
    """Some of a run's traces; none when it has no more."""
    where = [tracking.experiment_id]
    found = tracking.client.search_traces(locations=where, run_id=run_id, max_results=_TRACES_PAGE, include_spans=False)
    return [trace.info for trace in found]


def _delete_artifacts(uri: str) -> None:
    get_artifact_repository(uri).delete_artifacts()
    if (folder := _local_folder(uri)) is not None:
        _remove_folder(folder)


def _logged_models(tracking: Tracking, run_id: str) -> list[str]:
    found = tracking.client.search_logged_models([tracking.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return [str(m.model_id) for m in found]


def _artifact_places(tracking: Tracking, run_ids: Sequence[str]) -> list[Path]:
    """Local folders of runs and of their models: `mlflow gc` empties them and leaves them there."""
    client = tracking.client
    uris = [str(client.get_run(run_id).info.artifact_uri) for run_id in run_ids]
    uris += [str(client.get_logged_model(m).artifact_location) for run_id in run_ids for m in _logged_models(tracking, run_id)]
    return [folder for folder in map(_local_folder, uris) if folder is not None]


def _local_folder(uri: str) -> Path | None:
    """The folder above a local `<id>/artifacts`; None for other stores."""
    parsed = urlparse(uri)
    path = Path(unquote(parsed.path))
    return path.parent if parsed.scheme in ("", "file") and path.name == "artifacts" else None


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _collect(tracking: Tracking, run_ids: Sequence[str], model_ids: Sequence[str]) -> None:
    """`mlflow gc` for exactly these ids (where it is given none, it takes everything that anybody ever deleted)."""
    import mlflow.cli as cli  # noqa: PLC0415 - it drags in every MLflow command, seconds of import that only a purge is worth

    if not run_ids:
        return
    ids = ["--run-ids", ",".join(run_ids), "--logged-model-ids", ",".join(model_ids) or _NOTHING]
    try:
        with _aimed_at(tracking.uri), contextlib.redirect_stdout(io.StringIO()):
            cli.gc.main(["--backend-store-uri", tracking.uri, "--tracking-uri", tracking.uri, *ids], standalone_mode=False)
    except MlflowException as error:
        # Models come last, and a name that no model has is how to say "none of them".
        if model_ids or error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise


def _delete_rows(uri: str, ids: Sequence[str]) -> int:
    """Delete what MLflow keeps for ever: dataset inputs and links of runs and models, datasets nobody uses, old models' paths."""
    engine = sql.create_engine(uri)
    schema = sql.MetaData()
    schema.reflect(engine, only=["inputs", "input_tags", "datasets", "entity_associations", "model_versions"])
    with engine.begin() as connection:
        n_rows = _delete_inputs(connection, schema, ids) + _delete_links(connection, schema, ids)
        versions_ = schema.tables["model_versions"]
        connection.execute(sql.update(versions_).where(versions_.c.source == _REDACTED).values(storage_location=_REDACTED))
    if engine.dialect.name == "sqlite":
        # Deleted rows stay in a SQLite file's free pages until it is written anew.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sql.text("PRAGMA wal_checkpoint(TRUNCATE)"))
            connection.execute(sql.text("VACUUM"))
    engine.dispose()
    return n_rows


def _delete_inputs(connection: sql.Connection, schema: sql.MetaData, ids: Sequence[str]) -> int:
    inputs, tags, datasets = (schema.tables[name] for name in ("inputs", "input_tags", "datasets"))
    theirs = sql.or_(inputs.c.source_id.in_(ids), inputs.c.destination_id.in_(ids))
    uuids = [row[0] for row in connection.execute(sql.select(inputs.c.input_uuid).where(theirs))]
    n_rows = connection.execute(sql.delete(tags).where(tags.c.input_uuid.in_(uuids))).rowcount
    n_rows += connection.execute(sql.delete(inputs).where(theirs)).rowcount
    unused = datasets.c.dataset_uuid.not_in(sql.select(inputs.c.source_id))
    return int(n_rows + connection.execute(sql.delete(datasets).where(unused)).rowcount)


def _delete_links(connection: sql.Connection, schema: sql.MetaData, ids: Sequence[str]) -> int:
    """Links between runs and traces."""
    links = schema.tables["entity_associations"]
    theirs = sql.or_(links.c.source_id.in_(ids), links.c.destination_id.in_(ids))
    return int(connection.execute(sql.delete(links).where(theirs)).rowcount)


def residues(tracking: Tracking, ids: Sequence[str]) -> list[str]:
    """Where a database store still names one of the ids: every text column of every table is searched."""
    engine = sql.create_engine(tracking.uri)
    tables = sql.MetaData()
    tables.reflect(engine)
    found = list[str]()
    with engine.connect() as connection:
        for table in tables.sorted_tables:
            texts = [c for c in table.columns if isinstance(c.type, sql.String)]
            for column in texts:
                hit = sql.or_(*(column.contains(i, autoescape=True) for i in ids)) if ids else sql.false()
                n_hits = connection.execute(sql.select(sql.func.count()).select_from(table).where(hit)).scalar_one()
                if n_hits:
                    found.append(f"{n_hits} rows of {table.name}.{column.name} still name a purged run or model")
    engine.dispose()
    return found
