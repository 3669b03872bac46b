"""Values in a table's own habits: read by themselves, so that blocks do not matter, and never lost where they end as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import readers_csv
from tasks.ingest.infer import columns_of, join_all, schema_of
from tasks.ingest.normal import normal_text

HABITS = ReadSettings(null_strings=("-", "k. A."), decimal_mark=",", date_formats=("%d.%m.%Y", "%d/%m/%Y %H:%M"))
ZONES = st.sampled_from([timezone(timedelta(minutes=n)) for n in (0, 330, -570)])
CELLS = st.one_of(
    st.none(),
    st.integers(-(10**9), 10**9).map(str),
    st.decimals(-(10**6), 10**6, places=2).map(lambda number: f"{number:f}".replace(".", ",")),
    st.decimals(0, 10**9, places=1).map(lambda number: f"{number:,f}".translate(str.maketrans(",.", ".,"))),
    st.dates().map(lambda day: day.strftime("%d.%m.%Y")),
    st.datetimes().map(lambda day: day.strftime("%d/%m/%Y %H:%M")),
    st.sampled_from(
        ["-", "k. A.", "NA", "", "1.5", "1.2345,6", ",5", "5,", "1,2,3", "so, so", " 7,5 ", "1,5e3", "-0,0", "12.34.5"]
    ),
)


def read(cells: Sequence[str | None], options: ReadSettings, cuts: Sequence[int] = ()) -> tuple[pa.Array, list[Any]]:
    """A column as the reader types it, and its blocks' text."""
    lines = ["" if cell is None else f'"{cell}"' for cell in cells]
    dialect, _ = readers_csv.opened(iter([b'"x";"y"\n']), ReadSettings(separator=";", header=True))
    places = [0, *sorted(place % (len(cells) + 1) for place in cuts), len(cells)]
    parts = [lines[a:b] for a, b in pairwise(places) if b > a]
    blocks = [
        block
        for part in parts
        for block in readers_csv.read(iter(["".join(f"{line};1\n" for line in part).encode()]), dialect, options)
    ]
    columns = columns_of([join_all(readers_csv.shapes(block.rows) for block in blocks)])
    schema, known = schema_of(columns), {name.lower(): shape for name, shape in columns}
    batches = [readers_csv.typed(block.rows, schema, known)[0] for block in blocks]
    texts = [cell for block in blocks for cell in block.rows.columns[0].to_pylist()]
    return pa.Table.from_batches(batches)["x"].combine_chunks(), texts


@settings(max_examples=60)
@given(st.lists(CELLS, min_size=1, max_size=9), st.lists(st.integers(0, 9), max_size=3))
def test_blocks_do_not_matter_and_text_stays_as_it_is_written(cells: list[str | None], cuts: list[int]) -> None:
    whole, texts = read(cells, HABITS)
    assert read(cells, HABITS, cuts)[0].equals(whole)
    kept = [None if cell in ("-", "k. A.") else cell for cell in cells]
    assert texts == kept
    if pa.types.is_string(whole.type):
        assert whole.to_pylist() == kept


@given(st.lists(st.decimals(-(10**9), 10**9, places=3), min_size=1, max_size=9))
def test_decimal_commas_are_the_numbers_that_points_are(numbers: list[Any]) -> None:
    pointed = [f"{number:f}" for number in numbers]
    grouped = [f"{number:,f}".translate(str.maketrans(",.", ".,")) for number in numbers]
    expected = read(pointed, ReadSettings())[0]
    comma = ReadSettings(decimal_mark=",")
    assert read([text.replace(".", ",") for text in pointed], comma)[0].equals(expected)
    assert read(grouped, comma)[0].equals(expected)


def slow_verdict(text: str) -> str | None:
    """What a value with a decimal mark is read as under a decimal comma; None for no number: the slow road."""
    text = text.strip(" \t")
    if not re.search(r"[.,]", text) or re.search(r"[^-+0-9.,eE]", text):
        return text
    if re.fullmatch(r"-?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?([eE][-+]?\d+)?|-?,\d+([eE][-+]?\d+)?", text):
        return text.replace(".", "").replace(",", ".")
    return None if "." in text else text


@given(st.text("0123.,-e", min_size=1, max_size=9))
def test_a_number_is_one_by_the_slow_road_too(text: str) -> None:
    found = normal_text(pa.array([text, None, "x"]), ReadSettings(decimal_mark=","), moments=False).to_pylist()
    expected = slow_verdict(text)
    assert found == ["?" if expected is None else expected, None, "x"]


@given(st.lists(st.datetimes(timezones=ZONES), max_size=5))
def test_times_with_a_zone_are_in_utc(times: list[datetime]) -> None:
    times = [time for time in times if 999 < time.year < 9998]
    texts = [time.strftime("%Y/%m/%d %H-%M-%S.%f %z") for time in times]
    if texts:
        found = read(texts, ReadSettings(date_formats=("%Y/%m/%d %H-%M-%S.%f %z",)))[0]
        assert found.type == pa.timestamp("us", tz="UTC") and found.to_pylist() == times


FORMATS = ["%d %b %Y", "%A, %d. %B %Y", "%I:%M %p %d/%m/%y", "%Y%j", "%Y-%m-%dt%H:%M:%S.%f", "(%Y) %d+%m", "%d%%%m.%Y"]


@given(st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)), st.sampled_from(FORMATS))
def test_whatever_a_format_writes_is_read(moment: datetime, form: str) -> None:
    text = moment.strftime(form)
    expected = datetime.strptime(text, form)
    options = ReadSettings(date_formats=(form,))
    [found, other] = normal_text(pa.array([text.upper(), "other"]), options, moments=True).to_pylist()
    assert datetime.fromisoformat(found or "") == expected and other == "other"


def test_habits_by_eye() -> None:
    assert read(["31.12.2020", "-", "01.02.2021"], HABITS)[0].to_pylist() == [date(2020, 12, 31), None, date(2021, 2, 1)]
    assert read(["31/12/2020 23:59", None], HABITS)[0].to_pylist() == [datetime(2020, 12, 31, 23, 59), None]
    assert read(["1.234,5", " 2", "-,5"], HABITS)[0].to_pylist() == [1234.5, 2.0, -0.5]
    assert read(["1.234", "2"], HABITS)[0].to_pylist() == [1234, 2]
    assert read(["1,5", "31.12.2020"], HABITS)[0].to_pylist() == ["1,5", "31.12.2020"]
    assert read(["1.5", "2,5"], HABITS)[0].to_pylist() == ["1.5", "2,5"]
    assert read(["a", "k. A.", "NA"], HABITS)[0].to_pylist() == ["a", None, "NA"]


def test_the_first_format_that_fits_is_taken_and_plain_numbers_are_no_days() -> None:
    either = ReadSettings(date_formats=("%d/%m/%Y", "%m/%d/%Y"))
    assert read(["01/02/2020", "01/31/2020"], either)[0].to_pylist() == [date(2020, 2, 1), date(2020, 1, 31)]
    assert read(["20200131", "20200132"], ReadSettings(date_formats=("%Y%m%d",)))[0].to_pylist() == [20200131, 20200132]


def test_columns_with_a_type_of_their_own_are_left_to_it() -> None:
    assert read(["1,5", "2,5"], HABITS.model_copy(update={"types": {"X": "double"}}))[0].to_pylist() == ["1,5", "2,5"]


def test_ids_stay_as_they_are_spelled() -> None:
    dialect, text = readers_csv.opened(iter([b"who;n\n1.234;1.234\n-;2\n"]), ReadSettings(separator=";"))
    [block] = readers_csv.read(text, dialect, HABITS, spelled=["WHO"])
    columns = columns_of([readers_csv.shapes(block.rows)])
    batch, _ = readers_csv.typed(block.rows, schema_of(columns), dict(columns))
    assert batch.to_pylist() == [{"who": 1.234, "n": 1234}, {"who": None, "n": 2}]


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'%Q'"):
        read(["a"], ReadSettings(date_formats=("%Q",)))
