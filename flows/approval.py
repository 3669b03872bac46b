"""Who approves on the command line: whoever sits at the terminal, or --yes. Prefect is imported late."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markdown import Markdown

from infra.contracts import LetheError

if TYPE_CHECKING:
    from flows.retire import Answer
    from tasks.dedup.retire import Proposal


class NobodyToAsk(LetheError):
    """Tables are to be retired, and nobody can approve."""


def wanted(
    tables: Sequence[str] | None,
    *,
    retire: bool,
    plan: bool,
    parents: Sequence[str] | None,
    yes: bool,
    dry_run: bool,
    console: Console,
) -> Callable[[Proposal], Answer] | None:
    """Who is asked by what `lethe dedup` was given; None where nothing is to be retired. Raises `NobodyToAsk` where no terminal
    is there and --yes was not given, and `typer.BadParameter` for options that do not go together."""
    if not retire and not plan:
        if tables or parents or yes or dry_run:
            raise typer.BadParameter("tables, --from, --yes and --dry-run go with --retire or --plan")
        return None
    if retire and not tables and not plan:
        raise typer.BadParameter("name the tables to retire, or take --plan")
    if not (yes or dry_run) and not sys.stdin.isatty():
        raise NobodyToAsk(
            "retiring wants an approval, and there is no terminal to ask on. Look at it with --dry-run, approve with --yes"
        )
    return _said_yes if yes else lambda proposal: _asked(proposal, console)


def type_names(tables: Sequence[str], *, yes: bool) -> None:
    """Have the name of each table typed that is to be given up. Raises `NobodyToAsk` where no terminal is there and --yes was not
    given, and `typer.Abort` for another answer."""
    if not yes and not sys.stdin.isatty():
        raise NobodyToAsk("giving a table up loses its rows, and there is no terminal to ask on. Approve with --yes")
    for name in () if yes else tables:
        if typer.prompt(f"The rows of {name} are lost for good. Type its name to give it up", err=True) != name:
            raise typer.Abort


def _said_yes(_: Proposal) -> Answer:
    from flows.retire import Answer  # noqa: PLC0415

    return Answer(True, "--yes")


def _asked(proposal: Proposal, console: Console) -> Answer:
    """Show a proposal and wait for the answer."""
    from flows.retire import Answer, as_markdown  # noqa: PLC0415

    console.print(Markdown(as_markdown(proposal)))
    return Answer(typer.confirm("Remove them?", default=False, err=True), "prompt")
