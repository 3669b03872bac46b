"""A seeded lake of any number of tables, where many are contained in others and as many nearly are.

Families share a few schemas. A family is a base of random rows and tables derived from it and from one another: copies, samples,
ranges, time slices, fewer columns, other orders and files, noise columns, transformed and widened ones, other names, copies of
rows, NULLs; and near misses: one row changed, one row more, cells swapped between rows, a gap in time. What is truly contained
in what is for a comparison to say: low-cardinality projections make containments that nobody planned.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.lake import Lake

FAMILY = 14
TABLES_A_SCHEMA = 50
DAY = np.datetime64("2024-01-01", "us")
_BOUNDED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal, pa.types.is_boolean)

Luck = np.random.Generator
Derive = Callable[[Luck, pa.Table], pa.Table]


@dataclass(frozen=True)
class Shape:
    """How many tables, and between how many rows the bases have."""

    n_tables: int
    least_rows: int
    most_rows: int
    seed: int = 0

    def scaled(self, factor: int) -> Shape:
        return Shape(self.n_tables, self.least_rows * factor, self.most_rows * factor, self.seed)


def make_lake(lake: Lake, shape: Shape) -> tuple[Snapshot, ...]:
    """Every table of the shape, committed to the lake."""
    return tuple(put(lake, name, files) for name, files in tables(shape))


def tables(shape: Shape) -> Iterator[tuple[str, list[pa.Table]]]:
    """Names and files of the tables: the same ones for the same shape."""
    n_schemas = max(5, shape.n_tables // TABLES_A_SCHEMA)
    for first in range(0, shape.n_tables, FAMILY):
        schema, family = first // FAMILY % n_schemas, dict[str, pa.Table]()
        for number in range(min(FAMILY, shape.n_tables - first)):
            # One of its own for each table, so that a larger shape is the same lake with more rows.
            luck = np.random.default_rng([shape.seed, first, number])
            name, table = derived(luck, family, number) if family else ("base", base(luck, schema, n_rows(luck, shape)))
            family[name] = table
            yield f"s{schema:03}_f{first // FAMILY:04}_{name}", files_of(luck, table)


def derived(luck: Luck, family: Mapping[str, pa.Table], number: int) -> tuple[str, pa.Table]:
    """A table made in some way of one in the family."""
    how = str(luck.choice([*DERIVED]))
    return f"{how}{number}", DERIVED[how](luck, [*family.values()][luck.integers(len(family))])


def put(lake: Lake, name: str, files: Sequence[pa.Table]) -> Snapshot:
    """Commit one table, with a row_id in front and bounds of numbers and times in the log, as ingest does."""
    return _commit(lake, name, files, overwrite=True)


def append(lake: Lake, name: str, rows: pa.Table) -> Snapshot:
    """Rows added to a table as one more file."""
    return _commit(lake, name, [rows], overwrite=False)


def _commit(lake: Lake, name: str, files: Sequence[pa.Table], *, overwrite: bool) -> Snapshot:
    schema = pa.schema([pa.field("row_id", pa.int64()), *files[0].schema])
    bounded = [field.name for field in files[0].schema if any(test(field.type) for test in _BOUNDED)]
    folder, names = lake.folder(f"records/{name}"), files[0].schema.names
    written = [
        write_part(folder, with_ids(file).to_batches(), schema, stats=bounded, digest_columns=names)
        for file in files
        if file.num_rows
    ]
    lineage = Lineage("test", name, "")
    return lake.commit(f"records/{name}", schema, written, lineage=lineage, overwrite=overwrite)


def with_ids(file: pa.Table) -> pa.Table:
    return file.add_column(0, "row_id", pa.array(np.arange(file.num_rows)))


def n_rows(luck: Luck, shape: Shape) -> int:
    """As many small tables as large ones, by the order of magnitude."""
    return int(np.exp(luck.uniform(np.log(shape.least_rows), np.log(shape.most_rows))))


# --- bases ---------------------------------------------------------------------------------------------------------------------

KINDS = ("int", "category", "float", "price", "flag", "text", "date")


def base(luck: Luck, schema: int, n: int) -> pa.Table:
    """Ids and times that ascend, and columns that the schema's number tells; every third of them has NULLs."""
    kinds = np.random.default_rng([7, schema]).choice(KINDS, 3 + schema % 5)
    start = int(luck.integers(4)) * 5_000_000
    ids = start + np.sort(luck.choice(10 * n, n, replace=False))
    columns = {"id": pa.array(ids), "at": pa.array(DAY + ids.astype("timedelta64[s]"), pa.timestamp("us", "UTC"))}
    for number, kind in enumerate(kinds):
        missing = luck.random(n) < 0.05 if number % 3 == 0 else np.zeros(n, np.bool_)
        columns[f"s{schema}_{kind}_{number}"] = values(luck, str(kind), n, missing)
    return pa.table(columns)


def values(luck: Luck, kind: str, n: int, missing: npt.NDArray[np.bool_]) -> pa.Array:
    if kind == "int":
        return pa.array(luck.integers(0, 10_000_000, n, np.int32), mask=missing)
    if kind == "category":
        return pa.array([f"category {i:03}" for i in range(200)]).take(pa.array(luck.integers(0, 200, n), mask=missing))
    if kind == "float":
        return pa.array(np.round(luck.normal(0, 10, n), 4), mask=missing)
    if kind == "price":
        return pa.array(np.round(luck.uniform(0, 1_000, n), 2), mask=missing).cast(pa.decimal128(12, 2))
    if kind == "flag":
        return pa.array(luck.random(n) < 0.3, mask=missing)
    if kind == "date":
        return pa.array(DAY.astype("datetime64[D]") + luck.integers(0, 700, n), pa.date32(), mask=missing)
    return pa.array([f"user {i:08x}" for i in luck.integers(0, 1 << 32, n).tolist()], mask=missing)


def files_of(luck: Luck, table: pa.Table) -> list[pa.Table]:
    """A table cut into one to four files."""
    cuts = [0, *sorted(luck.integers(0, table.num_rows + 1, luck.integers(0, 4)).tolist()), table.num_rows]
    return [table.slice(a, b - a) for a, b in pairwise(cuts)]


# --- derived -------------------------------------------------------------------------------------------------------------------


def _sample(luck: Luck, table: pa.Table) -> pa.Table:
    share = luck.uniform(0.1, 0.9)
    return table.filter(pa.array(luck.random(table.num_rows) < share))


def _range(luck: Luck, table: pa.Table) -> pa.Table:
    first, last = sorted(luck.integers(0, table.num_rows + 1, 2).tolist())
    return table.slice(first, last - first)


def _time_slice(luck: Luck, table: pa.Table) -> pa.Table:
    if "at" not in table.column_names or table.num_rows < 2:
        return _range(luck, table)
    ends = np.sort(luck.choice(table["at"].drop_null().to_numpy(), 2))
    first, last = (pa.scalar(end.astype(dt.datetime), pa.timestamp("us", "UTC")) for end in ends.astype("datetime64[us]"))
    return table.filter(pc.and_(pc.greater_equal(table["at"], first), pc.less_equal(table["at"], last)))


def _fewer_columns(luck: Luck, table: pa.Table) -> pa.Table:
    n = int(luck.integers(1, table.num_columns + 1))
    return table.select(sorted(luck.choice(table.num_columns, n, replace=False).tolist()))


def _reordered(luck: Luck, table: pa.Table) -> pa.Table:
    return table.take(pa.array(luck.permutation(table.num_rows)))


def _noise(luck: Luck, table: pa.Table) -> pa.Table:
    return table.append_column(f"noise_{luck.integers(3)}_{table.num_columns}", pa.array(luck.random(table.num_rows)))


def _transformed(luck: Luck, table: pa.Table) -> pa.Table:
    position = _numeric(luck, table)
    return table if position is None else _replaced(table, position, pc.add(table.column(position), 1))


def _widened(luck: Luck, table: pa.Table) -> pa.Table:
    narrow = [pa.field(f.name, pa.int64()) if pa.types.is_int32(f.type) else f for f in table.schema]
    return _sample(luck, table).cast(pa.schema(narrow))


def _renamed(luck: Luck, table: pa.Table) -> pa.Table:
    names = table.column_names
    position = int(luck.integers(len(names)))
    return _sample(luck, table.rename_columns([f"{n}_too" if i == position else n for i, n in enumerate(names)]))


def _doubled(luck: Luck, table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, _sample(luck, table)])


def _nulls(luck: Luck, table: pa.Table) -> pa.Table:
    position = int(luck.integers(table.num_columns))
    column = table.column(position)
    here = pa.array(luck.random(table.num_rows) < 0.05)
    return _replaced(table, position, pc.if_else(here, pa.scalar(None, column.type), column))


def _one_changed(luck: Luck, table: pa.Table) -> pa.Table:
    """One row has another row's cell."""
    some = _sample(luck, table)
    return _with_cells(some, luck, lambda order, i, j: order.__setitem__(i, j))


def _swapped(luck: Luck, table: pa.Table) -> pa.Table:
    """Two rows have each other's cell: no column tells."""
    some = _sample(luck, table)
    return _with_cells(some, luck, lambda order, i, j: order.__setitem__([i, j], [j, i]))


def _one_more(luck: Luck, table: pa.Table) -> pa.Table:
    """One more row, with one row's cell among another's."""
    some = _sample(luck, table)
    return pa.concat_tables([some, _one_changed(luck, table).slice(0, 1)])


def _gap(luck: Luck, table: pa.Table) -> pa.Table:
    """All but some time in the middle: what ran through it is contained no more, though no bound tells."""
    first, last = sorted(luck.integers(0, table.num_rows + 1, 2).tolist())
    return pa.concat_tables([table.slice(0, first), table.slice(last)])


def _with_cells(table: pa.Table, luck: Luck, move: Callable[[npt.NDArray[np.int64], int, int], None]) -> pa.Table:
    if table.num_rows < 2:
        return table
    order = np.arange(table.num_rows)
    move(order, *luck.choice(table.num_rows, 2, replace=False).tolist())
    position = int(luck.integers(table.num_columns))
    return _replaced(table, position, table.column(position).take(pa.array(order)))


def _numeric(luck: Luck, table: pa.Table) -> int | None:
    found = [i for i, f in enumerate(table.schema) if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    return int(luck.choice(found)) if found else None


def _replaced(table: pa.Table, position: int, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(position, table.schema.field(position).name, column)


DERIVED: dict[str, Derive] = {
    "copy": lambda luck, table: table,
    "sample": _sample,
    "range": _range,
    "slice": _time_slice,
    "fewer": _fewer_columns,
    "reordered": _reordered,
    "noise": _noise,
    "transformed": _transformed,
    "widened": _widened,
    "renamed": _renamed,
    "doubled": _doubled,
    "nulls": _nulls,
    "changed": _one_changed,
    "more": _one_more,
    "swapped": _swapped,
    "gap": _gap,
}
