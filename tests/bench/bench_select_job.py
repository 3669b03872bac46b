"""The select stage on growing pools: memory and time by the size of the pool.

    python -m tests.bench.bench_select_job [--full]

The pool is real text in files of 8 MB; where it is repeated, a number in front of each document tells the turns apart. The stage
is called as a flow calls it, from lake to lake, in a process that has selected before, so that machine code is loaded. Sizes are
bytes of text. A selection with another seed finds nothing of an earlier one's.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import pyarrow as pa

from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings
from tasks.select.task import select
from tests.bench.bench_select import POOL, TARGET, texts
from tests.bench.harness import ROOT, Options, Row, environment, print_parts, verdict

FILE_BYTES = 8_000_000
BASE_FILES, N_TIMES = 3, 10
N_RUNS = 3
MOST_GROWTH, MOST_TIME = 1.2, 10.5
SCHEMA = pa.schema([("text", pa.string())])
WARM, TARGET_TABLE = "warm", "target"


def pool_table(n_files: int) -> str:
    return f"pool{n_files}"


# --- the lake ------------------------------------------------------------------------------------------------------------------


def settings_of(home: Path, sizes: Sequence[int], seed: int = 0) -> Settings:
    """A dataset a pool, and a small one to warm up with."""
    pools = [WARM, *map(pool_table, sizes)]
    tables = {name: {"source": "x", "text": "text"} for name in (*pools, TARGET_TABLE)}
    chosen = {"keep_fraction": 0.25, "seed": seed}
    datasets = {name: {"pool": [name], "target": TARGET_TABLE, "select": chosen} for name in pools}
    return Settings.model_validate({"home": home, "lake": {"root": "lake"}, "tables": tables, "datasets": datasets})


def make_lake(options: Options, home: Path, sizes: Sequence[int]) -> None:
    lake = Lake.open(settings_of(home, sizes))
    base = [text for name in POOL for text in texts(options.data / "text" / f"{name}.jsonl.gz", FILE_BYTES)]
    put(lake, TARGET_TABLE, iter([texts(options.data / "text" / f"{TARGET}.jsonl.gz", FILE_BYTES)]))
    put(lake, WARM, iter([base[:500], base[500:1000]]))
    for n_files in sizes:
        put(lake, pool_table(n_files), islice(files(base), n_files))


def files(base: Sequence[str]) -> Iterator[list[str]]:
    """Files of about FILE_BYTES, without end: the same documents again and again, each time with another number in front."""
    found, size = list[str](), 0
    for turn in count():
        for text in base:
            found.append(f"{turn} {text}")
            size += len(text)
            if size >= FILE_BYTES:
                yield found
                found, size = [], 0


def put(lake: Lake, name: str, parts: Iterator[list[str]]) -> Snapshot:
    """A table with a file for each part, and row ids as ingest gives them."""
    folder, written = lake.folder(f"records/{name}"), []
    schema = pa.schema([pa.field("row_id", pa.int64()), *SCHEMA])
    for part in parts:
        table = pa.table({"text": part}, schema=SCHEMA)
        ids = row_ids(name, row_hashes(table, SCHEMA.names, lake.keys.row), lake.keys.row)
        rows = table.add_column(0, "row_id", pa.array(ids))
        written.append(write_part(folder, rows.to_batches(), schema, digest_columns=SCHEMA.names))
    return lake.commit(f"records/{name}", schema, written, lineage=Lineage("test", name, ""), overwrite=True)


def selected(settings: Settings, name: str, scheduler: str | None = None) -> None:
    lake = Lake.open(settings)
    pool, target = (lake.snapshot(f"records/{table}") for table in (name, TARGET_TABLE))
    result = select.fn(settings, name, (pool,), (target,), scheduler=scheduler)
    assert not result.found
    assert 0 < result.n_kept < result.n_raw <= pool.n_rows


# --- size ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a selection took of its process: CPU seconds, and the most bytes it held."""

    cpu_s: float
    n_bytes: int


def size_rows(options: Options) -> list[Row]:
    """A pool and one ten times as large: CPU seconds and memory, each in a process of its own."""
    sizes = [BASE_FILES, BASE_FILES * N_TIMES]
    with tempfile.TemporaryDirectory() as home:
        make_lake(options, Path(home), sizes)
        small, large = (run_apart(home, n_files) for n_files in sizes)
    time_ratio, growth = large.cpu_s / small.cpu_s, large.n_bytes / small.n_bytes
    what = f"selection of {sizes[1] * FILE_BYTES / 1e6:.0f} MB beside {sizes[0] * FILE_BYTES / 1e6:.0f} MB"
    return [
        Row(
            f"{what}: CPU s",
            f"{large.cpu_s:.2f}",
            f"{small.cpu_s:.2f}",
            f"{time_ratio:.3g}x",
            f"<= {MOST_TIME}x",
            verdict(time_ratio <= MOST_TIME),
        ),
        Row(
            f"{what}: MB of memory at most",
            f"{large.n_bytes / 1e6:.0f}",
            f"{small.n_bytes / 1e6:.0f}",
            f"{growth:.3g}x",
            f"<= {MOST_GROWTH}x",
            verdict(growth <= MOST_GROWTH),
        ),
    ]


def run_apart(home: str, n_files: int) -> Run:
    command = [sys.executable, "-m", "tests.bench.bench_select_job", "--child", home, str(n_files)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def child(home: Path, n_files: int) -> None:
    """One pool, selected from several times; the least CPU seconds, and the most memory of all."""
    selected(settings_of(home, [n_files], os.getpid()), WARM)
    taken = list[float]()
    for seed in range(N_RUNS):
        start = time.process_time()
        selected(settings_of(home, [n_files], seed), pool_table(n_files))
        taken.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu_s": min(taken), "n_bytes": peak}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print_parts((size_rows,), __doc__)
