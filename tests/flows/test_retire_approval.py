"""Approval: by whoever resumes a paused run in Prefect, at a terminal, or by --yes. Without one nothing goes."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from copies_lake import write_lake
from jsonschema import validate
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.flow_runs import resume_flow_run
from rich.console import Console
from test_cli import document
from test_retire import lake_of, no
from typer.testing import CliRunner

import flows.retire as retiring
from flows import cli
from flows.approval import NobodyToAsk, wanted
from flows.curate import ingest_tables
from flows.documents import DOCUMENTS
from flows.retire import Answer, NotApproved, asking, paused, retire
from infra.retired import retired
from tasks.dedup.retire import Proposal


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> str:
    config = write_lake(tmp_path / "p")
    ingest_tables(config=config)
    return config


def _answered(answer: Callable[[str], dict[str, Any]]) -> None:
    """Resume the run that pauses next, as the button in Prefect's page does."""
    with get_client(sync_client=True) as client:
        for _ in range(400):
            wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
            for run in client.read_flow_runs(flow_run_filter=wanted):
                key = run.state.state_details.pause_key if run.state is not None else ""
                resume_flow_run(run.id, run_input=answer(str(key)))
                return
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "goes"),
    [
        (lambda plan: {"approve": True, "plan": plan, "approver": "ann"}, True),
        (lambda plan: {}, False),
    ],
)
def test_a_paused_run_waits_for_somebody(config: str, answer: Callable[[str], dict[str, Any]], goes: bool) -> None:
    with ThreadPoolExecutor(1) as pool, asking(partial(paused, poll_s=1)):
        resumed = pool.submit(_answered, answer)
        result = retire(["odd"], config=config)
        resumed.result()
    assert result.approved is goes and set(retired(lake_of(config))) == ({"odd"} if goes else set())
    if goes:
        lake = lake_of(config)
        params = lake.lineage(lake.snapshot("recipes")).params
        assert params == {"approved": "prefect", "approver": "ann", "plan": result.proposal.digest}


def test_nobody_answers(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retiring, "WAIT", retiring.WAIT / 86_400)
    with asking(partial(paused, poll_s=1)), pytest.raises(NotApproved, match="nobody approved"):
        retire(["odd"], config=config)
    assert lake_of(config).tables("members") == [] and lake_of(config).exists("records/odd")


def test_what_is_shown_names_tables_parents_and_gains(config: str) -> None:
    shown = list[str]()

    def ask(proposal: Proposal) -> Answer:
        shown.append(retiring.as_markdown(proposal))
        return no(proposal)

    with asking(ask):
        retire(["adults", "odd"], config=config)
    assert "| adults | visits | predicate |" in shown[0] and "| odd | visits | membership |" in shown[0]
    assert "author-" not in shown[0]


@pytest.mark.slow
def test_the_commands_in_processes_of_their_own(config: str) -> None:
    _retire_and_restore(config, document)


def test_the_commands(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_flows", lambda config, **_: nullcontext(str(config)))
    _retire_and_restore(config, _in_this_process)


def _retire_and_restore(config: str, run: Callable[..., dict[str, Any]]) -> None:
    use = ("--config", config)
    done = run("dedup", "--retire", "odd", "adults", "--yes", *use)["retirement"]
    assert done["approved"] and set(done["retired"]) == {"odd", "adults"}
    back = run("restore", "odd", *use)["tables"]
    assert [t["table"] for t in back] == ["odd"]


def _in_this_process(command: str, *arguments: str) -> dict[str, Any]:
    """The document that a command prints, held to its schema; its flows go to the session's Prefect server."""
    done = CliRunner().invoke(cli.app, [command, *arguments, "--json"], catch_exceptions=False)
    read = json.loads(done.stdout)
    validate(read, DOCUMENTS[command].model_json_schema())
    return read


def _asked(tables: list[str], **options: Any) -> Any:
    given = {"retire": False, "plan": False, "parents": None, "yes": False, "dry_run": False, **options}
    return wanted(tables, **given, console=Console(stderr=True))


def test_who_is_asked_at_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert _asked([]) is None
    for options in ({}, {"yes": True}, {"parents": ["t"]}):
        with pytest.raises(typer.BadParameter, match="go with --retire or --plan"):
            _asked(["t"], **options)
    with pytest.raises(typer.BadParameter, match="name the tables"):
        _asked([], retire=True)
    with pytest.raises(NobodyToAsk, match="approve with --yes"):
        _asked(["t"], retire=True)
    empty = Proposal((), {})
    assert _asked([], plan=True, yes=True)(empty) == Answer(True, "--yes")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    assert _asked(["t"], retire=True)(empty) == Answer(True, "prompt")
