"""Containment of real tables: our scan against DuckDB's EXCEPT and EXCEPT ALL on every pair whose schemas fit.

    python -m tests.bench.bench_dedup [--packs snapshots santos rdatasets] [--data ../shared/data]

Both read the very Parquet files of one scratch lake in one run. Ours is one process, from opening the logs to the two commits;
DuckDB has two threads, is given the file names, loads each table once and asks of each pair whether any row is left over
(LIMIT 1), as a multiset only where the set holds. The edges must be the same ones.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from infra.contracts import Snapshot
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.schema_graph import compatible, kind_of
from tasks.dedup.task import ROW_ID, dedup, table_name
from tasks.ingest.task import ingest
from tests.bench.harness import DATA, Options, Row, times, unpacked, verdict

PACKS = ("snapshots", "santos", "rdatasets")
Edges = set[tuple[str, str, bool]]
Kinds = Mapping[str, Mapping[str, str]]


def ingested(settings: Settings) -> tuple[Snapshot, ...]:
    """Every CSV file as a table of its own."""
    start = time.perf_counter()
    tables = ingest.fn(settings, None)
    print(f"ingest: {len(tables)} tables, {sum(t.rows for t in tables):,} rows in {time.perf_counter() - start:.1f} s")
    lake = Lake.open(settings)
    return tuple(lake.snapshot(f"records/{table.name}", table.version) for table in tables)


def kinds_of(lake: Lake, snapshots: Sequence[Snapshot]) -> dict[str, dict[str, str]]:
    return {
        table_name(s): {f.name.lower(): kind_of(f.type) for f in lake.schema(s) if f.name.lower() != ROW_ID}
        for s in snapshots
        if s.n_rows
    }


def fitting(kinds: Kinds) -> Iterator[tuple[str, str]]:
    for child, parent in itertools.permutations(kinds, 2):
        theirs = kinds[parent]
        if kinds[child] and all(name in theirs and compatible(kind, theirs[name]) for name, kind in kinds[child].items()):
            yield child, parent


def by_duckdb(lake: Lake, snapshots: Sequence[Snapshot], kinds: Kinds, pairs: Sequence[tuple[str, str]]) -> tuple[Edges, float]:
    """(child, parent, multiset) of the true pairs, and the seconds it took with the loading of the tables that are in some
    pair.
    """
    files = {table_name(s): [part.uri for part in lake.parts(s)] for s in snapshots}
    start = time.perf_counter()
    with duckdb.connect(config={"threads": 2}) as db:
        number = {name: f"t{i}" for i, name in enumerate(sorted({name for pair in pairs for name in pair}))}
        for name, table in number.items():
            db.execute(f"create table {table} as select * from read_parquet({files[name]!r}, union_by_name = true)")
        found = {(child, parent): verdict for child, parent in pairs if (verdict := _verdict(db, number, kinds, child, parent))}
    return {(*pair, verdict == "multiset") for pair, verdict in found.items()}, time.perf_counter() - start


def _verdict(db: duckdb.DuckDBPyConnection, number: Mapping[str, str], kinds: Kinds, child: str, parent: str) -> str | None:
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in sorted(kinds[child]))

    def nothing_left(minus: str) -> bool:
        query = f"select 1 from (select {names} from {number[child]} {minus} select {names} from {number[parent]}) limit 1"
        return db.execute(query).fetchone() is None

    if not nothing_left("except"):
        return None
    return "multiset" if nothing_left("except all") else "set"


def compared(settings: Settings, snapshots: tuple[Snapshot, ...]) -> Row:
    """Both over the same snapshots; prints how ours came by its edges. The edges must be the same ones."""
    lake = Lake.open(settings)
    kinds = kinds_of(lake, snapshots)
    pairs = list(fitting(kinds))
    ours = dedup.fn(settings, snapshots)
    again = dedup.fn(settings, snapshots)
    theirs, seconds = by_duckdb(lake, snapshots, kinds, pairs)
    assert len(pairs) == ours.n_pairs == sum(ours.settled.values())
    assert again.found and again.edges == ours.edges
    edges = {(edge.child, edge.parent, edge.multiset) for edge in ours.edges}
    lake_bytes = sum(part.file.n_bytes for s in snapshots for part in lake.parts(s))
    print(f"{ours.n_tables} tables, {sum(s.n_rows for s in snapshots):,} rows, {lake_bytes / 1e6:.1f} MB in the lake")
    print(f"{ours.n_pairs} pairs, {len(edges)} edges ({sum(multiset for _, _, multiset in edges)} multisets)")
    print(f"settled: {ours.settled}")
    print(f"listed apart: {len(ours.listed_apart)}; to retire: {sum(row.action == 'retire' for row in ours.plan)}")
    print(f"ours {ours.seconds:.2f} s, {ours.bytes_read / 1e6:.1f} MB opened; found again in {again.seconds:.2f} s")
    print(f"ours only: {sorted(edges - theirs)[:5]}, DuckDB only: {sorted(theirs - edges)[:5]}")
    same = "identical edges" if edges == theirs else f"{len(edges ^ theirs)} edges differ"
    return Row(
        f"containment, {ours.n_pairs} pairs of {ours.n_tables} tables, DuckDB EXCEPT ALL: s ({same})",
        f"{ours.seconds:.2f}",
        f"{seconds:.2f}",
        times(seconds, ours.seconds),
        "identical edges, faster",
        verdict(edges == theirs and ours.seconds < seconds),
    )


def rows(options: Options, *, packs: Sequence[str] = PACKS) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        for pack in packs:
            unpacked(options.data / "lake" / f"{pack}.tar.gz", Path(scratch))
        collections = {pack: {"source": f"lake/{pack}/**/*.csv"} for pack in packs}
        settings = Settings.model_validate({"home": Path(scratch), "lake": {"root": "tables"}, "collections": collections})
        return [compared(settings, ingested(settings))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", nargs="+", default=PACKS)
    parser.add_argument("--data", type=Path, default=DATA)
    chosen = parser.parse_args()
    for row in rows(Options(chosen.data), packs=chosen.packs):
        print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.verdict}")


if __name__ == "__main__":
    main()
