"""Containment: our scan against DuckDB's EXCEPT and EXCEPT ALL, on real tables and on a made lake. The edges must be the same.

    python -m tests.bench.bench_dedup [--full] [--packs snapshots santos rdatasets] [--data ../shared/data]

Ours is one process, from opening the logs to the commits, and looks for containments alone, as DuckDB does. With --full the real
tables are all packs: every pair that fits is asked of DuckDB but those of `pcm_dpc`, whose millions would take it hours, and
20,000 pairs out of all, from which its time for all of them is extrapolated; and the made lake has 1,000 tables.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from infra.contracts import Snapshot
from infra.lake import Lake
from infra.settings import Settings
from tasks.ingest.task import ingest
from tests.bench.harness import DATA, Options, Row, times, unpacked, verdict
from tests.bench.lakes import Shape
from tests.bench.oracle import (
    Edges,
    Fitting,
    Ours,
    Pair,
    Told,
    agreement,
    by_duckdb,
    containments_alone,
    fitting,
    scanned,
    scratch_lake,
    told,
    warm_up,
)

PACKS = ("snapshots", "santos", "rdatasets")
ALL_PACKS = (*PACKS, "rdatasets_parquet", "spark_guide", "pcm_dpc")
LARGE = "pcm_dpc"
N_SAMPLED = 20_000
LEAST_RATIO = 20
MADE, MADE_FULL = Shape(140, 200, 3_000), Shape(1_000, 500, 10_000)


def rows(options: Options, *, packs: Sequence[str] | None = None) -> list[Row]:
    """Real tables, every pair."""
    wanted = packs or (ALL_PACKS if options.full else PACKS)
    with tempfile.TemporaryDirectory() as scratch:
        for pack in wanted:
            unpacked(options.data / "lake" / f"{pack}.tar.gz", Path(scratch))
        sources = {pack: {"source": [f"lake/{pack}/**/*.{end}" for end in ("csv", "parquet")]} for pack in wanted}
        settings = Settings.model_validate({"home": Path(scratch), "lake": {"root": "tables"}, "collections": sources})
        return compared(settings, ingested(settings), "real tables")


def made_rows(options: Options) -> list[Row]:
    """A made lake, every pair."""
    with scratch_lake(MADE_FULL if options.full else MADE) as (settings, snapshots):
        return compared(settings, snapshots, "made tables")


def ingested(settings: Settings) -> tuple[Snapshot, ...]:
    """Every file as a table of its own."""
    start = time.perf_counter()
    tables = ingest.fn(settings, None)
    print(f"ingest: {len(tables)} tables, {sum(t.rows for t in tables):,} rows in {time.perf_counter() - start:.1f} s")
    lake = Lake.open(settings)
    return tuple(lake.snapshot(f"records/{table.name}", table.version) for table in tables)


def compared(settings: Settings, snapshots: tuple[Snapshot, ...], what: str) -> list[Row]:
    """Both over the same snapshots; prints how ours came by its edges."""
    warm_up()
    tables = told(Lake.open(settings), snapshots)
    fits = fitting(tables.kinds)
    ours = scanned(containments_alone(settings), snapshots)
    again = scanned(containments_alone(settings), snapshots)
    assert len(fits) == ours.result.n_pairs == sum(ours.result.settled.values())
    assert again.result.found and again.edges == ours.edges
    say(ours, again, tables)
    small = Fitting(tuple(block for block in fits.blocks if not any(_is_large(name) for names in block for name in names)))
    return [against(f"every pair of {what}", ours, tables, [*small])] + (
        [extrapolated(what, ours, tables, fits)] if len(small) < len(fits) else []
    )


def _is_large(name: str) -> bool:
    return name.startswith(LARGE)


def say(ours: Ours, again: Ours, tables: Told) -> None:
    result = ours.result
    print(f"{result.n_tables} tables, {sum(tables.n_rows.values()):,} rows, {tables.n_bytes / 1e6:.1f} MB in the lake")
    print(f"{result.n_pairs} pairs, {len(ours.edges)} edges ({sum(multiset for _, _, multiset in ours.edges)} multisets)")
    print(f"settled: {result.settled}")
    print(f"listed apart: {len(result.listed_apart)}; to retire: {sum(row.action == 'retire' for row in result.plan)}")
    print(
        f"ours {ours.seconds:.2f} s, {ours.cpu_s:.2f} CPU s, {result.bytes_read / 1e6:.1f} MB opened; again {again.seconds:.2f} s"
    )


def against(what: str, ours: Ours, tables: Told, pairs: Sequence[Pair]) -> Row:
    """Every one of the pairs asked of DuckDB."""
    theirs, load_s, pairs_s = by_duckdb(tables, pairs)
    wrong, found = differences(ours.edges, theirs, pairs)
    return Row(
        f"containment, {what} ({len(pairs)}), DuckDB EXCEPT ALL: s ({wrong} edges differ; {found})",
        f"{ours.seconds:.2f}",
        f"{load_s + pairs_s:.2f}",
        times(load_s + pairs_s, ours.seconds),
        "identical edges, faster",
        verdict(not wrong and ours.seconds < load_s + pairs_s),
    )


def extrapolated(what: str, ours: Ours, tables: Told, fits: Fitting) -> Row:
    """Some of the pairs asked of DuckDB, and its time for all of them told from that; loading is measured for what it loaded."""
    pairs = fits.sample(N_SAMPLED)
    theirs, load_s, pairs_s = by_duckdb(tables, pairs)
    wrong, found = differences(ours.edges, theirs, pairs)
    whole_s = load_s + pairs_s * len(fits) / len(pairs)
    return Row(
        f"containment, {len(pairs)} of {len(fits)} pairs of {what}, DuckDB EXCEPT ALL extrapolated from {pairs_s:.0f} s: s "
        f"({wrong} edges differ; {found})",
        f"{ours.seconds:.2f}",
        f"{whole_s:.0f}",
        times(whole_s, ours.seconds),
        f"identical edges, >= {LEAST_RATIO}x",
        verdict(not wrong and LEAST_RATIO * ours.seconds <= whole_s),
    )


def differences(ours: Edges, theirs: Edges, pairs: Sequence[Pair]) -> tuple[int, str]:
    """How many edges between the pairs differ, and precision and recall of ours."""
    asked = set(pairs)
    mine = {edge for edge in ours if edge[:2] in asked}
    print(f"ours only: {sorted(mine - theirs)[:5]}, DuckDB only: {sorted(theirs - mine)[:5]}")
    return len(mine ^ theirs), agreement(mine, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", nargs="+")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    options = Options(chosen.data, full=chosen.full)
    for row in [*rows(options, packs=chosen.packs), *made_rows(options)]:
        print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.verdict}")


if __name__ == "__main__":
    main()
