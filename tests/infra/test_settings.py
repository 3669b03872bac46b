"""lethe.toml: what is accepted, and that every refusal names the key and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.starter import write_starter
from infra.settings import ConfigError, line_of, load_settings

GOOD = """\
[lake]
root = "lake"
[tables.posts]
source  = "raw/*.jsonl"
subject = { kind = "author", column = "author_id" }
[collections.exports]
source = ["raw/exports/**/*.csv"]
[datasets.support]
pool   = ["posts", "exports/2024/jan"]
select = { keep_fraction = 0.3 }
[models.support]
dataset = "support"
kind    = "text"
label   = "topic"
shards  = 3
"""


def written(folder: Path, text: str) -> Path:
    (folder / "lethe.toml").write_text(text, encoding="utf-8")
    return folder / "lethe.toml"


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, GOOD))
    assert settings.tables["posts"].source == ("raw/*.jsonl",)
    assert settings.table("exports/2024/jan") is settings.collections["exports"]
    assert settings.plan_of("support") == (3, 4)
    assert settings.lake_uri == str(tmp_path / "lake")


def test_the_starter_file_is_valid_and_never_overwritten(tmp_path: Path) -> None:
    load_settings(write_starter(tmp_path / "new"))
    with pytest.raises(ConfigError, match="exists already"):
        write_starter(tmp_path / "new")


def test_the_starter_file_is_valid_with_its_examples_uncommented(tmp_path: Path) -> None:
    text = write_starter(tmp_path).read_text(encoding="utf-8").replace('target = "gold"', 'target = "posts"')
    lines = [
        line[2:] if line.startswith("# ") and ("=" in line or line.startswith("# [")) else line for line in text.splitlines()
    ]
    settings = load_settings(written(tmp_path, "\n".join(line for line in lines if not line.startswith("Lethe"))))
    assert set(settings.models) == {"support"}


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("keep_fraction = 0.3", "keep_fraction = 3"), 10, "datasets.support.select.keep_fraction"),
        (('kind    = "text"', 'kind    = "poem"'), 11, "none of text, tabular, image"),
        (('dataset = "support"', 'dataset = "nothing"'), 12, "models.support.dataset"),
        (('pool   = ["posts",', 'pool   = ["pots",'), 9, "table 'pots' is not in"),
        (("[lake]\n", "[lake]\nrot = 1\n"), 2, "lake.rot: unknown key"),
        (("shards  = 3", "shards  = 0"), 15, "models.support.shards"),
        (('root = "lake"', 'root = "lake'), 2, "lethe.toml"),
        (("[tables.posts]", '[tables."../posts"]'), 3, "a name is letters"),
    ],
)
def test_a_refusal_names_the_key_and_the_line(tmp_path: Path, change: tuple[str, str], line: int, said: str) -> None:
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert said in str(caught.value)
    if "at line" not in str(caught.value):
        assert f"lethe.toml:{line}:" in str(caught.value)


def test_models_of_one_dataset_agree_on_their_plan(tmp_path: Path) -> None:
    other = '[models.other]\ndataset = "support"\nkind = "text"\nlabel = "topic"\nshards = 2\n'
    with pytest.raises(ConfigError, match=r"models\.other: shards and slices must equal those of models\.support"):
        load_settings(written(tmp_path, GOOD + other))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lethe init"):
        load_settings(tmp_path / "nowhere" / "lethe.toml")


def test_the_scheduler_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SCHEDULER", "tcp://127.0.0.1:8786")
    assert load_settings(written(tmp_path, GOOD)).cluster.scheduler == "tcp://127.0.0.1:8786"


def test_lines_are_found_in_headers_and_entries() -> None:
    assert line_of(GOOD, ["models", "support", "label"]) == 14
    assert line_of(GOOD, ["models", "support"]) == 11
    assert line_of(GOOD, ["nothing"]) == 1
