"""Types that lethe.toml demands of columns: text becomes them, and a row whose value is none of them is set aside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import ConfigError, ReadSettings
from tasks.ingest import scan
from tasks.ingest.blocks import Reject
from tasks.ingest.convert import as_type, json_text
from tasks.ingest.normal import normal_text

_UTC = pa.timestamp("us", tz="UTC")
_KINDS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "int": pa.int64(),
    "int32": pa.int32(),
    "double": pa.float64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamp_utc": _UTC,
    "binary": pa.binary(),
}
_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_MAX_PRECISION = 38
_NAMES = {kind: name for name, kind in reversed(_KINDS.items())}
_WHOLE = r"^(-?[0-9]+)\.0*$"
_HEX = "^-?0[xX]"
_ZONED = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_UNFIT = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
_LOOKS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (  # like every value that the casts below take
    (pa.types.is_integer, "^-?0*[0-9]{1,19}([.]0*)?$"),
    (pa.types.is_floating, "(?i)^[-+]?([.0-9]|inf|nan)"),
    (pa.types.is_decimal, "^[-+.0-9]"),
    (pa.types.is_boolean, "(?i)^(true|false|0|1)$"),
    (pa.types.is_temporal, "^[0-9]{4}-[0-9]{2}-[0-9]{2}"),
)
_NO_TEXT = pa.scalar(None, pa.string())
_FIRST, _LAST = "0001-01-01", "9999-12-31"

Lines = npt.NDArray[np.int64]


def kind_of(name: str) -> pa.DataType:
    """The type of a name in lethe.toml: string, int64 (int), int32, double (float), boolean, date, timestamp (without a zone),
    timestamp_utc, decimal(precision, scale), binary. Raises `ConfigError` for another name."""
    found = _DECIMAL.fullmatch(name.strip().lower())
    if found and 1 <= int(found[1]) <= _MAX_PRECISION and int(found[2]) <= int(found[1]):
        return pa.decimal128(int(found[1]), int(found[2]))
    if name.strip().lower() not in _KINDS:
        raise ConfigError(f"types: {name!r} is no type. Write one of {', '.join(_KINDS)}, decimal(precision, scale)")
    return _KINDS[name.strip().lower()]


def kinds_of(types: Mapping[str, str]) -> dict[str, pa.DataType]:
    """The types of columns by name. Raises `ConfigError` naming the column whose type is none."""
    kinds = dict[str, pa.DataType]()
    for column, name in types.items():
        try:
            kinds[column] = kind_of(name)
        except ConfigError as error:
            raise ConfigError(f"types.{column}{str(error).removeprefix('types')}") from None
    return kinds


def name_of(kind: pa.DataType) -> str:
    """The name of a type in lethe.toml."""
    return f"decimal({kind.precision},{kind.scale})" if pa.types.is_decimal(kind) else _NAMES[kind]


def apply(
    batch: pa.RecordBatch, forced: Mapping[str, pa.DataType], lines: Lines | None, options: ReadSettings
) -> tuple[pa.RecordBatch, Lines | None, list[Reject]]:
    """The rows with the columns `forced` (any case) in their types, the lines of those rows, and a reject for every row that has
    a value which is none of its type; its raw form is the row as JSON.

    In a typed column empty text, NA, N/A, null, NULL and `options.null_strings` are NULL, NaN too where the type has none, blanks
    around a value are no part of it. A whole number may end in .0, a time without a zone is in UTC, binary is the text's UTF-8.
    """
    wanted = {name.lower(): kind for name, kind in forced.items()}
    columns, schema, reasons = list(batch.columns), batch.schema, dict[int, str]()
    for place, field in enumerate(batch.schema):
        kind = wanted.get(field.name.lower())
        if kind is None or kind == field.type:
            continue
        columns[place], bad = _column(batch.column(place), kind, options)
        schema = schema.set(place, field.with_type(kind))
        for row in bad:
            reasons.setdefault(row, f"type: column {field.name!r} is no {name_of(kind)}")
    typed = pa.RecordBatch.from_arrays(columns, schema=schema)
    if not reasons:
        return typed, lines, []
    return _kept(typed, batch, lines, reasons)


def _kept(
    typed: pa.RecordBatch, batch: pa.RecordBatch, lines: Lines | None, reasons: Mapping[int, str]
) -> tuple[pa.RecordBatch, Lines | None, list[Reject]]:
    keep = np.ones(batch.num_rows, np.bool_)
    keep[list(reasons)] = False
    rows = sorted(reasons)
    raws = batch.take(pa.array(rows, pa.int64())).to_pylist()
    rejects = [
        Reject(0 if lines is None else int(lines[row]), reasons[row], json_text(raw)) for row, raw in zip(rows, raws, strict=True)
    ]
    return typed.filter(pa.array(keep)), None if lines is None else lines[keep], rejects


def _column(column: pa.Array, kind: pa.DataType, options: ReadSettings) -> tuple[pa.Array, Sequence[int]]:
    """The column as `kind`, NULL where a value is none, and the places of those."""
    is_text = pa.types.is_string(column.type)
    cast: Callable[[pa.Array], pa.Array] = partial(_cast if is_text else as_type, kind=kind)
    if is_text:
        column = _meant(column, kind, options)
    try:
        return cast(column), []
    except _UNFIT:
        bad = _misspelled(column, kind) if is_text else []
    column = _without(column, bad)
    bad = sorted([*bad, *_unfit(column, cast)])
    return cast(_without(column, bad)), bad


def _without(column: pa.Array, places: Sequence[int]) -> pa.Array:
    gone = np.zeros(len(column), np.bool_)
    gone[list(places)] = True
    return column.take(pa.array(np.arange(len(column)), mask=gone))


def _misspelled(column: pa.Array, kind: pa.DataType) -> list[int]:
    """The places of values that do not look like the kind: most of those that are none, all at once."""
    looks = next((pattern for is_one, pattern in _LOOKS if is_one(kind)), "")
    return np.flatnonzero(~np.asarray(pc.match_substring_regex(column, looks).fill_null(True))).tolist()


def _unfit(column: pa.Array, cast: Callable[[pa.Array], pa.Array]) -> list[int]:
    """The places of the values that cannot be cast, by halving."""
    try:
        cast(column)
    except _UNFIT:
        if len(column) == 1:
            return [0]
        half = len(column) // 2
        return _unfit(column.slice(0, half), cast) + [half + place for place in _unfit(column.slice(half), cast)]
    return []


def _meant(column: pa.StringArray, kind: pa.DataType, options: ReadSettings) -> pa.Array:
    """Text as a type reads it: without blanks around it, with NULL for the words that mean it."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return column
    if options.null_strings or options.date_formats or options.decimal_mark == ",":
        column = normal_text(column, options, moments=pa.types.is_temporal(kind))
    column = pc.utf8_trim(column, " \t")
    words = scan.NULL_WORDS if pa.types.is_floating(kind) else pa.concat_arrays([scan.NULL_WORDS, scan.NAN_WORDS])
    return pc.if_else(pc.is_in(column, value_set=words), _NO_TEXT, column)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text as what it spells; raises `pa.ArrowInvalid` if one value spells nothing of the kind."""
    if pa.types.is_integer(kind):
        if pc.any(pc.match_substring_regex(column, _HEX)).as_py():  # which Arrow would read
            raise pa.ArrowInvalid("a hexadecimal number")
        return pc.cast(pc.replace_substring_regex(column, _WHOLE, r"\1"), kind)
    if pa.types.is_temporal(kind):
        return _moments(column, kind)
    return pc.cast(column, kind)


def _moments(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) and kind.tz:
        is_day = pc.equal(pc.utf8_length(column), len(_FIRST))
        is_zoned = pc.match_substring_regex(pc.utf8_slice_codeunits(column, len(_FIRST)), _ZONED)
        zone = pc.if_else(is_day, "T00:00Z", pc.if_else(is_zoned, "", "Z"))
        column = pc.binary_join_element_wise(column, zone, "")
    days = pc.utf8_slice_codeunits(column, 0, len(_FIRST))
    if pc.any(pc.or_(pc.less(days, _FIRST), pc.greater(days, _LAST))).as_py():
        raise pa.ArrowInvalid("not in the years 1 to 9999")
    return pc.cast(column, kind)
