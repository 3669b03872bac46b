"""Contracts: rules that every row of a table keeps; a row that breaks one goes to quarantine under the rule's name. Pure.

Whether a row breaks a rule depends on the row alone, and hardly on the type that its file gave the column: numbers are compared
as numbers also where the column is text (what is no number breaks the rule), text is compared as text also where the column
has another type. NULL breaks `not_null` and no other rule; NaN breaks every range. The bounds of a range belong to it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from infra.settings import ColumnContract, TableSettings
from tasks.ingest import scan
from tasks.ingest.blocks import Reject
from tasks.ingest.columns import ColumnError
from tasks.ingest.convert import as_type, json_text

I64 = npt.NDArray[np.int64]
Broken = Callable[[pa.Array], pa.Array]  # a column -> which of its values break a rule (NULL: does not)

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_EXACT = Context(prec=400)
_EPOCH = dt.datetime(1970, 1, 1)
_NO_TEXT = pa.scalar(None, pa.string())
_NUMBER = r"\A[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\z|\A[+-]?(?i:inf(inity)?)\z"


@dataclass(frozen=True)
class Rule:
    """One rule on one column. `index` is the column's place; None where the rows lack it, so that all its values are NULL."""

    name: str
    column: str
    index: int | None
    broken: Broken

    @property
    def reason(self) -> str:
        """What quarantine says; never a value."""
        return f"contract: {self.name} on {self.column!r}"


Rules = tuple[Rule, ...]  # in the order in which they are asked: the key's columns, then as lethe.toml names them


# --- compiling ----------------------------------------------------------------------------------------------------------------


def compile_rules(table: str, section: TableSettings, schema: pa.Schema, *, partial_rows: bool = False) -> Rules:
    """The rules of `[tables.<table>]` on rows of this schema. Raises `ColumnError` where a rule's column is not there.

    `partial_rows`: the rows are one file's, which may spell a column in another case than the table, or lack it: it is all NULL
    then.
    """
    if not partial_rows:
        refuse_unruly(table, section, schema)
    places = {name.lower(): i for i, name in enumerate(schema.names)}
    return tuple(
        Rule(name, column, index, broken)
        for column, contract in _contracts(section).items()
        for index in [places.get(column.lower())]
        for name, broken in _tests(contract, None if index is None else schema.field(index).type)
    )


def refuse_unruly(table: str, section: TableSettings, schema: pa.Schema) -> None:
    """Raise `ColumnError` where a rule, unique or primary key names a column that the table lacks, or one whose type no bound can
    be compared with."""
    for column, contract in _contracts(section).items():
        if column not in schema.names:
            raise ColumnError(_missing(table, column, schema.names))
        kind = schema.field(column).type
        if _has_numbers(kind) and _is_textual(contract):
            raise ColumnError(
                f"table {table}, contract: column {column!r} is {kind}, and its rule names text. "
                "Write the rule's values as numbers, or give the column the type string under `types`"
            )
        if _is_numeric(contract) and not (_has_numbers(kind) or pt.is_string(kind)):
            raise ColumnError(
                f"table {table}, contract: column {column!r} is {kind}, and its rule names numbers. "
                "Write the rule's values as text, or give the column another type under `types`"
            )


def _contracts(section: TableSettings) -> dict[str, ColumnContract]:
    """The columns with rules; those of the primary key come first and hold no NULL."""
    keys = {column: section.contract.get(column, ColumnContract()) for column in section.primary_key}
    required = {column: contract.model_copy(update={"not_null": True}) for column, contract in keys.items()}
    return {**required, **{column: contract for column, contract in section.contract.items() if column not in required}}


def _missing(table: str, column: str, names: Sequence[str]) -> str:
    near = [name for name in names if " ".join(name.split()).casefold() == " ".join(column.split()).casefold()]
    advice = f"Names match exactly: write {near[0]!r} in lethe.toml" if near else "Correct lethe.toml"
    return f"table {table}, contract: no column {column!r} in its files; they have: {', '.join(names)}. {advice}"


def _is_numeric(contract: ColumnContract) -> bool:
    values = (*(contract.range or ()), *(contract.allowed or ()))
    return any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _is_textual(contract: ColumnContract) -> bool:
    """Whether a range or a set names nothing but text that is no number; an empty text is an open end."""
    named = [
        value for values in (contract.range, contract.allowed) for value in values or () if value is not None and value != ""
    ]
    return bool(named) and not any(_is_number(value) for value in named)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _has_numbers(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)


def _tests(contract: ColumnContract, kind: pa.DataType | None) -> Iterator[tuple[str, Broken]]:
    """The rules of one column of this type, by name; no type stands for a column of NULLs."""
    if contract.not_null:
        yield "not_null", pc.is_null
    if kind is None:
        return
    if contract.range is not None:
        yield "range", _range_test(*contract.range, kind)
    if contract.regex is not None:
        yield "regex", partial(_unmatched, pattern=rf"\A(?:{contract.regex})\z")
    if contract.allowed is not None:
        yield "allowed", _allowed_test(contract.allowed, kind)


# --- ranges -------------------------------------------------------------------------------------------------------------------


def _range_test(low: Any, high: Any, kind: pa.DataType) -> Broken:
    """Outside [low, high]. An end that is None or "" is open; a date as the upper end includes its whole day."""
    if any(isinstance(end, int | float) for end in (low, high)):
        return _number_range(low, high, kind)
    low, high = low or None, high or None
    if _is_time(kind):
        first, last = low and _microseconds(low), high and _microseconds(high, is_end=True)
        if (first is None) == (low is None) and (last is None) == (high is None):
            return _time_range(first, last, kind)
    return partial(_text_outside, low=low, high=high)


def _is_time(kind: Any) -> bool:
    return pt.is_date32(kind) or (pt.is_timestamp(kind) and kind.unit == "us")


def _number_range(low: Any, high: Any, kind: pa.DataType) -> Broken:
    if pt.is_integer(kind):
        return _integer_range(low, high)
    if pt.is_decimal(kind):
        return _decimal_range(low, high, kind)
    ends = {"low": _above(low), "high": _below(high)}
    if pt.is_floating(kind):
        return partial(_outside, **ends)
    return partial(_spelled_outside, **ends) if pt.is_string(kind) else pc.is_valid


def _integer_range(low: Any, high: Any, view: pa.DataType | None = None) -> Broken:
    low = _INT_MIN if low is None or low == -math.inf else _INT_MAX + 1 if low == math.inf else math.ceil(low)
    high = _INT_MAX if high is None or high == math.inf else _INT_MIN - 1 if high == -math.inf else math.floor(high)
    if low > min(high, _INT_MAX) or high < _INT_MIN:
        return pc.is_valid
    return partial(_outside, low=max(low, _INT_MIN), high=min(high, _INT_MAX), view=view)


def _decimal_range(low: Any, high: Any, kind: Any) -> Broken:
    """The bounds as the nearest numbers inside them that the column can hold."""
    step, most = Decimal(1).scaleb(-kind.scale), Decimal(10**kind.precision - 1).scaleb(-kind.scale, _EXACT)
    low = -most if low is None else max(-most, _decimal(low, most + 1))
    high = most if high is None else min(most, _decimal(high, most + 1))
    low, high = low.quantize(step, ROUND_CEILING, _EXACT), high.quantize(step, ROUND_FLOOR, _EXACT)
    if low > high or low > most or high < -most:
        return pc.is_valid
    return partial(_outside, low=pa.scalar(low, kind), high=pa.scalar(high, kind))


def _decimal(value: Any, beyond: Decimal) -> Decimal:
    """A bound as it is written: 0.1 is a tenth. An infinity is one above or below everything."""
    if isinstance(value, float) and math.isinf(value):
        return beyond if value > 0 else -beyond
    return Decimal(str(value))


def _above(low: Any) -> float | None:
    """The least double that is not below an exact bound."""
    if low is None:
        return None
    near = _double(low)
    return math.nextafter(near, math.inf) if near < low else near


def _below(high: Any) -> float | None:
    """The greatest double that is not above an exact bound."""
    if high is None:
        return None
    near = _double(high)
    return math.nextafter(near, -math.inf) if near > high else near


def _double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _time_range(low: int | None, high: int | None, kind: pa.DataType) -> Broken:
    """Bounds in microseconds since 1970 as the column counts its time."""
    if pt.is_date32(kind):
        day = 86_400_000_000
        return _integer_range(low and -(-low // day), high and high // day, pa.int32())
    return _integer_range(low, high, pa.int64())


def _microseconds(text: str, *, is_end: bool = False) -> int | None:
    """An ISO 8601 time, in UTC unless it says otherwise; None for another text. A date is its first or its last moment."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if is_end and len(text) <= len("2026-01-31"):
        time = dt.datetime.combine(time.date(), dt.time.max)
    if time.tzinfo is not None:
        time = time.astimezone(dt.UTC).replace(tzinfo=None)
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def _outside(column: pa.Array, *, low: Any, high: Any, view: pa.DataType | None = None) -> pa.Array:
    """Not within [low, high]; NaN is within nothing."""
    column = column if view is None else column.view(view)
    inside = [compare(column, end) for compare, end in ((pc.greater_equal, low), (pc.less_equal, high)) if end is not None]
    return pc.invert(pc.and_(*inside) if len(inside) == 2 else inside[0])


def _spelled_outside(column: pa.Array, *, low: Any, high: Any) -> pa.Array:
    numbers, is_none = _numbers(column)
    return pc.or_kleene(_outside(numbers, low=low, high=high), is_none)


def _numbers(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The numbers that texts spell, as doubles (NULL where none is spelled), and which texts spell none. What a column of numbers
    takes for NULL is NULL here."""
    bare = pc.utf8_trim(column, " \t")
    bare = pc.if_else(pc.is_in(bare, value_set=scan.NULL_WORDS), _NO_TEXT, bare)
    spelled = pc.match_substring_regex(bare, _NUMBER)
    return pc.cast(pc.if_else(spelled, bare, _NO_TEXT), pa.float64()), pc.invert(spelled)


def _text_outside(column: pa.Array, *, low: str | None, high: str | None) -> pa.Array:
    return _outside(_text(column), low=low, high=high)


def _text(column: pa.Array) -> pa.Array:
    """Values as text: numbers and times in their canonical form, lists and objects as JSON."""
    return column if pt.is_string(column.type) else as_type(column, pa.string())


# --- patterns and sets --------------------------------------------------------------------------------------------------------


def _unmatched(column: pa.Array, *, pattern: str) -> pa.Array:
    return pc.invert(pc.match_substring_regex(_text(column), pattern))


def _allowed_test(values: Sequence[Any], kind: pa.DataType) -> Broken:
    if any(isinstance(value, bool) for value in values):
        spelled = [str(value).lower() for value in values]
        return partial(_spelled_unlisted, values=pa.array(spelled))
    if any(isinstance(value, str) for value in values):
        return _text_set([str(value) for value in values], kind)
    return _number_set(values, kind)


def _number_set(values: Sequence[Any], kind: Any) -> Broken:
    finite = [value for value in values if math.isfinite(value)]
    if pt.is_integer(kind):
        whole = [int(value) for value in finite if value == int(value) and _INT_MIN <= value <= _INT_MAX]
        return partial(_unlisted, values=pa.array(whole, pa.int64()))
    if pt.is_decimal(kind):
        step, most = Decimal(1).scaleb(-kind.scale), Decimal(10**kind.precision - 1).scaleb(-kind.scale, _EXACT)
        exact = [Decimal(str(value)) for value in finite]
        held = [value for value in exact if abs(value) <= most and value == value.quantize(step, context=_EXACT)]
        return partial(_unlisted, values=pa.array(held, kind))
    held = [_double(value) for value in values if _double(value) == value]
    doubles = pa.array([*held, *(-value for value in held if value == 0)], pa.float64())  # two zeros are equal, and differ here
    if pt.is_floating(kind):
        return partial(_unlisted, values=doubles)
    return partial(_spelled_number_unlisted, values=doubles) if pt.is_string(kind) else pc.is_valid


def _text_set(values: Sequence[str], kind: pa.DataType) -> Broken:
    if _is_time(kind):
        moments = [time for value in values if (time := _microseconds(value)) is not None]
        day, view = (86_400_000_000, pa.int32()) if pt.is_date32(kind) else (1, pa.int64())
        return partial(_unlisted, values=pa.array([time // day for time in moments if time % day == 0], view), view=view)
    return partial(_text_unlisted, values=pa.array(values, pa.string()))


def _unlisted(column: pa.Array, *, values: pa.Array, view: pa.DataType | None = None) -> pa.Array:
    column = column.cast(values.type) if view is None else column.view(view)
    return pc.and_(pc.invert(pc.is_in(column, value_set=values)), pc.is_valid(column))


def _text_unlisted(column: pa.Array, *, values: pa.Array) -> pa.Array:
    return _unlisted(_text(column), values=values)


def _spelled_unlisted(column: pa.Array, *, values: pa.Array) -> pa.Array:
    return _unlisted(pc.utf8_lower(_text(column)), values=values)


def _spelled_number_unlisted(column: pa.Array, *, values: pa.Array) -> pa.Array:
    numbers, is_none = _numbers(column)
    return pc.or_kleene(_unlisted(numbers, values=values), is_none)


# --- checking -----------------------------------------------------------------------------------------------------------------


def check(batch: pa.RecordBatch, lines: I64 | None, rules: Rules) -> tuple[pa.RecordBatch, I64 | None, list[Reject]]:
    """The rows that keep all rules, their line numbers, and one reject for each other row under the first rule that it breaks.

    `batch` has the schema that the rules were compiled for; `lines` (n,) are its raw line numbers. Rejects are in the order of
    the rows and hold the row as JSON.
    """
    first = _first_broken(batch, rules)
    if first is None:
        return batch, lines, []
    places = np.flatnonzero(first >= 0)
    raws = (json_text(row) for row in batch.take(pa.array(places)).to_pylist())
    numbers = [0] * len(places) if lines is None else [int(line) for line in lines[places]]
    found = (rules[rule].reason for rule in first[places])
    rejects = [Reject(line, reason, raw) for line, reason, raw in zip(numbers, found, raws, strict=True)]
    is_kept = first < 0
    return batch.filter(pa.array(is_kept)), None if lines is None else lines[is_kept], rejects


def _first_broken(batch: pa.RecordBatch, rules: Rules) -> npt.NDArray[np.int32] | None:
    """Which rule each row breaks first, int32 (n,), -1 for none; None if no row breaks any."""
    first = None
    for number, rule in enumerate(rules):
        broken = _broken(batch, rule)
        if broken is None:
            continue
        if first is None:
            first = np.full(batch.num_rows, -1, np.int32)
        first[broken & (first < 0)] = number
    return first


def _broken(batch: pa.RecordBatch, rule: Rule) -> npt.NDArray[np.bool_] | None:
    """Which rows break a rule; None if none does."""
    if rule.index is None:
        return np.ones(batch.num_rows, np.bool_) if batch.num_rows else None
    column = batch.column(rule.index)
    if rule.name == "not_null" and column.null_count == 0:
        return None
    broken = rule.broken(column)
    if not pc.any(broken).as_py():
        return None
    return np.asarray(pc.fill_null(broken, False))
