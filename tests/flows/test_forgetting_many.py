"""The law for rows of several subjects: whoever asks, the lake is the one that never saw the rows that name them.

A paper names its author in an object and its reviewers in a list of objects, and comes as JSON lines in several small files,
whose rows share data files. Some papers break a rule of their table and lie in quarantine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_lake import SECRET, restore

from flows.curate import curate, ingest_tables
from flows.forget import Forgotten, forget, request
from infra.contracts import MIXED
from infra.lake import Lake
from infra.settings import load_settings
from tasks.forget.certificate import problems_of

ANN, BOB = "Ann, A.", "bob"  # ann writes and reviews; bob only reviews
KEPT = ("records", "selection", "scores", "training_set")

CONFIG = """\
[tables.papers]
source  = ["raw/papers/*.jsonl"]
subject = [{ kind = "person", column = "author.id" }, { kind = "person", column = "reviewers[].id" }]
text    = "body"
contract = { stars = { range = [0, 4] } }
[tables.votes]
source  = "raw/votes.jsonl"
subject = { kind = "person", column = "voters[]" }

[datasets.papers]
pool   = ["papers"]
prune  = { method = "random", keep_fraction = 0.8 }
holdout_fraction = 0.2

[models.stars]
dataset = "papers"
kind    = "text"
label   = "stars"
shards  = 4
slices  = 2
"""

Row = dict[str, Any]


def papers() -> list[Row]:
    people = [ANN, *(f"author-{n:02d}" for n in range(20))]
    reviewers = [BOB, ANN, *(f"author-{n:02d}" for n in range(10))]
    return [
        {
            "author": {"id": people[n % 21], "name": f"N. {n % 7}"},
            "reviewers": None if n % 9 == 4 else [{"id": reviewers[(n + i) % 12], "mark": i} for i in range(n % 5)],
            "body": f"on tea and salt, no {n}",
            "stars": n % 6,
        }
        for n in range(120)
    ]


def votes() -> list[Row]:
    voters = [ANN, BOB, "author-03", None]
    return [{"voters": [voters[(n * i) % 4] for i in range(n % 5)], "n": n} for n in range(24)]


def named(row: Row) -> set[str]:
    """Everybody whom a row names, as one who reads it would say."""
    reviewers = [reviewer["id"] for reviewer in row.get("reviewers") or []]
    return {*reviewers, *row.get("voters", []), *([row["author"]["id"]] if "author" in row else [])} - {None}


@dataclass(frozen=True)
class Project:
    """A folder with raw files from which the rows that name one person may be missing."""

    home: Path

    @property
    def config(self) -> str:
        return str(self.home / "lethe.toml")

    @property
    def lake(self) -> Lake:
        return Lake.open(load_settings(self.config))

    def write(self, without: str | None = None) -> Project:
        (self.home / "raw" / "papers").mkdir(parents=True)
        (self.home / ".lethe").mkdir(mode=0o700)
        (self.home / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
        (self.home / "lethe.toml").write_text(CONFIG, encoding="utf-8")
        for part in range(6):
            self.put(f"papers/{part}.jsonl", papers()[part::6], without)
        self.put("votes.jsonl", votes(), without)
        return self

    def put(self, name: str, rows: list[Row], without: str | None = None) -> None:
        lines = [json.dumps(row) + "\n" for row in rows if without not in named(row)]
        with (self.home / "raw" / name).open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def build(self) -> Project:
        curate(None, self.config)
        ingest_tables(["votes"], self.config)
        return self

    def forget(self, person: str) -> Forgotten:
        request([("person", person)], self.config)
        result = forget(None, self.config)
        assert result is not None
        return result

    def digests(self) -> dict[str, str]:
        lake = self.lake
        return {name: lake.snapshot(name).digest for name in lake.tables() if name.split("/")[0] in KEPT}

    def rows(self, table: str) -> list[Row]:
        return self.lake.read(self.lake.snapshot(table)).to_pylist()

    def rejects(self) -> list[str]:
        return sorted(f"{row['reason']} {row['raw']}" for row in self.rows("quarantine"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Path]]:
    """A lake that saw everybody, and a copy of it to go back to."""
    root = tmp_path_factory.mktemp("many")
    project = Project(root / "a").write().build()
    shutil.copytree(root / "a", root / "backup")
    yield project, root / "backup"


@pytest.fixture
def project(world: tuple[Project, Path]) -> Project:
    restore(world[1], world[0].home)
    return world[0]


@pytest.mark.parametrize("person", [ANN, BOB])
def test_whoever_asks_the_lake_never_saw_them(project: Project, person: str, tmp_path: Path) -> None:
    """Ann and Bob share rows: each of them takes those along, out of tables, decisions and quarantine, and nothing else."""
    both = [row for row in papers() if {ANN, BOB} <= named(row) and row["stars"] < 5]
    assert both
    assert any(person in named(row) and row["stars"] == 5 for row in papers())
    before = project.digests()
    assert {part.file.source for part in project.lake.parts(project.lake.snapshot("records/papers"))} == {MIXED}
    result = project.forget(person)
    never = Project(tmp_path / "b").write(without=person).build()
    assert project.digests() == never.digests() != before
    assert project.rejects() == never.rejects() != []
    lost = {table.table: table.n_erased for table in result.erased.tables}
    assert lost["records/papers"] == sum(person in named(row) and row["stars"] < 5 for row in papers()) >= len(both)
    assert lost["records/votes"] == sum(person in named(row) for row in votes())
    (certificate,) = result.certificates
    assert problems_of(Path(certificate.path)) == []
    assert certificate.residue_hits == 0
    text = Path(certificate.path).read_text(encoding="utf-8")
    assert ANN not in text

    # What comes again is refused, whichever column names them; the rest of the changed file comes in.
    more = [
        {"author": {"id": "author-01", "name": "N"}, "reviewers": [{"id": person, "mark": 1}], "body": "tea again", "stars": 1},
        {"author": {"id": person, "name": "N"}, "reviewers": [], "body": "salt again", "stars": 2},
        {"author": {"id": person, "name": "N"}, "reviewers": [], "body": "too many stars", "stars": 9},
        {"author": {"id": "author-02", "name": "N"}, "reviewers": [{"id": None, "mark": 1}], "body": "leaf again", "stars": 3},
    ]
    project.put("papers/3.jsonl", more)
    never.put("papers/3.jsonl", more[3:])
    ingest_tables(["papers"], project.config)
    ingest_tables(["papers"], never.config)
    table = "records/papers"
    assert project.lake.snapshot(table).digest == never.lake.snapshot(table).digest != before[table]
    assert project.rejects() == never.rejects()
    assert "leaf again" in {row["body"] for row in project.rows(table)}
    assert all(person not in named(row) for row in project.rows(table))
