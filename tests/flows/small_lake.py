"""A small lake of the three kinds of model, with and without a subject: what the forgetting tests compare."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SECRET = "5e" * 32
Record = dict[str, Any]

CONFIG = """\
[lake]
root = "lake"
sample_rows = {sample_rows}

[tables.posts]
source  = ["raw/posts/*.jsonl"]
subject = {{ kind = "person", column = "author" }}
text    = "body"
[tables.posts_copy]
source  = "raw/posts_copy.csv"
subject = {{ kind = "person", column = "author" }}
text    = "body"
[tables.gold]
source = "raw/gold.jsonl"
text   = "body"
[tables.visits]
source  = "raw/visits.csv"
subject = {{ kind = "person", column = "patient" }}
[tables.glyphs]
source  = "raw/glyphs.parquet"
subject = {{ kind = "writer", column = "writer" }}

[datasets.posts]
pool   = ["posts", "posts_copy"]
target = "gold"
select = {{ keep_fraction = 0.7 }}
prune  = {{ method = "density", keep_fraction = 0.8, n_clusters = 4 }}
[datasets.visits]
pool   = ["visits"]
prune  = {{ method = "prototypes", keep_fraction = 0.8, n_clusters = 4 }}
[datasets.glyphs]
pool   = ["glyphs"]

[models.topic]
dataset = "posts"
kind    = "text"
label   = "topic"
shards  = 3
slices  = 2
epochs  = 1
[models.outcome]
dataset = "visits"
kind    = "tabular"
label   = "outcome"
shards  = 2
slices  = 2
epochs  = 1
[models.glyph]
dataset = "glyphs"
kind    = "image"
label   = "letter"
shards  = 2
slices  = 2
epochs  = 1
control = false
"""

_WORDS = {
    "tea": ["kettle", "leaf", "cup", "brew", "steam", "pot", "green", "black"],
    "sea": ["wave", "salt", "ship", "tide", "sail", "harbour", "gull", "rope"],
    "law": ["court", "judge", "clause", "appeal", "verdict", "bench", "oath", "writ"],
}


def _number(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def posts() -> list[Record]:
    return [_post(n) for n in range(240)]


def _post(n: int) -> Record:
    topic = sorted(_WORDS)[n % 3]
    words = [_WORDS[topic][_number("w", n, i) % 8] for i in range(12)]
    return {"author": f"author-{_number('a', n) % 40:03d}", "topic": topic, "body": " ".join(words) + f" no {n}", "stars": n % 5}


def visits() -> list[Record]:
    return [
        {
            "patient": f"author-{n % 60:03d}",
            "age": 20 + n % 50,
            "dose": (_number("d", n) % 1000) / 8,
            "ward": "ABC"[n % 3],
            "outcome": ["well", "ill"][n % 2],
        }
        for n in range(200)
    ]


def glyphs() -> list[Record]:
    return [
        {
            "writer": n % 30,
            "pixels": [(_number("p", n, i) % 9 + 7 * (i % 4 == n % 4)) for i in range(64)],
            "letter": "abcd"[n % 4],
        }
        for n in range(160)
    ]


def write_project(folder: Path, *, without: Callable[[Record], bool] = lambda _: False, sample_rows: int = 100_000) -> Path:
    """Raw files and lethe.toml; records for which `without` holds were never there. Returns the path of lethe.toml."""
    raw = folder / "raw"
    (raw / "posts").mkdir(parents=True)
    kept = [p for p in posts() if not without(p)]
    for part in range(2):
        _jsonl(raw / "posts" / f"{part}.jsonl", [p for p in kept if p["stars"] % 2 == part])
    _csv(raw / "posts_copy.csv", [p for p in kept if p["stars"] == 0])
    _jsonl(raw / "gold.jsonl", [{"body": " ".join(_WORDS["tea"][_number("g", n, i) % 8] for i in range(9))} for n in range(30)])
    _csv(raw / "visits.csv", [v for v in visits() if not without(v)])
    pq.write_table(pa.Table.from_pylist([g for g in glyphs() if not without(g)]), raw / "glyphs.parquet")
    config = folder / "lethe.toml"
    config.write_text(CONFIG.format(sample_rows=sample_rows), encoding="utf-8")
    (folder / ".lethe").mkdir(mode=0o700)
    (folder / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    return config


def _jsonl(path: Path, records: Iterable[Record]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def _csv(path: Path, records: list[Record]) -> None:
    lines = [",".join(records[0]), *(",".join(str(v) for v in r.values()) for r in records)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def restore(backup: Path, folder: Path) -> None:
    """Make `folder` equal `backup` again, writing over files in place: an open database must not lose its file."""
    kept = {p.relative_to(backup) for p in backup.rglob("*")}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.relative_to(folder) not in kept:
            path.rmdir() if path.is_dir() else path.unlink()
    shutil.copytree(backup, folder, dirs_exist_ok=True)


def bits(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {os.fspath(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
