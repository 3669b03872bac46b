"""Arrow IPC: the rows of Parquet, whatever the container; every type as one that Delta holds; damage costs what it hits."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import readers_arrow, readers_parquet
from tasks.ingest.archives import random_access
from tasks.ingest.infer import columns_of, join_all, schema_of
from tasks.ingest.streams import Unreadable

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.text(max_size=4)),
        st.one_of(st.none(), st.lists(st.integers(0, 255), min_size=2, max_size=2)),
        st.one_of(st.none(), st.integers(-(2**40), 2**40)),
    ),
    max_size=9,
)
SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string()), ("v", pa.list_(pa.uint8(), 2)), ("t", pa.timestamp("ns"))])


def as_file(table: pa.Table, rows: int = 3, compression: str | None = None) -> bytes:
    return _ipc(pa.ipc.new_file, table, rows, compression)


def as_stream(table: pa.Table, rows: int = 3, compression: str | None = None) -> bytes:
    return _ipc(pa.ipc.new_stream, table, rows, compression)


def _ipc(new: Any, table: pa.Table, rows: int, compression: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def table_of(rows: list[Any]) -> pa.Table:
    return pa.table([pa.array([row[i] for row in rows], field.type) for i, field in enumerate(SCHEMA)], schema=SCHEMA)


def typed(blocks: list[Any], shapes: Any) -> tuple[list[dict[str, Any]], int]:
    schema, n_rejects = schema_of(columns_of([shapes])), 0
    rows = list[dict[str, Any]]()
    for block in blocks:
        batch, rejects = readers_parquet.typed(block.rows, schema, {})
        batch.validate(full=True)
        rows += batch.to_pylist()
        n_rejects += len(rejects)
    return rows, n_rejects


def read(data: bytes) -> tuple[list[dict[str, Any]], int]:
    blocks = list(readers_arrow.read(io.BytesIO(data)))
    return typed(blocks, join_all(readers_arrow.shapes(block.rows) for block in blocks))


def read_parquet(data: bytes) -> tuple[list[dict[str, Any]], int]:
    with readers_parquet.opened(io.BytesIO(data)) as parquet:
        return typed(list(readers_parquet.read(parquet)), readers_parquet.file_shapes(parquet))


@given(ROWS, st.sampled_from([as_file, as_stream]), st.integers(1, 9), st.sampled_from([None, "lz4", "zstd"]))
def test_every_container_gives_the_rows_of_parquet(rows: list[Any], write: Any, n_rows: int, compression: str | None) -> None:
    table = table_of(rows)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    found = read(write(table, n_rows, compression))
    assert found == read_parquet(sink.getvalue())
    assert len(found[0]) == len(rows)


@given(st.binary(min_size=1, max_size=8), st.floats(0, 1), st.sampled_from([as_file, as_stream]))
def test_damage_gives_whole_batches_or_a_reason(patch: bytes, place: float, write: Any) -> None:
    table = pa.table({"n": list(range(12)), "s": [f"é{n}" for n in range(12)], "l": [[n] * (n % 3) for n in range(12)]})
    data = bytearray(write(table, 3, None))
    at = int(place * len(data))
    data[at : at + len(patch)] = patch
    blocks = list[Any]()
    try:
        for block in readers_arrow.read(io.BytesIO(bytes(data))):
            blocks.append(block)
    except Unreadable:
        pass
    assert sum(block.n_rows for block in blocks) % 3 == 0
    for block in blocks:
        for column in block.rows.columns:
            column.to_string()


@given(st.integers(0, 2000), st.sampled_from([as_file, as_stream]))
def test_a_file_that_is_cut_off_gives_what_it_holds(cut: int, write: Any) -> None:
    table = pa.table({"n": list(range(12))})
    whole = write(table, 3, None)
    blocks = list[Any]()
    try:
        for block in readers_arrow.read(io.BytesIO(whole[:cut])):
            blocks.append(block)
    except Unreadable:
        assert cut < len(whole)
    seen = [value for block in blocks for value in block.rows.column(0).to_pylist()]
    assert seen == list(range(len(seen)))
    assert len(seen) == 12 or cut < len(whole)


TYPES = [
    (pa.array(np.array([1.5], np.float16)), pa.float32(), [1.5]),
    (pa.array(["a"]).dictionary_encode(), pa.string(), ["a"]),
    (pa.array(["a"], pa.string_view()), pa.string(), ["a"]),
    (pa.array([b"a"], pa.binary_view()), pa.binary(), [b"a"]),
    (pa.array([[1]], pa.list_view(pa.int32())), pa.list_(pa.int32()), [[1]]),
    (
        pa.array([None, ["a"], [], ["b", "c"]], pa.large_list_view(pa.string())),
        pa.list_(pa.string()),
        [None, ["a"], [], ["b", "c"]],
    ),
    (pc.run_end_encode(pa.array([7])), pa.int64(), [7]),
    (pa.array([200], pa.uint8()), pa.int16(), [200]),
    (pa.array([2**63 - 1], pa.uint64()), pa.int64(), [2**63 - 1]),
    (pa.array([2**64 - 1], pa.uint64()), pa.decimal128(20, 0), [Decimal(2**64 - 1)]),
    (pa.array([Decimal("1.50")], pa.decimal32(5, 2)), pa.decimal128(5, 2), [Decimal("1.50")]),
    (pa.array([None, [1, 2]], pa.list_(pa.uint8(), 2)), pa.list_(pa.int16()), [None, [1, 2]]),
    (pa.array([1_000], pa.timestamp("ns")), pa.timestamp("us"), [dt.datetime(1970, 1, 1, microsecond=1)]),
    (pa.array([1], pa.timestamp("ns")), pa.string(), ["1970-01-01 00:00:00.000000001"]),
    (pa.array([dt.time(1, 2)], pa.time32("s")), pa.string(), ["01:02:00"]),
    (pa.array([dt.timedelta(seconds=1)], pa.duration("ms")), pa.int64(), [1000]),
    (pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"])), pa.string(), ["{}"]),
    (
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))),
        pa.list_(pa.int8()),
        [[1, 2]],
    ),
]


@pytest.mark.parametrize(
    ("column", "kind", "values"), TYPES, ids=lambda case: str(case.type) if isinstance(case, pa.Array) else ""
)
def test_every_type_becomes_one_of_deltas(column: pa.Array, kind: pa.DataType, values: list[Any]) -> None:
    blocks = list(readers_arrow.read(io.BytesIO(as_file(pa.table({"x": column})))))
    shapes = join_all(readers_arrow.shapes(block.rows) for block in blocks)
    assert schema_of(columns_of([shapes])).field("x").type == kind
    assert [row["x"] for row in typed(blocks, shapes)[0]] == values


@pytest.mark.parametrize("size", [1, 2, 70_000])
def test_lists_of_fixed_size_with_null_are_read_from_parquet(size: int) -> None:
    lists = [None, [1] * size, None, [2] * size]
    sink = io.BytesIO()
    table = pa.table(
        {"s": pa.array([{"v": one} for one in lists], pa.struct([("v", pa.list_(pa.int32(), size))])), "n": [1, 2, 3, 4]}
    )
    pq.write_table(table, sink, row_group_size=3)
    rows, n_rejects = read_parquet(sink.getvalue())
    assert rows == [{"s": {"v": one}, "n": n} for n, one in enumerate(lists, 1)] and not n_rejects


def test_wide_rows_come_in_small_batches() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"s": [chr(97 + n % 26) * (1 << 20) for n in range(40)]}), sink, use_dictionary=False)
    with readers_parquet.opened(io.BytesIO(sink.getvalue())) as parquet:
        sizes = [block.n_rows for block in readers_parquet.read(parquet)]
    assert sum(sizes) == 40 and max(sizes) <= 16


@pytest.mark.parametrize("write", [as_file, as_stream])
def test_text_that_is_not_utf8_costs_its_row_by_eye(write: Any) -> None:
    bad = pa.array([b"a", b"\xff", b"\xc3\xa9"]).view(pa.string())
    nested = pa.ListArray.from_arrays([0, 1, 2, 3], pa.array([b"a", b"b", b"\xe9"]).view(pa.string()))
    blocks = list(readers_arrow.read(io.BytesIO(write(pa.table({"s": bad, "l": nested, "n": [1, 2, 3]})))))
    shapes = join_all(readers_arrow.shapes(block.rows) for block in blocks)
    batch, rejects = readers_parquet.typed(blocks[1].rows, schema_of(columns_of([shapes])), {})
    assert batch.to_pylist() == [{"s": "a", "l": ["a"], "n": 1}]
    assert [(r.reason, r.raw) for r in rejects] == [
        ("not UTF-8", '{"l":["b"],"n":2,"s":"\\\\xff"}'),
        ("not UTF-8", '{"l":["\\\\xe9"],"n":3,"s":"é"}'),
    ]


def test_real_parquet_with_a_bad_text_loses_three_rows(shared_data: Path) -> None:
    """Of the hundred files one holds text that is not UTF-8."""
    name = "lake/rdatasets_parquet/pharmaversesdtm/ts.parquet"
    with (
        random_access(f"tar://{name}::{shared_data}/lake/rdatasets_parquet.tar.gz") as file,
        readers_parquet.opened(file) as parquet,
    ):
        rows, n_rejects = typed(list(readers_parquet.read(parquet)), readers_parquet.file_shapes(parquet))
    assert (len(rows), n_rejects) == (30, 3)


def test_what_is_no_arrow_file_says_so_by_eye() -> None:
    for data, said in ((b"", "not an Arrow file"), (b"a,b\n1,2\n" * 9, "not an Arrow file"), (b"FEA1....", "Feather version 1")):
        with pytest.raises(Unreadable, match=said):
            list(readers_arrow.read(io.BytesIO(data)))
    with pytest.raises(Unreadable, match="has no columns"):
        list(readers_arrow.read(io.BytesIO(as_stream(pa.table({})))))
