"""The cluster's side of a scan: read data files once, hash their rows over every column set that is asked for, sketch and sort.
Decides nothing.

A file is read in batches; a column's cells are hashed once and added to the sums of every column set that holds it, so memory
is bounded by the batch, the sketches, and 24 bytes for each row of a run. Runs of small tables stay in memory within a budget,
the others go to the lake's scratch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.files import read_part
from infra.foreign import ForeignPart, read_foreign
from infra.ids import U64
from infra.rowhash import cell_hashes, finish
from tasks.dedup.exact import RUN_ROWS, Run, merge_runs, run_of
from tasks.dedup.profiles import CELLS, ROWS, VALUES, Columns, Profile, Profiles, scale_of
from tasks.dedup.renames import ANY_NAME
from tasks.dedup.runs import ROW_BYTES, Runs, Spilled, spill
from tasks.dedup.scan import AnyPart, Facts, file_of
from tasks.dedup.sketches import Sketcher

ITEM_BYTES = 64 << 20
TELLING_BYTES = 256 << 20  # less than this tells nothing of a throughput
RunKey = tuple[int, Columns]


@dataclass(frozen=True)
class Want:
    """What is asked for of one table: rows over column sets, cells and unnamed cells of columns; `runs` are the sets whose rows
    will have to be searched.
    """

    rows: frozenset[Columns] = frozenset()
    cells: Columns = ()
    values: Columns = ()
    runs: frozenset[Columns] = frozenset()


@dataclass(frozen=True)
class Reading:
    """Files of one table to be read once, by lower-case names that stand for written ones.

    Rows are hashed over each of `sets`: runs of them go to `scratch`, or stay in memory where it is None. Sketches are made of
    the `sketched` sets and of the columns' cells.
    """

    table: int
    name: str
    parts: tuple[AnyPart, ...]
    names: Mapping[str, str]
    runs: tuple[Columns, ...] = ()
    sketched: tuple[Columns, ...] = ()
    cells: Columns = ()
    values: Columns = ()
    scratch: str | None = None

    @property
    def sets(self) -> tuple[Columns, ...]:
        return tuple(dict.fromkeys((*self.runs, *self.sketched)))

    @property
    def columns(self) -> list[str]:
        return sorted({*self.cells, *self.values, *(name for one in self.sets for name in one)})


@dataclass(frozen=True)
class Hashed:
    """What a reading found: runs by column set, profiles, and the bytes of the files opened."""

    table: int
    runs: dict[Columns, tuple[Run | Spilled, ...]]
    profiles: tuple[Profile, ...]
    n_bytes: int


# --- reading -------------------------------------------------------------------------------------------------------------------


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
    """Runs and profiles of the reading's files."""
    columns = reading.columns
    sorting, profiles, n_bytes = _Sorting(reading), list[Profile](), 0
    for part in reading.parts:
        n_bytes += part.file.n_bytes
        sketching = _Sketching(reading, file_of(part))
        for batch in _rows(part, [reading.names[name] for name in columns]):
            hashes = _hashed(batch, columns, reading, key, sketching)
            sorting.add(hashes, batch.num_rows)
            sketching.rows(hashes, batch.num_rows)
        profiles += sketching.done()
    return Hashed(reading.table, sorting.done(), tuple(profiles), n_bytes)


def _rows(part: AnyPart, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return read_foreign(part, columns) if isinstance(part, ForeignPart) else read_part(part, columns)


def _hashed(
    batch: pa.RecordBatch, columns: Sequence[str], reading: Reading, key: bytes, sketching: _Sketching
) -> dict[Columns, U64]:
    """Row hashes by column set, uint64 (n, 2); the cells of one column are held at a time."""
    sums = {one: np.zeros((batch.num_rows, 2), np.uint64) for one in reading.sets}
    for name, array in zip(columns, batch.columns, strict=True):
        if name in reading.values:
            sketching.column(VALUES, name, cell_hashes(array, ANY_NAME, key), array.null_count)
        holders = [total for one, total in sums.items() if name in one]
        if holders or name in reading.cells:
            cells = cell_hashes(array, name, key)
            for total in holders:
                np.add(total, cells, out=total)
            if name in reading.cells:
                sketching.column(CELLS, name, cells, array.null_count)
    return {one: finish(total) for one, total in sums.items()}


class _Sketching:
    """The profiles of one file under way."""

    def __init__(self, reading: Reading, file: str) -> None:
        self._reading, self._file = reading, file
        wanted = [(ROWS, one) for one in reading.sketched]
        wanted += [(what, (name,)) for what, names in ((CELLS, reading.cells), (VALUES, reading.values)) for name in names]
        self._sketchers = {(what, one): Sketcher(**scale_of(what)) for what, one in wanted}
        self._n_nulls = dict.fromkeys(wanted, 0)
        self._n_rows = 0

    def column(self, what: str, name: str, cells: U64, n_nulls: int) -> None:
        self._sketchers[what, (name,)].add(np.ascontiguousarray(cells[:, 0]))
        self._n_nulls[what, (name,)] += n_nulls

    def rows(self, hashes: Mapping[Columns, U64], n_rows: int) -> None:
        self._n_rows += n_rows
        for one in self._reading.sketched:
            self._sketchers[ROWS, one].add(np.ascontiguousarray(hashes[one][:, 0]))

    def done(self) -> Iterator[Profile]:
        for (what, columns), sketcher in self._sketchers.items():
            n_nulls = self._n_nulls[what, columns]
            yield Profile(self._reading.name, self._file, what, columns, self._n_rows, n_nulls, sketcher.done())


@dataclass
class _Sorting:
    """The runs of one reading under way: hashes not yet sorted, and runs that are full."""

    reading: Reading
    held: dict[Columns, list[U64]] = field(default_factory=lambda: defaultdict(list))
    n_held: int = 0
    runs: dict[Columns, list[Run | Spilled]] = field(default_factory=lambda: defaultdict(list))

    def add(self, hashes: Mapping[Columns, U64], n_rows: int) -> None:
        for one in self.reading.runs:
            self.held[one].append(hashes[one])
        self.n_held += n_rows
        if self.n_held >= RUN_ROWS:
            self.flush()

    def flush(self) -> None:
        for columns, hashes in self.held.items():
            run = run_of(np.concatenate(hashes))
            self.runs[columns].append(run if self.reading.scratch is None else spill(run, self.reading.scratch))
        self.held.clear()
        self.n_held = 0

    def done(self) -> dict[Columns, tuple[Run | Spilled, ...]]:
        self.flush()
        return {columns: tuple(some) for columns, some in self.runs.items()}


# --- what was read so far ------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Reads what is asked for and not there yet: profiles of files, runs of tables. `n_bytes` are those of the files opened."""

    facts: Sequence[Facts]
    profiles: Profiles
    workers: Workers
    key: bytes
    scratch: str
    memory_bytes: int
    runs: dict[RunKey, Runs] = field(default_factory=dict)
    n_bytes: int = 0
    read_s: float = 0.0
    _free: int | None = None

    @property
    def gb_s(self) -> float | None:
        """The throughput of reading and hashing, to one digit; None where too little was read to tell."""
        return float(f"{self.n_bytes / self.read_s / 1e9:.1g}") if self.n_bytes >= TELLING_BYTES else None

    def profile(self, wants: Mapping[int, Want]) -> None:
        """Profiles of the files that have none; the runs that will be asked for come along where the whole table is read and
        memory allows it.
        """
        planned = [reading for table in self._by_size(wants) if (reading := self._profiling(table, wants[table])) is not None]
        self._read(planned)

    def fetch(self, wanted: Iterable[RunKey]) -> None:
        """Runs of whole tables, small tables first; those that memory cannot hold go to scratch."""
        sets = defaultdict[int, list[Columns]](list)
        for table, columns in sorted({*wanted}.difference(self.runs)):
            sets[table].append(columns)
        self._read([self._fetching(table, tuple(sets[table])) for table in self._by_size(sets)])

    def fetch_as(self, wanted: Sequence[tuple[int, Mapping[str, str]]]) -> list[Runs]:
        """Runs of tables whose columns go by other names: (table, written names by the lower-case ones that they go under)."""
        planned = list[Reading]()
        for number, (table, names) in enumerate(wanted):
            one, place = self.facts[table], None if self._takes(table, 1) else self.scratch
            planned.append(Reading(number, one.name, one.parts, names, (tuple(sorted(names)),), scratch=place))
        before, self.runs = self.runs, {}
        self._read(planned)
        found, self.runs = self.runs, before
        return [found[number, tuple(sorted(names))] for number, (_, names) in enumerate(wanted)]

    def _by_size(self, tables: Iterable[int]) -> list[int]:
        return sorted(tables, key=lambda t: (self.facts[t].snapshot.n_rows, self.facts[t].name))

    def _profiling(self, table: int, want: Want) -> Reading | None:
        one = self.facts[table]
        missing = [*((ROWS, columns) for columns in want.rows)]
        missing += [(what, (name,)) for what, names in ((CELLS, want.cells), (VALUES, want.values)) for name in names]
        parts = {file_of(part): part for what, columns in missing for part in self.profiles.unknown(one, what, columns)}
        if not parts:
            return None
        runs = tuple(sorted(want.runs)) if len(parts) == len(one.parts) and self._takes(table, len(want.runs)) else ()
        ordered = tuple(part for part in one.parts if file_of(part) in parts)
        return Reading(table, one.name, ordered, one.names, runs, tuple(sorted(want.rows)), want.cells, want.values)

    def _fetching(self, table: int, sets: tuple[Columns, ...]) -> Reading:
        one = self.facts[table]
        place = None if self._takes(table, len(sets)) else self.scratch
        return Reading(table, one.name, one.parts, one.names, sets, scratch=place)

    def _takes(self, table: int, n_sets: int) -> bool:
        """Whether memory has room for a table's runs; what it takes is not given back."""
        free = self.memory_bytes if self._free is None else self._free
        wanted = self.facts[table].snapshot.n_rows * n_sets * ROW_BYTES
        self._free = free - wanted if wanted <= free else free
        return wanted <= free

    def _read(self, planned: Sequence[Reading]) -> None:
        runs = defaultdict[RunKey, list[Run | Spilled]](list)
        start = time.perf_counter()
        for hashed in self.workers.map(hash_item, items(planned), self.key):
            for one in hashed:
                self.n_bytes += one.n_bytes
                self.profiles.add(one.profiles)
                for columns, some in one.runs.items():
                    runs[one.table, columns].extend(some)
        self.runs |= {key: _merged(some) for key, some in runs.items()}
        self.read_s += time.perf_counter() - start


def _merged(runs: Sequence[Run | Spilled]) -> Runs:
    here = [run for run in runs if isinstance(run, Run)]
    return (merge_runs(here),) if len(here) == len(runs) else tuple(runs)
