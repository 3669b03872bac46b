"""A project on a folder or on s3://, what its lake holds, and what no log of it names."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fault_child import Ended, Kill, apart, counted

from flows.workspace import opened
from infra.files import filesystem
from infra.lake import Lake
from infra.settings import load_settings
from tasks.ingest.task import ingest

SECRET = {"LETHE_SECRET": "ab" * 32}
TABLES = (
    '[tables.people]\nsource = "in/people/*"\nsubject = {kind = "person", column = "who"}\n\n[collections.c]\nsource = "in/c/*"\n'
)
_OLD_S = 1_700_000_000


class Project:
    """A folder with a lethe.toml and raw files; everything that is done to its lake is done by another process."""

    def __init__(self, home: Path, text: str = TABLES, *, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.env = {**SECRET, **(env or {})}
        home.mkdir(parents=True, exist_ok=True)
        (home / "lethe.toml").write_text(text, encoding="utf-8")

    def put(self, files: dict[str, str | bytes], *, age: int = 0) -> Project:
        """Raw files by their place under `in/`, all of one age: what is put twice with equal bytes has not changed. Of two files
        of one size only another age tells that they differ."""
        for name, content in files.items():
            path = self.home / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            os.utime(path, (_OLD_S + age, _OLD_S + age))
        return self

    def call(self, function: Any, *args: Any, kill: Kill | None = None, timeout_s: float = 120.0) -> Ended:
        return apart(function, str(self.home), *args, env=self.env, kill=kill, timeout_s=timeout_s)

    def run(self, kill: Kill | None = None) -> Ended:
        """Ingest everything; the value is a list of `IngestedTable`."""
        return self.call(ingested, kill=kill)

    def held(self) -> Held:
        return self.value(held)

    def value(self, function: Any, *args: Any) -> Any:
        ended = self.call(function, *args)
        assert not ended.error and not ended.signal, ended
        return ended.value

    def keep(self, place: Path) -> None:
        """Set the whole project aside, ages included."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.home, place)

    def restore(self, place: Path) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(place, self.home)


@dataclass(frozen=True)
class Held:
    """Everything that a lake holds after an ingest: digests and rows of its records, rejects, and the ledger."""

    digests: dict[str, str]
    row_ids: dict[str, list[int]]
    rejects: list[str]
    ledger: list[str]


@dataclass(frozen=True)
class World:
    """A project before an ingest, kept aside, and what its lake holds after an undisturbed one of `n_events`."""

    project: Project
    kept: Path
    expected: Held
    n_events: int

    def again(self) -> Project:
        self.project.restore(self.kept)
        return self.project


def world_of(project: Project, kept: Path) -> World:
    """Set a project aside and let an undisturbed run show what should come of it."""
    project.keep(kept)
    n_events = project.value(counted_ingest)
    return World(project, kept, project.held(), n_events)


@dataclass(frozen=True)
class Recovery:
    """What came of one more run: what the lake holds, what tidying leaves that no log names, what the lake holds then, and what a
    run after it still finds to do."""

    held: Held
    unreferenced: list[str]
    tidied: Held
    unsettled: list[str]


def assert_recovers(project: Project, expected: Held) -> None:
    """One more run, and the lake is as if nothing had happened: the same rows, rejects and ledger, nothing left lying about, and
    nothing to do for a next run."""
    found: Recovery = project.value(recovered)
    assert found.held == expected
    assert found.unreferenced == []
    assert found.tidied == expected
    assert found.unsettled == []


# --- what children do ---------------------------------------------------------------------------------------------------------


def ingested(home: str) -> list[Any]:
    """As `lethe ingest` does it, without Prefect's server."""
    with opened(home) as work:
        return ingest.fn(work.settings, scheduler=work.scheduler)


def held(home: str) -> Held:
    """Reads every row: what is only listed might be lost."""
    lake = Lake.open(load_settings(home))
    snapshots = {name: lake.snapshot(name) for name in lake.tables("records")}
    rows = {name: lake.read(snapshot) for name, snapshot in snapshots.items()}
    for name, snapshot in snapshots.items():
        assert rows[name].num_rows == snapshot.n_rows, name
    ids = {name: sorted(table["row_id"].to_pylist()) for name, table in rows.items()}
    return Held({name: s.digest for name, s in snapshots.items()}, ids, _rows(lake, "quarantine"), _rows(lake, "sources"))


def _rows(lake: Lake, table: str) -> list[str]:
    found = lake.read(lake.snapshot(table)).to_pylist() if lake.exists(table) else []
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in found)


def values(home: str, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table without their ids."""
    lake = Lake.open(load_settings(home))
    rows = lake.read(lake.snapshot(table)).drop_columns(["row_id"])
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def rejects(home: str) -> list[dict[str, Any]]:
    lake = Lake.open(load_settings(home))
    return lake.read(lake.snapshot("quarantine")).to_pylist() if lake.exists("quarantine") else []


def recovered(home: str) -> Recovery:
    ingested(home)
    first, left, second, before = held(home), tidied(home), held(home), _versions(home)
    again = [table.name for table in ingested(home) if not table.found]
    after = _versions(home)
    return Recovery(first, left, second, again + [name for name in after if after[name] != before.get(name)])


def _versions(home: str) -> dict[str, int]:
    lake = Lake.open(load_settings(home))
    return {name: lake.snapshot(name).version for name in lake.tables()}


def tidied(home: str) -> list[str]:
    lake = Lake.open(load_settings(home))
    with lake.writing():
        lake.tidy()
    return unreferenced(lake)


def unreferenced(lake: Lake) -> list[str]:
    """Files under the lake's root that are no log and that no log names; leases come and go with every command."""
    fs, root = filesystem(lake.root)
    files = [str(name)[len(root) :].lstrip("/") for name in fs.find(root)]
    named = {f"{folder}/{path}" for folder in _log_folders(files) for path in _named(fs, root, folder, files)}
    known = {*named, "lethe.json"}
    return sorted(name for name in files if name not in known and not _is_log(name) and not name.startswith("_locks/"))


def _log_folders(files: Sequence[str]) -> set[str]:
    return {name.split("/_delta_log/")[0] for name in files if "/_delta_log/" in name}


def _is_log(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return "/_delta_log/" in name and (
        last == "_last_checkpoint" or (last[:20].isdigit() and last.endswith((".json", ".parquet")))
    )


def _named(fs: Any, root: str, folder: str, files: Sequence[str]) -> set[str]:
    """The data files that the log of a table adds in any version: older ones may still be read."""
    paths = set[str]()
    for name in files:
        if name.startswith(f"{folder}/_delta_log/") and _is_log(name):
            content = fs.cat_file(f"{root}/{name}")
            if name.endswith(".json"):
                paths |= {action["add"]["path"] for action in map(json.loads, content.splitlines()) if "add" in action}
            elif name.endswith(".parquet"):
                adds = pq.read_table(io.BytesIO(content), columns=["add"])["add"].to_pylist()
                paths |= {add["path"] for add in adds if add and add["path"]}
    return paths


# --- raw files ----------------------------------------------------------------------------------------------------------------


def people(start: int, n: int, *, score: str = "{n}") -> str:
    """A CSV of n people with a ragged line for each ten."""
    lines = [f"p{i % 7},name {i},{score.format(n=i)}" + (",more" if i % 10 == 9 else "") for i in range(start, start + n)]
    return "\n".join(["who,name,score", *lines, ""])


def lines(start: int, n: int) -> str:
    """JSON lines, every seventh one cut."""
    texts = [json.dumps({"id": i, "tags": [f"t{i}"], "text": f"line {i}"}) for i in range(start, start + n)]
    return "\n".join(text[:-1] if i % 7 == 6 else text for i, text in enumerate(texts)) + "\n"


def parquet(start: int, n: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"k": list(range(start, start + n)), "v": [f"v{i}" for i in range(n)]}), sink)
    return sink.getvalue().to_pybytes()


def first_files() -> dict[str, str | bytes]:
    return {
        "people/a.csv": people(0, 30),
        "people/b.csv.gz": gzip.compress(people(30, 40).encode(), mtime=0),
        "people/c.csv": people(70, 20),
        "c/lines.jsonl": lines(0, 30),
        "c/kv.parquet": parquet(0, 50),
        "c/small.tsv": "k\tv\n1\tx\n2\ty\tz\n",
    }


def later_files() -> dict[str, str | bytes]:
    """Changed content, a new file, a column whose type gets wider, a new table."""
    return {
        "people/a.csv": people(5, 30),
        "people/d.csv": people(100, 10, score="{n}.5"),
        "c/packed.jsonl.bz2": bz2.compress(lines(3, 30).encode()),
        "c/lines.jsonl": lines(10, 40),
        "c/kv.parquet": parquet(20, 60),
        "c/more.csv": "a,b\n1,2\n3,4\n",
    }


def counted_ingest(home: str) -> int:
    """How many events an undisturbed ingest has."""
    return counted(home, ingested, home)
