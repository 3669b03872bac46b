"""Readers: every record of a hostile file is a row or a reject, exactly once, whatever the block size; damage stays where it
is."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import readers_csv, readers_jsonl, readers_parquet
from tasks.ingest.blocks import Block, Reject
from tasks.ingest.convert import from_text
from tasks.ingest.infer import columns_of, join_all, schema_of
from tasks.ingest.scan import records
from tasks.ingest.streams import Unreadable, byte_blocks, encoding_of, utf8_blocks

HOSTILE = st.text('ab1,";\n\r\t|é ', max_size=60).map(str.encode)
BROKEN = st.lists(
    st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"\r", b"\xff", "é".encode(), b"\0", b"1"]), max_size=50
).map(b"".join)
MARKED = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
VALUES = st.one_of(st.none(), st.text("ab\"',;\n\r 1é", max_size=6))


def split_record(record: str, separator: str) -> list[str | None]:
    """The fields of one record, None for an empty unquoted one: the slow road that the kernels are held to."""
    found = list[str | None]()
    i = 0
    while True:
        text, quoted = "", record[i : i + 1] == '"'
        if quoted:
            text, i = inside_quotes(record, i + 1)
        end = record.find(separator, i)
        text += record[i : end if end >= 0 else len(record)]
        found.append(text if text or quoted else None)
        if end < 0:
            return found
        i = end + 1


def inside_quotes(record: str, i: int) -> tuple[str, int]:
    """The text up to the closing quote, and the place after it."""
    text = ""
    while True:
        end = record.find('"', i)
        if end < 0:
            return text + record[i:], len(record)
        text += record[i:end]
        if record[end + 1 : end + 2] != '"':
            return text, end + 1
        text, i = text + '"', end + 2


def cut(data: bytes, n_bytes: int) -> Iterator[bytes]:
    return (data[i : i + n_bytes] for i in range(0, len(data), n_bytes))


PLAIN = ReadSettings(separator=",", quote='"', header=True)


def csv_rows(data: bytes, n_bytes: int = 1 << 20, options: ReadSettings = PLAIN) -> tuple[list[tuple[Any, ...]], list[Reject]]:
    rows, rejects = list[tuple[Any, ...]](), list[Reject]()
    dialect, text = readers_csv.opened(cut(data, n_bytes), options)
    for block in readers_csv.read(cut(b"".join(text), n_bytes), dialect, options):
        assert (0 if block.rows is None else block.rows.num_rows) == block.n_rows
        assert block.rows is None or len(block.lines) == block.n_rows
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
    dialect, text = readers_csv.opened(iter([data]), PLAIN)
    [block] = readers_csv.read(text, dialect)
    columns = columns_of([readers_csv.shapes(block.rows)])
    schema, known = schema_of(columns), dict(columns)
    batch, _ = readers_csv.typed(block.rows, schema, known)
    batch.validate(full=True)
    expected = from_text(pa.array(cells, pa.string()), schema.field("n").type, known["n"].mask)
    assert batch.column("n").equals(expected) and repr(batch.column("n").to_pylist()) == repr(expected.to_pylist())


@given(st.one_of(HOSTILE, BROKEN), st.integers(0, 9))
def test_lines_are_those_of_the_file(body: bytes, n_before: int) -> None:
    """Counted from wherever the text is said to start; each row and each reject stands on a line of its own."""
    dialect, text = readers_csv.opened(iter([b"x,y\n" + body]), PLAIN)
    blocks = list(readers_csv.read(text, dialect, line=n_before))
    found = [int(n) for block in blocks if block.lines is not None for n in block.lines]
    found += [reject.line for block in blocks for reject in block.rejects]
    ends = len(re.findall(rb"\r\n|\n|\r", body))
    assert len(set(found)) == len(found) and all(n_before <= n <= n_before + ends for n in found)


@given(HOSTILE, HOSTILE)
def test_a_file_cut_at_a_line_is_read_in_two_parts_or_says_that_a_quote_is_open(one: bytes, two: bytes) -> None:
    data = b"x,y\n" + one + b"\n" + two
    dialect, _ = readers_csv.opened(iter([data]), PLAIN)
    place = len(b"x,y\n" + one + b"\n")
    parts = [list(readers_csv.read(iter([part]), dialect)) for part in (data[dialect.header_bytes : place], data[place:])]
    is_open = any(reject.reason == readers_csv.OPEN_QUOTE for block in parts[0] for reject in block.rejects)
    rows = [tuple(c[i].as_py() for c in block.rows.columns) for part in parts for block in part for i in range(block.n_rows)]
    assert is_open or rows == csv_rows(data)[0]


@pytest.mark.parametrize("data", [b'"a\n1\n', b"a\0b\n1\n"])
def test_a_header_that_cannot_be_read_says_so(data: bytes) -> None:
    with pytest.raises(Unreadable):
        readers_csv.opened(iter([data]), ReadSettings())


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_file_without_a_line_has_no_columns_and_no_rows(data: bytes) -> None:
    dialect, text = readers_csv.opened(iter([data] if data else []), ReadSettings())
    assert dialect.names == () and list(readers_csv.read(text, dialect)) == []


def test_a_header_longer_than_what_is_looked_at_first_is_read_to_its_end() -> None:
    names = [f"column {n}" for n in range(60_000)]
    data = ",".join(names).encode() + b"\n" + b",".join([b"7"] * len(names)) + b"\n"
    dialect, text = readers_csv.opened(cut(data, 1 << 18), ReadSettings())
    [block] = readers_csv.read(text, dialect)
    assert (list(dialect.names), block.n_rows, dialect.header_lines) == (names, 1, 1)


def test_a_field_may_be_huge() -> None:
    field = b"x" * (9 << 20)
    rows, rejects = csv_rows(b'x,y\n1,"' + field + b'\n"\n2,b\n')
    assert [len(row[1]) for row in rows] == [len(field) + 1, 1] and rejects == []


def test_comments_that_are_told_of_are_no_records() -> None:
    rows, rejects = csv_rows(b'# x\nx,y\n#1,2\n3,"#\n# no comment"\n', options=PLAIN.model_copy(update={"comment": "#"}))
    assert (rows, rejects) == ([("3", "#\n# no comment")], [])


# --- encodings and compression ------------------------------------------------------------------------------------------------


def test_every_byte_of_windows_1252_is_a_character() -> None:
    """Letters as Windows-1252 has them, its five gaps as Latin-1 has them: nothing is lost."""
    every = bytes(range(256))
    text = b"".join(utf8_blocks(iter([every]), "cp1252")).decode()
    assert text == "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in every)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.sampled_from(MARKED), st.integers(1, 9))
def test_text_is_read_in_any_encoding_with_a_mark(text: str, encoding: str, n_bytes: int) -> None:
    assume(not text.startswith("\0"))  # behind the mark of UTF-16, two NULs make that of UTF-32
    data = ("\ufeff" + text).encode(encoding)
    first, rest = data[:4], data[4:]
    assert b"".join(utf8_blocks(iter([first, *cut(rest, n_bytes)]))) == text.encode()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1250", "shift_jis", "gb18030", "utf-16", "utf-16-le", "utf-32-be", "utf8"])
def test_text_is_read_in_the_encoding_that_is_told(encoding: str) -> None:
    text = "x,y\nA,ß\n" if encoding in ("latin-1", "cp1250") else "x,y\nA,キ\n"
    assert b"".join(utf8_blocks(cut(text.encode(encoding), 5), encoding)) == text.encode()


def test_utf16_without_a_mark_is_known_where_it_can_be_nothing_else() -> None:
    text = "имя,n\nАнна,1\n"
    assert [encoding_of(text.encode(e)) for e in ("utf-16-le", "utf-16-be", "utf-8")] == ["utf-16-le", "utf-16-be", "utf-8"]
    assert encoding_of(b"a\0b\n1\n") == encoding_of(bytes(range(256))) == "utf-8"


@pytest.mark.parametrize("name", ["utf-99", "base64", "rot13", "a\0b", "nonsense"])
def test_an_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="encoding = "):
        encoding_of(b"", name)


@pytest.mark.parametrize(
    ("encoding", "bad", "shown"),
    [("shift_jis", b"\x81\n", "2,\\x81"), ("cp1250", b"\x81\n", "2,\\x81"), ("utf-16-le", b"\x00\xd8\n\0", "2,\\x00\\xd8")],
)
def test_a_line_with_bytes_that_are_no_characters_is_rejected_alone(encoding: str, bad: bytes, shown: str) -> None:
    data = "x,y\n1,a\n2,".encode(encoding) + bad + "3,c\n".encode(encoding)
    rows, rejects = csv_rows(data, options=PLAIN.model_copy(update={"encoding": encoding}))
    assert rows == [("1", "a"), ("3", "c")]
    assert rejects == [Reject(3, f"not {encoding}", shown)]


BODY = b"".join(b"%d,%d,text %d\n" % (n, n * n % 1009, n % 7) for n in range(40_000))
PACKED = {"gzip": gzip.compress(BODY), "bz2": bz2.compress(BODY), "zstd": pa.compress(BODY, "zstd", asbytes=True)}


def unpacked(data: bytes, codec: str) -> tuple[bytes, bool]:
    pieces, is_broken = list[bytes](), False
    try:
        for block in byte_blocks(io.BytesIO(data), codec):
            pieces.append(block)
    except Unreadable:
        is_broken = True
    return b"".join(pieces), is_broken


@pytest.mark.parametrize("codec", ["gzip", "bz2", "zstd"])
def test_whole_streams_are_read_and_so_are_several_in_one_file(codec: str) -> None:
    assert unpacked(PACKED[codec], codec) == (BODY, False)
    assert unpacked(PACKED[codec] * 3, codec) == (BODY * 3, False)
    assert unpacked(b"", codec) == (b"", False)


def test_padding_after_a_gzip_stream_is_nothing_and_rubbish_is_said() -> None:
    assert unpacked(PACKED["gzip"] + bytes(99), "gzip") == (BODY, False)
    assert unpacked(PACKED["gzip"] + b"rubbish", "gzip") == (BODY, True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, len(PACKED["gzip"]) - 1))
def test_a_gzip_cut_short_gives_all_that_decodes(n_bytes: int) -> None:
    whole = zlib.decompressobj(31).decompress(PACKED["gzip"][:n_bytes])
    assert unpacked(PACKED["gzip"][:n_bytes], "gzip") == (whole, True)


@settings(max_examples=20, deadline=None)
@given(st.integers(20, len(PACKED["gzip"]) - 10), st.integers(1, 255))
def test_a_damaged_gzip_gives_all_that_decodes_before_the_damage(place: int, flip: int) -> None:
    data = bytearray(PACKED["gzip"])
    data[place] ^= flip
    found, is_broken = unpacked(bytes(data), "gzip")
    intact = zlib.decompressobj(31).decompress(PACKED["gzip"][:place])
    assert is_broken and found.startswith(intact)


@pytest.mark.parametrize("codec", ["bz2", "zstd"])
@pytest.mark.parametrize("cut_off", [1, 2_000, 40_000])
def test_another_stream_cut_short_gives_its_whole_blocks(codec: str, cut_off: int) -> None:
    found, is_broken = unpacked(PACKED[codec] * 2 + PACKED[codec][:-cut_off], codec)
    assert is_broken and (BODY * 3).startswith(found) and len(found) > 2 * len(BODY) - (16 << 10)


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
