"""The cluster's side of a scan: hash the rows of each table once, over every column set that is asked for, then search.
Decides nothing.

A file is read in batches; a column's cells are hashed once and added to the sums of every column set that holds it, so memory
is bounded by the batch and by 24 bytes for each row of a run. Runs of small tables stay in memory within a budget, the others
go to the lake's scratch.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.files import filesystem, read_part
from infra.foreign import ForeignPart, read_foreign
from infra.ids import U64
from infra.rowhash import cell_hashes, finish
from tasks.dedup.edges import EXACT, TRANSITIVE
from tasks.dedup.evidence import MAX_BITS, Slots, evidence_bits, merge_slots, slots_of
from tasks.dedup.exact import RUN_ROWS, Run, Verdict, contained, merge_runs, run_of
from tasks.dedup.scan import AnyPart, Candidates, Facts, Ledger

ROW_BYTES = 24
ITEM_BYTES = 64 << 20
Columns = tuple[str, ...]


@dataclass(frozen=True)
class Spilled:
    """A run in the lake's scratch."""

    uri: str
    n_rows: int


@dataclass(frozen=True)
class Reading:
    """Files of one table to be read once.

    `names` maps lower-case names to written ones; rows are hashed over each of `sets`, and the evidence of `own` columns is
    counted. Runs go to `scratch`, or stay in memory where it is None.
    """

    table: int
    parts: tuple[AnyPart, ...]
    names: Mapping[str, str]
    sets: tuple[Columns, ...]
    own: Columns
    scratch: str | None


@dataclass(frozen=True)
class Hashed:
    """What a reading found: runs by column set, evidence slots by column, whether there is any value, and the bytes of files
    opened.
    """

    table: int
    runs: dict[Columns, tuple[Run | Spilled, ...]]
    slots: dict[str, Slots]
    has_values: bool
    n_bytes: int


@dataclass(frozen=True)
class Hashes:
    """All that was read: runs by (table, column set), evidence bits of children, tables without a value, and bytes of files
    opened.
    """

    runs: dict[tuple[int, Columns], tuple[Run | Spilled, ...]]
    bits: dict[int, float]
    all_null: set[int]
    n_bytes: int


# --- reading -------------------------------------------------------------------------------------------------------------------


def readings(facts: Sequence[Facts], found: Candidates, scratch: str, memory_bytes: int) -> list[Reading]:
    """One reading a table: those of pairs over every column set they need, those with equals for their evidence alone."""
    sets = defaultdict[int, set[Columns]](set)
    children = set[int]()
    for parent, some in found.children.items():
        for child, _ in some:
            children.add(child)
            sets[child].add(facts[child].columns)
            sets[parent].add(facts[child].columns)
    children |= {table for table, equals in found.groups.items() if len(equals) > 1}
    free = memory_bytes
    planned = list[Reading]()
    for table in sorted(sets.keys() | children, key=lambda t: (facts[t].snapshot.n_rows * len(sets[t]), t)):
        free -= facts[table].snapshot.n_rows * len(sets[table]) * ROW_BYTES
        own = facts[table].columns if table in children else ()
        place = scratch if free < 0 else None
        planned.append(Reading(table, facts[table].parts, facts[table].names, tuple(sorted(sets[table])), own, place))
    return planned


def items(planned: Iterable[Reading], limit: int = ITEM_BYTES) -> list[list[Reading]]:
    """Readings packed and cut into items of about `limit` bytes of files: work for one worker at a time."""
    packed, size = [list[Reading]()], 0
    for piece in (piece for reading in planned for piece in _pieces(reading, limit)):
        n_bytes = sum(part.file.n_bytes for part in piece.parts)
        if packed[-1] and size + n_bytes > limit:
            packed.append([])
            size = 0
        packed[-1].append(piece)
        size += n_bytes
    return [item for item in packed if item]


def _pieces(reading: Reading, limit: int) -> Iterator[Reading]:
    held, size = list[AnyPart](), 0
    for part in reading.parts:
        if held and size + part.file.n_bytes > limit:
            yield replace(reading, parts=tuple(held))
            held, size = [], 0
        held.append(part)
        size += part.file.n_bytes
    yield replace(reading, parts=tuple(held))


def hash_item(item: Sequence[Reading], key: bytes) -> list[Hashed]:
    """Worker: read the files of an item once."""
    return [hash_reading(reading, key) for reading in item]


def hash_reading(reading: Reading, key: bytes) -> Hashed:
    """Row hashes of the reading's files over each of its column sets, as sorted runs."""
    wanted = sorted({*reading.own, *(name for one in reading.sets for name in one)})
    work = _Work(reading)
    for part in reading.parts:
        work.n_bytes += part.file.n_bytes
        for batch in _rows(part, [reading.names[name] for name in wanted]):
            work.add(batch, wanted, key)
            if not reading.sets and evidence_bits(work.slots) >= MAX_BITS:
                return work.done()
    return work.done()


def _rows(part: AnyPart, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return read_foreign(part, columns) if isinstance(part, ForeignPart) else read_part(part, columns)


@dataclass
class _Work:
    """One reading under way: hashes not yet sorted, runs that are full, and the evidence so far."""

    reading: Reading
    held: dict[Columns, list[U64]] = field(default_factory=lambda: defaultdict(list))
    n_held: int = 0
    runs: dict[Columns, list[Run | Spilled]] = field(default_factory=lambda: defaultdict(list))
    slots: dict[str, Slots] = field(default_factory=dict)
    has_values: bool = False
    n_bytes: int = 0
    holders: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for number, columns in enumerate(self.reading.sets):
            for name in columns:
                self.holders[name].append(number)

    def add(self, batch: pa.RecordBatch, wanted: Sequence[str], key: bytes) -> None:
        sums = [np.zeros((batch.num_rows, 2), np.uint64) for _ in self.reading.sets]
        counting = bool(self.reading.own) and evidence_bits(self.slots) < MAX_BITS
        for name, array in zip(wanted, batch.columns, strict=True):
            cells = cell_hashes(array, name, key)
            self.has_values = self.has_values or array.null_count < len(array)
            if counting:
                self.slots |= merge_slots({name: slots_of(cells)}, {name: self.slots[name]} if name in self.slots else {})
            for number in self.holders[name]:
                sums[number] += cells
        for total, columns in zip(sums, self.reading.sets, strict=True):
            self.held[columns].append(finish(total))
        self.n_held += batch.num_rows
        if self.n_held >= RUN_ROWS:
            self.flush()

    def flush(self) -> None:
        for columns, hashes in self.held.items():
            run = run_of(np.concatenate(hashes))
            self.runs[columns].append(run if self.reading.scratch is None else spill(run, self.reading.scratch))
        self.held.clear()
        self.n_held = 0

    def done(self) -> Hashed:
        self.flush()
        runs = {columns: tuple(some) for columns, some in self.runs.items()}
        return Hashed(self.reading.table, runs, self.slots, self.has_values, self.n_bytes)


def spill(run: Run, scratch: str) -> Spilled:
    """Write a run to scratch under a name of its own."""
    uri = f"{scratch}/run-{uuid.uuid4().hex}.npy"
    fs, path = filesystem(uri)
    with fs.open(path, "wb") as sink:
        np.save(sink, np.stack([run.low, run.high, run.counts.view(np.uint64)]))
    return Spilled(uri, len(run.low))


def load(run: Run | Spilled) -> Run:
    """A run wherever it lies."""
    if isinstance(run, Run):
        return run
    fs, path = filesystem(run.uri)
    with fs.open(path, "rb") as source:
        low, high, counts = np.load(source, allow_pickle=False)
    return Run(low, high, counts.view(np.int64))


def gather(hashed: Iterable[Hashed]) -> Hashes:
    """The findings of all readings; runs that stayed in memory are merged to one for each table and column set."""
    runs = defaultdict[tuple[int, Columns], list[Run | Spilled]](list)
    slots = defaultdict[int, dict[str, Slots]](dict)
    all_null, n_bytes = dict[int, bool](), 0
    for one in hashed:
        n_bytes += one.n_bytes
        all_null[one.table] = all_null.get(one.table, True) and not one.has_values
        slots[one.table] = merge_slots(slots[one.table], one.slots)
        for columns, some in one.runs.items():
            runs[one.table, columns].extend(some)
    bits = {table: evidence_bits(found) for table, found in slots.items() if found}
    merged = {key: _merged(some) for key, some in runs.items()}
    return Hashes(merged, bits, {table for table, nothing in all_null.items() if nothing}, n_bytes)


def _merged(runs: Sequence[Run | Spilled]) -> tuple[Run | Spilled, ...]:
    here = [run for run in runs if isinstance(run, Run)]
    return (merge_runs(here),) if len(here) == len(runs) else tuple(runs)


# --- searching -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """Children to be searched in one parent, all over the same columns: (child, its runs), and the parent's runs."""

    parent: int
    runs: tuple[Run | Spilled, ...]
    children: tuple[tuple[int, tuple[Run | Spilled, ...]], ...]


def search(job: Search) -> list[Verdict]:
    """Worker: hold the children, pass over the parent's runs once."""
    children = [merge_runs([load(run) for run in runs]) for _, runs in job.children]
    return contained(children, (load(run) for run in job.runs), n_runs=len(job.runs))


def settle(workers: Workers, facts: Sequence[Facts], found: Candidates, hashes: Hashes, memory_bytes: int) -> Ledger:
    """Every candidate pair settled, parents by ascending size.

    Pairs whose runs are in memory are searched here, and imply others at once; the rest is searched by the workers.
    """
    ledger = Ledger()
    later = list[tuple[int, int, bool]]()
    for child, parent, multiset in _ascending(facts, found):
        if (verdict := ledger.inferred(child, parent, multiset=multiset)) is not None:
            ledger.record(child, parent, verdict, TRANSITIVE)
            continue
        columns = facts[child].columns
        a, b = hashes.runs[child, columns], hashes.runs[parent, columns]
        if all(isinstance(run, Run) for run in (*a, *b)):
            ledger.record(child, parent, search(Search(parent, b, ((child, a),)))[0], EXACT)
        else:
            later.append((child, parent, multiset))
    _settle_later(workers, facts, later, hashes, ledger, memory_bytes)
    return ledger


def _ascending(facts: Sequence[Facts], found: Candidates) -> Iterator[tuple[int, int, bool]]:
    """(child, parent, may be a multiset): small parents first, and large children first, which then speak for the small ones
    in them.
    """

    def size(table: int) -> tuple[int, int, str]:
        return facts[table].snapshot.n_rows, len(facts[table].kinds), facts[table].name

    for parent in sorted(found.children, key=size):
        for child, multiset in sorted(found.children[parent], key=lambda pair: size(pair[0]), reverse=True):
            yield child, parent, multiset


def _settle_later(
    workers: Workers,
    facts: Sequence[Facts],
    pairs: Sequence[tuple[int, int, bool]],
    hashes: Hashes,
    ledger: Ledger,
    memory_bytes: int,
) -> None:
    open_pairs = list[tuple[int, int]]()
    for child, parent, multiset in pairs:
        if (verdict := ledger.inferred(child, parent, multiset=multiset)) is not None:
            ledger.record(child, parent, verdict, TRANSITIVE)
        else:
            open_pairs.append((child, parent))
    jobs = searches(facts, open_pairs, hashes, memory_bytes)
    for job, verdicts in zip(jobs, workers.map(search, jobs), strict=True):
        for (child, _), verdict in zip(job.children, verdicts, strict=True):
            ledger.record(child, job.parent, verdict, EXACT)


def searches(facts: Sequence[Facts], pairs: Sequence[tuple[int, int]], hashes: Hashes, memory_bytes: int) -> list[Search]:
    """Pairs grouped by parent and columns; the children of one search fit in memory together."""
    groups = defaultdict[tuple[int, Columns], list[int]](list)
    for child, parent in pairs:
        groups[parent, facts[child].columns].append(child)
    jobs = list[Search]()
    for (parent, columns), children in groups.items():
        batch, size = list[int](), 0
        for child in children:
            n_bytes = facts[child].snapshot.n_rows * ROW_BYTES
            if batch and size + n_bytes > memory_bytes:
                jobs.append(_search_of(parent, columns, batch, hashes))
                batch, size = [], 0
            batch.append(child)
            size += n_bytes
        jobs.append(_search_of(parent, columns, batch, hashes))
    return jobs


def _search_of(parent: int, columns: Columns, children: Sequence[int], hashes: Hashes) -> Search:
    return Search(parent, hashes.runs[parent, columns], tuple((child, hashes.runs[child, columns]) for child in children))
