"""Row hashes: the slow oracle below (plain integers over Arrow scalars), the laws, and every equality trap."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import math
import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import rowhash
from infra.rowhash import UnhashableColumn, cell_hashes, finish, row_hashes, row_ids, row_sums

KEY = b"a key of this test, thirty-two b"
MASK = (1 << 64) - 1


# --- the oracle ----------------------------------------------------------------------------------------------------------------


def oracle_keys(path: tuple[str, ...], tag: str) -> list[list[int]]:
    secret = hashlib.blake2b(KEY, digest_size=32, person=b"lethe/rowhash").digest()
    message = b"".join(len(part.encode()).to_bytes(8, "little") + part.encode() for part in (tag, *path))
    words = struct.unpack("<8Q", hashlib.blake2b(message, key=secret, digest_size=64).digest())
    return [[start, odd | 1, odd_too | 1, end] for start, odd, odd_too, end in (words[:4], words[4:])]


def oracle_mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def oracle_hash(path: tuple[str, ...], tag: str, lanes: list[list[int]]) -> list[int]:
    """The hash of a sequence of words, given apart for each lane."""
    hashes: list[int] = []
    for (start, odd, odd_too, end), words in zip(oracle_keys(path, tag), lanes, strict=True):
        h = start
        for word in (w & MASK for w in words):
            x = (h ^ (word ^ word >> 47) * odd & MASK) * odd_too & MASK
            h = x ^ x >> 32
        hashes.append(oracle_mix(h ^ end))
    return hashes


def oracle_plain(path: tuple[str, ...], tag: str, *words: int) -> list[int]:
    return oracle_hash(path, tag, [list(words), list(words)])


def oracle_exact(path: tuple[str, ...], unscaled: int, scale: int) -> list[int]:
    """An integer or a decimal."""
    while unscaled and unscaled % 10 == 0:
        unscaled, scale = unscaled // 10, scale - 1
    value = unscaled * 10**-scale if scale <= 0 else None
    if value is not None and -(1 << 63) <= value < 1 << 63:
        return oracle_plain(path, "integer", value)
    if unscaled == 0:
        return oracle_plain(path, "integer", 0)
    magnitude = abs(unscaled)
    limbs = [magnitude >> shift & 0xFFFFFFFF for shift in range(0, magnitude.bit_length(), 32)]
    return oracle_plain(path, "decimal", scale << 16 | len(limbs) << 1 | (unscaled < 0), *limbs)


def oracle_float(path: tuple[str, ...], value: float) -> list[int]:
    if math.isfinite(value) and value == int(value) and -(1 << 63) <= int(value) < 1 << 63:
        return oracle_plain(path, "integer", int(value))
    bits = 0x7FF8000000000000 if math.isnan(value) else struct.unpack("<Q", struct.pack("<d", value))[0]
    return oracle_plain(path, "float", bits)


def oracle_bytes(path: tuple[str, ...], tag: str, value: bytes) -> list[int]:
    n = len(value)
    words = [int.from_bytes(value[i : i + 8], "little") for i in range(0, n - 7, 8)]
    if n > 8 and n % 8:
        words.append(int.from_bytes(value[-8:], "little"))
    elif 4 <= n < 8:
        words.append(int.from_bytes(value[:4] + value[-4:], "little"))
    elif 0 < n < 4:
        words.append(int.from_bytes(bytes([value[0], value[n // 2], value[-1]]), "little"))
    return oracle_plain(path, tag, n, *words)


def oracle_list(path: tuple[str, ...], elements: list[list[int]]) -> list[int]:
    return oracle_hash(path, "list", [[len(elements), *(e[lane] for e in elements)] for lane in range(2)])


def oracle_struct(path: tuple[str, ...], fields: list[list[int]]) -> list[int]:
    return oracle_hash(path, "struct", [[sum(f[lane] for f in fields) & MASK] for lane in range(2)])


def oracle_instant(path: tuple[str, ...], cell: Any) -> list[int]:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[cell.type.unit]
    seconds, rest = divmod(cell.value, per_second)
    tag = "duration" if pa.types.is_duration(cell.type) else "time"
    if pa.types.is_timestamp(cell.type):
        tag = "timestamp with zone" if cell.type.tz else "timestamp"
    return oracle_plain(path, tag, seconds, rest * (10**9 // per_second))


def oracle_cell(cell: Any, path: tuple[str, ...] = ("c",)) -> list[int]:
    kind, t = cell.type, pa.types
    if not cell.is_valid:
        return [0, 0]
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return oracle_cell(cell.value if t.is_dictionary(kind) else pa.scalar(cell.as_py(), kind.value_type), path)
    if t.is_struct(kind):
        return oracle_struct(path, [oracle_cell(value, (*path, "." + name.lower())) for name, value in cell.items()])
    if t.is_map(kind):
        return oracle_list(path, [oracle_entry(entry, (*path, "[]")) for entry in cell.values])
    if t.is_nested(kind):
        return oracle_list(path, [oracle_cell(element, (*path, "[]")) for element in cell.values])
    return oracle_leaf(cell, path)


def oracle_leaf(cell: Any, path: tuple[str, ...]) -> list[int]:
    kind, t = cell.type, pa.types
    if t.is_timestamp(kind) or t.is_time(kind) or t.is_duration(kind):
        return oracle_instant(path, cell)
    value = cell.as_py()
    if t.is_boolean(kind):
        return oracle_plain(path, "boolean", value)
    if t.is_integer(kind):
        return oracle_exact(path, value, 0)
    if t.is_floating(kind):
        return oracle_float(path, float(value))
    if t.is_decimal(kind):
        sign, digits, exponent = value.as_tuple()
        return oracle_exact(path, (-1) ** sign * int("".join(map(str, digits))), -exponent)
    if t.is_date(kind):
        return oracle_plain(path, "date", (value - dt.date(1970, 1, 1)).days)
    if isinstance(value, str):
        return oracle_bytes(path, "string", value.encode())
    return oracle_bytes(path, "binary", value)


def oracle_entry(entry: Any, path: tuple[str, ...]) -> list[int]:
    key, value = entry.values()
    return oracle_struct(path, [oracle_cell(key, (*path, ".key")), oracle_cell(value, (*path, ".value"))])


def oracle(array: pa.Array) -> np.ndarray:
    return np.array([oracle_cell(cell) for cell in array], np.uint64).reshape(-1, 2)


# --- arrays of every type ------------------------------------------------------------------------------------------------------

INT_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
DECIMALS = [pa.decimal32(7, 2), pa.decimal64(15, 3), pa.decimal128(38, 4), pa.decimal128(20, 0), pa.decimal256(70, 5)]
UNITS = ["s", "ms", "us", "ns"]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]
BLOB_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]


def integers(kind: Any) -> st.SearchStrategy[int]:
    signed = pa.types.is_signed_integer(kind)
    low, high = (-(1 << kind.bit_width - 1), (1 << kind.bit_width - 1) - 1) if signed else (0, (1 << kind.bit_width) - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0]))


def decimals(kind: Any) -> st.SearchStrategy[Decimal]:
    top = 10**kind.precision - 1
    ends = [0, 10**kind.scale, -(10**kind.scale), top, -top, 10 ** (kind.precision - 1)]
    unscaled = st.one_of(st.integers(-top, top), st.integers(-999, 999), st.sampled_from(ends))
    return unscaled.map(lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -kind.scale)))


def instants(kind: Any) -> st.SearchStrategy[int]:
    if pa.types.is_time(kind):
        return st.integers(0, 86_399)
    return st.one_of(st.integers(-(1 << 62), 1 << 62), st.integers(-3, 3))


def leaves() -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    times = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
    moments = [pa.timestamp(u) for u in UNITS] + [pa.timestamp(u, "UTC") for u in UNITS] + [pa.duration(u) for u in UNITS]
    dates = st.dates(dt.date(1800, 1, 1), dt.date(2200, 1, 1))
    pairs: list[tuple[Any, Any]] = [
        *((kind, integers(kind)) for kind in INT_TYPES),
        *((kind, st.floats(width=kind.bit_width)) for kind in (pa.float16(), pa.float32(), pa.float64())),
        (pa.float64(), st.integers(-(1 << 66), 1 << 66).map(float)),
        *((kind, decimals(kind)) for kind in DECIMALS),
        (pa.bool_(), st.booleans()),
        *((kind, dates) for kind in (pa.date32(), pa.date64())),
        *((kind, instants(kind)) for kind in times + moments),
        *((kind, st.text(max_size=20)) for kind in TEXT_TYPES),
        *((kind, st.binary(max_size=30)) for kind in BLOB_TYPES),
        (pa.binary(5), st.binary(min_size=5, max_size=5)),
    ]
    return st.integers(0, len(pairs) - 1).map(pairs.__getitem__)


def nested(inner: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    def lists(pair: tuple[Any, Any]) -> st.SearchStrategy[tuple[Any, Any]]:
        kind, values = pair
        several, two = st.lists(st.none() | values, max_size=4), st.lists(st.none() | values, min_size=2, max_size=2)
        variable = [pa.list_(kind), pa.large_list(kind), pa.list_view(kind), pa.large_list_view(kind)]
        return st.sampled_from([*variable, pa.list_(kind, 2)]).map(
            lambda t: (t, two if pa.types.is_fixed_size_list(t) else several)
        )

    def structs(pairs: tuple[tuple[Any, Any], tuple[Any, Any]]) -> tuple[Any, Any]:
        (a, a_values), (b, b_values) = pairs
        values = st.fixed_dictionaries({"a": st.none() | a_values, "B": st.none() | b_values})
        return pa.struct([("a", a), ("B", b)]), values

    def maps(pair: tuple[Any, Any]) -> tuple[Any, Any]:
        kind, values = pair
        return pa.map_(pa.string(), kind), st.lists(st.tuples(st.text(max_size=3), st.none() | values), max_size=3)

    return inner.flatmap(lists) | st.tuples(inner, inner).map(structs) | inner.map(maps)


KINDS = st.one_of(leaves(), nested(leaves()), nested(nested(leaves())))


@st.composite
def arrays(draw: st.DrawFn, kinds: st.SearchStrategy[tuple[Any, Any]] = KINDS) -> pa.Array:
    """An array of any type, often a slice of a longer one."""
    kind, values = draw(kinds)
    array = pa.array(draw(st.lists(st.none() | values, max_size=12)), kind)
    start = draw(st.integers(0, len(array)))
    return array.slice(start, draw(st.integers(0, len(array) - start)))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def hashed(values: list[Any], kind: Any, column: str = "c") -> np.ndarray:
    return cell_hashes(pa.array(values, kind), column, KEY)


# --- laws ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(arrays())
@settings(max_examples=400, deadline=None)
def test_hashes_equal_the_oracle(array: pa.Array) -> None:
    assert same(cell_hashes(array, "C", KEY), oracle(array))


@given(arrays(), st.data())
@settings(max_examples=100, deadline=None)
def test_slices_and_chunks_change_nothing(array: pa.Array, data: st.DataObject) -> None:
    whole = cell_hashes(array, "c", KEY)
    cut = data.draw(st.integers(0, len(array)))
    head, tail = array.slice(0, cut), array.slice(cut)
    assert same(cell_hashes(tail, "c", KEY), whole[cut:])
    assert same(cell_hashes(pa.chunked_array([head, tail.slice(0, 0), tail], array.type), "c", KEY), whole)
    assert same(cell_hashes(pa.concat_arrays([tail, head]), "c", KEY), np.concatenate([whole[cut:], whole[:cut]]))


@given(arrays(), st.lists(st.none() | st.integers(0, 11), max_size=30), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_dictionaries_hash_as_their_values(values: pa.Array, picks: list[int | None], start: int) -> None:
    indices = pa.array([None if p is None or not len(values) else p % len(values) for p in picks], pa.int8())
    encoded = pa.DictionaryArray.from_arrays(indices, values).slice(min(start, len(picks)))
    expected = np.array(
        [[0, 0] if p is None else cell_hashes(values, "c", KEY)[p] for p in encoded.indices.to_pylist()], np.uint64
    )
    assert same(cell_hashes(encoded, "c", KEY), expected.reshape(-1, 2))


@given(arrays(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_short_slice_of_a_long_dictionary_is_its_values(values: pa.Array, data: st.DataObject) -> None:
    pick = data.draw(st.integers(0, max(0, len(values) - 1)))
    encoded = pa.DictionaryArray.from_arrays(pa.array([pick][: len(values)], pa.uint16()), values)
    assert same(cell_hashes(encoded, "c", KEY), cell_hashes(values, "c", KEY)[pick : pick + 1])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    n = draw(st.integers(0, 8))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True)):
        kind, values = draw(leaves())
        columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=n, max_size=n)), kind)
    return pa.table(columns)


@given(tables(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_column_order_is_free_and_sums_add_up(table: pa.Table, random: Any) -> None:
    names = table.column_names
    expected = row_hashes(table, names, KEY)
    shuffled = random.sample(names, len(names))
    assert same(row_hashes(table, shuffled, KEY), expected)
    cut = random.randint(0, len(names))
    parts = row_sums(table, shuffled[:cut], KEY) + row_sums(table, shuffled[cut:], KEY)
    assert same(finish(parts), expected)
    nothing = table.append_column("n", pa.nulls(len(table), pa.string())).append_column("z", pa.nulls(len(table)))
    assert same(row_hashes(nothing, nothing.column_names, KEY), expected)


@given(tables(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_permutation_of_rows_permutes_the_hashes(table: pa.Table, random: Any) -> None:
    order = random.sample(range(len(table)), len(table))
    rows = [table.slice(i, 1) for i in order]  # Arrow has no `take` for string views
    moved = pa.concat_tables(rows) if rows else table
    assert same(row_hashes(moved, table.column_names, KEY), row_hashes(table, table.column_names, KEY)[order])


def test_a_batch_and_a_table_of_many_chunks_agree() -> None:
    batch = pa.record_batch({"a": pa.array([1, None, 3]), "b": pa.array(["x", "y", None])})
    table = pa.Table.from_batches([batch, batch.slice(1), batch.slice(0, 0)])
    one = row_hashes(batch, ["a", "b"], KEY)
    assert same(row_hashes(table, ["b", "a"], KEY), np.concatenate([one, one[1:]]))
    assert row_hashes(batch, [], KEY).tolist() == finish(np.zeros((3, 2), np.uint64)).tolist()


# --- what is equal -------------------------------------------------------------------------------------------------------------

D = Decimal
NOON = dt.datetime(2024, 2, 29, 12, 30, 1)
EQUAL: dict[str, tuple[tuple[list[Any], Any], ...]] = {
    "integers of any width": tuple(([0, 7, None], kind) for kind in INT_TYPES),
    "negative integers": tuple(([-1, -128], kind) for kind in INT_TYPES[:4]),
    "integral floats are integers": (
        *(([-2, 0, 1024], kind) for kind in INT_TYPES[1:4]),
        *(([-2.0, -0.0, 1024.0], kind) for kind in (pa.float16(), pa.float32(), pa.float64())),
        ([D(-2), D(0), D("1024.00")], pa.decimal128(9, 2)),
    ),
    "below 2^53 a double is its integer": (([2**53 - 1, -(2**53)], pa.int64()), ([2.0**53 - 1, -(2.0**53)], pa.float64())),
    "the ends of int64": (([-(2**63)], pa.int64()), ([-(2.0**63)], pa.float64()), ([D(-(2**63))], pa.decimal128(38, 3))),
    "beyond int64": (
        ([2**63 + 10], pa.uint64()),
        ([D(2**63 + 10)], pa.decimal128(30, 2)),
        ([D(2**63 + 10)], pa.decimal256(60, 0)),
    ),
    "zeros": (([0.0], pa.float64()), ([-0.0], pa.float64()), ([-0.0], pa.float32()), ([D("0.00")], pa.decimal128(5, 2))),
    "float32 widened": (([0.1], pa.float32()), ([float(np.float32(0.1))], pa.float64())),
    "rescaled decimals": (
        ([D("1.10"), D("-99.99")], pa.decimal128(10, 2)),
        ([D("1.100"), D("-99.990")], pa.decimal128(12, 3)),
        ([D("1.1000"), D("-99.9900")], pa.decimal256(50, 4)),
        ([D("1.10"), D("-99.99")], pa.decimal64(10, 2)),
        ([D("1.10"), D("-99.99")], pa.decimal32(6, 2)),
    ),
    "naive instants": tuple(([NOON], pa.timestamp(unit)) for unit in UNITS),
    "instants with a zone": (
        *(([NOON], pa.timestamp(unit, "UTC")) for unit in UNITS),
        ([NOON], pa.timestamp("us", "Asia/Tokyo")),
    ),
    "before the epoch": (([-1500], pa.timestamp("ms")), ([-1_500_000_000], pa.timestamp("ns"))),
    "instants that ns cannot hold": (([2**40], pa.timestamp("s")), ([2**40 * 1000], pa.timestamp("ms"))),
    "durations": (([-3], pa.duration("s")), ([-3000], pa.duration("ms")), ([-3 * 10**9], pa.duration("ns"))),
    "times": (([dt.time(23, 59, 59)], pa.time32("s")), ([dt.time(23, 59, 59)], pa.time64("ns"))),
    "dates": (([dt.date(1969, 12, 30)], pa.date32()), ([dt.date(1969, 12, 30)], pa.date64())),
    "strings": tuple((["", "é", "a longer string, of 31 letters."], kind) for kind in TEXT_TYPES),
    "binary": (*((["", b"\xff\x00"], kind) for kind in BLOB_TYPES),),
    "binary of fixed size": (([b"ab", None], pa.binary(2)), ([b"ab", None], pa.binary())),
    "lists": (
        ([[1, None], None, [2, 3]], pa.list_(pa.int64())),
        ([[1, None], None, [2, 3]], pa.large_list(pa.int8())),
        ([[1, None], None, [2, 3]], pa.list_(pa.float32(), 2)),
        ([[1, None], None, [2, 3]], pa.list_view(pa.int64())),
        ([[1, None], None, [2, 3]], pa.large_list_view(pa.int64())),
    ),
    "structs whatever the order and case of fields": (
        ([{"a": 1, "b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{"B": "x", "A": 1}], pa.struct([("B", pa.large_string()), ("A", pa.int8())])),
    ),
    "maps": (
        ([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        ([[("k", 1)], None, []], pa.map_(pa.large_string(), pa.float64())),
        ([[("k", 1)], None, []], pa.map_(pa.field("K", pa.string(), nullable=False), pa.field("v", pa.int64()))),
        ([[{"key": "k", "value": 1}], None, []], pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_hash_alike(name: str) -> None:
    first, *others = (hashed(values, kind) for values, kind in EQUAL[name])
    assert all(same(first, other) for other in others)
    assert first.any()


def test_every_nan_is_one() -> None:
    patterns = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], np.uint64)
    hashes = cell_hashes(pa.array(patterns.view(np.float64)), "c", KEY)
    assert same(hashes[:1], hashes[1:2]) and same(hashes[:1], hashes[2:])
    assert same(hashes[:1], hashed([float("nan")], pa.float32())) and not same(hashes[:1], hashed([math.inf], pa.float64()))


def test_runs_and_extensions_hash_as_their_values() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 5]), pa.array(["x", None, "y"]))
    plain = hashed(["x", "x", None, "y", "y"], pa.string())
    assert same(cell_hashes(runs, "c", KEY), plain) and same(cell_hashes(runs.slice(1, 3), "c", KEY), plain[1:4])
    ids = pa.array([b"0123456789abcdef", None], pa.binary(16))
    assert same(cell_hashes(pa.ExtensionArray.from_storage(pa.uuid(), ids), "c", KEY), cell_hashes(ids, "c", KEY))


def test_column_names_hash_without_case_and_matter() -> None:
    assert same(hashed([1], pa.int64(), "Größe"), hashed([1], pa.int64(), "gRÖßE"))
    assert not same(hashed([1], pa.int64(), "a"), hashed([1], pa.int64(), "b"))
    assert not same(hashed([1], pa.int64()), cell_hashes(pa.array([1]), "c", b"another key"))


# --- what is not ---------------------------------------------------------------------------------------------------------------

ONE_X = pa.struct([("x", pa.int64())])
DIFFERENT: dict[str, tuple[tuple[Any, Any], ...]] = {
    "2^53+1 is not 2^53": ((2**53 + 1, pa.int64()), (2.0**53, pa.float64())),
    "2^63 as float is not the end of int64": ((2.0**63, pa.float64()), (2**63 - 1, pa.int64()), (-(2**63), pa.int64())),
    "float32 0.1 is not 0.1": ((0.1, pa.float32()), (0.1, pa.float64()), (0.1, pa.float16())),
    "NULL, '' and ' '": ((None, pa.string()), ("", pa.string()), (" ", pa.string()), ("\0", pa.string()), ("\0\0", pa.string())),
    "NFC is not NFD": (("\u00e9", pa.string()), ("e\u0301", pa.string())),
    "NULL, {x: NULL}, []": ((None, ONE_X), ({"x": None}, ONE_X), ([], pa.list_(pa.int64())), ([None], pa.list_(pa.int64()))),
    "lists": tuple((v, pa.list_(pa.int64())) for v in ([], [None], [None, None], [1], [1, None], [None, 1], [1, 2], [2, 1])),
    "how lists nest": tuple(
        (v, pa.list_(pa.list_(pa.int64()))) for v in ([[1], [2]], [[1, 2]], [[1, 2], []], [[], [1, 2]], [None, [1, 2]])
    ),
    "a bool is no number": ((True, pa.bool_()), (1, pa.int64()), ("true", pa.string()), ("1", pa.string()), (b"1", pa.binary())),
    "naive is not with zone": ((NOON, pa.timestamp("us")), (NOON, pa.timestamp("us", "UTC"))),
    "a date is no instant": (
        (0, pa.date32()),
        (0, pa.timestamp("s")),
        (0, pa.time32("s")),
        (0, pa.duration("s")),
        (0, pa.int32()),
    ),
    "one nanosecond": tuple((n, pa.timestamp("ns")) for n in (0, 1, 10**9, -1)),
    "decimals": tuple(
        (D(v), pa.decimal128(38, 5)) for v in ("0.1", "0.01", "-0.1", "1", "0.10001", "123456789012345678901234567890.1")
    ),
    "big decimals": tuple((D(v), pa.decimal128(38, 0)) for v in (2**63, 2**63 * 10, -(2**63) - 1, 2**100, 2**100 + 1)),
    "which field": tuple(
        (v, pa.struct([("x", pa.int64()), ("y", pa.int64())])) for v in ({"x": 1}, {"y": 1}, {"x": 1, "y": 1}, {})
    ),
    "order in a map": tuple(
        (v, pa.map_(pa.string(), pa.int64())) for v in ([("a", 1), ("b", 2)], [("a", 2), ("b", 1)], [("b", 2), ("a", 1)])
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_values_hash_apart_in_both_lanes(name: str) -> None:
    hashes = np.concatenate([hashed([value], kind) for value, kind in DIFFERENT[name]])
    assert all(len(set(hashes[:, lane].tolist())) == len(hashes) for lane in range(2))


@pytest.mark.parametrize("n_distinct", [3, 300, 20_000])
def test_texts_that_come_back_hash_as_they_did(n_distinct: int) -> None:
    """Few, more than are remembered, and too many to remember any; a dictionary hashes each once."""
    picks = np.random.default_rng(0).integers(0, n_distinct, 20_000)
    texts = pa.array([None if i % 11 == 10 else "x" * (i % 23) + str(i) for i in picks.tolist()] + ["", "\0", "\0\0"])
    assert np.array_equal(cell_hashes(texts, "t", KEY), cell_hashes(texts.dictionary_encode(), "t", KEY))
    alone = [cell_hashes(texts.slice(i, 1), "t", KEY)[0] for i in range(0, len(texts), 97)]
    assert np.array_equal(cell_hashes(texts, "t", KEY)[::97], np.array(alone))


def test_null_adds_nothing_to_the_row() -> None:
    assert hashed([None, None], pa.string()).tolist() == [[0, 0], [0, 0]]
    assert hashed([None], pa.null()).tolist() == [[0, 0]]


def test_cells_do_not_run_together() -> None:
    rows = pa.table({"a": ["x|", "x", "x|y", ""], "b": ["y", "|y", "", "x|y"]})
    assert len({tuple(h) for h in row_hashes(rows, ["a", "b"], KEY).tolist()}) == 4


def test_cells_swapped_between_rows_are_seen() -> None:
    """Both tables have the same columns as multisets; only whole rows tell them apart."""
    one = pa.table({"a": [1, 2], "b": ["x", "y"]})
    two = pa.table({"a": [1, 2], "b": ["y", "x"]})
    assert not {tuple(h) for h in row_hashes(one, ["a", "b"], KEY).tolist()} & {
        tuple(h) for h in row_hashes(two, ["a", "b"], KEY).tolist()
    }


# --- the shape of the numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [8, 13, 16])
def test_no_one_or_two_flipped_bits_collide(length: int) -> None:
    """A step with one multiplication fails here: the top bit of one word is undone by two bits of the next, under every key."""
    flips = itertools.chain([()], *(itertools.combinations(range(8 * length), n) for n in (1, 2)))
    values = {sum(1 << bit for bit in bits) for bits in flips} | {1 << 63 | 1 << 95 | 1 << 127, 1 << 63 | 1 << 95}
    blobs = [v.to_bytes(16, "little")[:length] for v in sorted(values)]
    hashes = cell_hashes(pa.array(sorted(set(blobs))), "c", KEY)
    assert all(len(np.unique(hashes[:, lane])) == len(set(blobs)) for lane in range(2))


def test_lanes_of_regular_rows_are_unique_and_look_random() -> None:
    n = 300
    table = pa.table({"a": np.repeat(np.arange(n), n), "b": np.tile(np.arange(n), n)})
    hashes = row_hashes(table, ["a", "b"], KEY)
    cells = cell_hashes(table["a"], "a", KEY)
    assert not (cells[:, 0] == cells[:, 1]).any()
    for lane in (hashes[:, 0], hashes[:, 1], hashes[:, 0] ^ hashes[:, 1]):
        assert len(np.unique(lane)) == n * n
        bits = np.unpackbits(np.ascontiguousarray(lane).view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 5 * 0.5 / n
    low_bytes = np.bincount((hashes[:, 0] & np.uint64(15)) << np.uint64(4) | hashes[:, 1] & np.uint64(15), minlength=256)
    chi_square = float(((low_bytes - n * n / 256) ** 2 / (n * n / 256)).sum())
    assert chi_square < 255 + 5 * math.sqrt(2 * 255)


def test_each_lane_of_finish_depends_on_both_and_keeps_its_input() -> None:
    sums = np.array([[5, 9]], np.uint64)
    before = finish(sums)
    for lane, bit in itertools.product(range(2), range(64)):
        flipped = sums.copy()
        flipped[0, lane] ^= np.uint64(1 << bit)
        changed = (finish(flipped) ^ before)[0]
        assert all(12 <= int(word).bit_count() <= 52 for word in changed)
    assert sums.tolist() == [[5, 9]]


def test_row_ids_are_63_bits_of_table_and_hash() -> None:
    hashes = row_hashes(pa.table({"a": np.arange(20_000)}), ["a"], KEY)
    ids = row_ids("people", hashes, KEY)
    assert ids.dtype == np.int64 and ids.min() >= 0 and len(np.unique(ids)) == len(ids)
    assert abs(float((ids >> 62).mean()) - 0.5) < 0.02
    assert not np.intersect1d(ids, row_ids("other", hashes, KEY)).size
    assert not np.intersect1d(ids, row_ids("people", hashes, b"another key")).size
    for lane in range(2):
        changed = hashes.copy()
        changed[:, lane] ^= np.uint64(1)
        assert not np.intersect1d(ids, row_ids("people", changed, KEY)).size
    assert row_ids("people", hashes[:0], KEY).shape == (0,)


def test_hashes_are_the_same_on_every_machine() -> None:
    """Stored ids and digests stand on these numbers: a change here makes every lake ingest again."""
    table = pa.table({"id": [1, None], "name": ["Ada", "Grace"], "score": [0.5, 1e300]})
    hashes = row_hashes(table, ["id", "name", "score"], b"0123456789abcdef0123456789abcdef")
    assert hashes.tolist() == GOLDEN_HASHES
    assert row_ids("people", hashes, b"0123456789abcdef0123456789abcdef").tolist() == GOLDEN_IDS


GOLDEN_HASHES = [[2299467209223999561, 2181938034115013437], [2743142929681947805, 15766123596660268245]]
GOLDEN_IDS = [2576090605859259048, 8195201693446844554]


# --- buffers as Arrow really hands them over -----------------------------------------------------------------------------------


def test_list_views_may_overlap_and_lie_in_any_order() -> None:
    views = pa.ListViewArray.from_arrays(pa.array([2, 0, 1], pa.int32()), pa.array([1, 3, 2], pa.int32()), pa.array([5, 6, 7]))
    lists = hashed([[7], [5, 6, 7], [6, 7]], pa.list_(pa.int64()))
    assert same(cell_hashes(views, "c", KEY), lists) and same(cell_hashes(views.slice(2), "c", KEY), lists[2:])


def test_what_lies_under_a_null_does_not_count() -> None:
    mask = np.array([False, True, False])
    assert same(
        cell_hashes(pa.array(np.array([1, 2, 3]), mask=mask), "c", KEY),
        cell_hashes(pa.array(np.array([1, 9, 3]), mask=mask), "c", KEY),
    )
    hidden = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4], pa.int32()), pa.array([1, 2, 2, 3]), mask=pa.array(mask))
    assert same(cell_hashes(hidden, "c", KEY), hashed([[1], None, [3]], pa.list_(pa.int64())))
    struct_hidden = pa.StructArray.from_arrays([pa.array([1, 2, 3])], names=["x"], mask=pa.array(mask))
    assert same(cell_hashes(struct_hidden, "c", KEY), hashed([{"x": 1}, None, {"x": 3}], ONE_X))


def test_unaligned_buffers_are_read() -> None:
    values = np.arange(-3, 5, dtype=np.int64)
    buffer = pa.py_buffer(b"." + values.tobytes()).slice(1)
    unaligned = pa.Array.from_buffers(pa.int64(), len(values), [None, buffer])
    assert same(cell_hashes(unaligned, "c", KEY), cell_hashes(pa.array(values), "c", KEY))


def test_decimals_of_negative_scale() -> None:
    kind = pa.decimal128(5, -3)
    tens = pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(np.array([12, 0, 10, 0], np.int64).tobytes())])
    assert same(cell_hashes(tens, "c", KEY), hashed([12_000, 10_000], pa.int64()))


def test_a_type_without_canonical_form_is_named() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(UnhashableColumn, match=r"'odd'.*union"):
        cell_hashes(union, "odd", KEY)


def test_each_kernel_is_compiled_once() -> None:
    """Cold starts stay short: read-only or not, sliced or not, wide or narrow, the kernels see the same few types."""
    test_unaligned_buffers_are_read()
    for name in EQUAL:
        test_equal_values_hash_alike(name)
    kernels = ("_words", "_floats", "_instants", "_bytes", "_decimals", "_lists", "_structs", "_taken", "_finish", "_ids")
    counts = {name: len(getattr(rowhash, name).signatures) for name in kernels}
    assert max(counts.values()) == 1, counts
