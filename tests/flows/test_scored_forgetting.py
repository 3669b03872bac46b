"""A dataset that selects by a model's scores: the chain of table, model, selection, model forgets as if it never saw.

`rated` trains the model `quality`, whose probability of "good" selects from `web`, which trains the model `topic`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_lake import SECRET, bits, restore

from flows.curate import curate
from flows.forget import Forgotten, forget, request, rounds
from flows.train import train
from infra.lake import Lake
from infra.settings import ConfigError, Settings, load_settings
from tasks.train.score import NotTrained
from tasks.train.versions import registered_versions

PERSON = "author-3"
TABLES = ("records", "model_scores", "selection", "training_set")
CONFIG = """\
[lake]
root = "lake"
[cluster]
local_bytes = 1_000_000_000
[tables.rated]
source  = "raw/rated.jsonl"
subject = { kind = "person", column = "author" }
text    = "body"
[tables.web]
source  = "raw/web.jsonl"
subject = { kind = "person", column = "author" }
text    = "text"
[datasets.quality]
pool = "rated"
[datasets.corpus]
pool = "web"
select = { score = { model = "quality", label = "good", percentile = 60 } }
[models.quality]
dataset = "quality"
kind    = "text"
label   = "verdict"
shards  = 2
slices  = 2
epochs  = 2
control = false
[models.topic]
dataset = "corpus"
kind    = "text"
label   = "topic"
shards  = 2
slices  = 2
epochs  = 1
control = false
"""
_GOOD, _BAD = ["clear", "proof", "theorem", "example"], ["click", "buy", "cheap", "offer"]


def rated() -> list[dict[str, Any]]:
    return [
        {
            "author": f"author-{n % 20}",
            "body": " ".join((_GOOD, _BAD)[n % 2][(n * i) % 4] for i in range(1, 6)) + f" r{n}",
            "verdict": ("good", "bad")[n % 2],
        }
        for n in range(80)
    ]


def web() -> list[dict[str, Any]]:
    """Pages of more and more good words; PERSON wrote none of them."""
    return [
        {
            "author": f"author-{10 + n % 9}",
            "text": " ".join(_GOOD[(n + i) % 4] if i < n % 7 else _BAD[(n * i) % 4] for i in range(6)) + f" w{n}",
            "topic": "xy"[n % 2],
        }
        for n in range(120)
    ]


def project(folder: Path, *, without: str = "") -> Path:
    (folder / "raw").mkdir(parents=True)
    for name, rows in (("rated", rated()), ("web", web())):
        kept = [json.dumps(row) + "\n" for row in rows if row["author"] != without]
        (folder / "raw" / f"{name}.jsonl").write_text("".join(kept), encoding="utf-8")
    (folder / "lethe.toml").write_text(CONFIG, encoding="utf-8")
    (folder / ".lethe").mkdir(mode=0o700)
    (folder / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    return folder / "lethe.toml"


def build(config: Path) -> Path:
    """Curate and train everything in the order in which it waits."""
    for dataset, model in (("quality", "quality"), ("corpus", "topic")):
        curate([dataset], str(config))
        train([model], str(config))
    return config


def state(config: Path) -> dict[str, Any]:
    """Digests of tables, of the models' versions, and the bits of every checkpoint."""
    settings = load_settings(config)
    lake = Lake.open(settings)
    tables = {name: lake.snapshot(name).digest for name in lake.tables() if name.split("/")[0] in TABLES}
    models = {
        name: [v["digest"] for v in registered_versions(settings, name) if v["state"] == settings.tracking.alias]
        for name in settings.models
    }
    return {"tables": tables, "models": models, "checkpoints": bits(config.parent / "lake" / "checkpoints")}


def forgotten(config: Path, subject: str) -> Forgotten:
    request([("person", subject)], str(config))
    result = forget(None, str(config))
    assert result is not None
    return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A project that has met everybody, curated and trained, and a copy of it to go back to."""
    root = tmp_path_factory.mktemp("scored")
    config = project(root / "a")
    with pytest.raises(NotTrained, match=r"'corpus'.*'quality'.*Run: lethe train quality"):
        curate(None, str(config))
    assert Lake.open(load_settings(config)).tables("training_set") == ["training_set/quality"]
    shutil.copytree(root / "a" / "tracking", root / "tracking")  # a store without runs: making one takes seconds
    build(config)
    shutil.copytree(root / "a", root / "backup")
    return config, root / "backup"


def test_the_chain_forgets_as_if_it_never_saw(world: tuple[Path, Path], tmp_path: Path) -> None:
    config, backup = world
    restore(backup, config.parent)
    before = state(config)
    result = forgotten(config, PERSON)
    after = state(config)
    never = project(tmp_path / "b", without=PERSON)
    shutil.copytree(backup.parent / "tracking", never.parent / "tracking")
    assert after == state(build(never))
    assert before["tables"]["records/web"] == after["tables"]["records/web"]
    assert before["tables"]["model_scores/corpus"] != after["tables"]["model_scores/corpus"]
    assert [c.dataset for c in result.redone.datasets] == ["quality", "corpus"]
    assert [m.model for m in result.redone.models] == ["quality", "topic"]
    assert [r["model"] for r in result.redone.revoked][:1] == ["quality"]


def test_what_rests_on_scores_of_a_model_that_is_gone_goes(world: tuple[Path, Path]) -> None:
    """lethe.toml has neither the dataset nor its model any more: the scores know rows of another table."""
    config, backup = world
    restore(backup, config.parent)
    head, _, _ = CONFIG.partition("[datasets.corpus]")
    models = CONFIG[CONFIG.index("[models.quality]") : CONFIG.index("[models.topic]")]
    config.write_text(head + models, encoding="utf-8")
    result = forgotten(config, PERSON)
    gone = {r["table"] for r in result.redone.retired}
    assert gone == {"model_scores/corpus", "selection/corpus", "training_set/corpus"}
    assert {r["model"] for r in result.redone.revoked} == {"quality", "topic"}
    assert [v["state"] for v in registered_versions(load_settings(config), "topic")] == []


# --- who waits for whom --------------------------------------------------------------------------------------------------------


def _settings(scored_by: dict[str, str], trained_on: dict[str, str]) -> Settings:
    datasets = {
        name: {"pool": "t", **({"select": {"score": {"model": model, "label": "x"}}} if model else {})}
        for name, model in scored_by.items()
    }
    models = {name: {"dataset": dataset, "kind": "text", "label": "l"} for name, dataset in trained_on.items()}
    tables = {"t": {"source": "x", "text": "body"}}
    return Settings.model_validate({"home": "/nowhere", "tables": tables, "datasets": datasets, "models": models})


def test_datasets_wait_for_the_models_that_score_them() -> None:
    settings = _settings({"a": "", "b": "m", "c": "n", "d": ""}, {"m": "a", "n": "b", "o": "d"})
    assert settings.scorers("c") == ("n", "m") and settings.scorers("a") == ()
    assert rounds(settings, "dcba", ["n", "gone", "o", "m"]) == [(["a", "d"], ["m", "o"]), (["b"], ["n"]), (["c"], ["gone"])]
    assert rounds(settings, "b", []) == [(["b"], []), ([], [])]
    plain = _settings({"a": ""}, {"m": "a"})
    assert rounds(plain, "a", ["z", "m", "b"]) == [(["a"], ["b", "m", "z"])]


@pytest.mark.parametrize(
    ("scored_by", "said"),
    [("quality", "'nobody' is not in"), ("topic", "a circle"), ("quality", "")],
)
def test_circles_and_unknown_models_are_refused_with_their_line(tmp_path: Path, scored_by: str, said: str) -> None:
    config = project(tmp_path)
    text = CONFIG.replace(
        'score = { model = "quality"', f'score = {{ model = "{scored_by if "nobody" not in said else "nobody"}"'
    )
    config.write_text(text, encoding="utf-8")
    if not said:
        assert load_settings(config).scorers("corpus") == ("quality",)
        return
    with pytest.raises(ConfigError, match=rf"lethe\.toml:\d+: datasets\.corpus\.select\.score\.model.*{said}"):
        load_settings(config)


def test_a_score_beside_a_target_has_to_drop_something(tmp_path: Path) -> None:
    config = project(tmp_path)
    target = CONFIG.replace('pool = "web"\n', 'pool = "web"\ntarget = "rated"\n')
    config.write_text(target, encoding="utf-8")
    assert load_settings(config).dataset("corpus").method == "importance"
    config.write_text(target.replace(", percentile = 60", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"drawn by importance here.*add a threshold or a percentile"):
        load_settings(config)


def test_a_circle_through_others_is_refused_at_every_dataset_on_it(tmp_path: Path) -> None:
    config = project(tmp_path)
    text = CONFIG.replace('pool = "rated"\n', 'pool = "rated"\nselect = { score = { model = "topic", label = "x" } }\n')
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)datasets\.quality\..*circle.*datasets\.corpus\..*circle"):
        load_settings(config)
