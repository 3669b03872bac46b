"""A lake with tables of its own and of another writer, as the tests of a scan build it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from hypothesis import strategies as st

from infra.cluster import connect
from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.foreign import register
from infra.lake import Lake
from infra.settings import Settings
from tasks.dedup.schema_graph import NULL, compatible, kind_of
from tasks.dedup.task import DedupResult, dedup

Edges = set[tuple[str, str, bool]]
Spoil = Callable[[Path], None]
_BOUNDED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal, pa.types.is_boolean)


def strict(home: Path) -> Settings:
    """A lake whose scan looks for containments alone: what a bound refutes is not counted after all, for it may be a near one."""
    return Settings.model_validate({"home": home, "dedup": {"approximate": 1.0, "unions": False, "renames": False}})


def own(lake: Lake, name: str, files: Sequence[pa.Table]) -> Snapshot:
    """A table of the lake as files of the given rows, with row ids and with bounds of numbers and times, as ingest leaves it."""
    schema = pa.schema([pa.field("row_id", pa.int64()), *files[0].schema])
    bounded = [field.name for field in files[0].schema if any(test(field.type) for test in _BOUNDED)]
    written = [
        write_part(
            lake.folder(f"records/{name}"),
            file.add_column(0, "row_id", pa.array(range(file.num_rows), pa.int64())).cast(schema).to_batches(),
            schema,
            stats=bounded,
            digest_columns=files[0].schema.names,
        )
        for file in files
        if file.num_rows
    ]
    return lake.commit(f"records/{name}", schema, written, lineage=Lineage("test", name, ""), overwrite=True)


def foreign(lake: Lake, name: str, files: Sequence[pa.Table], *, spoil: Spoil | None = None, **options: Any) -> None:
    """A table of another writer, a commit a file, registered as `name`; `spoil` changes its folder before anybody looks."""
    path = Path(lake.root).parent / f"outside-{name}"
    for file in files:
        write_deltalake(path, file, mode="append", **options)
    if spoil is not None:
        spoil(path)
    with connect(None) as workers:
        register(lake, name, str(path), workers)


def scanned(settings: Settings, snapshots: Sequence[Snapshot]) -> DedupResult:
    result = dedup.fn(settings, tuple(snapshots))
    assert not result.unreadable
    return result


def edges(result: DedupResult) -> Edges:
    """(child, parent, multiset) of the containments."""
    return {(edge.child, edge.parent, edge.multiset) for edge in result.edges if edge.set}


# --- another writer's log ------------------------------------------------------------------------------------------------------


def log_of(path: Path, version: int = 0) -> list[dict[str, Any]]:
    text = (path / "_delta_log" / f"{version:020d}.json").read_text()
    return [json.loads(line) for line in text.splitlines()]


def put_log(path: Path, entries: Sequence[Mapping[str, Any]], version: int = 0) -> None:
    place = path / "_delta_log" / f"{version:020d}.json"
    place.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def with_stats(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Spoil:
    """Change the statistics of every file of the first commit; None takes them out."""

    def spoil(path: Path) -> None:
        entries = log_of(path)
        for add in (entry["add"] for entry in entries if "add" in entry):
            stats = change(json.loads(add.pop("stats")))
            if stats is not None:
                add["stats"] = json.dumps(stats)
        put_log(path, entries)

    return spoil


def stored_as(kind: pa.DataType | None = None, **options: Any) -> Spoil:
    """Write the rows of the first commit's only file again, as another writer would: all columns of another type or encoding."""

    def spoil(path: Path) -> None:
        entries = log_of(path)
        add = next(entry["add"] for entry in entries if "add" in entry)
        rows = pq.read_table(path / add["path"])
        pq.write_table(
            rows.cast(pa.schema([(name, kind or rows.schema.field(name).type) for name in rows.column_names])),
            path / add["path"],
            **options,
        )
        add["size"] = (path / add["path"]).stat().st_size
        put_log(path, entries)

    return spoil


# --- by counting ---------------------------------------------------------------------------------------------------------------


def canonical(value: Any) -> Any:
    """A cell such that Python's equality is that of the scan."""
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, dict):
        return frozenset((name.lower(), canonical(inner)) for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(canonical, value))
    return value


def counted(table: pa.Table, names: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """How often each row is in the table over the lower-case columns."""
    lower = {name.lower(): [canonical(value) for value in table[name].to_pylist()] for name in table.column_names}
    return Counter(zip(*(lower[name] for name in names), strict=True))


@dataclass(frozen=True)
class Table:
    """A table of a small lake: its rows by file, and whether another writer has it."""

    files: tuple[pa.Table, ...]
    is_foreign: bool = False

    @property
    def whole(self) -> pa.Table:
        return pa.concat_tables(self.files)

    @property
    def kinds(self) -> dict[str, str]:
        """Of a flat column without a value our log knows that it has none; another writer's is not asked."""
        return {
            name.lower(): NULL if not self.is_foreign and _flat(c.type) and c.null_count == len(c) else kind_of(c.type)
            for name, c in zip(self.whole.column_names, self.whole.columns, strict=True)
        }


def _flat(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def contained(child: Table, parent: Table) -> tuple[bool, bool]:
    """(as a set, as a multiset), by counting every row."""
    ours, theirs = child.kinds, parent.kinds
    if not all(name in theirs and compatible(kind, theirs[name]) for name, kind in ours.items()):
        return False, False
    rows, others = (counted(table.whole, sorted(ours)) for table in (child, parent))
    return set(rows) <= set(others), rows <= others


def by_counting(tables: Mapping[str, Table]) -> Edges:
    """The edges that a scan is to find."""
    found = Edges()
    for child, parent in itertools.permutations(tables, 2):
        as_set, as_multiset = contained(tables[child], tables[parent])
        if tables[child].whole.num_rows and as_set:
            found.add((child, parent, as_multiset))
    return found


def put(lake: Lake, tables: Mapping[str, Table]) -> list[Snapshot]:
    """The lake's own tables are committed, the others registered (their names start with `foreign/`)."""
    for name, table in tables.items():
        if table.is_foreign:
            foreign(lake, name.removeprefix("foreign/"), table.files)
    return [own(lake, name, table.files) for name, table in tables.items() if not table.is_foreign]


# --- small lakes ---------------------------------------------------------------------------------------------------------------

X, LARGE_X = pa.struct([("x", pa.int32())]), pa.struct([("X", pa.int64())])
NAN = float("nan")
# Values, and the types under which a table may have them: what is equal across these, and what only looks so.
LOOKALIKES: tuple[tuple[Sequence[Any], Sequence[pa.DataType]], ...] = (
    (
        [-1, 0, 1, 2**24 + 1],
        [pa.int8(), pa.int64(), pa.float32(), pa.float64(), pa.decimal128(10, 2), pa.decimal128(38, 3), pa.string()],
    ),
    ([2**53, 2**53 + 1, 2**63 - 1, -(2**63)], [pa.int64(), pa.float64(), pa.decimal128(38, 2)]),
    ([-0.0, 0.0, 0.1, NAN, -NAN, float("inf"), -float("inf"), 1e300], [pa.float32(), pa.float64()]),
    (["1.1", "1234567890123456789.01", "1234567890123456789.02"], [pa.decimal128(38, 2), pa.decimal128(30, 3)]),
    (["", "a", "A", "a ", "\u00e9", "e\u0301", "x|y", "x" * 70, "x" * 71], [pa.string(), pa.binary()]),
    ([0, 999, 1000, 86_400_000_000, -1], [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.date32(), pa.int64()]),
    ([True, False], [pa.bool_(), pa.int32()]),
    ([[], [None], [1], [1, None], [2]], [pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.float64())]),
    ([{"x": None}, {"x": 1}], [X, LARGE_X]),
    ([[], [("k", 1)], [("k", None)], [("k", 1), ("j", 2)]], [pa.map_(pa.string(), pa.int32()), pa.map_(pa.string(), pa.int64())]),
)


def _as(value: Any, kind: pa.DataType) -> Any:
    """A value in the form in which a type takes it; NULL where it does not."""
    if value is None:
        return None
    if kind == pa.int8() and value > 2**7:
        return None
    if kind == LARGE_X:
        return {"X": value["x"]}
    if pa.types.is_date(kind):
        return int(value) // 86_400_000_000
    forms: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
        (pa.types.is_floating, float),
        (pa.types.is_decimal, Decimal),
        (pa.types.is_string, str),
        (pa.types.is_binary, str.encode),
        (pa.types.is_integer, int),
    )
    return next((form for test, form in forms if test(kind)), lambda v: v)(value)


@st.composite
def small_lakes(draw: st.DrawFn) -> dict[str, Table]:
    """Tables cut out of a few rows by rows and columns, each with types of its own for values that look alike."""
    pools = {name: draw(st.sampled_from(LOOKALIKES)) for name in draw(st.sampled_from(["a", "ab", "abc"]))}
    row = st.fixed_dictionaries({name: st.none() | st.sampled_from(values) for name, (values, _) in pools.items()})
    base = draw(st.lists(row, min_size=1, max_size=6))
    tables = dict[str, Table]()
    for number in range(draw(st.integers(2, 5))):
        kept = draw(st.lists(st.sampled_from(sorted(pools)), min_size=1, unique=True))
        some = draw(st.lists(st.sampled_from(base), min_size=number == 0, max_size=8))
        kinds = {name: draw(st.sampled_from(pools[name][1])) for name in kept}
        columns = {
            name.upper() if draw(st.booleans()) else name: pa.array([_as(r[name], kinds[name]) for r in some], kinds[name])
            for name in kept
        }
        whole, cut = pa.table(columns), draw(st.integers(0, len(some)))
        is_foreign = draw(st.integers(0, 3)) == 0 and len(some) > 0
        files = (whole.slice(0, cut), whole.slice(cut))
        tables[f"foreign/t{number}" if is_foreign else f"t{number}"] = Table(files, is_foreign)
    return tables
