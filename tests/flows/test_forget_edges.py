"""Forgetting in a lake that has moved on: settings that changed, runs that were killed, erasures that leave nothing, names that
tell.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_lake import SECRET, restore

import flows.forget as forgetting
from flows.curate import curate, ingest_tables
from flows.forget import Forgotten, forget, request
from flows.train import train
from infra.lake import Lake
from infra.settings import load_settings
from tasks.forget import erase as erasing
from tasks.forget.certificate import contents, problems_of
from tasks.train.task import checkpoint_store, held_models
from tasks.train.versions import registered_versions

PERSON, LONER, SCRIBE = "author-007", "hermit-1", "scribe-1"

HEAD = """\
[lake]
root = "lake"
[tables.visits]
source  = "raw/visits.csv"
subject = { kind = "person", column = "patient" }
[tables.letters]
source  = "raw/letters.jsonl"
subject = { kind = "person", column = "author" }
text    = "body"
[tables.gold]
source  = "raw/gold.jsonl"
subject = { kind = "scribe", column = "author" }
text    = "body"
[tables.alone]
source  = "raw/alone.csv"
subject = { kind = "loner", column = "who" }
[tables.extract]
source  = "raw/extract.csv"
[collections.by]
source  = "raw/by/*.jsonl"
subject = { kind = "person", column = "author" }
"""
ARCHIVE = """\
[tables.archive]
source  = "raw/archive.csv"
subject = { kind = "person", column = "client" }
"""
LETTERS = """\
[datasets.letters]
pool   = ["letters"]
target = "gold"
select = { keep_fraction = 0.9, n_buckets = 64 }
prune  = { method = "density", keep_fraction = 0.9, n_clusters = 2 }
"""
ALONE = """\
[datasets.alone]
pool   = ["alone"]
"""
VISITS = """\
[datasets.visits]
pool   = ["visits"]
"""
MODEL = """\
[models.{name}]
dataset = "{name}"
kind    = "tabular"
label   = "outcome"
shards  = 2
slices  = 1
epochs  = 1
control = false
"""
BEFORE = HEAD + ARCHIVE + LETTERS + ALONE + VISITS + MODEL.format(name="visits") + MODEL.format(name="alone")


def _visits(person: str, n: int) -> list[dict[str, Any]]:
    return [{"patient": person, "age": 20 + n % 40, "dose": n / 8, "outcome": ["well", "ill"][n % 2]}]


def _write_raw(raw: Path) -> None:
    (raw / "by").mkdir(parents=True)
    visits = [v for n in range(60) for v in _visits(f"author-{n % 12:03d}", n)]
    words = ["kettle", "leaf", "wave", "salt", "court", "judge"]
    letters = [{"author": f"author-{n % 12:03d}", "body": f"{words[n % 6]} {words[n % 5]} no {n}"} for n in range(60)]
    _csv(raw / "visits.csv", visits)
    _csv(raw / "archive.csv", [{"client": v["patient"], "paid": v["age"] * 3} for v in visits[:30]])
    _csv(raw / "extract.csv", [{k: v[k] for k in ("age", "dose", "outcome")} for v in visits[:40]])
    _csv(raw / "alone.csv", [{"who": LONER, "age": n, "outcome": "ab"[n % 2]} for n in range(20)])
    _jsonl(raw / "letters.jsonl", letters)
    _jsonl(raw / "gold.jsonl", [{"author": SCRIBE, "body": f"kettle leaf {n}"} for n in range(9)])
    for author in (PERSON, "author-008"):
        _jsonl(raw / "by" / f"{author}.jsonl", [{"author": author, "note": f"{author[-1]} {n}"} for n in range(4)])


def _jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def _csv(path: Path, records: list[dict[str, Any]]) -> None:
    lines = [",".join(records[0]), *(",".join(str(v) for v in r.values()) for r in records)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Project:
    config: Path

    @property
    def home(self) -> Path:
        return self.config.parent

    @property
    def lake(self) -> Lake:
        return Lake.open(load_settings(self.config))

    def forget(self, *subjects: tuple[str, str]) -> Forgotten:
        """The requests filed, if any, and all open ones carried out."""
        if subjects:
            request(list(subjects), str(self.config))
        result = forget(None, str(self.config))
        assert result is not None
        return result

    def versions(self, model: str) -> list[dict[str, Any]]:
        return registered_versions(load_settings(self.config), model)

    def column(self, table: str, column: str) -> list[Any]:
        return self.lake.read(self.lake.snapshot(table), [column])[column].to_pylist()


def told(result: Forgotten) -> dict[str, Any]:
    """The first certificate, after a check of all of them."""
    paths = [Path(c.path) for c in result.certificates]
    assert paths
    assert all(problems_of(path) == [] for path in paths)
    return contents(paths[0].read_bytes())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Path]]:
    """A lake with three datasets and two models, and a copy of it to go back to. `extract` was ingested after the last scan."""
    root = tmp_path_factory.mktemp("edges")
    home = root / "home"
    _write_raw(home / "raw")
    (home / ".lethe").mkdir(mode=0o700)
    (home / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    project = Project(home / "lethe.toml")
    project.config.write_text(BEFORE, encoding="utf-8")
    ingest_tables(["archive", "by"], str(project.config))
    curate(None, str(project.config))
    train(None, str(project.config))
    ingest_tables(["extract"], str(project.config))
    shutil.copytree(home, root / "backup")
    yield project, root / "backup"


@pytest.fixture
def project(built: tuple[Project, Path]) -> Project:
    restore(built[1], built[0].home)
    return built[0]


def test_a_lake_whose_settings_moved_on(project: Project) -> None:
    """A model, a dataset, a table and a pruning that lethe.toml has no more; a training that was killed; ends of killed runs."""
    other = MODEL.format(name="alone").replace("models.alone", "models.killed")
    project.config.write_text(HEAD + LETTERS.replace('"density"', '"random"') + ALONE + MODEL.format(name="alone") + other)
    settings, lake = load_settings(project.config), project.lake
    for model in ("killed", "long_gone"):
        store = Path(checkpoint_store(settings, model))
        store.mkdir(parents=True)
        (store / "ab.safetensors").write_bytes(b"weights")
    for place in ("_scratch/dead", "records/ghost"):
        (Path(lake.root) / place).mkdir(parents=True)
        pq.write_table(pa.table({"patient": [PERSON]}), Path(lake.root) / place / "part-0.parquet")
    shutil.rmtree(checkpoint_store(settings, "visits"))  # the registry alone knows of it
    assert held_models(settings) == ["alone", "killed", "long_gone", "visits"]
    alone = project.versions("alone")

    certificate = told(project.forget(("person", PERSON)))

    assert PERSON not in project.column("records/archive", "client")
    assert held_models(settings) == ["alone", "killed"]
    assert project.versions("visits") == []
    assert not any((Path(lake.root) / "checkpoints" / "killed").iterdir())
    assert project.versions("alone") == alone
    assert [r["model"] for r in certificate["redone"]["revoked"]] == ["visits"]
    assert "lethe.toml" in certificate["redone"]["revoked"][0]["reason"]
    assert {r["table"] for r in certificate["redone"]["retired"]} == {"scores/letters", "training_set/visits"}
    assert lake.tables("training_set") == ["training_set/alone", "training_set/letters"]


def test_an_erasure_that_leaves_nothing(project: Project) -> None:
    """Nobody to train on, and no target to compare with: what cannot be made again goes, and the flow ends."""
    certificate = told(project.forget(("loner", LONER), ("scribe", SCRIBE)))
    assert project.versions("alone") == []
    assert [(r["model"], r["reason"]) for r in certificate["redone"]["revoked"]] == [("alone", "NothingToTrain")]
    retired = {r["table"]: r["reason"] for r in certificate["redone"]["retired"]}
    assert retired == dict.fromkeys(["selection/letters", "scores/letters", "training_set/letters"], "EmptyTarget")
    assert project.lake.tables("training_set") == ["training_set/alone", "training_set/visits"]
    assert forget(None, str(project.config)) is None


@pytest.mark.parametrize("n_commits", [1, 3])
def test_copies_are_found_without_an_earlier_scan_and_after_a_kill(
    project: Project, n_commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`extract` was never scanned. Killed between the copy's commit and the original's, the next scan sees another lake."""
    real, calls = erasing._commit, list[Any]()

    def dying(*args: Any) -> Any:
        if len(calls) == n_commits:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    n_before = project.lake.snapshot("records/extract").n_rows
    assert "extract" not in project.column("containment", "child")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(erasing, "_commit", dying)
        project.forget(("person", PERSON))
    assert calls[0][1].entry.table == "records/extract"
    result = project.forget()
    erased = {t.table: t.n_erased for t in result.erased.tables}
    assert erased["records/extract"] == n_before - project.lake.snapshot("records/extract").n_rows == 3
    assert erased["records/visits"] == 5
    assert told(result)["residue"]["n_hits"] == 0


def test_a_table_that_is_named_for_the_subject(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names stay and are counted; no certificate and no ledger repeats them. Killed before the certificate, it still tells
    which shards were trained again."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forgetting, "certify", _killed)
        project.forget(("person", PERSON))
    result = project.forget()
    certificate = told(result)
    assert PERSON not in json.dumps(certificate)
    assert all(PERSON not in detail for detail in project.column("requests", "detail"))
    assert project.lake.snapshot(f"records/by/{PERSON}").n_rows == 0
    assert certificate["residue"]["n_names"] == 2
    assert any(line.startswith("2 tables and raw files") for line in certificate["not_covered"])
    (visits,) = [m for m in certificate["redone"]["models"] if m["model"] == "visits"]
    assert not all(shard["found"] for shard in visits["shards"])
    assert result.redone.n_shards_retrained > 0


def _killed(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt
