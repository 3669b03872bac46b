"""What type a column has: a join semilattice of shapes, and the one Arrow type that holds a shape's values without loss.

A shape says which kinds of values were seen. Joining is union, so it is commutative, associative and idempotent, and the type of
a column depends on the set of its files, not on their order. Text is the top: what no narrower type holds exactly stays as
written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import pyarrow as pa

from infra.files import SOURCE
from tasks.ingest import scan

_KINDS = scan.BOOL | scan.INT | scan.BIG | scan.HUGE | scan.DOUBLE | scan.INF | scan.DATE | scan.STAMP | scan.INSTANT
_NESTED = scan.LIST | scan.STRUCT
_SPELLED = (_KINDS | _NESTED | scan.OTHER) & ~(scan.INT | scan.BIG)
_MAX_DEPTH = 8
_UTC = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Shape:
    """The kinds seen in one column, the exact types of Parquet files that hold it, and the shapes inside structs and lists."""

    mask: int = 0
    exact: frozenset[str] = frozenset()
    fields: tuple[tuple[str, Shape], ...] = ()
    item: Shape | None = None


Shapes = dict[str, Shape]
TEXT = Shape(scan.TEXT)


def join(one: Shape, other: Shape) -> Shape:
    """The least shape above both."""
    mask = one.mask | other.mask
    if mask & scan.TEXT:
        return TEXT
    fields = join_all([dict(one.fields), dict(other.fields)])
    items = [shape for shape in (one.item, other.item) if shape is not None]
    return Shape(mask, one.exact | other.exact, tuple(sorted(fields.items())), reduce(join, items) if items else None)


def join_all(all_shapes: Iterable[Mapping[str, Shape]]) -> Shapes:
    """Columns by name, joined; a column that a file lacks says nothing."""
    joined: Shapes = {}
    for shapes in all_shapes:
        for name, shape in shapes.items():
            joined[name] = join(joined[name], shape) if name in joined else shape
    return joined


def text_shape(mask: int) -> Shape:
    """The shape of a column read from text or JSON: any type that holds its values will do."""
    return TEXT if mask & scan.TEXT else Shape(mask | scan.FREE if mask & (_KINDS | _NESTED | scan.OTHER) else mask)


def as_subject(shapes: Shapes, column: str) -> Shapes:
    """The shapes of one file, with its subject's column (whatever its case) as text unless all its ids are whole numbers that
    print as they are written: an id is found by how it is spelled. Columns that have a type of their own (Parquet) keep it."""

    def held(shape: Shape) -> Shape:
        return TEXT if shape.mask & scan.FREE and shape.mask & _SPELLED else shape

    return {name: held(shape) if name.lower() == column.lower() else shape for name, shape in shapes.items()}


def type_of(shape: Shape, depth: int = 0) -> pa.DataType | None:
    """The narrowest type that holds every value of the shape exactly; None if there is no value but NULL. int64 and double meet
    in double only if the integers are below 2^53, else in text."""
    kinds = shape.mask & (_KINDS | _NESTED | scan.OTHER)
    if shape.mask & scan.TEXT:
        return pa.string()
    if not kinds:
        return None
    if len(shape.exact) == 1 and not shape.mask & scan.FREE:
        return type_named(next(iter(shape.exact)))
    if kinds & _NESTED:
        return _nested(shape, kinds, depth)
    return _plain(kinds)


@cache
def _plain(kinds: int) -> pa.DataType:
    singles = {scan.BOOL: pa.bool_(), scan.DATE: pa.date32(), scan.STAMP: pa.timestamp("us"), scan.INSTANT: _UTC}
    if kinds in singles:
        return singles[kinds]
    if not kinds & ~(scan.INT | scan.BIG):
        return pa.int64()
    if not kinds & ~(scan.INT | scan.BIG | scan.HUGE):
        return pa.decimal128(20, 0)
    if not kinds & ~(scan.INT | scan.DOUBLE | scan.INF) and kinds != scan.INF:
        return pa.float64()
    return pa.string()


def _nested(shape: Shape, kinds: int, depth: int) -> pa.DataType:
    """A struct or a list; JSON text where the values disagree, where a struct has no fields, two that differ in case, or is too
    deep."""
    if depth >= _MAX_DEPTH:
        return pa.string()
    if kinds == scan.LIST:
        return pa.list_((shape.item and type_of(shape.item, depth + 1)) or pa.string())
    names = [name for name, _ in shape.fields]
    if kinds == scan.STRUCT and names and len({name.lower() for name in names}) == len(names):
        return pa.struct([(name, type_of(inner, depth + 1) or pa.string()) for name, inner in shape.fields])
    return pa.string()


# --- names ------------------------------------------------------------------------------------------------------------------


OURS = ("row_id", SOURCE)  # columns of Lethe's own: a file's of that name gets another


def unique_names(names: Sequence[str], taken: Iterable[str] = ("row_id",)) -> list[str]:
    """Column names without blanks around them, unique whatever their case: a, a_2, column_3; `row_id` is ours, the file's is
    row_id_."""
    seen = {name.lower() for name in taken}
    result = list[str]()
    for place, raw in enumerate(names, 1):
        name = " ".join(raw.split()) or f"column_{place}"
        name = f"{name}_" if name.lower() in OURS else name
        base, n = name, 1
        while name.lower() in seen:
            n += 1
            name = f"{base}_{n}"
        seen.add(name.lower())
        result.append(name)
    return result


def columns_of(shapes: Iterable[Shapes], known: Sequence[str] = ()) -> list[tuple[str, Shape]]:
    """The columns of a table from those of its files: known ones first, then in order of appearance. Names that differ only in
    case are one column, under the name seen first."""
    display = {name.lower(): name for name in known}
    joined: Shapes = {key: Shape() for key in display}
    for columns in shapes:
        for name, shape in columns.items():
            key = name.lower()
            display.setdefault(key, name)
            joined[key] = join(joined[key], shape) if key in joined else shape
    return [(display[key], shape) for key, shape in joined.items()]


def schema_of(columns: Sequence[tuple[str, Shape]]) -> pa.Schema:
    """The Arrow schema of the user's columns; a column that holds only NULL is text."""
    return pa.schema([(name, type_of(shape) or pa.string()) for name, shape in columns])


# --- Parquet types ----------------------------------------------------------------------------------------------------------


def deltable(kind: pa.DataType) -> pa.DataType:
    """The type in which Delta holds a type's values without loss: no unsigned integers, half floats, dictionaries, times of day,
    or units but microseconds. Nanoseconds are text here; the reader narrows them where the values allow."""
    t = pa.types
    plain = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}
    if kind in plain:
        return plain[kind]
    if t.is_float16(kind):
        return pa.float32()
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return deltable(kind.value_type)
    if t.is_timestamp(kind):
        return pa.string() if kind.unit == "ns" else _UTC if kind.tz else pa.timestamp("us")
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind) or t.is_binary_view(kind):
        return pa.binary()
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return pa.list_(deltable(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([(f.name, deltable(f.type)) for f in kind]) if kind.num_fields else pa.string()
    if t.is_map(kind):
        return pa.map_(deltable(kind.key_type), deltable(kind.item_type))
    if t.is_date(kind):
        return pa.date32()
    if t.is_duration(kind):
        return pa.int64()
    kept = t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_decimal128(kind)
    return kind if kept else pa.string()


def type_shape(kind: pa.DataType, *, small: bool = False) -> Shape:
    """The shape of a Parquet column of a Delta type; `small` says that its integers are known to be below 2^53."""
    t = pa.types
    if t.is_string(kind):
        return TEXT
    if t.is_null(kind):
        return Shape(scan.NULL)
    bits = scan.OTHER
    if t.is_boolean(kind):
        bits = scan.BOOL
    elif t.is_integer(kind):
        bits = scan.INT if small or kind.bit_width <= 32 else scan.INT | scan.BIG
    elif kind == pa.decimal128(20, 0):
        bits = scan.HUGE
    elif t.is_floating(kind):
        bits = scan.DOUBLE
    elif t.is_date(kind):
        bits = scan.DATE
    elif t.is_timestamp(kind):
        bits = scan.INSTANT if kind.tz else scan.STAMP
    exact = frozenset({type_name(kind)})
    if t.is_list(kind):
        return Shape(scan.LIST, exact, item=type_shape(kind.value_type))
    if t.is_struct(kind):
        return Shape(scan.STRUCT, exact, tuple(sorted((f.name, type_shape(f.type)) for f in kind)))
    return Shape(bits, exact)


def type_name(kind: pa.DataType) -> str:
    """A type's name, from which `type_named` makes it again."""
    try:
        if pa.type_for_alias(str(kind)) == kind:
            return str(kind)
    except ValueError:
        pass
    return "ipc:" + base64.b64encode(pa.schema([("", kind)]).serialize().to_pybytes()).decode()


def type_named(name: str) -> pa.DataType:
    """The type of that name."""
    if not name.startswith("ipc:"):
        return pa.type_for_alias(name)
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(name[4:]))).field(0).type


# --- as JSON, for the ledger ------------------------------------------------------------------------------------------------


def to_json(shapes: Shapes) -> str:
    """Columns and their shapes as the ledger keeps them."""
    return json.dumps({name: _plain_json(shape) for name, shape in shapes.items()}, separators=(",", ":"))


def _plain_json(shape: Shape) -> Any:
    if not shape.exact and not shape.fields and shape.item is None:
        return shape.mask
    fields = {name: _plain_json(inner) for name, inner in shape.fields}
    return [shape.mask, sorted(shape.exact), fields, None if shape.item is None else _plain_json(shape.item)]


def from_json(text: str) -> Shapes:
    """The inverse of `to_json`."""
    return {name: _shape(value) for name, value in json.loads(text or "{}").items()}


def _shape(value: Any) -> Shape:
    if isinstance(value, int):
        return Shape(value)
    mask, exact, fields, item = value
    inner = tuple(sorted((name, _shape(f)) for name, f in fields.items()))
    return Shape(mask, frozenset(exact), inner, None if item is None else _shape(item))
