"""The containment graph shown: a page with the picture and the tables behind it, for a browser, MLflow and Prefect.

Names of tables and columns, counts, bytes and dollars are in it; nothing that is in a row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext
from rich.filesize import decimal

from flows.picture import WORDS, Picture, picture
from flows.workspace import Workspace
from infra.foreign import PREFIX as FOREIGN
from infra.foreign import registered
from infra.lake import Lake
from infra.retired import Retired, retired
from infra.settings import Settings, load_settings
from infra.tracking import log_file, log_metrics, open_tracking, running
from tasks.dedup.collapse import ACTIONS, COPIES, NEAR, ROWS, Table
from tasks.dedup.edges import STEPS, Edge
from tasks.dedup.graph import Graph, containment_graph
from tasks.dedup.prices import dollars
from tasks.dedup.savings import sentence
from tasks.dedup.task import DedupResult, table_name

RUN = "dedup"
PAGE, PICTURE = "containment.html", "containment.svg"
_MAX_ROWS = 50_000  # of a table in the page: a browser holds them without trouble
_MAX_ARTIFACT_ROWS = 500
_RECIPE = "recipe"

Row = list[Any]


@dataclass(frozen=True)
class Grid:
    """A table of the page, and how many rows it would have in full. `columns` are (name, kind), kind one of name, text, count,
    bytes, percent, usd, seconds, bits; a name may be long.
    """

    key: str
    title: str
    said: str
    columns: tuple[tuple[str, str], ...]
    rows: list[Row]
    n_rows: int

    @property
    def left_out(self) -> int:
        return self.n_rows - len(self.rows)


@dataclass(frozen=True)
class Figure:
    """A number of the summary."""

    label: str
    value: str
    said: str = ""


@dataclass(frozen=True)
class Shown:
    """What there is to show of a scan: all tables with their actions, those retired before, the graph to draw, and the bytes
    that were read when the tables were scanned first.
    """

    result: DedupResult
    tables: tuple[Table, ...]
    retired: dict[str, Retired]
    graph: Graph
    bytes_read: int


def report_path(config: str | Path) -> Path:
    """Where the page of a project lies."""
    return _page_of(load_settings(config))


def _page_of(settings: Settings) -> Path:
    return settings.home / "reports" / PAGE


def show_containment(work: Workspace, result: DedupResult) -> Path:
    """Write the page and the picture beside lethe.toml; returns the page's path.

    A new scan also becomes a run in MLflow with both as artifacts; within a flow run, Prefect gets a summary and two tables.
    """
    shown = shown_of(work.lake, result)
    path = _page_of(work.settings)
    path.parent.mkdir(exist_ok=True)
    drawn = picture(shown.graph)
    _write(path.with_name(PICTURE), svg(drawn, shown.graph))
    _write(path, page(shown, drawn))
    if not result.found:
        _track(work.settings, shown, path)
    if FlowRunContext.get() is not None:
        _publish(shown, path)
    return path


def shown_of(lake: Lake, result: DedupResult) -> Shown:
    """A scan's tables with their bytes, rows and actions: what the plan says, or foreign, or retired."""
    gone = retired(lake)
    lineage = lake.lineage(result.containment)
    n_rows = {table_name(s): s.n_rows for s in lineage.inputs}
    planned = {row.table: (row.n_bytes, row.action) for row in result.plan}
    foreign = {FOREIGN + entry.name: (entry.n_bytes, "foreign") for entry in registered(lake)}
    known = planned | {name: foreign.get(name, (0, "foreign")) for name in n_rows if name not in planned}
    tables = [Table(name, *_first(known[name], n), _folder(name)) for name, n in n_rows.items() if name not in gone]
    tables += [Table(name, entry.n_bytes, entry.n_rows, "retired", _folder(name)) for name, entry in gone.items()]
    edges = [*result.edges, *result.near, *(edge for name, entry in gone.items() for edge in _rebuilt_from(name, entry))]
    graph = containment_graph(tables, edges, result.covers, result.renames, apart=result.listed_apart)
    return Shown(result, tuple(sorted(tables)), gone, graph, lineage.summary.get("bytes_read", result.bytes_read))


def _first(known: tuple[int, str], n_rows: int) -> tuple[int, int, str]:
    return known[0], n_rows, known[1]


def _folder(name: str) -> str:
    """What stands for a table's schema in the picture: tables of one collection look alike."""
    return name.rpartition("/")[0]


def _rebuilt_from(name: str, entry: Retired) -> list[Edge]:
    return [Edge(name, parent, 1.0, True, True, True, _RECIPE, -1, -1) for parent in entry.parents]


def _write(path: Path, text: str) -> None:
    """Write a file that nobody meets half done."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


# --- the page ------------------------------------------------------------------------------------------------------------------


def svg(drawn: Picture, graph: Graph) -> str:
    """The picture as one SVG document."""
    return _environment().get_template("containment.svg").render(p=drawn, actions=ACTIONS, beyond=beyond(graph))


def page(shown: Shown, drawn: Picture) -> str:
    """The page as one HTML document that needs nothing else."""
    return (
        _environment()
        .get_template("containment.html")
        .render(
            figures=figures(shown),
            steps=steps(shown.result),
            counts=counts(shown.graph),
            picture=svg(drawn, shown.graph),
            grids=[grid for grid in grids(shown) if grid.n_rows],
            needs=[sentence(need) for need in shown.result.savings.needs[:10]],
            savings=shown.result.savings,
            unreadable=shown.result.unreadable,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flows"),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = decimal
    environment.filters["thousands"] = lambda n: f"{n:,}"
    environment.filters["dollars"] = dollars
    return environment


def figures(shown: Shown) -> list[Figure]:
    """The summary in numbers."""
    result, savings = shown.result, shown.result.savings
    n_copies = sum(edge.multiset for edge in result.edges)
    n_bytes = sum(table.n_bytes for table in shown.tables if table.action != "retired")
    more = f"; {len(shown.retired):,} more are retired" if shown.retired else ""
    nearly = f"; {len(result.near):,} more hold nearly" if result.near else ""
    seconds = "" if result.found else f"; {result.seconds:.1f} s"
    return [
        Figure("tables", f"{len(shown.tables) - len(shown.retired):,}", decimal(n_bytes) + more),
        Figure("containments", f"{len(result.edges):,}", f"{n_copies:,} with all copies{nearly}"),
        Figure("pairs compared", f"{result.n_pairs:,}", "whose columns allow a containment"),
        Figure("bytes read", decimal(shown.bytes_read), f"of {decimal(n_bytes)} stored{seconds}"),
        Figure("to retire", decimal(savings.bytes_freed), f"{savings.n_retired:,} tables that others rebuild"),
        Figure("to archive", decimal(savings.bytes_archived), f"{savings.n_archived:,} tables"),
        Figure("saved a month", dollars(savings.monthly_saving), f"of {dollars(savings.monthly_cost + savings.monthly_saving)}"),
    ]


def steps(result: DedupResult) -> list[tuple[str, int, float]]:
    """(step, pairs, percent of all pairs) in the order of the steps."""
    known = [step for step in STEPS if result.settled.get(step)]
    others = [step for step in result.settled if step not in STEPS and result.settled[step]]
    return [(step, result.settled[step], 100 * result.settled[step] / max(result.n_pairs, 1)) for step in (*known, *others)]


def counts(graph: Graph) -> str:
    """Where every table is: in the picture or only in the tables below it."""
    drawn = graph.n_boxes + graph.n_collapsed
    said = [f"{drawn:,} of {graph.n_tables:,} tables are in the picture, in {graph.n_boxes:,} marks"]
    said += [f"{graph.n_isolated:,} are contained in none and contain none"] if graph.n_isolated else []
    said += [f"{graph.n_apart:,} are listed apart"] if graph.n_apart else []
    return "; ".join([*said, *filter(None, [beyond(graph)])]) + "."


def beyond(graph: Graph) -> str:
    """What did not fit into the picture."""
    return f"{graph.n_beyond:,} tables in smaller groups are not drawn" if graph.n_beyond else ""


def grids(shown: Shown) -> list[Grid]:
    """All tables of the page; those without rows too."""
    return [_edges(shown), _plan(shown), _retired(shown), _apart(shown), _covers(shown), _renames(shown)]


def _edges(shown: Shown) -> Grid:
    size = {table.name: table.n_bytes for table in shown.tables}
    edges = sorted((*shown.result.edges, *shown.result.near), key=lambda e: (-size.get(e.child, 0), e.child, e.parent))
    columns = (
        "child:name parent:name contained:text fraction:percent left_over:count settled_by:text child_bytes:bytes versions:text"
    )
    rows = [
        [e.child, e.parent, reading(e), 100 * e.fraction, e.n_residual, _step(e), size.get(e.child, 0), _versions(e)]
        for e in edges
    ]
    return _grid(
        "edges", "Containments", "Each pair that holds, and what is nearly contained with the rows left over.", columns, rows
    )


def reading(edge: Edge) -> str:
    """How much of a child is in its parent, in words."""
    return WORDS[COPIES if edge.multiset else ROWS if edge.set else NEAR]


def _step(edge: Edge) -> str:
    return edge.step if edge.exact else f"{edge.step}, ± {100 * edge.error:.2g} %"


def _versions(edge: Edge) -> str:
    return f"{edge.child_version} in {edge.parent_version}"


def _plan(shown: Shown) -> Grid:
    n_rows = {table.name: table.n_rows for table in shown.tables}
    columns = "table:name action:text bytes:bytes rows:count rebuilt_from:name saved_a_month:usd wait:seconds reason:name"
    rows = [
        [
            p.table,
            p.action,
            p.n_bytes,
            n_rows.get(p.table),
            ", ".join(p.parents),
            p.monthly_saving,
            p.rebuild_s,
            p.reason,
        ]
        for p in sorted(shown.result.plan, key=lambda p: (-p.monthly_saving, -p.n_bytes, p.table))
    ]
    return _grid("plan", "Retention plan", "Computed, not carried out.", columns, rows)


def _retired(shown: Shown) -> Grid:
    columns = "table:name rebuilt_from:name recipe:text bytes:bytes rows:count since:text"
    rows = [
        [name, ", ".join(e.parents), e.kind, e.n_bytes, e.n_rows, f"{e.retired:%Y-%m-%d %H:%M}"]
        for name, e in shown.retired.items()
    ]
    return _grid("retired", "Retired tables", "Their rows are not stored; lethe restore brings one back.", columns, rows)


def _apart(shown: Shown) -> Grid:
    n_rows = {table.name: table.n_rows for table in shown.tables}
    inside = dict[str, int]()
    for edge in shown.result.edges:
        inside[edge.child] = inside.get(edge.child, 0) + 1
    rows = [
        [name, reason, shown.result.evidence.get(name), n_rows.get(name), inside.get(name, 0)]
        for name, reason in shown.result.listed_apart.items()
    ]
    said = (
        "Their containments may be chance: evidence is log2 of the row space they could have matched in. They are never retired."
    )
    return _grid("apart", "Listed apart", said, "table:name reason:name evidence:bits rows:count contained_in:count", rows)


def _covers(shown: Shown) -> Grid:
    rows = [
        [
            c.child,
            len(c.parents),
            ", ".join(c.parents),
            WORDS[COPIES if c.multiset else ROWS],
        ]
        for c in shown.result.covers
    ]
    said = "Tables contained in several others together, and in none of them alone."
    return _grid("covers", "Covers", said, "child:name n_parents:count parents:name contained:text", rows)


def _renames(shown: Shown) -> Grid:
    rows = [
        [r.child, r.parent, ", ".join(f"{own} = {other}" for own, other in r.columns if own != other)]
        for r in shown.result.renames
    ]
    said = "Tables contained in another one once columns go by another name; checked exactly."
    return _grid("renames", "Other column names", said, "child:name parent:name columns:name", rows)


def _grid(key: str, title: str, said: str, columns: str, rows: list[Row]) -> Grid:
    """`columns` are name:kind, separated by blanks."""
    pairs = [column.split(":") for column in columns.split()]
    return Grid(key, title, said, tuple((name.replace("_", " "), kind) for name, kind in pairs), rows[:_MAX_ROWS], len(rows))


# --- MLflow and Prefect --------------------------------------------------------------------------------------------------------


def _track(settings: Settings, shown: Shown, path: Path) -> None:
    """The scan as a run: its figures, the page and the picture."""
    result, savings = shown.result, shown.result.savings
    tracking = open_tracking(settings)
    with running(tracking, RUN, tags={"lethe.containment": str(result.containment.version)}) as run_id:
        metrics = {
            "n_tables": result.n_tables,
            "n_edges": len(result.edges),
            "n_near": len(result.near),
            "n_pairs": result.n_pairs,
            "bytes_read": result.bytes_read,
            "seconds": result.seconds,
            "n_retired": savings.n_retired,
            "n_archived": savings.n_archived,
            "bytes_freed": savings.bytes_freed,
            "monthly_saving": savings.monthly_saving,
        }
        log_metrics(tracking, run_id, metrics | {f"settled_{step}": n for step, n in result.settled.items()})
        for file in (path, path.with_name(PICTURE)):
            log_file(tracking, run_id, file)


def _publish(shown: Shown, path: Path) -> None:
    """Artifacts of the flow run that is going on: a summary, the containments and the plan."""
    create_markdown_artifact(summary(shown, path), key="lethe-containment", description="Containment scan")
    for grid in grids(shown)[:2]:
        columns = [name for name, _ in grid.columns]
        rows = [dict(zip(columns, map(_shown, row), strict=True)) for row in grid.rows[:_MAX_ARTIFACT_ROWS]]
        left_out = grid.n_rows - len(rows)
        said = f"{grid.title}; {left_out:,} more rows are in {path.name}" if left_out else grid.title
        create_table_artifact(rows, key=f"lethe-containment-{grid.key}", description=said)


def _shown(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def summary(shown: Shown, path: Path) -> str:
    """The scan in Markdown."""
    lines = [f"| {figure.label} | {figure.value} | {figure.said} |" for figure in figures(shown)]
    settled = [f"| {step} | {n:,} | {percent:.2f} % |" for step, n, percent in steps(shown.result)]
    return "\n".join(
        [
            f"{counts(shown.graph)} The page is `{path}`.",
            *("", "| figure | value | |", "|---|---|---|", *lines),
            *("", "| settled by | pairs | share |", "|---|---|---|", *settled),
        ]
    )
