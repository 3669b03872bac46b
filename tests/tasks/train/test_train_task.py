"""Train through the door: the model of a lake that forgot somebody is that of a lake that never met them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import LocalCluster

from infra import tracking
from infra.cluster import cluster
from infra.contracts import Snapshot
from tasks.train.ensemble import load_ensemble
from tasks.train.features import encode
from tasks.train.frames import StaleTrainingSet
from tasks.train.task import NothingToTrain, TrainResult, checkpoint_store, retire_superseded, train
from tasks.train.versions import registered_versions

ROOT = Path(__file__).parents[3]


def run(house, **options) -> TrainResult:
    return train.fn(house.settings, "m", (house.pool,), house.training_set, **options)


def model_folder(house, version: int | None = None) -> Path:
    """The logged model's folder of plain files."""
    store = tracking.open_tracking(house.settings)
    record = tracking.version_of(store, "m", version=version, alias="champion")
    return Path(store.client.get_logged_model(record.model_id).artifact_location.removeprefix("file://"))


def checkpoints(house) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(checkpoint_store(house.settings, "m")).iterdir()}


def in_training(house, person: str) -> bool:
    ids = set(house.lake.read(house.training_set).filter(pa.compute.field("keep"))["row_id"].to_pylist())
    rows = house.lake.read(house.pool, ["row_id", "person"]).to_pylist()
    return any(r["person"] == person and r["row_id"] in ids for r in rows)


def a_trained_person(house) -> str:
    return next(p for p in sorted(set(house.lake.read(house.pool, ["person"])["person"].to_pylist())) if in_training(house, p))


def test_forgetting_is_never_having_met(build: Callable, kind: str, table: pa.Table, without: Callable) -> None:
    house = build(kind, table)
    first = run(house)
    person = a_trained_person(house)
    left = without(table, person)
    forgot_house = build(kind, left, n_files=2)
    forgot = run(forgot_house)
    stranger_house = build(kind, left, "b", n_files=3, shuffle=8)
    stranger = run(stranger_house)
    assert forgot.digest == stranger.digest != first.digest
    assert forgot.metrics == stranger.metrics and forgot.n_checkpoints_deleted > 0
    assert sorted(s.found for s in forgot.shards) == [False, True]
    assert not any(s.found for s in stranger.shards)
    assert checkpoints(forgot_house) == checkpoints(stranger_house)
    ours, theirs = model_folder(forgot_house) / "data", model_folder(stranger_house) / "data"
    weights = sorted(p.relative_to(ours) for p in ours.rglob("*") if p.is_file())
    assert weights and all((ours / p).read_bytes() == (theirs / p).read_bytes() for p in weights)


def test_a_change_that_no_model_row_sees_is_found(build: Callable) -> None:
    house = build("text", _texts())
    first = run(house)
    again = build("text", _texts(), n_files=3, shuffle=1)
    assert again.pool.version != house.pool.version
    found = run(again)
    assert found.found and (found.version, found.run_id, found.metrics) == (first.version, first.run_id, first.metrics)
    assert [(s.shard, s.digest, s.found) for s in found.shards] == [(s.shard, s.digest, True) for s in first.shards]
    assert len(registered_versions(house.settings, "m")) == 1


def test_the_run_explains_the_model(build: Callable) -> None:
    house = build("text", _texts())
    result = run(house)
    store = tracking.open_tracking(house.settings)
    found = store.client.get_run(result.run_id)
    assert (
        found.info.status == "FINISHED"
        and found.data.params["kind"] == "text"
        and found.data.params["environment.threads"] == "1"
    )
    assert {d.dataset.name for d in found.inputs.dataset_inputs} == {"records/notes", "training_set/d"}
    manifest = tracking.read_json(store, result.run_id, "manifest.json")
    assert [Snapshot(**s) for s in manifest["inputs"]] == [house.pool, house.training_set]
    assert {"accuracy", "log_loss", "control_accuracy", "train_loss"} <= set(found.data.metrics)
    assert store.client.list_artifacts(result.run_id, "figures")[0].path == "figures/learning_curves.png"
    assert registered_versions(house.settings, "m")[0]["state"] == "champion"
    logged = str(manifest) + str(found.data.params) + str(found.data.tags)
    assert not any(person in logged for person in ("'p0'", "p1 ", '"p2"'))


def test_superseded_versions_and_their_runs_are_gone(build: Callable, without: Callable) -> None:
    house = build("text", _texts(), control=False)
    first = run(house)
    old_folder = model_folder(house)
    after = build("text", without(_texts(), a_trained_person(house)), control=False)
    second = run(after)
    gone = retire_superseded(after.settings, "m")
    assert [(g["version"], g["run_id"], g["left"]) for g in gone] == [("1", first.run_id, [])]
    assert [v["version"] for v in registered_versions(after.settings, "m")] == ["2"]
    assert not old_folder.exists()
    assert set(checkpoints(after)) == {f"{name}.safetensors" for s in second.shards for name in s.checkpoints}
    assert retire_superseded(after.settings, "m") == []


@pytest.mark.parametrize("kind", ["text", "tabular"])
def test_a_fresh_process_without_the_project_predicts_the_same(
    build: Callable, kind: str, table: pa.Table, tmp_path: Path
) -> None:
    house = build(kind, table, control=False, epochs=1)
    run(house)
    folder = shutil.copytree(model_folder(house), tmp_path / "model")
    suffixes = {p.suffix for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert suffixes == {"", ".yaml", ".txt", ".json", ".py", ".safetensors"}
    frame = table.drop_columns(["person", "topic"]).to_pandas().head(9)
    frame.to_parquet(tmp_path / "rows.parquet")
    script = """if True:
        import sys, mlflow.pyfunc, pandas
        model = mlflow.pyfunc.load_model(sys.argv[1])
        model.predict(pandas.read_parquet(sys.argv[2])).to_parquet(sys.argv[3])
    """
    argv = [sys.executable, "-c", script, str(folder), str(tmp_path / "rows.parquet"), str(tmp_path / "out.parquet")]
    subprocess.run(argv, check=True, cwd=tmp_path, capture_output=True, timeout=120)
    ensemble = load_ensemble(folder / "data" / "model")
    chances = ensemble.probabilities(encode(pa.Table.from_pandas(frame, preserve_index=False), ensemble.makeup.spec))
    there = pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_array_equal(there.iloc[:, 1:].to_numpy(), chances)
    here = tracking.load_model(house.settings, "m").predict(frame)
    pd.testing.assert_frame_equal(here, there)
    assert str(ROOT) not in "".join(p.read_text() for p in folder.rglob("*.json"))
    assert mlflow.active_run() is None


@pytest.mark.slow
def test_a_cluster_makes_the_same_model(build: Callable, kind: str, table: pa.Table) -> None:
    here = run(build(kind, table, n_files=3))
    # Two shards at once in one process: seeds and threads belong to the process.
    with LocalCluster(n_workers=1, threads_per_worker=3, host="127.0.0.1", dashboard_address=None) as cluster:
        there = run(build(kind, table, "b"), scheduler=cluster.scheduler_address)
    assert (there.digest, there.metrics) == (here.digest, here.metrics)


@pytest.mark.gpu
def test_cuda_workers_forget_as_if_never_met(build: Callable, kind: str, table: pa.Table, without: Callable) -> None:
    here = build(kind, table, "b", device="gpu")
    alone = run(here)
    house = build(kind, table, device="gpu", n_files=3)
    with cluster(house.settings, n_bytes=1) as scheduler:
        first = run(house, scheduler=scheduler)
        person = a_trained_person(house)
        forgot = run(build(kind, without(table, person), n_files=2, device="gpu"), scheduler=scheduler)
        stranger_house = build(kind, without(table, person), "c", shuffle=8, device="gpu")
        stranger = run(stranger_house, scheduler=scheduler)
    assert (first.digest, first.metrics) == (alone.digest, alone.metrics)
    assert forgot.digest == stranger.digest != first.digest
    assert checkpoints(house) == checkpoints(stranger_house)
    params = tracking.open_tracking(house.settings).client.get_run(first.run_id).data.params
    assert params["environment.device"] == "cuda" and params["environment.gpu"]


def test_a_training_set_that_the_pool_does_not_hold_is_refused(build: Callable, without: Callable) -> None:
    house = build("text", _texts())
    person = a_trained_person(house)
    smaller = build("text", without(_texts(), person), "b")
    with pytest.raises(StaleTrainingSet, match="lethe curate"):
        train.fn(smaller.settings, "m", (smaller.pool,), _moved(house, smaller))
    assert tracking.runs(tracking.open_tracking(smaller.settings), "m") == []


def _moved(source, target) -> Snapshot:
    """The training set of one lake, put into another."""
    shutil.copytree(source.lake.uri("training_set/d"), target.lake.uri("training_set/other"))
    return target.lake.snapshot("training_set/other")


def test_without_labels_there_is_nothing_to_train(build: Callable) -> None:
    table = _texts()
    unlabelled = table.set_column(2, "topic", pa.nulls(table.num_rows, pa.string()))
    house = build("text", unlabelled)
    with pytest.raises(NothingToTrain, match="label"):
        run(house)
    house = build("text", table, "b", label="missing")
    with pytest.raises(NothingToTrain, match="no column 'missing'"):
        run(house)


def _texts() -> pa.Table:
    rng = np.random.default_rng(5)
    words = {"sport": ["goal", "match", "team"], "money": ["bank", "price", "share"]}
    topics = rng.choice(["sport", "money"], 60)
    bodies = [" ".join(rng.choice(words[t], 5)) + f" n{i}" for i, t in enumerate(topics)]
    return pa.table({"person": [f"p{i // 3}" for i in range(60)], "body": bodies, "topic": topics})
