"""What the containment benchmarks share: our scan, the pairs of tables whose schemas fit, and DuckDB's word on them.

DuckDB reads the very Parquet files of the lake, with two threads. It loads each table once and asks of a pair whether any row is
left over (LIMIT 1), as a multiset only where the set holds.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from infra.contracts import Snapshot
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.containment import table_name
from tasks.dedup.edges import contained
from tasks.dedup.schema_graph import compatible, kinds_of
from tasks.dedup.task import DedupResult, dedup
from tests.bench.harness import cpu_s
from tests.bench.lakes import Shape, make_lake

ROW_ID = "row_id"
Pair = tuple[str, str]
Edges = set[tuple[str, str, bool]]
Kinds = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Told:
    """The tables of a lake by name: their files; the rows and the columns' kinds of those that are not empty; their bytes."""

    files: dict[str, list[str]]
    n_rows: dict[str, int]
    kinds: dict[str, dict[str, str]]
    n_bytes: int


@dataclass(frozen=True)
class Fitting:
    """All (child, parent) whose schemas fit, as blocks of children and parents of one schema each."""

    blocks: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    def __len__(self) -> int:
        return sum(_n_pairs(*block) for block in self.blocks)

    def __iter__(self) -> Iterator[Pair]:
        for children, parents in self.blocks:
            yield from ((child, parent) for child in children for parent in parents if child != parent)

    def sample(self, n: int, seed: int = 0) -> list[Pair]:
        """As many different pairs, each as likely as any other; all of them if there are no more."""
        total = len(self)
        chosen = np.sort(np.random.default_rng(seed).choice(total, min(n, total), replace=False))
        ends = np.cumsum([_n_pairs(*block) for block in self.blocks])
        places = np.searchsorted(ends, chosen, side="right")
        return [_pair(*self.blocks[b], int(p - ends[b]) + _n_pairs(*self.blocks[b])) for b, p in zip(places, chosen, strict=True)]


def _n_pairs(children: Sequence[str], parents: Sequence[str]) -> int:
    return len(children) * (len(parents) - (children == parents))


def _pair(children: Sequence[str], parents: Sequence[str], position: int) -> Pair:
    i, j = divmod(position, len(parents) - (children == parents))
    return children[i], parents[j + 1 if children == parents and j >= i else j]


@dataclass(frozen=True)
class Ours:
    """A scan of ours: what it says, its containments, and what it took."""

    result: DedupResult
    edges: Edges
    seconds: float
    cpu_s: float


# --- ours ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def scratch_lake(shape: Shape) -> Iterator[tuple[Settings, tuple[Snapshot, ...]]]:
    """A made lake in a folder that goes away."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        yield settings, make_lake(Lake.open(settings), shape)


def warm_up() -> None:
    """A scan of a tiny lake: compiled code is loaded, as it is in a process that runs for longer than one scan."""
    with scratch_lake(Shape(28, 50, 100)) as (settings, snapshots):
        dedup.fn(settings, snapshots)


def containments_alone(settings: Settings) -> Settings:
    """Without near containments, covers and renames: what the peers look for."""
    alone = settings.dedup.model_copy(update={"approximate": 1.0, "unions": False, "renames": False})
    return settings.model_copy(update={"dedup": alone})


def scanned(settings: Settings, snapshots: tuple[Snapshot, ...]) -> Ours:
    """One scan in this process, which holds what it may of runs in memory."""
    start, used = time.perf_counter(), cpu_s()
    result = dedup.fn(settings, snapshots)
    edges = {(edge.child, edge.parent, edge.multiset) for edge in contained(result.edges)}
    return Ours(result, edges, time.perf_counter() - start, cpu_s() - used)


def unscanned(settings: Settings) -> None:
    """Forget what earlier scans of the lake wrote."""
    for table in ("profiles", "containment", "retention"):
        shutil.rmtree(Lake.open(settings).uri(table), ignore_errors=True)


def told(lake: Lake, snapshots: Sequence[Snapshot]) -> Told:
    parts = {table_name(s): lake.parts(s) for s in snapshots}
    kinds = {
        table_name(s): kinds_of([f for f in lake.schema(s) if f.name.lower() != ROW_ID], [p.file for p in parts[table_name(s)]])
        for s in snapshots
        if s.n_rows
    }
    return Told(
        {name: [part.uri for part in some] for name, some in parts.items()},
        {table_name(s): s.n_rows for s in snapshots},
        kinds,
        sum(part.file.n_bytes for some in parts.values() for part in some),
    )


def fitting(kinds: Kinds) -> Fitting:
    """The pairs that a comparison of schemas leaves."""
    schemas = defaultdict[tuple[tuple[str, str], ...], list[str]](list)
    for name, columns in kinds.items():
        if columns:
            schemas[tuple(sorted(columns.items()))].append(name)
    members = [(dict(columns), tuple(names)) for columns, names in schemas.items()]
    blocks = [(c, p) for kind, c in members for theirs, p in members if _fits(kind, theirs)]
    return Fitting(tuple(blocks))


def _fits(child: Mapping[str, str], parent: Mapping[str, str]) -> bool:
    return all(name in parent and compatible(kind, parent[name]) for name, kind in child.items())


# --- DuckDB --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duck:
    """A connection and the names that tables go by in it."""

    db: duckdb.DuckDBPyConnection
    number: Mapping[str, str]
    kinds: Kinds

    def says(self, child: str, parent: str) -> str | None:
        """'multiset', 'set', or None."""
        if self.lacks(child, parent, "except"):
            return None
        return "set" if self.lacks(child, parent, "except all") else "multiset"

    def lacks(self, child: str, parent: str, minus: str) -> bool:
        names = ", ".join(self.columns(child, parent))
        query = f"select {names} from {self.number[child]} {minus} select {names} from {self.number[parent]}"
        return self.db.execute(f"select 1 from ({query}) limit 1").fetchone() is not None

    def lacks_sampled(self, child: str, parent: str, n_sampled: int) -> bool:
        """Whether the parent lacks one of some rows of the child."""
        names, written = [quoted(name) for name in sorted(self.kinds[child])], self.columns(child, parent)
        same = " and ".join(f"s.{name} is not distinct from p.{name}" for name in names)
        some = f"select {', '.join(written)} from {self.number[child]} using sample reservoir({n_sampled} rows) repeatable (1)"
        theirs = f"select {', '.join(written)} from {self.number[parent]}"
        query = f"select 1 from ({some}) s where not exists (select 1 from ({theirs}) p where {same}) limit 1"
        return self.db.execute(query).fetchone() is not None

    def columns(self, child: str, parent: str) -> list[str]:
        """The child's columns; where only one side has any value, both are read as texts."""
        mine, theirs = self.kinds[child], self.kinds[parent]
        as_text = {name for name in mine if mine[name] != theirs[name]}
        return [f"{quoted(n)}::varchar as {quoted(n)}" if n in as_text else quoted(n) for n in sorted(mine)]


@contextmanager
def duck(tables: Told, names: Sequence[str]) -> Iterator[Duck]:
    """DuckDB with some tables loaded."""
    with duckdb.connect(config={"threads": 2}) as db:
        number = {name: f"t{i}" for i, name in enumerate(sorted(names))}
        for name, table in number.items():
            db.execute(f"create table {table} as select * from read_parquet({tables.files[name]!r}, union_by_name = true)")
        yield Duck(db, number, tables.kinds)


def by_duckdb(tables: Told, pairs: Sequence[Pair]) -> tuple[Edges, float, float]:
    """(child, parent, multiset) of the true pairs; the seconds to load the tables in some pair, and those for the pairs."""
    start = time.perf_counter()
    with duck(tables, sorted({name for pair in pairs for name in pair})) as db:
        loaded = time.perf_counter()
        found = {(child, parent): says for child, parent in pairs if (says := db.says(child, parent)) is not None}
    edges = {(*pair, says == "multiset") for pair, says in found.items()}
    return edges, loaded - start, time.perf_counter() - loaded


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- figures -------------------------------------------------------------------------------------------------------------------


def agreement(found: Edges, truth: Edges) -> str:
    """Precision and recall of found edges."""
    both = len(found & truth)
    precision, recall = (both / len(edges) if edges else 1.0 for edges in (found, truth))
    return f"precision {precision:.4g}, recall {recall:.4g} of {len(truth)}"
