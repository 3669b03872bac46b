"""The page of a selection: its figures, nothing else needed, nothing of a record's text; how it is told elsewhere."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import ArtifactSort
from typer.testing import CliRunner

from flows import show
from flows.cli import app
from flows.select_documents import SelectDocument
from flows.select_why import neighbours_path, remove_samples, sampled_records, samples_path, why_selected
from flows.selection_charts import HEIGHT, LEFT, RIGHT, WIDTH, length_chart, waterfall, weight_chart
from flows.selection_page import neighbours_page, page, page_name, percent, sources_of
from flows.selection_report import metrics_of, report_path, show_selection, summary
from flows.show_selection import reviewed
from flows.workspace import Workspace
from infra.contracts import Lineage
from infra.files import write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import load_settings
from infra.tracking import open_tracking
from tasks.select.report_figures import LENGTH_EDGES, as_summary, shape, weight_edges
from tasks.select.review_task import NotReviewed, Pair, Review
from tasks.select.task import SelectResult, select

HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028"
CONFIG = """\
[tables.letters]
source = "in/letters.jsonl"
text = "body"
[tables.gold]
source = "in/gold.jsonl"
text = "body"
[datasets.mail]
pool = ["letters"]
target = "gold"
select = { keep_fraction = 0.4, n_buckets = 4096, filters = { word_count = [4, inf] } }
"""


def figures(**changed: Any) -> dict[str, Any]:
    """A summary as a selection leaves it, with names that would break out of the page."""
    rng = np.random.default_rng(0)
    weights, lengths = rng.normal(0, 0.2, 900), rng.integers(1, 4000, 900)
    edges = weight_edges(weights)
    shapes = {
        name: shape(lengths[which], weights[which], edges) for name, which in (("raw", slice(None)), ("selected", slice(300)))
    }
    return {
        "n_raw": 900,
        "n_kept": 300,
        "n_tokens": 123_456,
        "n_sample": 800,
        "kl_reduction": 0.1234,
        "random_kl_reduction": -0.001,
        "effective_sample_size": 321.4,
        "length_correlation": -0.31,
        "seed_overlap": 0.614,
        "n_by_reason": {"kept": 300, "below_threshold": 450, "filtered": 100, "near_duplicate": 40, "new_reason": 10},
        "n_by_signal": {"word_count": 70, HOSTILE: 30},
        "by_source": {
            "posts": {"raw": 500, "kept": 290, "reasons": {"below_threshold": 210}},
            "mail": {"raw": 390, "kept": 10, "reasons": {"filtered": 100, "below_threshold": 240, "near_duplicate": 40}},
            HOSTILE: {"raw": 10, "kept": 0, "reasons": {"new_reason": 10}},
        },
        "targets": {
            "gold": {"share": 0.75, "kept": 225, "kl_raw": 0.5, "kl_selected": 0.25, "kl_random": 0.51},
            HOSTILE: {"share": 0.25, "kept": 75},
        },
        "warnings": [f"table {HOSTILE} loses 100 %"],
        **as_summary(edges, **shapes),
        **changed,
    }


class Reader(HTMLParser):
    """A page's elements, attributes and words; fails where elements do not nest."""

    VOID = frozenset({"meta", "rect", "path", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open, self.names, self.words = list[str](), list[str](), list[str]()
        self.attributes = list[tuple[str, str | None]]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.extend(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_has_the_figures_and_needs_nothing_else() -> None:
    text = page("mail", figures())
    found = read(text)
    assert {"300", "+0.123", "321", "-0.31", "61.4 %"} <= set(found.words)
    assert "correlation: short records are favoured" in text
    assert {"filter: word_count", "near duplicate", "below threshold", "as many at random", "the selection"} <= set(found.words)
    assert found.names.count("svg") == 2
    assert not {"script", "img", "link", "iframe", "object"} & set(found.names)
    assert not any(name in ("src", "href") or name.startswith("on") for name, _ in found.attributes)
    assert "http" not in text
    assert "url(" not in text


def test_a_page_of_nothing_known_is_a_page() -> None:
    found = read(page("empty", {"n_raw": 0, "n_kept": 0}))
    assert "svg" not in found.names
    assert "records kept" in found.words
    few = figures(
        kl_reduction=None, seed_overlap=None, length_hist={"raw": [0] * len(LENGTH_EDGES)}, weight_hist={"edges": [0.0]}
    )
    assert "svg" not in read(page("mail", few)).names


def test_a_draw_by_nothing_but_chance_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    plain = figures(effective_sample_size=800.0, length_correlation=0.0, kl_reduction=None)
    text = page("mail", plain)
    assert "at random" in read(text).words and "correlation" not in text and "seed overlap" not in text
    assert "at random" not in read(page("mail", figures())).words
    told = ("n_by_reason", "n_sample", "effective_sample_size", "length_correlation", "seed_overlap")
    counts = {"dataset": "mail", "n_raw": 900, "n_kept": 300, "kl_reduction": None, "seconds": 1.0}
    show.text(SelectDocument.model_validate({**counts, **{name: plain[name] for name in told}}))
    shown = capsys.readouterr().out
    assert "drawn at random" in shown and "correlation" not in shown


def test_lost_and_low_tables_come_first_and_are_red() -> None:
    shown = sources_of(figures())
    assert [(s.name, s.alarm) for s in shown] == [(HOSTILE, "lost"), ("mail", "low"), ("posts", "")]
    assert all(sum(part.n for part in s.parts) == s.n_raw for s in shown)
    assert page("mail", figures()).count('<tr class="lost">') == 1


def test_the_waterfall_ends_at_what_is_kept() -> None:
    bars = waterfall(figures()["n_by_reason"], {"word_count": 70, "entropy": 30})
    assert [bar.name for bar in bars] == [
        *("all records", "filter: word_count", "filter: entropy", "near duplicate", "new reason", "below threshold", "kept"),
    ]
    dropped = [bar for bar in bars if bar.kind == "dropped"]
    assert [bar.end for bar in dropped] == ["filtered", "filtered", "near_duplicate", "new_reason", "below_threshold"]
    assert dropped[0].start + dropped[0].width == pytest.approx(1.0)
    for above, below in pairwise(dropped):
        assert below.start + below.width == pytest.approx(above.start)
    assert dropped[-1].start == pytest.approx(bars[-1].width)


def test_outlines_stay_in_the_chart_and_have_the_area_of_all_records() -> None:
    known = figures()
    for chart in (weight_chart(known["weight_hist"]), length_chart(known["length_hist"], LENGTH_EDGES)):
        assert chart is not None
        assert [outline.name for outline in chart.outlines] == ["raw", "selected"]
        assert sum(column.width for column in chart.columns) == pytest.approx(WIDTH - LEFT - RIGHT)
        for outline in chart.outlines:
            numbers = [float(n) for step in outline.path.replace("M", "").split("V")[1:] for n in step.split("H")]
            assert min(numbers) >= 0
            assert max(n for n in numbers if n <= HEIGHT) <= HEIGHT
        assert 1 <= len(chart.levels) <= 5
        assert len(chart.ticks) <= 13
    weights = weight_chart({"edges": [-0.5, -0.25, 0.0, 0.25], "raw": [0, 1, 2, 1, 0]})
    assert weights is not None
    assert "0" in [tick.words for tick in weights.ticks]
    assert "0 to 0.25: raw 25 %" in [column.words for column in weights.columns]


def test_five_thousand_tables_are_a_page_of_bounded_size() -> None:
    many = {f"t{i}": {"raw": 100, "kept": i % 90, "reasons": {"below_threshold": 100 - i % 90}} for i in range(5000)}
    text = page("mail", figures(by_source=many))
    assert len(text) < 2_000_000
    assert "4,000 more tables" in text


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percent(share) for share in (0.0, 1e-6, 0.5, 0.9999, 1.0)] == ["0 %", "< 0.1 %", "50 %", "99.9 %", "100 %"]


# --- on a lake -----------------------------------------------------------------------------------------------------------------


def words(n: int, seed: int, choice: str) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(choice.split(), k=rng.randint(6, 20))) for _ in range(n)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A lake with a pool that holds secrets, and a target."""
    home = tmp_path_factory.mktemp("mail")
    (home / "lethe.toml").write_text(CONFIG, encoding="utf-8")
    settings = load_settings(home)
    lake = Lake.open(settings)
    pool = [*words(80, 1, "dear secret ada tea cup leaf pot"), *words(120, 2, "engine road gear secret wheel"), "too secret"]
    for name, texts in (("letters", pool), ("gold", words(40, 3, "tea cup leaf pot brew"))):
        rows = pa.table({"body": pa.array(texts)})
        ids = row_ids(name, row_hashes(rows, ["body"], lake.keys.row), lake.keys.row)
        rows = rows.add_column(0, "row_id", pa.array(ids))
        file = write_part(lake.folder(f"records/{name}"), rows.to_batches(), rows.schema, digest_columns=["body"])
        lake.commit(f"records/{name}", rows.schema, [file], lineage=Lineage("ingest", "", ""))
    return Workspace(settings, lake, None)


@pytest.fixture(scope="module")
def result(work: Workspace) -> SelectResult:
    return select.fn(work.settings, "mail", work.records(["letters"]), work.records(["gold"]))


def test_a_selection_writes_its_page_and_tells_mlflow_and_prefect(work: Workspace, result: SelectResult) -> None:
    @flow(persist_result=False, validate_parameters=False)
    def told() -> Path:
        return show_selection(work, result)

    path = told()
    assert (
        path == report_path(work.settings.home / "lethe.toml", "mail") == work.settings.home / "reports" / "selection-mail.html"
    )
    text = path.read_text(encoding="utf-8")
    assert "secret" not in text
    assert f"{result.n_kept:,}" in read(text).words
    tracking = open_tracking(work.settings)
    (run,) = tracking.client.search_runs([tracking.experiment_id], "attributes.run_name = 'select'")
    assert {file.path for file in tracking.client.list_artifacts(run.info.run_id)} == {"selection-mail.html"}
    assert run.data.metrics["n_kept"] == result.n_kept
    assert run.data.metrics["n_filtered"] == 1
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
    found = json.dumps([artifact.data for artifact in artifacts if artifact.key == "lethe-selection-mail"])
    assert str(path) in found
    assert "secret" not in found


def test_a_record_is_explained_on_the_terminal_and_as_json(
    work: Workspace, result: SelectResult, capsys: pytest.CaptureFixture[str]
) -> None:
    config = work.settings.home / "lethe.toml"
    rows = {row["reason"]: row["row_id"] for row in work.lake.read(result.snapshot).to_pylist()}
    for reason, row_id in rows.items():
        document = why_selected("mail", row_id, config)
        assert document.why is not None
        assert document.why.reason == reason
        show.text(document)
        shown = capsys.readouterr().out
        assert document.why.text.split()[0] in shown
        assert all(gram.text in shown for one in document.why.weights for gram in (*one.up, *one.down))
        assert SelectDocument.model_validate_json(document.model_dump_json()) == document
    assert {"kept", "filtered", "below_threshold"} <= rows.keys()


def test_samples_are_shown_and_their_page_is_private_and_removed(
    work: Workspace, result: SelectResult, capsys: pytest.CaptureFixture[str]
) -> None:
    config = work.settings.home / "lethe.toml"
    document = sampled_records("mail", 3, config)
    show.text(document)
    shown, path = capsys.readouterr().out, samples_path(work.settings, "mail")
    assert document.samples is not None
    assert [len(document.samples.kept), len(document.samples.dropped)] == [3, 3]
    for one in (*document.samples.kept, *document.samples.dropped):
        assert one.text in path.read_text(encoding="utf-8")
        assert one.text in shown
    read(path.read_text(encoding="utf-8"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert sampled_records("mail", 3, config) == document
    assert (remove_samples(work.settings), remove_samples(work.settings)) == (1, 0)
    assert not path.exists()
    assert result.n_kept


def near(texts: bool) -> Review:
    shown = {"item_text": f"what is {HOSTILE}", "text": f"it is [red]{HOSTILE}"} if texts else {}
    return Review("mail", 12, 4, 7, (Pair(5, "exam", 9, 0.87654, keep=True, reason="kept", **shown),))


def test_records_near_to_evaluation_items_are_listed_and_their_texts_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    show.text(reviewed(near(texts=False)))
    shown = capsys.readouterr().out
    assert "12 pairs of 4 evaluation items, and in 7 of them the record is kept" in shown
    assert "0.877" in shown and "lethe select mail --neighbours --samples" in shown
    document = reviewed(near(texts=True), Path("reports/x.html"))
    assert SelectDocument.model_validate_json(document.model_dump_json()) == document
    show.text(document)
    shown = capsys.readouterr().out
    assert "it is [red]" in shown and "reports/x.html" in shown
    text = neighbours_page(document)
    assert {"script", "img"}.isdisjoint(read(text).names) and "onerror" in text


def test_the_page_of_neighbours_is_removed_with_the_samples(tmp_path: Path) -> None:
    (tmp_path / "lethe.toml").write_text(CONFIG, encoding="utf-8")
    settings = load_settings(tmp_path)
    paths = [neighbours_path(settings, "mail"), samples_path(settings, "mail"), samples_path(settings, "mail/neighbours")]
    assert len(set(paths)) == 3
    paths[0].parent.mkdir()
    for path in paths:
        path.touch()
    assert remove_samples(settings) == 3


def test_a_selection_in_words(result: SelectResult, capsys: pytest.CaptureFixture[str]) -> None:
    document = show.selected(result, "mail", Path("reports/selection-mail.html"))
    show.text(document)
    shown = capsys.readouterr().out
    assert f"kept {result.n_kept:,} of {result.n_raw:,} records" in shown
    assert "filtered 1 (word_count 1)" in shown
    assert "all figures: reports/selection-mail.html" in shown
    assert document.by_source["letters"].raw == result.n_raw
    assert document.n_by_reason == result.figures["n_by_reason"]


def test_metrics_and_summary_are_numbers_and_names(tmp_path: Path) -> None:
    metrics = metrics_of(figures())
    assert metrics["n_near_duplicate"] == 40
    assert "n_kept" in metrics
    assert "| filter: word_count | 70 | 7.8 % |" in summary("mail", figures(), tmp_path / "x.html")
    assert page_name("a/b") == "selection-a+b.html"


def test_the_command_line_asks_for_one_thing_at_a_time(work: Workspace, result: SelectResult) -> None:
    row_id = int(work.lake.read(result.snapshot, ["row_id"]).column("row_id")[0].as_py())
    use = ["select", "mail", "--config", str(work.settings.home / "lethe.toml")]
    told = CliRunner().invoke(app, [*use, "--why", str(row_id), "--json"])
    assert told.exit_code == 0
    assert SelectDocument.model_validate_json(told.stdout).why is not None
    shown = CliRunner().invoke(app, [*use, "--samples", "-n", "2", "--json"])
    assert len(json.loads(shown.stdout)["samples"]["kept"]) == 2
    assert remove_samples(work.settings) == 1
    assert CliRunner().invoke(app, [*use, "--why", str(row_id), "--samples"]).exit_code == 2
    assert CliRunner().invoke(app, [*use, "--why", str(row_id), "--neighbours"]).exit_code == 2
    refused = CliRunner().invoke(app, [*use, "--neighbours", "--limit", "3"])
    assert isinstance(refused.exception, NotReviewed)
