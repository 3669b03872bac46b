"""Columns read from their bytes: the kinds and values that the slow roads tell, whatever the neighbours."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import scan
from tasks.ingest.convert import from_text
from tasks.ingest.fields import Fields, fields
from tasks.ingest.infer import Shape, type_of
from tasks.ingest.scan import records

DIGITS = st.text("0123456789", min_size=1, max_size=20)
INTEGERS = st.one_of(st.integers(-(2**64), 2**64).map(str), st.integers(-99, 99).map(str))
DECIMALS = st.one_of(
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), DIGITS, DIGITS),
    st.floats(allow_nan=False).map(repr),
    st.decimals(-(10**6), 10**6, places=2).map(str),
)
MOMENTS = st.one_of(
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes().map(lambda t: t.replace(microsecond=0).isoformat() + "Z"),
    st.datetimes().map(lambda t: t.isoformat(" ", "minutes")),
)
WORDS = ("", "-", ".", "-.", "-0", "007", "1e5", "1.", ".5", "NA", "nan", "inf", "true", " 1", "x", "é", "1:1", "0" * 19 + "1")
DAYS = ("2021-02-29", "2020-02-29", "0000-01-01", "1900-02-29", "2021-13-01", "2021-1-01", "20210101", "2021-01-0:")
TIMES = ("T24:00:00", " 00:00:60", "x00:00:00", " 00:00:0/", " 00:00:00.1234567", " 23:59Z", "T23:59:59.9", "")
ODD = st.sampled_from(WORDS) | st.sampled_from(DAYS) | st.sampled_from(TIMES).map("2021-01-01{}".format)
NEAR = st.one_of(INTEGERS, DECIMALS, MOMENTS).flatmap(
    lambda text: st.builds(
        lambda place, sign: text[:place] + sign + text[place + 1 :], st.integers(0, len(text)), st.sampled_from("0 .-:/9eZT")
    )
)
CELLS = st.one_of(
    *(st.lists(st.none() | of, min_size=1, max_size=12) for of in (INTEGERS, DECIMALS, MOMENTS)),
    st.lists(st.one_of(st.none(), INTEGERS, DECIMALS, MOMENTS, ODD, NEAR), min_size=1, max_size=4),
)


def column(cells: list[str | None], after: bytes = b"") -> Fields:
    """The cells one after the other in a buffer, which goes on with `after`."""
    texts = [(cell or "").encode() for cell in cells]
    bounds = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    ends = np.where([cell is None for cell in cells], bounds[:-1] - 1, bounds[1:]).astype(np.int32)
    buffer = np.frombuffer(b"".join(texts) + after + b"\0", np.uint8)
    return Fields(("x",), buffer, bounds[np.newaxis, :-1], ends[np.newaxis])


@given(CELLS, st.sampled_from([b"", b"0123456789"]))
def test_kinds_and_values_are_those_of_the_slow_road(cells: list[str | None], after: bytes) -> None:
    found = column(cells, after)
    mask = found.kinds(0)
    assert mask == scan.kinds_of(found.buffer, found.starts[0], found.ends[0])
    kind = type_of(Shape(mask | scan.FREE)) or pa.string()
    values = found.typed(0, kind, mask)
    values.validate(full=True)
    expected = from_text(pa.array(cells, pa.string()), kind, mask)
    assert values.equals(expected) and repr(values.to_pylist()) == repr(expected.to_pylist())
    assert found.text(0).equals(pa.array(cells, pa.string()))


@given(st.lists(st.none() | INTEGERS, min_size=1, max_size=5), st.sampled_from(["0.5", "123456.7890123456", "NA", "nan"]))
def test_a_block_of_whole_numbers_in_a_column_of_others(cells: list[str | None], other: str) -> None:
    """The type is that of all blocks; each gives what its own text says."""
    found = column(cells)
    mask = found.kinds(0) | column([other]).kinds(0)
    kind = type_of(Shape(mask | scan.FREE)) or pa.string()
    assert found.typed(0, kind, mask).equals(from_text(pa.array(cells, pa.string()), kind, mask))


@given(st.dates(), st.times(), st.integers(0, 6))
def test_moments_are_those_of_the_calendar(day: dt.date, time: dt.time, n_digits: int) -> None:
    time = time.replace(microsecond=time.microsecond // 10 ** (6 - n_digits) * 10 ** (6 - n_digits))
    fraction = f".{time.microsecond:06d}"[: n_digits + 1] if n_digits else ""
    text = f"{day} {time.strftime('%H:%M:%S')}{fraction}"
    assert column([text]).typed(0, pa.timestamp("us"), scan.STAMP).to_pylist() == [dt.datetime.combine(day, time)]
    assert column([str(day)]).typed(0, pa.date32(), scan.DATE).to_pylist() == [day]


def test_fields_of_some_records_by_eye() -> None:
    data = b'a,b\n1,"x ""y"", z"\n2,\n3,"",\n'
    found = records(data, ",", last=True)
    assert found.n_fields.tolist() == [2, 2, 2, 3]
    some = fields(data, found, np.array([1, 2]), ["a", "b"])
    assert [column.to_pylist() for column in some.columns] == [["1", "2"], ['x "y", z', None]]
    assert some.typed(0, pa.int64(), some.kinds(0)).to_pylist() == [1, 2]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_text_is_copied_to_its_last_byte(n: int) -> None:
    cells = ["x" * n, None, "", "y" * (n + 1)]
    assert column(cells).text(0).to_pylist() == cells
    assert column(cells, bytes(20)).text(0).to_pylist() == cells
