"""Runs, models and revocations against a real SQLite store; a purge leaves nothing that names what it took."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Span

from infra import tracking as t
from infra.contracts import Snapshot
from infra.settings import Settings

A, B = Snapshot("records/a", 3, "5:" + "a" * 32, 5), Snapshot("records/b", 0, "2:" + "b" * 32, 2)
LOADER = """
class Model:
    def predict(self, frame, params=None):
        return [self.word] * len(frame)


def _load_pyfunc(path):
    model = Model()
    model.word = open(path + "/word.txt").read()
    return model
"""


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its experiment and nothing else; made once, for it takes seconds."""
    home = tmp_path_factory.mktemp("store")
    t.open_tracking(Settings(home=home))
    return home / "tracking" / "mlflow.db"


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Settings:
    (tmp_path / "tracking").mkdir()
    shutil.copyfile(empty_store, tmp_path / "tracking" / "mlflow.db")
    # The experiment of the copied store keeps its artifacts elsewhere: each test has its own.
    return Settings.model_validate({"home": tmp_path, "tracking": {"experiment": "mine"}})


@pytest.fixture
def store(settings: Settings) -> t.Tracking:
    return t.open_tracking(settings)


def make_version(store: t.Tracking, home: Path, word: str, inputs: tuple[Snapshot, ...] = (A,)) -> t.ModelRecord:
    code, data = home / "code" / "word_model", home / "data" / word
    code.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True)
    (code / "__init__.py").write_text(LOADER)
    (data / "word.txt").write_text(word)
    with t.running(store, "train", tags={t.MODEL: "words"}) as run_id:
        t.log_params(store, run_id, {"long": "x" * 9000, **{f"p{i}": i for i in range(150)}})
        t.log_series(store, run_id, {"loss": [3.0, 2.0, 1.0], "many": [float(i) for i in range(1500)]})
        t.log_inputs(store, run_id, inputs)
        t.log_json(store, run_id, {"word": word}, "manifest.json")
        model_id = t.log_model(store, run_id, "words", data, loader_module="word_model", code=[code], requirements=["mlflow"])
    record = t.register(store, "words", run_id=run_id, model_id=model_id, tags={"lethe.digest": word})
    t.set_alias(store, "words", "champion", record.version)
    return record


def test_a_run_says_what_it_was_told(store: t.Tracking, tmp_path: Path) -> None:
    record = make_version(store, tmp_path, "first", (A, B))
    run = store.client.get_run(record.run_id)
    assert run.info.status == "FINISHED" and len(run.data.params) == 151 and len(run.data.params["long"]) == 6000
    assert store.client.get_run(record.run_id).data.metrics["loss"] == 1.0
    assert [m.value for m in store.client.get_metric_history(record.run_id, "loss")] == [3.0, 2.0, 1.0]
    found = {d.dataset.name: d.dataset for d in run.inputs.dataset_inputs}
    assert found["records/a"].digest == "a" * 32 and found["records/a"].source == '{"uri": "lethe://records/a@3"}'
    assert set(found) == {"records/a", "records/b"}
    assert t.read_json(store, record.run_id, "manifest.json") == {"word": "first"}
    assert mlflow.active_run() is None


def test_a_run_whose_work_fails_is_failed(store: t.Tracking) -> None:
    with pytest.raises(KeyError), t.running(store, "train", tags={t.MODEL: "words"}) as run_id:
        raise KeyError
    assert store.client.get_run(run_id).info.status == "FAILED"
    assert t.runs(store, "words") == [run_id]


def test_the_alias_moves_and_a_revoked_version_does_not_load(store: t.Tracking, settings: Settings, tmp_path: Path) -> None:
    first = make_version(store, tmp_path, "first")
    assert t.load_model(settings, "words").predict([0, 0]) == ["first", "first"]
    second = make_version(store, tmp_path, "second")
    assert [(v.version, v.aliases) for v in t.versions(store, "words")] == [(1, ()), (2, ("champion",))]
    t.revoke(store, "words", second.version, "erased")
    assert t.find_version(store, "words", "champion") is None
    with pytest.raises(t.RevokedModel, match=r"version 2 was revoked \(erased\)"):
        t.load_model(settings, "words", version=2)
    with pytest.raises(t.UnknownModel, match="alias 'champion'"):
        t.load_model(settings, "words")
    assert store.client.get_logged_model(second.model_id).tags[t.REVOKED] == "erased"
    assert t.version_of(store, "words", version=1).run_id == first.run_id


def test_a_purge_leaves_nothing_that_names_the_run(store: t.Tracking, settings: Settings, tmp_path: Path) -> None:
    first = make_version(store, tmp_path, "first", (A, B))
    with pytest.raises(KeyError), t.running(store, "train", tags={t.MODEL: "words"}) as stray:
        t.log_text(store, stray, "half done", "note.txt")
        raise KeyError
    with pytest.raises(t.TrackingError, match="still champion"):
        t.purge(store, "words", [1])
    second = make_version(store, tmp_path, "second", (A,))
    t.revoke(store, "words", first.version, "superseded")
    purged = t.purge(store, "words", [first.version], run_ids=[stray])
    assert purged.left == () and purged.versions == (1,)
    assert set(purged.run_ids) == {first.run_id, stray} and purged.model_ids == (first.model_id,)
    names = (first.run_id, first.model_id, stray)
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not any(name.encode() in everything for name in names)
    assert not any(name in str(p) for p in tmp_path.rglob("*") for name in names)
    assert t.residues(store, [second.run_id]), "the search itself must be able to find something"
    with sqlite3.connect(tmp_path / "tracking" / "mlflow.db") as database:
        assert database.execute("select name from datasets").fetchall() == [("records/a",)]
    assert t.load_model(settings, "words").predict([0]) == ["second"]
    assert [v.version for v in t.versions(store, "words")] == [2]
    assert t.runs(store, "words") == [second.run_id]


def traced(store: t.Tracking) -> Span:
    """A trace, which MLflow's client sends to the process-wide store."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(store.uri)
    span = store.client.start_trace("predict", experiment_id=store.experiment_id)
    store.client.end_trace(span.trace_id)
    mlflow.set_tracking_uri(before)
    return span


def test_traces_of_a_purged_run_go_with_it(store: t.Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    with t.running(store, "train", tags={t.MODEL: "words"}) as run_id:
        span = traced(store)
        store.client.link_traces_to_run([span.trace_id], run_id)
    # MLflow keeps spans in the database or, at times, in a file; attachments always lie in files.
    attached = tmp_path / "tracking" / "artifacts" / "traces" / span.trace_id / "artifacts" / "attachment.txt"
    attached.parent.mkdir(parents=True, exist_ok=True)
    attached.write_text("what somebody asked the model")
    assert str(attached.parent) in store.client.get_trace(span.trace_id).info.tags["mlflow.artifactLocation"]
    assert t.purge(store, "words", [], run_ids=[run_id]).left == ()
    assert t.residues(store, [span.trace_id]) == []
    assert [p for p in tmp_path.rglob("*") if span.trace_id in str(p)] == []


def test_what_is_not_there_is_named(store: t.Tracking, settings: Settings) -> None:
    assert t.versions(store, "none") == [] and t.runs(store, "none") == [] and t.find_version(store, "none", "champion") is None
    with pytest.raises(t.UnknownModel, match="version 7 of model 'none'"):
        t.version_of(store, "none", version=7)
    assert t.purge(store, "none", []) == t.Purged("none", (), (), (), 0, ())
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(t.TrackingError, match="'mine' is deleted"):
        t.open_tracking(settings)


def test_no_pickle_and_no_telemetry() -> None:
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION  # noqa: PLC0415

    assert MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
