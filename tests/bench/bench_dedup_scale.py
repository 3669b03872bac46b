"""Containment on made lakes of growing size: what settles the pairs, what is read, seconds and memory.

    python -m tests.bench.bench_dedup_scale [--full]

Each scan is one process and all that Lethe looks for (near containments, covers and renames too), but for the large table: there
two workers of 2 GiB each compare a table of 60 million rows (2 million without --full) with a part of it in another order, and
with one where a single row differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from infra.cluster import Scheduler, cluster
from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.edges import contained
from tasks.dedup.task import dedup
from tests.bench.harness import Options, Row, cpu_s, peak_memory, print_parts, verdict, wall_s
from tests.bench.lakes import DAY, Shape, append, base, with_ids
from tests.bench.oracle import Ours, Told, scanned, scratch_lake, told, unscanned, warm_up

N_TABLES, N_TABLES_FULL = (35, 140), (100, 1_000, 10_000)
LEAST_ROWS, MOST_ROWS = 500, 5_000
GROWN, GROWN_FULL = Shape(35, 500, 2_000), Shape(100, 2_000, 20_000)
APPENDED, APPENDED_FULL = Shape(140, 500, 5_000), Shape(1_000, 2_000, 50_000)
LARGE_ROWS, LARGE_ROWS_FULL = 2_000_000, 60_000_000
CHUNK_ROWS = 1_000_000
WORKER_BYTES = 2 << 30
MB = 1e6


def steps_rows(options: Options) -> list[Row]:
    """By number of tables: the share of pairs that each step settles, what is read of the lake, seconds and memory."""
    warm_up()
    found = list[Row]()
    for n_tables in N_TABLES_FULL if options.full else N_TABLES:
        with scratch_lake(Shape(n_tables, LEAST_ROWS, MOST_ROWS)) as (settings, snapshots):
            found.append(_steps(f"{n_tables} tables", settings, snapshots)[1])
    return found


def grown_rows(options: Options) -> list[Row]:
    """The same tables with ten times the rows: at most eleven times the time."""
    warm_up()
    shape = GROWN_FULL if options.full else GROWN
    found = list[Row]()
    took = list[float]()
    for factor in (1, 10):
        with scratch_lake(shape.scaled(factor)) as (settings, snapshots):
            ours, row = _steps(f"{shape.n_tables} tables, {factor}x the rows", settings, snapshots)
            took.append(ours.cpu_s)
            found.append(row)
    ratio = took[1] / took[0]
    grown = Row("containment, ten times the rows: CPU s", f"{took[1]:.2f}", f"{took[0]:.2f}", f"{ratio:.3g}x", "<= 11x")
    return [*found, Row(grown.what, grown.ours, grown.theirs, grown.ratio, grown.target, verdict(ratio <= 11))]


def _steps(what: str, settings: Settings, snapshots: tuple[Snapshot, ...]) -> tuple[Ours, Row]:
    tables = told(Lake.open(settings), snapshots)
    with peak_memory() as peak:
        ours = scanned(settings, snapshots)
    result = ours.result
    shares = ", ".join(f"{step} {n / max(1, result.n_pairs):.1%}" for step, n in result.settled.items())
    print(
        f"{what}: {_size(tables)}, {result.n_pairs} pairs, {len(ours.edges)} containments, {len(result.near)} near, "
        f"{len(result.covers)} covers, {len(result.renames)} renames"
    )
    return ours, Row(
        f"containment, {what}, {_size(tables)}: s ({shares}; {result.bytes_read / tables.n_bytes:.1%} of the bytes opened)",
        f"{ours.seconds:.2f}",
        f"{ours.cpu_s:.2f} CPU s",
        f"{peak.n_bytes / MB:.0f} MB held",
    )


def append_rows(options: Options) -> list[Row]:
    """One table of many grows by 1 %: what the next scan costs of a full one. It must find what a full one finds."""
    warm_up()
    with scratch_lake(APPENDED_FULL if options.full else APPENDED) as (settings, snapshots):
        full = scanned(settings, snapshots)
        grown = _appended(Lake.open(settings), snapshots)
        after = scanned(settings, grown)
        unscanned(settings)
        fresh = scanned(settings, grown)
    assert after.result.edges and _found(after) == _found(fresh)
    print(
        f"full {full.seconds:.2f} s, {full.result.bytes_read / MB:.1f} MB; after {after.seconds:.2f} s, "
        f"{after.result.bytes_read / MB:.1f} MB; settled {after.result.settled}"
    )
    shares = after.cpu_s / full.cpu_s, after.seconds / full.seconds
    return [
        Row(
            f"containment, 1 % appended to one of {len(snapshots)} tables, beside a full scan: CPU s (s: {shares[1]:.1%})",
            f"{after.cpu_s:.2f}",
            f"{full.cpu_s:.2f}",
            f"{shares[0]:.1%}",
            "<= 3 %",
            verdict(shares[0] <= 0.03),
        )
    ]


def _appended(lake: Lake, snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """The snapshots after the largest base has got 1 % more rows."""
    bases = [s for s in snapshots if s.table.endswith("_base")]
    largest = max(bases, key=lambda s: s.n_rows)
    name = largest.table.removeprefix("records/")
    rows = base(np.random.default_rng(1), int(name[1:4]), max(1, largest.n_rows // 100))
    return tuple(append(lake, name, rows) if s == largest else s for s in snapshots)


def _found(ours: Ours) -> set[tuple[str, str, float, bool, int]]:
    return {(e.child, e.parent, e.fraction, e.multiset, e.n_residual) for e in (*ours.result.edges, *ours.result.near) if e.exact}


# --- larger than memory --------------------------------------------------------------------------------------------------------


def large_rows(options: Options) -> list[Row]:
    """A large table, half of it, and half of it but for one row: found apart, within the memory of the workers."""
    n_rows = LARGE_ROWS_FULL if options.full else LARGE_ROWS
    with tempfile.TemporaryDirectory() as home:
        limits = {"n_workers": 2, "worker_memory": str(WORKER_BYTES), "local_bytes": 64 << 20}
        settings = Settings.model_validate({"home": Path(home), "cluster": limits})
        snapshots = large_tables(Lake.open(settings), n_rows)
        used = cpu_s()
        with peak_memory() as peak, cluster(settings, n_bytes=1 << 40) as scheduler:
            found = list[set[tuple[str, str]]]()
            seconds = wall_s(lambda: found.append(_contained(settings, snapshots, scheduler)))
        used = cpu_s() - used
    is_right = found[0] == {("half", "whole")}
    return [
        Row(
            f"containment, {n_rows:,} rows and half of them, two workers of 2 GiB: s ({'' if is_right else 'not '}found)",
            f"{seconds:.1f}",
            f"{used:.1f} CPU s",
            f"{peak.n_bytes / MB:.0f} MB held",
            "<= 2 GiB a worker",
            verdict(is_right and peak.n_bytes <= WORKER_BYTES),
        )
    ]


def _contained(settings: Settings, snapshots: tuple[Snapshot, ...], scheduler: Scheduler) -> set[tuple[str, str]]:
    result = dedup.fn(settings, snapshots, scheduler=scheduler)
    print(f"settled {result.settled}, near {[(e.child, e.parent, e.n_residual, e.exact) for e in result.near]}")
    return {(edge.child, edge.parent) for edge in contained(result.edges)}


def large_tables(lake: Lake, n_rows: int) -> tuple[Snapshot, ...]:
    half = n_rows // 2
    return tuple(
        _put_chunks(lake, name, chunks)
        for name, chunks in (
            ("whole", _chunks(np.arange(0, n_rows, CHUNK_ROWS), n_rows)),
            ("half", _chunks(np.arange(0, half, CHUNK_ROWS)[::-1], half)),
            ("half but one", _chunks(np.arange(0, half, CHUNK_ROWS)[::-1], half, changed=half // 3)),
        )
    )


def _chunks(starts: np.ndarray, n_rows: int, changed: int = -1) -> Iterator[pa.Table]:
    """Rows that are a function of their number, a chunk at a time; the changed one is nobody else's."""
    for start in starts.tolist():
        numbers = np.arange(start, min(start + CHUNK_ROWS, n_rows))
        mixed = (numbers * 2_654_435_761) & 0xFFFFFFFF
        amounts = np.where(numbers == changed, 0.5, (mixed % 100_000) / 4)
        at = pa.array(DAY + (numbers // 100).astype("timedelta64[s]"), pa.timestamp("us", "UTC"))
        yield pa.table({"number": mixed, "at": at, "amount": amounts, "shop": (mixed % 500).astype(np.int32)})


def _put_chunks(lake: Lake, name: str, chunks: Iterator[pa.Table]) -> Snapshot:
    """A file for each chunk."""
    written, schema = [], pa.schema([])
    folder = lake.folder(f"records/{name}")
    for chunk in chunks:
        names, rows = chunk.schema.names, with_ids(chunk)
        schema = rows.schema
        written.append(write_part(folder, rows.to_batches(), schema, stats=names, digest_columns=names))
    return lake.commit(f"records/{name}", schema, written, lineage=Lineage("test", name, ""), overwrite=True)


def _size(tables: Told) -> str:
    return f"{sum(tables.n_rows.values()):,} rows, {tables.n_bytes / MB:.1f} MB"


if __name__ == "__main__":
    print_parts((steps_rows, grown_rows, append_rows, large_rows), __doc__)
