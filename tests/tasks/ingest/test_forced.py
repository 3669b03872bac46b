"""Types that are demanded: every row is one of that type or a reject, the same whatever its neighbours are."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import forced, readers_jsonl
from tasks.ingest.blocks import Reject

PLAIN = ReadSettings()
ZONE = ZoneInfo("UTC")  # as Arrow gives it back
TYPES = ["int64", "int32", "double", "boolean", "date", "timestamp", "timestamp_utc", "decimal(5,2)", "string", "binary"]
TEXTS = st.one_of(
    st.none(),
    st.text("0123.-+exX:TZ ", max_size=12),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(repr),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.just(UTC)).map(str),
    st.sampled_from(
        [
            "",
            "NA",
            "nan",
            "true",
            "0",
            " 7 ",
            "5.0",
            "1.005",
            "é",
            "0000-01-01",
            "0x1F",
            "-0xff",
            "+5",
            "-",
            "007",
            "1e3",
            "Infinity",
            "-nan",
            "TRUE",
            "t",
            "12:00",
            "2020-02-30",
            "2020-01-01T00:00Z",
        ]
    ),
)


def batch_of(texts: list[str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": pa.array(range(len(texts)), pa.int64()), "x": pa.array(texts, pa.string())})


def apply(texts: list[str | None], name: str, options: ReadSettings = PLAIN) -> tuple[list[Any], list[Reject]]:
    batch, lines, rejects = forced.apply(batch_of(texts), {"X": forced.kind_of(name)}, np.arange(2, len(texts) + 2), options)
    assert batch.schema.field("x").type == forced.kind_of(name) and lines is not None
    assert lines.tolist() == [n + 2 for n in batch["id"].to_pylist()]
    batch.validate(full=True)
    return batch["x"].to_pylist(), rejects


@given(st.lists(TEXTS, max_size=12), st.sampled_from(TYPES))
def test_every_row_is_typed_or_rejected_whatever_its_neighbours(texts: list[str | None], name: str) -> None:
    values, rejects = apply(texts, name)
    alone = [apply([text], name) for text in texts]
    assert repr(values) == repr([value for found, _ in alone for value in found])
    assert [reject.line - 2 for reject in rejects] == [n for n, (_, found) in enumerate(alone) if found]
    assert all(json.loads(reject.raw) == {"id": reject.line - 2, "x": texts[reject.line - 2]} for reject in rejects)
    assert {reject.reason for reject in rejects} <= {f"type: column 'x' is no {name}"}


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9))
def test_whole_numbers_are_themselves(numbers: list[int]) -> None:
    assert apply([str(n) for n in numbers], "int64") == (numbers, [])
    assert apply([f"{n}.0" for n in numbers], "int") == (numbers, [])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=9))
def test_doubles_are_themselves_also_with_a_comma(numbers: list[float]) -> None:
    assert apply([repr(n) for n in numbers], "double") == (numbers, [])
    comma = ReadSettings(decimal_mark=",")
    assert apply([repr(n).replace(".", ",") for n in numbers], "float", comma) == (numbers, [])


@pytest.mark.parametrize(
    ("name", "texts", "values", "bad"),
    [
        ("int32", ["1", " 2 ", "2147483648", "1.5", "NA", None, "x"], [1, 2, None, None], [2, 3, 6]),
        ("double", ["1e3", "nan", "inf", "1,5"], [1000.0, float("nan"), float("inf")], [3]),
        ("boolean", ["true", "FALSE", "1", "yes"], [True, False, True], [3]),
        ("date", ["2020-02-29", "2021-02-29", "", "29.02.2020"], [date(2020, 2, 29), None], [1, 3]),
        (
            "timestamp",
            ["2020-01-01 10:00", "2020-01-01", "2020-01-01T10:00:00Z"],
            [datetime(2020, 1, 1, 10), datetime(2020, 1, 1)],
            [2],
        ),
        (
            "timestamp_utc",
            ["2020-01-01T10:00:00+02:00", "2020-01-01 08:00", "2020-01-01", "now"],
            [datetime(2020, 1, 1, 8, tzinfo=ZONE), datetime(2020, 1, 1, 8, tzinfo=ZONE), datetime(2020, 1, 1, tzinfo=ZONE)],
            [3],
        ),
        (
            "decimal(4,2)",
            ["1.5", "12.34", "123.4", "1.234", "-0.1"],
            [Decimal("1.50"), Decimal("12.34"), Decimal("-0.10")],
            [2, 3],
        ),
        ("string", ["", "NA", " a ", None], ["", "NA", " a ", None], []),
        ("binary", ["é", None], ["é".encode(), None], []),
    ],
)
def test_types_by_eye(name: str, texts: list[str | None], values: list[Any], bad: list[int]) -> None:
    found, rejects = apply(texts, name)
    assert (repr(found), [reject.line - 2 for reject in rejects]) == (repr(values), bad)


def test_the_habits_of_a_table_hold_in_forced_columns() -> None:
    options = ReadSettings(null_strings=("-",), decimal_mark=",", date_formats=("%Y%m%d", "%d.%m.%y"))
    assert apply(["1.234,5", "-", "2"], "decimal(9,2)", options)[0] == [Decimal("1234.50"), None, Decimal("2.00")]
    assert apply(["20200131", "31.01.20", "-"], "date", options)[0] == [date(2020, 1, 31)] * 2 + [None]
    assert [reject.raw for reject in apply(["1.5"], "double", options)[1]] == ['{"id":0,"x":"1.5"}']


def test_columns_that_have_a_type_are_cast_if_nothing_is_lost() -> None:
    batch = pa.RecordBatch.from_pydict({"x": pa.array([1, 2**40, None], pa.int64())})
    typed, lines, rejects = forced.apply(batch, {"x": pa.int32(), "absent": pa.string()}, None, PLAIN)
    assert (typed["x"].to_pylist(), lines) == ([1, None], None)
    assert rejects == [Reject(0, "type: column 'x' is no int32", f'{{"x":{2**40}}}')]


def test_names_of_types_are_those_of_the_settings() -> None:
    assert forced.kinds_of({"a": "Int", "b": "decimal(38, 0)"}) == {"a": pa.int64(), "b": pa.decimal128(38, 0)}
    assert all(forced.kind_of(forced.name_of(forced.kind_of(name))) == forced.kind_of(name) for name in TYPES)
    for name in ("varchar", "decimal(39,0)", "decimal(2,3)", ""):
        with pytest.raises(ConfigError, match=r"types\.b: .*timestamp_utc"):
            forced.kinds_of({"b": name})


def test_numbers_of_json_keep_their_spelling_in_columns_that_are_told() -> None:
    [block] = readers_jsonl.read(iter([b'{"p":1.10,"q":1.10}\n\n{"P":7}\n']), spelled=["P"])
    assert block.rows == [{"p": "1.10", "q": 1.1}, {"P": 7}]
    assert block.lines is not None and block.lines.tolist() == [1, 3]
