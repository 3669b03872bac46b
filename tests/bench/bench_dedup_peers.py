"""Containment on made lakes: our scan against what else one could run.

    python -m tests.bench.bench_dedup_peers [--full]

- the forty lines a good engineer would write: DuckDB, schemas, min/max of the Parquet footers, a 64-row sample, EXCEPT ALL;
- the sampled pipeline, R2D2's last step (arXiv 2312.13427) at t = 10, 100 and 1,000 rows: what passes is called contained;
- datasketch's LSH Ensemble at its best setting, given sets of row hashes for nothing;
- Desbordante's verifier of inclusion dependencies, asked of some of the pairs that fit.

The truth is our scan's, which bench_dedup holds against DuckDB. The last two are installed, once, in a folder of yours under the
system's temporary one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts import Snapshot
from infra.lake import Lake
from infra.rowhash import row_hashes
from infra.settings import Settings
from tests.bench.harness import Options, Row, cpu_s, peer_python, print_parts, skipped, times, verdict
from tests.bench.lakes import Shape
from tests.bench.oracle import (
    Ours,
    Pair,
    Told,
    containments_alone,
    duck,
    fitting,
    scanned,
    scratch_lake,
    told,
    warm_up,
)

FORTY = (Shape(70, 2_000, 5_000),)
FORTY_FULL = (Shape(70, 60_000, 150_000), Shape(1_000, 500, 10_000))
SAMPLED, SAMPLED_FULL = Shape(70, 500, 3_000), Shape(1_000, 500, 10_000)
PEERS, PEERS_FULL = Shape(70, 200, 2_000), Shape(280, 500, 10_000)
N_SAMPLED = 64
ROWS_SAMPLED = (10, 100, 1_000)
DATASKETCH = ("datasketch==2.0.0",)
DESBORDANTE = ("desbordante==2.5.0", "pandas", "pyarrow")
N_DESBORDANTE = 200

LSH_ENSEMBLE = """
import json, sys, time
import numpy as np
from datasketch import MinHash, MinHashLSHEnsemble

sets = np.load(sys.argv[1])
start, found = time.process_time(), []
for columns, (members, children) in json.load(open(sys.argv[2])).items():
    hashes = {}
    for name in members:
        hashes[name] = MinHash(num_perm=256, hashfunc=int)
        for some in np.array_split(sets[f"{columns} {name}"], max(1, len(sets[f"{columns} {name}"]) // 4096)):
            hashes[name].update_batch(some)
    index = MinHashLSHEnsemble(threshold=0.8, num_perm=256, num_part=32, weights=(0, 1))
    index.index((name, hashes[name], len(sets[f"{columns} {name}"])) for name in members)
    for name in children:
        found += [(name, other) for other in index.query(hashes[name], len(sets[f"{columns} {name}"])) if other != name]
print(json.dumps({"cpu_s": time.process_time() - start, "found": found}))
"""

VERIFIER = """
import json, sys, time
import pandas
from desbordante.ind_verification.algorithms import Default

asked = json.load(open(sys.argv[1]))
start, tables, answers = time.process_time(), {}, []
for child, parent, left, right, names in asked:
    for files in (left, right):
        if str(files) not in tables:
            tables[str(files)] = pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)
    mine, theirs = tables[str(left)], tables[str(right)]
    places = [[[name.lower() for name in table.columns].index(name) for name in names] for table in (mine, theirs)]
    algorithm = Default()
    algorithm.load_data(tables=[mine, theirs])
    algorithm.execute(lhs_indices=places[0], rhs_indices=places[1])
    answers.append(algorithm.ind_holds())
print(json.dumps({"cpu_s": time.process_time() - start, "answers": answers}))
"""


# --- the forty lines -----------------------------------------------------------------------------------------------------------


def forty_rows(options: Options) -> list[Row]:
    """CPU seconds side by side, for each lake."""
    warm_up()
    found = list[Row]()
    for shape in FORTY_FULL if options.full else FORTY:
        with scratch_lake(shape) as (settings, snapshots):
            found.append(_forty(settings, snapshots))
    return found


def _forty(settings: Settings, snapshots: tuple[Snapshot, ...]) -> Row:
    tables = told(Lake.open(settings), snapshots)
    ours = scanned(containments_alone(settings), snapshots)
    used = cpu_s()
    theirs = by_forty_lines(tables)
    theirs_s = cpu_s() - used
    wrong = len(theirs ^ {edge[:2] for edge in ours.edges if edge[2]})
    print(f"{len(snapshots)} tables: ours {ours.seconds:.2f} s, settled {ours.result.settled}")
    return Row(
        f"containment, {_size(tables)}, forty lines of DuckDB: CPU s ({len(theirs)} true pairs, {wrong} differ)",
        f"{ours.cpu_s:.2f}",
        f"{theirs_s:.2f}",
        times(theirs_s, ours.cpu_s),
        "faster",
        verdict(not wrong and ours.cpu_s < theirs_s),
    )


def by_forty_lines(tables: Told) -> set[Pair]:
    """The pairs contained as multisets, as a good engineer would find them."""
    with duck(tables, [*tables.kinds]) as db:
        return {
            (child, parent)
            for child, parent in within_bounds(tables)
            if tables.n_rows[child] <= tables.n_rows[parent]
            and not db.lacks_sampled(child, parent, N_SAMPLED)
            and not db.lacks(child, parent, "except all")
        }


def within_bounds(tables: Told) -> Iterator[Pair]:
    """The pairs that schemas and footers leave."""
    bounds = {name: footer_bounds(tables.files[name]) for name in tables.kinds}
    for child, parent in fitting(tables.kinds):
        inner, outer = bounds[child], bounds[parent]
        if all(outer[n][0] <= inner[n][0] and inner[n][1] <= outer[n][1] for n in inner.keys() & outer.keys()):
            yield child, parent


def footer_bounds(files: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Minimum and maximum of the columns of which every row group has statistics."""
    seen = defaultdict[str, list[Any]](list)
    n_groups = 0
    for file in files:
        footer = pq.ParquetFile(file).metadata
        n_groups += footer.num_row_groups
        for group in range(footer.num_row_groups):
            for number in range(footer.num_columns):
                column = footer.row_group(group).column(number)
                if column.statistics is not None and column.statistics.has_min_max:
                    seen[column.path_in_schema.lower()].append((column.statistics.min, column.statistics.max))
    return {n: (min(low for low, _ in b), max(high for _, high in b)) for n, b in seen.items() if len(b) == n_groups}


# --- the sampled pipeline ------------------------------------------------------------------------------------------------------


def sampled_rows(options: Options) -> list[Row]:
    """What a check of some rows calls contained and is not."""
    warm_up()
    with scratch_lake(SAMPLED_FULL if options.full else SAMPLED) as (settings, snapshots):
        tables = told(Lake.open(settings), snapshots)
        ours = scanned(containments_alone(settings), snapshots)
        return [_sampled(tables, ours, n) for n in ROWS_SAMPLED]


def _sampled(tables: Told, ours: Ours, n_sampled: int) -> Row:
    start = time.perf_counter()
    with duck(tables, [*tables.kinds]) as db:
        found = {pair for pair in within_bounds(tables) if not db.lacks_sampled(*pair, n_sampled)}
    seconds = time.perf_counter() - start
    truth = {edge[:2] for edge in ours.edges}
    print(f"t = {n_sampled}: {len(found)} edges, {len(truth - found)} of {len(truth)} true ones lost")
    return Row(
        f"containment, {_size(tables)}, sampled pipeline t = {n_sampled}: s ({len(found - truth)} false edges, ours 0)",
        f"{ours.seconds:.2f}",
        f"{seconds:.2f}",
        times(seconds, ours.seconds),
    )


# --- LSH Ensemble and Desbordante ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lakes:
    """A lake, its tables as others meet them, and our scan of it."""

    lake: Lake
    snapshots: tuple[Snapshot, ...]
    tables: Told
    ours: Ours


Compare = Callable[[str, Lakes, Path], Row]


def datasketch_rows(options: Options) -> list[Row]:
    return _with_peer(options, "datasketch", DATASKETCH, _lsh_ensemble)


def desbordante_rows(options: Options) -> list[Row]:
    return _with_peer(options, "desbordante", DESBORDANTE, _verifier)


def _with_peer(options: Options, name: str, requirements: Sequence[str], compare: Compare) -> list[Row]:
    try:
        python = peer_python(name, requirements)
    except subprocess.CalledProcessError:
        return [skipped(f"containment, {requirements[0]}", "-", f"{' '.join(requirements)} could not be installed")]
    warm_up()
    with scratch_lake(PEERS_FULL if options.full else PEERS) as (settings, snapshots):
        lake = Lake.open(settings)
        ours = scanned(containments_alone(settings), snapshots)
        with tempfile.TemporaryDirectory() as place:
            return [compare(python, Lakes(lake, snapshots, told(lake, snapshots), ours), Path(place))]


def _lsh_ensemble(python: str, lakes: Lakes, place: Path) -> Row:
    sets, asked = row_sets(lakes)
    np.savez(place / "sets.npz", **sets)
    (place / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    said = _run(python, LSH_ENSEMBLE, place / "sets.npz", place / "asked.json")
    found, truth = {tuple(pair) for pair in said["found"]}, {edge[:2] for edge in lakes.ours.edges}
    recall = len(found & truth) / max(1, len(truth))
    return Row(
        f"containment, {_size(lakes.tables)}, datasketch LSH Ensemble on given hashes: CPU s "
        f"(recall {recall:.3f} of {len(truth)}, {len(found - truth)} pairs too many; ours 1 and 0)",
        f"{lakes.ours.cpu_s:.2f}",
        f"{said['cpu_s']:.2f}",
        times(said["cpu_s"], lakes.ours.cpu_s),
    )


def row_sets(lakes: Lakes) -> tuple[dict[str, np.ndarray], dict[str, tuple[list[str], list[str]]]]:
    """The distinct 32-bit row hashes of each table over each set of columns that some child has, and who is in and who asks.

    Both go by the number of the set of columns.
    """
    members, children = defaultdict[tuple[str, ...], set[str]](set), defaultdict[tuple[str, ...], set[str]](set)
    for child, parent in fitting(lakes.tables.kinds):
        columns = tuple(sorted(lakes.tables.kinds[child]))
        members[columns] |= {child, parent}
        children[columns].add(child)
    rows = {name: lakes.lake.read(s) for name, s in zip(lakes.tables.files, lakes.snapshots, strict=True)}
    sets, asked = dict[str, np.ndarray](), dict[str, tuple[list[str], list[str]]]()
    for number, (columns, names) in enumerate(sorted(members.items())):
        asked[str(number)] = sorted(names), sorted(children[columns])
        for name in names:
            sets[f"{number} {name}"] = np.unique(_low_hashes(rows[name], columns))
    return sets, asked


def _low_hashes(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    lower = table.rename_columns([name.lower() for name in table.column_names])
    return row_hashes(lower, columns, b"bench")[:, 0] & np.uint64(0xFFFFFFFF)


def _verifier(python: str, lakes: Lakes, place: Path) -> Row:
    """Some pairs asked, and its time for all of them told from that."""
    fits = fitting(lakes.tables.kinds)
    pairs = fits.sample(N_DESBORDANTE)
    files, kinds = lakes.tables.files, lakes.tables.kinds
    asked = [(child, parent, files[child], files[parent], sorted(kinds[child])) for child, parent in pairs]
    (place / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    said = _run(python, VERIFIER, place / "asked.json")
    truth = {edge[:2] for edge in lakes.ours.edges}
    wrong = sum(holds != (pair in truth) for holds, pair in zip(said["answers"], pairs, strict=True))
    whole_s = said["cpu_s"] * len(fits) / len(pairs)
    return Row(
        f"containment, {_size(lakes.tables)}, Desbordante's verifier extrapolated from {len(pairs)} of {len(fits)} pairs: CPU s "
        f"({wrong} of {len(pairs)} answers differ)",
        f"{lakes.ours.cpu_s:.2f}",
        f"{whole_s:.0f}",
        times(whole_s, lakes.ours.cpu_s),
    )


def _run(python: str, script: str, *arguments: Path) -> dict[str, Any]:
    done = subprocess.run([python, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _size(tables: Told) -> str:
    return f"{len(tables.files)} made tables, {tables.n_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    print_parts((forty_rows, sampled_rows, datasketch_rows, desbordante_rows), __doc__)
