"""Contracts: a row is judged by itself, as a slow judge in Python judges it, and every rejected row is told with its rule."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract_check import contract_complaints
from infra.settings import ColumnContract, TableSettings
from tasks.ingest.columns import ColumnError
from tasks.ingest.contract import check, compile_rules

UTC = pa.timestamp("us", tz="UTC")
NAIVE = pa.timestamp("us")
_NULLS = ("", "NA", "N/A", "null", "NULL")
_SPELLED = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.ASCII | re.IGNORECASE)

BIG = st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
FEW = st.integers(-4, 4)
DOUBLES = st.floats() | st.sampled_from([0.5, 1.0, 2.0**53, float("nan")]) | FEW.map(float)
DATES = st.dates(dt.date(2019, 12, 30), dt.date(2020, 1, 3))
TIMES = st.datetimes(dt.datetime(2019, 12, 31), dt.datetime(2020, 1, 2)) | DATES.map(lambda d: dt.datetime.combine(d, dt.time()))
WORDS = st.sampled_from(["", "a", "ab", "b", "ab\n", "é", "1", "01", "1.0", " 2 ", "NA", "nan", "inf", "true", "2020-01-01"])
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): FEW | BIG,
    pa.int16(): FEW,
    pa.float64(): DOUBLES,
    pa.float32(): st.floats(width=32) | FEW.map(float),
    pa.decimal128(6, 2): st.decimals(-9999, 9999, places=2) | FEW.map(Decimal),
    pa.decimal128(20, 0): st.integers(0, 10**19).map(Decimal) | FEW.map(Decimal),
    pa.string(): WORDS | st.text(max_size=3),
    pa.bool_(): st.booleans(),
    pa.date32(): DATES,
    NAIVE: TIMES,
    UTC: TIMES.map(lambda t: t.replace(tzinfo=dt.UTC)),
    pa.list_(pa.int64()): st.lists(FEW, max_size=2),
}
NUMBERS = FEW | BIG | st.floats(allow_nan=False) | st.sampled_from([0.1, 0.5, 2.5, float("inf"), float("-inf"), 1e300, 10**30])
STAMPS = DATES.map(str) | TIMES.map(dt.datetime.isoformat) | TIMES.map(lambda t: t.isoformat() + "+01:00")
TEXTS = WORDS | STAMPS
RANGES = st.tuples(NUMBERS, NUMBERS) | st.tuples(TEXTS, TEXTS) | st.tuples(st.none(), NUMBERS) | st.tuples(TEXTS, st.none())
ALLOWED = st.lists(NUMBERS, max_size=4) | st.lists(TEXTS, max_size=4) | st.lists(st.booleans(), max_size=2)
PATTERNS = st.sampled_from(["a|ab", "[a-z]*", r"\d+", r"(?i)TRUE|.*-01", "é."])


def contracts(kind: pa.DataType) -> st.SearchStrategy[ColumnContract]:
    """Contracts that often mean something for a column of this type, and sometimes not."""
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    near = (
        st.tuples(FEW, st.sampled_from([0, 0.5, 0.004, -0.25])).map(sum) if numeric else STAMPS if "s" in str(kind)[1:] else TEXTS
    )
    return st.builds(
        ColumnContract,
        not_null=st.booleans(),
        range=st.none() | st.tuples(near, near).map(lambda ends: tuple(sorted(ends))) | RANGES,
        regex=st.none() | PATTERNS,
        allowed=st.none() | st.lists(near, min_size=2, max_size=6).map(tuple) | ALLOWED.map(tuple),
    )


# --- the slow judge -----------------------------------------------------------------------------------------------------------


def text_of(value: Any, kind: pa.DataType) -> str:
    """As Arrow spells it; lists as JSON."""
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    return str(pa.array([value], kind).cast(pa.string())[0])


def number_of(value: Any) -> Any:
    """A number, None for what is taken for NULL, NaN (which is within no range) for what is no number."""
    if isinstance(value, str):
        bare = value.strip(" \t")
        return None if bare in _NULLS else float(bare) if _SPELLED.fullmatch(bare) else float("nan")
    return value if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else float("nan")


def time_of(value: Any, *, is_end: bool = False) -> dt.datetime | None:
    if isinstance(value, str):
        try:
            time = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
        if is_end and len(value) <= 10:
            time += dt.timedelta(days=1) - dt.timedelta(microseconds=1)
    else:
        time = value if isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())
    return time.astimezone(dt.UTC).replace(tzinfo=None) if time.tzinfo else time


def exact(bound: Any, value: Any) -> Any:
    """A bound as lethe.toml spells it, where it meets decimals."""
    return Decimal(str(bound)) if isinstance(value, Decimal) else bound


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_within(value: Any, low: Any, high: Any, kind: pa.DataType) -> bool:
    if is_number(low) or is_number(high):
        number = number_of(value)
        if number is None:
            return True
        return number == number and all(
            end is None or compare(exact(end, number), number)
            for end, compare in ((low, lambda e, n: e <= n), (high, lambda e, n: e >= n))
        )
    low, high = low or None, high or None
    is_timed = kind in (pa.date32(), NAIVE, UTC)
    if is_timed and (low is None or time_of(low)) and (high is None or time_of(high)):
        time = time_of(value)
        assert time is not None
        return (low is None or time_of(low) <= time) and (high is None or time <= time_of(high, is_end=True))
    text = text_of(value, kind)
    return (low is None or low <= text) and (high is None or text <= high)


def is_allowed(value: Any, allowed: tuple[Any, ...], kind: pa.DataType) -> bool:
    if any(isinstance(one, bool) for one in allowed):
        return text_of(value, kind).lower() in [str(one).lower() for one in allowed]
    if any(isinstance(one, str) for one in allowed):
        if kind in (pa.date32(), NAIVE, UTC):
            return time_of(value) in [time_of(one) for one in allowed]
        return text_of(value, kind) in allowed
    number = number_of(value)
    return number is None or any(exact(one, number) == number for one in allowed)


def broken_rule(value: Any, contract: ColumnContract, kind: pa.DataType) -> str | None:
    if value is None:
        return "not_null" if contract.not_null else None
    if contract.range is not None and (contract.range != (None, None)) and not is_within(value, *contract.range, kind):
        return "range"
    if contract.regex is not None and not re.fullmatch(contract.regex, text_of(value, kind), re.ASCII):
        return "regex"
    if contract.allowed is not None and not is_allowed(value, contract.allowed, kind):
        return "allowed"
    return None


# --- laws ---------------------------------------------------------------------------------------------------------------------


def _settings(**asked: ColumnContract) -> TableSettings:
    return TableSettings(source=("x",), contract=asked)


def _means_something(contract: ColumnContract) -> bool:
    said = [said for _, said in contract_complaints(_settings(a=contract))]
    return not any("open" in one or "types" in one or "names no value" in one or "both ends" in one for one in said)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.RecordBatch, TableSettings]:
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=2))
    names = ["a", "b"][: len(kinds)]
    n = draw(st.integers(0, 8))
    columns = [draw(st.lists(st.none() | VALUES[kind], min_size=n, max_size=n)) for kind in kinds]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    asked = {name: draw(contracts(kind).filter(_means_something)) for name, kind in zip(names, kinds, strict=True)}
    return pa.RecordBatch.from_arrays(arrays, names=names), _settings(**asked)


def _rules(batch: pa.RecordBatch, section: TableSettings) -> Any:
    """Also of numbers on columns that hold none, as a first reading may meet them."""
    return compile_rules("t", section, batch.schema, partial_rows=True)


@settings(max_examples=400)
@given(tables())
def test_every_row_is_judged_as_the_slow_judge_does(case: tuple[pa.RecordBatch, TableSettings]) -> None:
    batch, section = case
    kept, lines, rejects = check(batch, np.arange(batch.num_rows) + 2, _rules(batch, section))
    expected = dict[int, str]()
    for i in range(batch.num_rows):
        for name in batch.schema.names:
            kind = batch.schema.field(name).type
            if found := broken_rule(batch.column(name)[i].as_py(), section.contract[name], kind):
                expected.setdefault(i + 2, f"contract: {found} on {name!r}")
    assert {reject.line: reject.reason for reject in rejects} == expected
    assert lines is not None
    assert sorted([*lines.tolist(), *expected]) == [i + 2 for i in range(batch.num_rows)]
    assert repr(kept.to_pylist()) == repr(batch.take(pa.array(lines - 2, pa.int64())).to_pylist())


@given(tables(), st.integers(0, 8))
def test_a_row_is_judged_by_itself(case: tuple[pa.RecordBatch, TableSettings], cut: int) -> None:
    batch, section = case
    lines, rules = np.arange(batch.num_rows), _rules(batch, section)
    whole, whole_lines, rejects = check(batch, lines, rules)
    pieces = [check(batch.slice(*piece), lines[piece[0] :][: piece[1]], rules) for piece in ((0, cut), (cut, 99))]
    assert [reject for piece in pieces for reject in piece[2]] == rejects
    assert [line for piece in pieces for line in piece[1].tolist()] == whole_lines.tolist()
    assert repr([row for piece in pieces for row in piece[0].to_pylist()]) == repr(whole.to_pylist())


@given(st.lists(st.none() | FEW.map(str) | st.sampled_from(["NA", "null"]), min_size=1), st.tuples(NUMBERS, NUMBERS))
def test_a_number_is_judged_the_same_whatever_type_its_file_gave_the_column(cells: list[str | None], ends: Any) -> None:
    typed = [None if cell in (None, "NA", "null") else int(cell) for cell in cells]
    found = list[Any]()
    for column in (pa.array(cells, pa.string()), pa.array(typed, pa.int64()), pa.array(typed, pa.float64())):
        batch = pa.record_batch({"a": column})
        _, lines, _ = check(batch, np.arange(len(cells)), _rules(batch, _settings(a=ColumnContract(range=ends))))
        assert lines is not None
        found.append(lines.tolist())
    assert found[0] == found[1] == found[2]


# --- examples -----------------------------------------------------------------------------------------------------------------

PEOPLE = {
    "id": ["a", "b", None, "d", "e"],
    "age": [41, 200, 7, None, -1],
    "born": [dt.date(1980, 1, 1), dt.date(1999, 12, 31), dt.date(2000, 1, 1), None, dt.date(1970, 1, 1)],
    "state": ["new", "new", "gone", "old", None],
}
SECTION = TableSettings(
    source=("people.csv",),
    primary_key=("id",),
    contract={
        "age": ColumnContract(range=(0, 150)),
        "born": ColumnContract(range=("1970-01-01", "1999-12-31")),
        "state": ColumnContract(allowed=("new", "old"), regex="[a-z]{3}"),
    },
)


def test_each_bad_row_is_told_with_its_line_its_rule_and_itself() -> None:
    batch = pa.record_batch(PEOPLE)
    rules = compile_rules("people", SECTION, batch.schema)
    kept, lines, rejects = check(batch, np.arange(2, 7), rules)
    assert kept.column("id").to_pylist() == ["a", "d"]
    assert lines is not None and lines.tolist() == [2, 5]
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (3, "contract: range on 'age'"),
        (4, "contract: not_null on 'id'"),
        (6, "contract: range on 'age'"),
    ]
    assert rejects[0].raw == '{"age":200,"born":"1999-12-31","id":"b","state":"new"}'
    unnumbered = check(batch, None, rules)
    assert unnumbered[1] is None
    assert {reject.line for reject in unnumbered[2]} == {0}


def test_rows_that_keep_all_rules_are_handed_on_as_they_are() -> None:
    batch = pa.record_batch(PEOPLE).slice(0, 1)
    assert check(batch, None, compile_rules("people", SECTION, batch.schema))[0] is batch


def test_rules_travel_to_workers() -> None:
    batch = pa.record_batch(PEOPLE)
    rules = compile_rules("people", SECTION, batch.schema)
    assert check(batch, None, pickle.loads(pickle.dumps(rules)))[2] == check(batch, None, rules)[2]


@pytest.mark.parametrize(
    ("values", "kind", "rule", "kept"),
    [
        ([0, 1, 2, 3], pa.int64(), {"range": [0.5, 2.5]}, [1, 2]),
        ([0, 1], pa.int16(), {"range": [10**30, float("inf")]}, []),
        ([2.0**53, 2.0**53 + 2], pa.float64(), {"range": [2**53 + 1, 2**60]}, [2.0**53 + 2]),
        ([2.0**53, 2.0**53 + 2], pa.float64(), {"range": [0, 2**53 + 1]}, [2.0**53]),
        ([float("nan"), float("inf"), 1.0], pa.float64(), {"range": [0, float("inf")]}, [float("inf"), 1.0]),
        ([Decimal("1.00"), Decimal("1.01")], pa.decimal128(6, 2), {"range": [1.004, 9]}, [Decimal("1.01")]),
        ([Decimal("1.00"), Decimal("1.01")], pa.decimal128(6, 2), {"range": [0, 1.004]}, [Decimal("1.00")]),
        ([Decimal("0.10")], pa.decimal128(6, 2), {"allowed": [0.1]}, [Decimal("0.10")]),
        ([dt.date(2020, 1, 1), dt.date(2020, 1, 2)], pa.date32(), {"range": ["2020-01-01T10:00", ""]}, [dt.date(2020, 1, 2)]),
        (["a", "ab", "ab\n", "b"], pa.string(), {"regex": "a|ab"}, ["a", "ab"]),
        (["b", "B", "a"], pa.string(), {"range": ["a", "c"]}, ["b", "a"]),
        (["1", "1e1", "x", "NA", "12"], pa.string(), {"range": [1, 10]}, ["1", "1e1", "NA"]),
        ([7, 8], pa.int64(), {"allowed": ["7"]}, [7]),
        ([True, False], pa.bool_(), {"allowed": [True]}, [True]),
        ([0.0, -0.0, 1.0], pa.float64(), {"allowed": [0]}, [0.0, -0.0]),
        (["0", "-0", "0e0", "1"], pa.string(), {"allowed": [-0.0]}, ["0", "-0", "0e0"]),
    ],
)
def test_bounds_and_values_are_exact(values: list[Any], kind: pa.DataType, rule: dict[str, Any], kept: list[Any]) -> None:
    batch = pa.record_batch({"a": pa.array(values, kind)})
    section = _settings(a=ColumnContract.model_validate(rule))
    assert check(batch, None, compile_rules("t", section, batch.schema))[0].column("a").to_pylist() == kept


def test_the_last_day_of_a_range_belongs_to_it_whole() -> None:
    batch = pa.record_batch({"t": pa.array([dt.datetime(2020, 12, 31, 23, 59, 59), dt.datetime(2021, 1, 1)], NAIVE)})
    rules = compile_rules("t", _settings(t=ColumnContract(range=("2020-01-01", "2020-12-31"))), batch.schema)
    assert check(batch, None, rules)[0].num_rows == 1


def test_columns_that_a_file_lacks_are_null() -> None:
    batch = pa.record_batch({"age": [1, 2]})
    with pytest.raises(ColumnError, match=r"table people, contract: no column 'id' in its files; they have: age"):
        compile_rules("people", SECTION, batch.schema)
    rejects = check(batch, None, compile_rules("people", SECTION, batch.schema, partial_rows=True))[2]
    assert {reject.reason for reject in rejects} == {"contract: not_null on 'id'"}


def test_a_file_may_spell_a_column_in_another_case() -> None:
    batch = pa.record_batch({"ID": ["a", None], "age": [1, 2]})
    with pytest.raises(ColumnError, match=r"no column 'id'.*Names match exactly: write 'ID' in lethe.toml"):
        compile_rules("people", SECTION, batch.schema)
    kept, _, rejects = check(batch, None, compile_rules("people", SECTION, batch.schema, partial_rows=True))
    assert kept.column("ID").to_pylist() == ["a"]
    assert [reject.reason for reject in rejects] == ["contract: not_null on 'id'"]


def test_numbers_on_a_column_of_times_are_refused() -> None:
    schema = pa.schema([("born", pa.date32())])
    with pytest.raises(ColumnError, match=r"column 'born' is date32.*names numbers"):
        compile_rules("people", _settings(born=ColumnContract(range=(1970, 2000))), schema)


@pytest.mark.parametrize(
    ("section", "keys", "said"),
    [
        ({"contract": {"a": {"regex": "(?=x)"}}}, "contract.a.regex", "RE2"),
        ({"contract": {"a": {"regex": "a)(b"}}}, "contract.a.regex", "unexpected"),
        ({"contract": {"a": {"range": [3, 2]}}}, "contract.a.range", "above"),
        ({"contract": {"a": {"range": [3, "x"]}}}, "contract.a.range", "numbers, or both are text"),
        ({"contract": {"a": {"range": ["", ""]}}}, "contract.a.range", "open"),
        ({"contract": {"a": {"allowed": [1, "b"]}}}, "contract.a.allowed", "several types"),
        ({"contract": {"a": {"allowed": []}}}, "contract.a.allowed", "no value"),
        ({"contract": {"row_id": {"not_null": True}}}, "contract", "row_id_"),
        ({"primary_key": ["a", "a"]}, "primary_key", "twice"),
        ({"columns": ["a"], "primary_key": ["b"]}, "primary_key", "not among"),
        ({"subject": {"kind": "p", "column": "who.id"}, "partition_by": ["who"]}, "partition_by", "personal"),
        ({"text": "body", "partition_by": ["body"]}, "partition_by", "personal"),
    ],
)
def test_what_cannot_be_meant_is_said_when_the_settings_are_read(section: dict[str, Any], keys: str, said: str) -> None:
    found = list(contract_complaints(TableSettings.model_validate({"source": "x", **section})))
    assert [(".".join(where), said in what) for where, what in found] == [(keys, True)]


def test_a_contract_that_can_be_meant_is_not_complained_of() -> None:
    sound = {"range": [0, float("inf")], "allowed": [1, 2.5], "regex": r"\d+", "not_null": True, "unique": True}
    section = TableSettings.model_validate({"source": "x", "contract": {"a": sound}, "primary_key": ["a", "b"]})
    assert list(contract_complaints(section)) == []
