"""The page of a scan: whole and harmless whatever tables are called, quick at thousands, and told to MLflow and Prefect."""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import ArtifactSort

from flows import show
from flows.curate import ingest_tables
from flows.graph import PICTURE, Shown, grids, page, report_path, summary, svg
from flows.maintain import scan
from flows.picture import picture, shortened
from infra.contracts import Snapshot
from infra.lake import Lake
from infra.retired import Retired, put
from infra.settings import RetentionSettings, load_settings
from infra.tracking import open_tracking
from tasks.dedup.collapse import Table
from tasks.dedup.edges import Cover, Edge, Rename
from tasks.dedup.graph import containment_graph
from tasks.dedup.retention import PlanRow, retention_plan
from tasks.dedup.task import DedupResult

HOSTILE = ("</script><script>alert(1)</script>", "a&b<i>\"'", "<!--", "]]>{{ 7 * 7 }}", "é\u2028\x1b[31m")
CONFIG = """\
[collections.t]
source = "in/*.csv"
subject = { kind = "person", column = "who" }
[retention]
min_evidence_bits = 1.0
"""
SNAPSHOT = Snapshot("containment", 3, "1:0", 1)


def edge(child: str, parent: str, fraction: float = 1.0) -> Edge:
    whole = fraction == 1.0
    return Edge(child, parent, fraction, whole, whole, True, "exact", 4, 7, 0 if whole else 2)


def scanned(tables: list[Table], edges: list[Edge], covers: tuple[Cover, ...] = (), renames: tuple[Rename, ...] = ()) -> Shown:
    """A scan's result as the page gets it."""
    savings = retention_plan({}, {}, [], (), {}, RetentionSettings()).savings
    plan = tuple(PlanRow(t.name, t.action, (), t.n_bytes, 1.0, 0.25, 0.0, "a reason") for t in tables)
    apart = {tables[-1].name: "one column"}
    whole, near = tuple(e for e in edges if e.set), tuple(e for e in edges if not e.set)
    result = DedupResult(
        n_tables=len(tables),
        edges=whole,
        near=near,
        plan=plan,
        savings=replace(savings, n_retired=2, bytes_freed=5000, monthly_saving=0.5),
        bytes_read=1000,
        seconds=2.0,
        n_pairs=10,
        settled={"bounds": 9, "exact": 1},
        listed_apart=apart,
        found=False,
        containment=SNAPSHOT,
        retention=SNAPSHOT,
        covers=covers,
        renames=renames,
    )
    graph = containment_graph(tables, edges, covers, renames, apart=apart)
    return Shown(result, tuple(sorted(tables)), {}, graph, result.bytes_read)


class Reader(HTMLParser):
    """A page's elements and the text of its scripts; fails where elements do not nest."""

    VOID = frozenset({"meta", "input", "br", "rect", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open, self.names, self.scripts = list[str](), list[str](), list[str]()
        self.attributes = list[tuple[str, str | None]]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.extend(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_names_cannot_break_out_of_the_page_or_the_picture() -> None:
    tables = [Table(name, 10**i, i + 1, "keep", name) for i, name in enumerate((*HOSTILE, "plain", "last"))]
    edges = [edge(HOSTILE[0], HOSTILE[1]), edge(HOSTILE[2], HOSTILE[3], 0.95)]
    covers = (Cover(HOSTILE[4], (HOSTILE[0], "plain"), True, 1, (1, 1)),)
    shown = scanned(tables, edges, covers, (Rename("plain", HOSTILE[3], (("<b>", "x"),), True, 1, 1),))
    drawn = picture(shown.graph)
    text = page(shown, drawn)
    reader = read(text)
    assert reader.names.count("script") == len(reader.scripts) == 1 + sum(grid.n_rows > 0 for grid in grids(shown))
    assert not {"i", "b"} & set(reader.names[reader.names.index("svg") :])
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    first = json.loads(reader.scripts[0])
    assert [row[:2] for row in first["rows"]] == [[HOSTILE[2], HOSTILE[3]], [HOSTILE[0], HOSTILE[1]]]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_picture_is_xml_by_itself_and_says_everything_in_words() -> None:
    tables = [Table("year", 4000, 90), *(Table(f"day/{i}", 100, 9, "retire", "day") for i in range(5)), Table("z", 1, 1)]
    shown = scanned(tables, [edge(f"day/{i}", "year") for i in range(5)])
    root = ElementTree.fromstring(svg(picture(shown.graph), shown.graph))
    texts = [element.text or "" for element in root.iter() if element.tag.endswith(("text", "title"))]
    assert {"year", "day/… 5 tables", "4.0 kB · 90 rows", "500 bytes · 9 rows"} <= set(texts)
    assert any("day/4: retire" in text for text in texts)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    empty = scanned([Table("a", 1, 1), Table("b", 1, 1)], [])
    assert "No table is contained in another one." in svg(picture(empty.graph), empty.graph)


def test_marks_are_as_large_as_their_bytes_and_striped_by_action() -> None:
    tables = [
        Table("whole", 6400, 90),
        Table("a", 1600, 9, "keep"),
        Table("b", 1600, 9, "retire"),
        Table("c", 1600, 9, "foreign"),
    ]
    shown = scanned([*tables, Table("z", 1, 1)], [edge(x, y) for x in "abc" for y in ("a", "b", "c", "whole") if x != y])
    marks = {mark.label: mark for mark in picture(shown.graph).marks}
    assert marks["whole"].side ** 2 * 4800 == pytest.approx(marks["a (+2 equal)"].side ** 2 * 6400)
    assert [stripe.action for stripe in marks["a (+2 equal)"].stripes] == ["keep", "foreign", "retire"]
    assert sum(stripe.width for stripe in marks["a (+2 equal)"].stripes) == pytest.approx(marks["a (+2 equal)"].side)


def test_marks_do_not_overlap() -> None:
    order = random.Random(3)
    tables = [Table(f"t{i}", order.randrange(10**6), 900 - i, schema=str(i)) for i in range(80)]
    shown = scanned(tables, [edge(f"t{c}", f"t{p}") for p, c in (sorted(order.sample(range(80), 2)) for _ in range(60))])
    drawn = picture(shown.graph)
    boxes = [(m.x, m.y, m.x + m.side, m.y + m.side) for m in drawn.marks]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert min(left, top) >= 0 and right <= drawn.width and bottom <= drawn.height
        assert all(right < x0 or x1 < left or bottom < y0 or y1 < top for x0, y0, x1, y1 in boxes[:i])


def test_five_thousand_tables_are_a_page_in_seconds() -> None:
    order = random.Random(1)
    tables = [Table(f"{'abcdefgh'[i % 8]}/t{i}", order.randrange(10**9), 5000 - i, schema=str(i % 9)) for i in range(5000)]
    names = [t.name for t in tables]
    edges = [edge(names[c], names[p]) for p, c in (sorted(order.sample(range(5000), 2)) for _ in range(20_000))]
    start = time.process_time()
    shown = scanned(tables, edges)
    text = page(shown, picture(shown.graph))
    assert time.process_time() - start < 3.0
    graph = shown.graph
    assert graph.n_boxes + graph.n_collapsed + graph.n_isolated + graph.n_apart + graph.n_beyond == 5000 and graph.n_boxes <= 400
    assert len(text) < 8_000_000 and json.loads(read(text).scripts[0])["rows"][0][2] == "every row, with its copies"


def test_a_long_name_keeps_both_ends() -> None:
    assert shortened("short") == "short"
    assert shortened("snapshots/prices/2024-01-01_abcdef", 20) == "snapshots…-01_abcdef"
    assert len(shortened("x" * 99)) == 34


def test_a_scan_writes_the_page_and_tells_mlflow_once_and_prefect_each_time(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = tmp_path / "lethe.toml"
    config.write_text(CONFIG)
    rows = [f"secret-{n:03d},{n * n}" for n in range(60)]
    for name, some in (("whole", rows), ("part", rows[:40]), ("most", [*rows[:39], "secret-999,1"])):
        (tmp_path / "in" / f"{name}.csv").write_text("\n".join(["who,v", *some]) + "\n")
    ingest_tables(None, str(config))
    settings = load_settings(config)
    entry = Retired("t/old", "projection", "{}", ("t/whole",), "1:0", 7, 700, dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    lake = Lake.open(settings)
    with lake.writing():
        put(lake, entry, {})

    first, again = scan(str(config)), scan(str(config))

    assert (first.found, again.found) == (False, True)
    path = report_path(config)
    assert path == tmp_path / "reports" / "containment.html"
    assert show.deduped(again, path).report == str(path)
    text, drawn = path.read_text(encoding="utf-8"), path.with_name(PICTURE).read_text(encoding="utf-8")
    assert {"t/whole", "t/part", "t/old"} <= {word for element in ElementTree.fromstring(drawn).iter() for word in [element.text]}
    assert "secret-" not in text and "retired" in text and read(text).names.count("svg") == 1

    tracking = open_tracking(settings)
    (run,) = tracking.client.search_runs([tracking.experiment_id], "attributes.run_name = 'dedup'")
    assert {file.path for file in tracking.client.list_artifacts(run.info.run_id)} == {"containment.html", "containment.svg"}
    assert run.data.metrics["n_edges"] == len(first.edges) and run.info.status == "FINISHED"
    assert {"lethe-containment", "lethe-containment-edges", "lethe-containment-plan"} <= artifacts().keys()
    assert str(path) in artifacts()["lethe-containment"] and "secret-" not in json.dumps(artifacts())


def artifacts() -> dict[str, Any]:
    """The newest of each key: other tests leave theirs in the same server."""
    with get_client(sync_client=True) as client:
        newest_first = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
    return {artifact.key: artifact.data for artifact in reversed(newest_first)}


def test_the_summary_names_the_steps_and_their_shares(tmp_path: Path) -> None:
    text = summary(scanned([Table("a", 1, 1), Table("b", 2, 2), Table("z", 1, 1)], [edge("a", "b")]), tmp_path / "x.html")
    assert (
        "| bounds | 9 | 90.00 % |" in text and "2 of 3 tables are in the picture" in text and "| saved a month | 0.50 $ |" in text
    )
