"""A lake of visits and of extracts that somebody made of them: what the tests of retiring work on."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from small_lake import SECRET

from infra.settings import load_settings
from infra.tracking import open_tracking

Record = dict[str, Any]
PERSON = "author-007"
COPIES = ("adults", "doses", "near", "odd")

CONFIG = """\
[lake]
root = "lake"
[retention]
min_evidence_bits = 1
[tables.visits]
source  = "raw/visits.csv"
subject = { kind = "person", column = "patient" }
[tables.adults]
source  = "raw/adults.csv"
subject = { kind = "person", column = "patient" }
[tables.odd]
source  = "raw/odd/*.csv"
subject = { kind = "person", column = "patient" }
[tables.near]
source  = "raw/near.csv"
subject = { kind = "person", column = "patient" }
[tables.doses]
source  = "raw/doses.csv"
"""


def visits(n_from: int = 0, n_to: int = 400) -> list[Record]:
    return [
        {"patient": f"author-{n % 60:03d}", "age": 20 + n % 50, "dose": (n * 7919 % 1000) / 8, "ward": "ABC"[n % 3]}
        for n in range(n_from, n_to)
    ]


def near() -> list[Record]:
    """Visits, and some that nobody else has."""
    return [*visits()[10:200:3], *({**visit, "ward": "Z"} for visit in visits()[7:400:80])]


def odd() -> list[Record]:
    """A sample of visits that no condition tells."""
    return [visit for n, visit in enumerate(visits()) if n * n % 7 in (1, 2)]


def write_lake(folder: Path, *, without: Callable[[Record], bool] = lambda _: False, more: str = "") -> str:
    """Raw files and lethe.toml; records for which `without` holds were never there. Returns the path of lethe.toml."""
    raw = folder / "raw"
    (raw / "odd").mkdir(parents=True)
    kept = [visit for visit in visits() if not without(visit)]
    sample = [visit for visit in odd() if not without(visit)]
    write_csv(raw / "visits.csv", kept)
    write_csv(raw / "adults.csv", [visit for visit in kept if visit["age"] >= 40])
    write_csv(raw / "doses.csv", [{name: visit[name] for name in ("age", "dose")} for visit in kept])
    write_csv(raw / "near.csv", [visit for visit in near() if not without(visit)])
    for part in range(2):
        write_csv(raw / "odd" / f"{part}.csv", sample[part::2])
    shutil.copytree(_empty_tracking(), folder / "tracking")
    (folder / ".lethe").mkdir(mode=0o700)
    (folder / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    config = folder / "lethe.toml"
    config.write_text(CONFIG + more, encoding="utf-8")
    return str(config)


@cache
def _empty_tracking() -> Path:
    """A tracking store without a run, made once: MLflow takes seconds for it."""
    home = Path(tempfile.mkdtemp(prefix="lethe-tracking-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "lethe.toml").write_text("", encoding="utf-8")
    open_tracking(load_settings(home))
    return home / "tracking"


def write_csv(path: Path, records: Iterable[Record]) -> None:
    rows = list(records)
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
