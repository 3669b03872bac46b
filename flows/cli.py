"""The command line: `lethe COMMAND`. Prints a short text, or with --json one document on stdout; logs go to stderr.

Exit 0: done. Exit 1: failed, with a message that says what to do. Exit 2: wrong usage.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from flows import show
from flows.documents import DOCUMENTS
from flows.progress import shown
from infra.contracts import LetheError

app = typer.Typer(
    name="lethe",
    help="A training-data lake that can forget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Config = Annotated[Path, typer.Option("--config", "-c", help="The lethe.toml to use.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_DEFAULT = Path("lethe.toml")
_errors = Console(stderr=True, highlight=False)


def main() -> None:
    """The entry point: Lethe's own errors become a message and exit 1; anything else is a bug and shows its traceback."""
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # it says at INFO what nobody asked for
    logging.basicConfig(
        stream=sys.stderr, level=os.environ.get("LETHE_LOG", "WARNING"), format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        app()
    except LetheError as error:
        _errors.print(Text.assemble((type(error).__name__, "red"), f": {error}"), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _errors.print("interrupted; run the same command again to go on")
        sys.exit(1)


@contextmanager
def _flows(config: Path, *, progress: bool = True) -> Iterator[str]:
    """Prefect's settings for a command: a running server if there is one, else one of our own that ends with the command.

    Raises `ConfigError` before any server is started.
    """
    from infra.settings import load_settings  # noqa: PLC0415

    load_settings(config)
    from flows.servers import embedded  # noqa: PLC0415 - Prefect takes seconds to import

    with shown(_errors) if progress else nullcontext(), embedded(config):
        yield str(config)


def _out(document: BaseModel, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document.model_dump(mode="json"), sort_keys=True))
    else:
        show.text(document)


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Where to write lethe.toml.")] = Path(), as_json: Json = False) -> None:
    """Write a commented lethe.toml."""
    from flows.documents import InitDocument  # noqa: PLC0415
    from flows.starter import write_starter  # noqa: PLC0415

    _out(InitDocument(config=str(write_starter(directory))), as_json)


@app.command()
def ingest(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables of lethe.toml; all, if none is named.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take the rows of raw files that are gone out of their tables.")] = False,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Bring tables up to their raw files."""
    with _flows(config) as path:
        from flows.curate import ingest_tables  # noqa: PLC0415

        _out(show.ingested(ingest_tables(tables or None, path, prune)), as_json)


@app.command()
def quarantine(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables; all, if none is named.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Show rejected rows as they came: they may hold personal data.")] = False,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Where every raw row went: tables, quarantine (with reason, file and line), suppression."""
    from flows.quarantine import quarantine_report  # noqa: PLC0415

    _out(quarantine_report(config, tables or None, raw=raw), as_json)


@app.command()
def register(
    name: str,
    uri: Annotated[str | None, typer.Argument(help="A Delta table of another writer: a folder or s3://...")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the registration; the data stay.")] = False,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Add an existing Delta table to the catalogue, read-only, to be compared by dedup as foreign/NAME."""
    if (uri is None) != remove:
        raise typer.BadParameter("give a URI, or --remove")
    with _flows(config) as path:
        from flows.tables import register as run  # noqa: PLC0415
        from flows.tables import unregister  # noqa: PLC0415

        _out(show.entered(run(name, uri, path) if uri else unregister(name, path), removed=remove), as_json)


@app.command()
def adopt(
    name: str,
    uri: Annotated[str | None, typer.Argument(help="The table's address, if it is not registered.")] = None,
    table: Annotated[str | None, typer.Option("--as", help="The table's name here; NAME, if not given.")] = None,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Take a table of another writer over: its rows become records/NAME; the other data stay where they are."""
    with _flows(config) as path:
        from flows.tables import adopt as run  # noqa: PLC0415

        _out(show.adopted(run(name, uri, table, path)), as_json)


@app.command()
def maintain(config: Config = _DEFAULT, as_json: Json = False) -> None:
    """Join small files, remove what killed runs left, look for contained tables, check certificates. No row changes."""
    with _flows(config) as path:
        from flows.graph import report_path  # noqa: PLC0415
        from flows.maintain import maintain as run  # noqa: PLC0415

        _out(show.maintained(run(path), report_path(path)), as_json)


@app.command()
def dedup(
    tables: Annotated[list[str] | None, typer.Argument(help="With --retire: the tables to retire.")] = None,
    retire: Annotated[
        bool, typer.Option("--retire", help="Remove tables that others can rebuild, once you have approved.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Retire the tables that the plan would retire.")] = False,
    parent: Annotated[list[str] | None, typer.Option("--from", help="Rebuild them from this table; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without being asked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be retired, and stop.")] = False,
    why: Annotated[
        tuple[str, str] | None, typer.Option("--why", metavar="CHILD PARENT", help="Why a table is in another, or not; no scan.")
    ] = None,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Find tables contained in others and plan which to retire. Nothing is removed without --retire or --plan, and your yes."""
    from flows.approval import wanted  # noqa: PLC0415

    if why is not None:
        if tables or retire or plan:
            raise typer.BadParameter("--why answers for one pair: give nothing else beside it")
        with _flows(config) as path:
            from flows.why import why as explain  # noqa: PLC0415

            return _out(show.explained(explain(*why, path)), as_json)
    ask = wanted(tables, retire=retire, plan=plan, parents=parent, yes=yes, dry_run=dry_run, console=_errors)
    with _flows(config, progress=ask is None or yes or dry_run) as path:
        if ask is None:
            from flows.graph import report_path  # noqa: PLC0415
            from flows.maintain import scan  # noqa: PLC0415

            return _out(show.deduped(scan(path), report_path(path)), as_json)
        from flows.retire import asking  # noqa: PLC0415
        from flows.retire import retire as run  # noqa: PLC0415

        with asking(ask):
            return _out(show.retiring(run(tables, plan, parent, path, dry_run)), as_json)


@app.command()
def restore(
    tables: list[str],
    from_raw: Annotated[
        bool, typer.Option("--from-raw", help="Take in from its raw files what nothing rebuilds any more, and compare it.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Drop the recipes of tables that nothing rebuilds any more. Their rows are lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --give-up: do not ask for the table's name.")] = False,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Bring retired tables back, equal by digest to what they were."""
    if (from_raw and give_up) or (yes and not give_up):
        raise typer.BadParameter("--from-raw and --give-up exclude each other; --yes goes with --give-up")
    if give_up:
        from flows.approval import type_names  # noqa: PLC0415

        type_names(tables, yes=yes)
    with _flows(config) as path:
        from flows.retire import give_up as drop  # noqa: PLC0415
        from flows.retire import restore as run  # noqa: PLC0415

        _out(show.given_up(*drop(tables, path)) if give_up else show.restored(run(tables, path, from_raw)), as_json)


@app.command()
def curate(name: str, config: Config = _DEFAULT, as_json: Json = False) -> None:
    """Ingest, dedup, select, prune: from raw files to the training set of a dataset."""
    with _flows(config) as path:
        from flows.curate import curate as run  # noqa: PLC0415

        _out(show.curated(run([name], path)[0]), as_json)


@app.command()
def select(
    name: str,
    why: Annotated[
        int | None, typer.Option("--why", metavar="ROW_ID", help="Why a record was kept or dropped; nothing is selected.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Show some kept and dropped records: they may hold personal data.")
    ] = False,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Show the records nearest to evaluation items; with --samples, their texts.")
    ] = False,
    n: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many neighbours, or samples of each kind.")] = 10,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Selection alone, on the tables as they are in the lake."""
    if why is not None and (samples or neighbours):
        raise typer.BadParameter("--why answers for one record: give neither --samples nor --neighbours beside it")
    if why is not None or samples or neighbours:
        from flows.select_why import near_records, sampled_records, why_selected  # noqa: PLC0415

        if why is not None:
            return _out(why_selected(name, why, config), as_json)
        return _out(near_records(name, n, config, texts=samples) if neighbours else sampled_records(name, n, config), as_json)
    with _flows(config) as path:
        from flows.curate import select_records  # noqa: PLC0415
        from flows.selection_report import report_path  # noqa: PLC0415

        result = select_records(name, path)
        return _out(show.selected(result, name, report_path(path, name) if result else None), as_json)


@app.command()
def prune(name: str, config: Config = _DEFAULT, as_json: Json = False) -> None:
    """Pruning alone, after the selection as it stands."""
    with _flows(config) as path:
        from flows.curate import prune_records  # noqa: PLC0415

        _out(show.pruned(prune_records(name, path)), as_json)


@app.command()
def train(name: str, config: Config = _DEFAULT, as_json: Json = False) -> None:
    """Train a model; shards that did not change are found, not trained."""
    with _flows(config) as path:
        from flows.train import train as run  # noqa: PLC0415

        _out(show.trained(run([name], path)[0]), as_json)


@app.command()
def forget(
    subject: Annotated[list[str] | None, typer.Option("--subject", help="KIND=ID; may be repeated.")] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="A file with one KIND=ID a line; - for standard input.")
    ] = None,
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Erase subjects from every table, decision and model, and certify it. Without a subject: finish the requests still open."""
    from flows.subjects import read_subjects  # noqa: PLC0415

    subjects = read_subjects(subject or [], from_file)
    with _flows(config) as path:
        from flows.forget import forget as run  # noqa: PLC0415
        from flows.forget import request  # noqa: PLC0415

        _out(show.forgotten(run(request(subjects, path) if subjects else None, path)), as_json)


@app.command()
def verify(
    certificate: Path,
    public_key: Annotated[Path | None, typer.Option("--public-key", help="The signer's key (PEM) that you trust.")] = None,
    as_json: Json = False,
) -> None:
    """Check a certificate. Needs neither the lake nor lethe.toml; without --public-key the key inside the certificate is used."""
    from flows.documents import VerifyDocument  # noqa: PLC0415
    from tasks.forget.certificate import problems_of  # noqa: PLC0415

    problems = problems_of(certificate, public_key)
    _out(VerifyDocument(valid=not problems, problems=problems), as_json)
    if problems:
        raise typer.Exit(1)


@app.command()
def status(config: Config = _DEFAULT, as_json: Json = False) -> None:
    """What the lake holds: tables, datasets, models, deletion requests."""
    from flows.status import status_of  # noqa: PLC0415

    _out(status_of(config), as_json)


@app.command()
def export(
    name: str,
    to: Annotated[str, typer.Option("--to", help="A folder or URL that does not exist yet.")],
    config: Config = _DEFAULT,
    as_json: Json = False,
) -> None:
    """Write a curated dataset as Parquet. Exports leave the lake: forgetting does not reach them, and certificates say so."""
    from flows.export import export as run  # noqa: PLC0415

    _out(run(config, name, to), as_json)


@app.command()
def up(config: Config = _DEFAULT, as_json: Json = False) -> None:
    """Run the Prefect server, the MLflow server, a worker and the deployments on loopback until interrupted."""
    from flows.servers import up as run  # noqa: PLC0415

    run(config, lambda document: _out(document, as_json))


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where to build the demonstration.")] = Path("lethe-demo"),
    as_json: Json = False,
) -> None:
    """The whole walk on data that every installation has: curate, train, forget, verify."""
    directory.mkdir(parents=True, exist_ok=True)
    from flows.servers import embedded  # noqa: PLC0415 - Prefect takes seconds to import

    with embedded(directory / "lethe.toml"):
        from flows.demo import demo as run  # noqa: PLC0415

        _out(run(directory), as_json)


@app.command()
def schema(command: Annotated[str, typer.Argument(help="A command, such as train.")]) -> None:
    """Print the JSON Schema of a command's --json document."""
    if command not in DOCUMENTS:
        raise typer.BadParameter(f"{command!r} is none of {', '.join(DOCUMENTS)}")
    print(json.dumps(DOCUMENTS[command].model_json_schema(), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
