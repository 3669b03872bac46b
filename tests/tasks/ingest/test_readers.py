"""Readers: every record of a hostile file is a row or a reject, exactly once, whatever the block size; damage stays where it
is."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import readers_csv, readers_jsonl, readers_parquet
from tasks.ingest.blocks import Block, Reject
from tasks.ingest.convert import from_text
from tasks.ingest.infer import columns_of, join_all, schema_of
from tasks.ingest.readers_csv import split_record
from tasks.ingest.scan import records
from tasks.ingest.streams import Unreadable, utf8_blocks

HOSTILE = st.text('ab1,";\n\r\t|é ', max_size=60).map(str.encode)
BROKEN = st.lists(
    st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"\r", b"\xff", "é".encode(), b"\0", b"1"]), max_size=50
).map(b"".join)
VALUES = st.one_of(st.none(), st.text("ab\"',;\n\r 1é", max_size=6))


def cut(data: bytes, n_bytes: int) -> Iterator[bytes]:
    return (data[i : i + n_bytes] for i in range(0, len(data), n_bytes))


def csv_rows(data: bytes, n_bytes: int = 1 << 20) -> tuple[list[tuple[Any, ...]], list[Reject]]:
    rows, rejects = list[tuple[Any, ...]](), list[Reject]()
    for block in readers_csv.read(cut(data, n_bytes), delimiter=","):
        assert (0 if block.rows is None else block.rows.num_rows) == block.n_rows
        rows += [tuple(column[i].as_py() for column in block.rows.columns) for i in range(block.n_rows)]
        rejects += block.rejects
    return rows, rejects


@given(st.one_of(HOSTILE, BROKEN), st.integers(1, 20))
def test_hostile_csv_is_read_the_same_in_blocks_of_any_size(body: bytes, n_bytes: int) -> None:
    data = b"x,y\n" + body
    assert csv_rows(data, n_bytes) == csv_rows(data)


@given(HOSTILE)
def test_every_record_is_a_row_or_a_reject(body: bytes) -> None:
    data = b"x,y\n" + body
    rows, rejects = csv_rows(data)
    found = records(body, ",", last=True)
    whole = [split_record(body[a:b].decode(), ",") for a, b in zip(found.starts, found.ends, strict=True)]
    assert [len(fields) for fields in whole] == found.n_fields.tolist()
    closed = [tuple(fields) for fields in whole if len(fields) == 2]
    assert rows[: len(closed)] == closed
    if not found.quoted:
        assert len(rows) + len(rejects) == len(whole)
    lost = b"".join(body.split()).decode()
    kept = "".join(cell or "" for row in rows for cell in row) + "".join(reject.raw for reject in rejects)
    assert sum(map(lost.count, "ab1é")) == sum(map(kept.count, "ab1é"))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=8))
def test_what_a_writer_wrote_is_read_back(rows: list[tuple[str | None, str | None]]) -> None:
    text = "x,y\r\n" + "".join(
        ",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row) + "\r\n" for row in rows
    )
    assert csv_rows(text.encode()) == (rows, [])


@given(st.lists(st.tuples(st.text("ab1é", min_size=1, max_size=3), st.text('ab1,\n"', min_size=1, max_size=5)), max_size=6))
def test_the_csv_module_agrees(rows: list[tuple[str, str]]) -> None:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([("x", "y"), *rows])
    assert csv_rows(sink.getvalue().encode())[0] == [tuple(row) for row in csv.reader(io.StringIO(sink.getvalue()))][1:]


def test_rejects_of_a_csv_by_eye() -> None:
    data = b'id,name\n1,"two\nlines"\n2,a,b\n\n3,\xff\n4,\xc3\xa9\n5,"never closed\n6,f\n'
    rows, rejects = csv_rows(data)
    assert rows == [("1", "two\nlines"), ("4", "é"), ("6", "f")]
    assert rejects == [
        Reject(4, "3 fields, the header has 2", "2,a,b"),
        Reject(6, "not UTF-8", "3,\\xff"),
        Reject(8, "a quote is opened and never closed", '5,"never closed'),
    ]


NUMBERS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.decimals(-(10**9), 10**9, places=4).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0", "-0", "-0.0", ".5", "5.", "123456789012345", "1234567890123456", "0.000000000000001", "NA", " 1", "x"]),
)


@given(st.lists(NUMBERS, max_size=9))
def test_numbers_read_from_bytes_are_those_read_from_text(cells: list[str | None]) -> None:
    data = b"n,m\n" + b"".join(b"%s,1\n" % (cell or "").encode() for cell in cells)
    [block] = readers_csv.read(iter([data]), delimiter=",")
    columns = columns_of([readers_csv.shapes(block.rows)])
    schema, known = schema_of(columns), dict(columns)
    batch, _ = readers_csv.typed(block.rows, schema, known)
    batch.validate(full=True)
    expected = from_text(pa.array(cells, pa.string()), schema.field("n").type, known["n"].mask)
    assert batch.column("n").equals(expected) and repr(batch.column("n").to_pylist()) == repr(expected.to_pylist())


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_taken_from_the_header(separator: str) -> None:
    text = f'a{separator}"b,;|"{separator}c\n1{separator}2{separator}3\n'
    [block] = readers_csv.read(iter([text.encode()]))
    assert [column.to_pylist() for column in block.rows.columns] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize("data", [b'"a\n1\n', b"a\0b\n1\n"])
def test_a_header_that_cannot_be_read_says_so(data: bytes) -> None:
    with pytest.raises(Unreadable):
        list(readers_csv.read(iter([data])))


def test_every_byte_of_windows_1252_is_a_character() -> None:
    """Letters as Windows-1252 has them, its five gaps as Latin-1 has them: nothing is lost."""
    every = bytes(range(256))
    text = b"".join(utf8_blocks(iter([every]), "cp1252")).decode()
    assert text == "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in every)


# --- JSON lines -------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5))
NESTED = st.recursive(
    SCALARS, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.sampled_from("pqP"), v, max_size=3)), max_leaves=6
)
LINES = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "A", "row_id", "", " c"]), NESTED, max_size=4).map(
        lambda row: json.dumps(row).encode()
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
    st.sampled_from(
        [b'{"a":', b"[1]", b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b"[" * 3000, b'{"a":' * 200 + b"1" + b"}" * 200, b"nul", b""]
    ),
)


def jsonl_typed(blocks: list[Block]) -> list[dict[str, Any]]:
    columns = columns_of([join_all(readers_jsonl.shapes(block.rows) for block in blocks)])
    schema, known = schema_of(columns), {name.lower(): shape for name, shape in columns}
    return [row for block in blocks for row in readers_jsonl.typed(block.rows, schema, known)[0].to_pylist()]


@given(st.lists(LINES, max_size=8), st.integers(1, 40))
def test_every_line_is_a_row_or_a_reject(lines: list[bytes], n_bytes: int) -> None:
    data = b"\n".join(lines)
    blocks = list(readers_jsonl.read(cut(data, n_bytes)))
    n_rejects = sum(len(block.rejects) for block in blocks)
    assert len(jsonl_typed(blocks)) + n_rejects == sum(bool(line.strip()) for line in data.split(b"\n"))
    whole = readers_jsonl.read(iter([data]))
    assert [reject for block in blocks for reject in block.rejects] == [reject for block in whole for reject in block.rejects]


@given(
    st.lists(
        st.dictionaries(st.sampled_from("ab"), st.one_of(SCALARS, st.lists(st.integers(-9, 9), max_size=3)), max_size=2),
        max_size=5,
    )
)
def test_no_value_of_a_line_is_lost(rows: list[dict[str, Any]]) -> None:
    data = "\n".join(json.dumps(row) for row in rows).encode()
    found = jsonl_typed(list(readers_jsonl.read(iter([data])))) if rows else []
    for row, typed in zip([row for row in rows if row], found, strict=True):
        for name, value in row.items():
            assert typed[name] == value or json.loads(typed[name]) == value


def test_nested_values_by_eye() -> None:
    lines = [b'{"s":{"p":1,"q":[1,2.5]},"mixed":1}', b'{"S":{"p":null},"mixed":{"z":[]}}', b"oops", b'{"new":true}']
    blocks = list(readers_jsonl.read(iter([b"\n".join(lines)])))
    assert jsonl_typed(blocks) == [
        {"s": {"p": 1, "q": [1.0, 2.5]}, "mixed": "1", "new": None},
        {"s": {"p": None, "q": None}, "mixed": '{"z":[]}', "new": None},
        {"s": None, "mixed": None, "new": True},
    ]
    assert [(r.line, r.raw) for block in blocks for r in block.rejects] == [(3, "oops")]


def test_reasons_quote_no_data() -> None:
    lines = [b'{"a":Ann}', b'{"a":' + b"7" * 5000 + b"}", b'{"Ann":1,"Ann":2}', b'["Ann"]', b'{"a":"\\uZnn"}', b'{"a":"\x01"}']
    [block] = readers_jsonl.read(iter([b"\n".join([*lines, b""])]))
    assert [reject.reason for reject in block.rejects] == [
        "not JSON from character 6 on",
        f"an integer of more than {sys.get_int_max_str_digits()} digits",
        "a key is there twice",
        "a JSON list, not an object",
        "not JSON from character 8 on",
        "not JSON from character 7 on",
    ]


def test_fractions_of_the_subject_alone_stay_as_they_are_spelled() -> None:
    [block] = readers_jsonl.read(iter([b'{"Who":7.0,"v":7.0}\n{"who":1E2}\n{"who":NaN}\n{"who":7}\n']), "who")
    assert block.rows == [{"Who": "7.0", "v": 7.0}, {"who": "1E2"}, {"who": "NaN"}, {"who": 7}]


# --- Parquet ----------------------------------------------------------------------------------------------------------------


def parquet_typed(table: pa.Table) -> tuple[pa.Table, list[Reject]]:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    parquet = readers_parquet.opened(io.BytesIO(sink.getvalue()))
    schema = schema_of(columns_of([readers_parquet.file_shapes(parquet)]))
    pieces = [readers_parquet.typed(block.rows, schema, {}) for block in readers_parquet.read(parquet)]
    return pa.Table.from_batches([batch for batch, _ in pieces]), [reject for _, found in pieces for reject in found]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, None], pa.uint8()), pa.int16()),
        (pa.array([1, 2**63], pa.uint64()), pa.decimal128(20, 0)),
        (pa.array([1, 2**62], pa.uint64()), pa.int64()),
        (pa.array([1.5, None], pa.float16()), pa.float32()),
        (pa.array(["a", None]).dictionary_encode(), pa.string()),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)), pa.list_(pa.int32())),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array([1_000, None], pa.timestamp("ns")), pa.timestamp("us")),
        (pa.array([1_001, None], pa.timestamp("ns")), pa.string()),
        (pa.array([1, None], pa.timestamp("ms", tz="Europe/Paris")), pa.timestamp("us", tz="UTC")),
        (pa.array([1, None], pa.time64("us")), pa.string()),
        (pa.array([None, None], pa.null()), pa.string()),
        (pa.array([{"x": 1}, None], pa.struct([("x", pa.uint16())])), pa.struct([("x", pa.int32())])),
    ],
)
def test_parquet_types_become_those_that_delta_holds(column: pa.Array, kind: pa.DataType) -> None:
    table, rejects = parquet_typed(pa.table({"x": column}))
    assert (table.schema.field("x").type, rejects) == (kind, [])
    if not pa.types.is_string(kind):
        assert [v if v is None else str(v) for v in table["x"].to_pylist()] == [
            v if v is None else str(v) for v in column.cast(kind).to_pylist()
        ]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**12)), max_size=9))
def test_parquet_rows_with_times_that_no_type_holds_are_rejected(counts: list[int | None]) -> None:
    """The rest is as pyarrow converts it, also inside structs."""
    times = pa.array(counts, pa.timestamp("ms"))
    nested = pa.StructArray.from_arrays([times], ["t"])
    table, rejects = parquet_typed(pa.table({"id": pa.array(range(len(counts)), pa.int64()), "t": times, "s": nested}))
    fits = [n for n, count in enumerate(counts) if count is None or -62_135_596_800_000 <= count < 253_402_300_800_000]
    kept = times.take(pa.array(fits, pa.int64())).cast(pa.timestamp("us"))
    assert table["id"].to_pylist() == fits and len(rejects) == len(counts) - len(fits)
    assert table["t"].combine_chunks().equals(kept) and table["s"].combine_chunks().field(0).equals(kept)
    assert all("0" not in reject.reason or "9999" in reject.reason for reject in rejects)


def test_parquet_rows_with_text_that_is_not_utf8_are_rejected() -> None:
    bad = pa.array([b"ok", b"A\x92s", None]).view(pa.string())
    table, rejects = parquet_typed(pa.table({"id": [1, 2, 3], "t": bad}))
    assert table.to_pylist() == [{"id": 1, "t": "ok"}, {"id": 3, "t": None}]
    assert rejects == [Reject(0, "not UTF-8", '{"id":2,"t":"A\\\\x92s"}')]
