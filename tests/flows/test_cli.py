"""The command line as a script sees it: documents that fit their schemas, exit codes, messages that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonschema import validate
from small_lake import write_project

from flows.cli import app, main
from flows.documents import DOCUMENTS

ROOT = Path(__file__).parents[2]
PERSON = "author-011"


def lethe(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Run the command in a process of its own; its flows go to the session's Prefect server."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, input=stdin, timeout=280, check=False)
    return done.returncode, done.stdout, done.stderr


def document(command: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """The one JSON document that a command prints, held to its published schema."""
    code, out, err = lethe(command, *arguments, "--json", **options)
    assert code == 0, err
    read = json.loads(out)
    validate(read, DOCUMENTS[command].model_json_schema())
    return read


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_project(tmp_path_factory.mktemp("cli") / "project"))


@pytest.mark.timeout(600)  # seventeen processes, the first of them with nothing compiled
def test_the_walk_by_commands(config: str, tmp_path: Path) -> None:
    use = ("--config", config)
    ingested = document("ingest", *use)["tables"]
    assert {t["name"] for t in ingested} == {"posts", "posts_copy", "gold", "visits", "glyphs"}
    scanned = document("dedup", *use)
    assert ("posts_copy", "posts", True) in {(e["child"], e["parent"], e["multiset"]) for e in scanned["edges"]}
    assert {"fraction", "set", "exact", "step"} <= set(scanned["edges"][0])
    assert {p["table"] for p in scanned["plan"]} <= {t["name"] for t in ingested}
    curated = document("curate", "posts", *use)
    assert curated["left_out"] == {"posts_copy": "posts"}
    assert document("select", "posts", *use)["found"]
    pruned = document("prune", "posts", *use)
    assert pruned["found"]
    assert 0 < pruned["n_kept"] < pruned["n_in"]
    trained = document("train", "topic", *use)
    assert [s["found"] for s in trained["shards"]] == [False] * 3
    assert document("train", "topic", *use)["digest"] == trained["digest"]
    exported = document("export", "posts", "--to", str(tmp_path / "out"), *use)
    assert pq.read_table(tmp_path / "out").num_rows == exported["n_rows"] == pruned["n_kept"]
    (forgotten,) = document("forget", "--subject", f"person={PERSON}", *use)["requests"]
    assert forgotten["rows_erased"] > 0
    assert forgotten["residue_hits"] == 0
    assert set(forgotten["tables"]) <= {"posts", "posts_copy", "visits"}
    assert document("verify", forgotten["certificate"]) == {"valid": True, "problems": []}
    status = document("status", *use)
    assert [r["state"] for r in status["requests"]] == ["certified"]
    assert {m["name"] for m in status["models"]} == {"topic"}
    balance = document("quarantine", *use)
    assert balance["adds_up"] and balance["n_erased"] > 0
    assert document("forget", *use)["requests"] == []


def test_a_tampered_certificate_exits_1_and_says_why(config: str, tmp_path: Path) -> None:
    (path,) = (Path(config).parent / "certificates").glob("*.json")
    bad = tmp_path / "bad.json"
    bad.write_text(path.read_text(encoding="utf-8").replace('"payload":"ey', '"payload":"fy'), encoding="utf-8")
    code, out, _ = lethe("verify", str(bad), "--json")
    assert code == 1
    assert json.loads(out)["problems"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "nobody"), "no model 'nobody'"),
        (("curate", "nobody"), "no dataset 'nobody'"),
        (("train", "outcome"), "lethe curate visits"),
    ],
)
def test_flows_that_fail_say_what_to_do(config: str, arguments: tuple[str, ...], said: str) -> None:
    _failed(lethe(*arguments, "--config", config), 1, said)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train",), 2, "Missing argument"),
        (("export", "visits", "--to", "x"), 1, "lethe curate visits"),
        (("forget", "--subject", "no-equals-sign-jane"), 2, "--subject number 1"),
        (("forget", "--subject", "ship=jane"), 1, "person"),
        (("unheard-of",), 2, "No such command"),
        (("status", "--config", "nowhere/lethe.toml"), 1, "lethe init"),
    ],
)
def test_failures_say_what_to_do_and_hold_no_personal_data(
    config: str,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What fails before a flow runs, in this process: one of its own takes seconds."""
    given = arguments if "--config" in arguments or code == 2 else (*arguments, "--config", config)
    monkeypatch.setattr(sys, "argv", ["lethe", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    _failed((ended.value.code, *capsys.readouterr()), code, said)


def _failed(done: tuple[Any, str, str], code: int, said: str) -> None:
    got, out, err = done
    assert got == code
    assert said in " ".join(err.split())
    assert out == ""
    assert "jane" not in err
    assert "Traceback" not in err


def test_subjects_come_from_a_file_or_standard_input(config: str, tmp_path: Path) -> None:
    listed = tmp_path / "subjects.txt"
    listed.write_text("writer=5\n\nwriter=6\n", encoding="utf-8")
    document("ingest", "glyphs", "--config", config)
    found = document("forget", "--from", str(listed), "--config", config)["requests"]
    assert len(found) == 2
    again = document("forget", "--from", "-", "--config", config, stdin="writer=7\n")["requests"]
    assert len(again) == 1


def test_init_writes_once(tmp_path: Path) -> None:
    assert document("init", str(tmp_path / "new"))["config"].endswith("lethe.toml")
    code, _, err = lethe("init", str(tmp_path / "new"))
    assert code == 1
    assert "exists already" in err


def test_every_command_that_prints_a_document_has_a_schema() -> None:
    names = {c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands}
    assert names - {"schema"} == set(DOCUMENTS)
