"""The law with every step of selection switched on: what is forgotten measured nothing, stood for nobody and moved no cut.

The person is at every place where a record decides about others: the longest of near duplicates and a shorter one of others, one
of just as many holders as make an n-gram boilerplate, the only one of a stratum, a copy of an evaluation item.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_lake import SECRET

from flows.curate import curate
from flows.export import export
from flows.forget import Forgotten, forget, request
from flows.select_why import sampled_records, samples_path
from infra.lake import Lake
from infra.settings import load_settings
from tasks.forget.certificate import problems_of

PERSON = "ada-4711"
DERIVED = ("signals", "signatures", "contamination", "neighbours", "ngram_counts", "selection", "scores", "training_set")
DECISIONS = ("neighbours", "selection", "scores", "training_set")
CONFIG = """\
[lake]
root = "lake"
sample_rows = {sample_rows}
[cluster]
local_bytes = 1_000_000_000
[tables.posts]
source  = ["raw/posts/*.jsonl"]
subject = {{ kind = "person", column = "author" }}
text    = "body"
[tables.notes]
source  = "raw/notes.jsonl"
subject = {{ kind = "person", column = "author" }}
text    = "body"
[tables.gold]
source = "raw/gold.jsonl"
text   = "body"
[tables.faq]
source = "raw/faq.jsonl"
text   = "body"
[tables.exam]
source = "raw/exam.jsonl"
text   = "body"
[datasets.d]
pool   = ["posts", "notes"]
target = {{ gold = 2, faq = 1 }}
prune  = {{ method = "density", keep_fraction = 0.9, n_clusters = 4 }}
[datasets.d.select]
method = "{method}"
keep_fraction = 0.6
exact = {exact}
n_clusters = 6
planned_epochs = 4
filters = {{ word_count = [8, inf], frac_chars_dupe_10grams = [0.0, 0.5] }}
near_duplicates = {{ jaccard = 0.7, shingle = 3 }}
decontaminate = {{ tables = ["exam"], n = 8, action = "cut", neighbours = 2 }}
score = {{ column = "stars", percentile = 95 }}
floors = {{ by = "lang", min_fraction = 0.3, min_rows = 2 }}
safety = {{ max_source_loss = 1.0, warn_source_loss = 0.2, min_rows = 10, by = ["lang"] }}
"""
TEA = [f"{a}{b}" for a in ("kettle", "leaf", "cup", "brew") for b in "abcdef"]
SEA = [f"{a}{b}" for a in ("wave", "salt", "ship", "tide") for b in "abcdef"]
ITEM = "the capital of the small republic of andorra is andorra la vella and nothing else"
FOOTER = "this letter was sent from the reading room of the old town library"
N_HOLDERS = 10  # as many holders make an n-gram boilerplate, and one fewer do not


def said(rng: random.Random, words: list[str], n: int = 30) -> str:
    return " ".join(rng.choices(words, k=n))


def record(author: str, body: str, stars: float = 4.0, lang: str = "en") -> dict[str, Any]:
    return {"author": author, "body": body, "stars": stars, "lang": lang}


def posts() -> list[dict[str, Any]]:
    """Posts of many, and those by which the person could be noticed."""
    rng = random.Random(11)
    many = [record(f"p{i % 31}", said(rng, (TEA, SEA)[i % 2]), i % 5 + i / 1000, ("en", "de")[i % 2]) for i in range(150)]
    stood_for, standing, chain = said(rng, SEA, 40), said(rng, TEA, 40), said(rng, SEA, 40)
    special = [
        record("bob", stood_for),
        record(PERSON, stood_for + " and a word more"),  # the longest: it stands for bob's
        record("eve", standing + " with two words more of hers"),
        record(PERSON, standing),  # eve's stands for it
        record("cy", chain),
        record(PERSON, chain.upper() + "!!"),  # the same words
        record(PERSON, "far too short"),
        record(PERSON, said(rng, TEA) + f" {ITEM} " + said(rng, TEA)),
        record("dan", said(rng, SEA) + f" {ITEM} " + said(rng, SEA)),
        record(PERSON, said(rng, TEA) + " qx", lang="qx"),  # the only one of its stratum
        record(PERSON, said(rng, TEA), stars=99.0),
    ]
    holders = [record(f"h{i}", said(rng, TEA) + " " + FOOTER) for i in range(N_HOLDERS - 1)]
    return [*many, *special, *holders, record(PERSON, said(rng, SEA) + " " + FOOTER)]


def notes() -> list[dict[str, Any]]:
    rng = random.Random(12)
    return [record(f"p{i % 7}" if i else PERSON, said(rng, TEA + SEA), 3.5) for i in range(40)]


def project(
    folder: Path, *, without: str = "", method: str = "importance", exact: bool = False, sample_rows: int = 100_000
) -> Path:
    rng = random.Random(13)
    tables = {
        "posts/0": [row for i, row in enumerate(posts()) if i % 2],
        "posts/1": [row for i, row in enumerate(posts()) if not i % 2],
        "notes": notes(),
        "gold": [{"body": said(rng, TEA + FOOTER.split())} for _ in range(30)],
        "faq": [{"body": said(rng, SEA[:6])} for _ in range(20)],
        "exam": [{"body": ITEM}, {"body": FOOTER}],
    }
    for name, rows in tables.items():
        path = folder / "raw" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [json.dumps(row) + "\n" for row in rows if row.get("author") != without]
        path.write_text("".join(kept), encoding="utf-8")
    settings = CONFIG.format(method=method, exact=str(exact).lower(), sample_rows=sample_rows)
    (folder / "lethe.toml").write_text(settings, encoding="utf-8")
    (folder / ".lethe").mkdir(mode=0o700)
    (folder / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    return folder / "lethe.toml"


@dataclass(frozen=True)
class Known:
    """A lake after curating: its tables, the decisions by the texts that they are on, and the row ids of the person."""

    config: Path

    @property
    def lake(self) -> Lake:
        return Lake.open(load_settings(self.config))

    def digests(self) -> dict[str, str]:
        lake = self.lake
        return {name: lake.snapshot(name).digest for name in lake.tables() if name.split("/")[0] in ("records", *DECISIONS)}

    def figures(self) -> dict[str, Any]:
        lake = self.lake
        summary = lake.lineage(lake.snapshot("selection/d")).summary
        return {name: value for name, value in summary.items() if name != "n_counted_files"}

    def by_text(self) -> dict[str, dict[str, Any]]:
        lake = self.lake
        made = {row["row_id"]: row for row in lake.read(lake.snapshot("selection/d")).to_pylist()}
        rows = [row for name in ("posts", "notes") for row in lake.read(lake.snapshot(f"records/{name}")).to_pylist()]
        return {row["body"]: made[row["row_id"]] for row in rows}

    def ids_of(self, author: str) -> set[int]:
        lake = self.lake
        rows = [row for name in ("posts", "notes") for row in lake.read(lake.snapshot(f"records/{name}")).to_pylist()]
        return {row["row_id"] for row in rows if row["author"] == author}

    def page(self) -> Path:
        return self.config.parent / "reports" / "selection-d.html"


def numbers_in(table: pa.Table) -> Iterator[int]:
    """Every whole number of a table, in lists and structs too."""
    stack = list[Any](table.to_pylist())
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, int):
            yield value


def curated(config: Path) -> Known:
    curate(["d"], str(config))
    return Known(config)


def forgotten(config: Path) -> Forgotten:
    request([("person", PERSON)], str(config))
    result = forget(None, str(config))
    assert result is not None
    return result


@dataclass(frozen=True)
class World:
    """A lake that met the person and forgot, one that never met them, and what was known before."""

    met: Known
    never: Known
    digests: dict[str, str]
    by_text: dict[str, dict[str, Any]]
    row_ids: set[int]
    samples: str
    result: Forgotten


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("steps")
    met = curated(project(root / "a"))
    sampled_records("d", 100, met.config)
    samples = samples_path(load_settings(met.config), "d").read_text(encoding="utf-8")
    digests, by_text, row_ids = met.digests(), met.by_text(), met.ids_of(PERSON)
    result = forgotten(met.config)
    never = project(root / "b", without=PERSON)
    shutil.copytree(root / "a" / "tracking", root / "b" / "tracking")  # making a store takes seconds
    return World(met, curated(never), digests, by_text, row_ids, samples, result)


def test_what_was_decided_is_what_would_have_been_decided_without_the_person(world: World) -> None:
    met, never = world.met, world.never
    assert met.digests() == never.digests()
    assert met.digests() != world.digests
    assert met.figures() == never.figures()


def test_the_person_stood_where_they_could_be_noticed(world: World) -> None:
    """The world above can fail: each of the person's records changed what became of somebody else's."""
    was, now, rows = world.by_text, world.met.by_text(), posts()
    bob, ada, eve, shorter = (rows[150 + i]["body"] for i in range(4))
    assert (was[bob]["reason"], was[bob]["representative"]) == ("near_duplicate", was[ada]["row_id"])
    assert now[bob]["representative"] is None and now[bob]["reason"] in ("kept", "below_threshold")
    assert was[shorter]["representative"] == was[eve]["row_id"]
    holders = [row["body"] for row in rows if row["body"].endswith(FOOTER) and row["author"] != PERSON]
    assert len(holders) == N_HOLDERS - 1
    assert not any(was[body]["cuts"] for body in holders)
    assert all(now[body]["cuts"] for body in holders if now[body]["keep"])
    assert any(now[body]["keep"] for body in holders)


def test_nothing_of_the_person_is_left(world: World) -> None:
    result, lake, home = world.result, world.met.lake, world.met.config.parent
    (certificate,) = result.certificates
    assert (result.erased.n_rows, certificate.residue_hits) == (len(world.row_ids), 0)
    assert problems_of(Path(certificate.path), home / ".lethe" / "public_key.pem") == []
    derived = [name for name in lake.tables() if name.split("/")[0] in DERIVED]
    assert {name.split("/")[0] for name in derived} == set(DERIVED)
    for name in derived:
        assert not world.row_ids & set(numbers_in(lake.read(lake.snapshot(name)))), name
    for path in (p for folder in ("lake", "tracking", "reports") for p in (home / folder).rglob("*") if p.is_file()):
        assert PERSON.encode() not in path.read_bytes(), path


def test_the_page_of_samples_goes_and_the_page_of_figures_is_made_again(world: World) -> None:
    met, never = world.met, world.never
    assert "far too short" in world.samples
    assert not samples_path(load_settings(met.config), "d").exists()
    assert met.page().read_text(encoding="utf-8") == never.page().read_text(encoding="utf-8")


def test_exports_hold_neither_the_person_nor_a_cut_span(world: World, tmp_path: Path) -> None:
    for known, to in ((world.met, "a"), (world.never, "b")):
        export(known.config, "d", str(tmp_path / to))
    ours, theirs = (pq.read_table(tmp_path / to).sort_by("row_id") for to in "ab")
    assert ours.equals(theirs)
    assert not any(ITEM in body for body in ours["body"].to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"exact": True},
        {"sample_rows": 60},
        {"sample_rows": 60, "exact": True},
        *({"method": method} for method in ("clusters", "simcore", "transport", "score")),
    ],
    ids=str,
)
def test_every_way_to_select_forgets_as_if_it_never_saw(tmp_path: Path, asked: dict[str, Any]) -> None:
    met = curated(project(tmp_path / "a", **asked))
    row_ids = met.ids_of(PERSON)
    assert row_ids
    assert forgotten(met.config).certificates[0].residue_hits == 0
    assert met.digests() == curated(project(tmp_path / "b", without=PERSON, **asked)).digests()
    lake = met.lake
    for name in (name for name in lake.tables() if name.split("/")[0] in DERIVED):
        assert not row_ids & set(numbers_in(lake.read(lake.snapshot(name)))), name
