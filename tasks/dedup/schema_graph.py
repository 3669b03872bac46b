"""Which tables could contain which by their columns alone: an inverted index from column to schemas, rarest column first.
Pure.

Column names are compared without case. Types are compared as logical kinds, so that a value has one meaning on both sides:
widths of integers, widths of floats, scales of decimals and units of timestamps do not matter; int64 and double, dates and
timestamps, timestamps with and without a zone never meet. Nested types meet where their fields do. Whether the values agree is
for the later steps to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types as pt

from infra.contracts import DataFile

NULL = "null"
_FAMILIES = (
    (pt.is_boolean, "bool"),
    (pt.is_integer, "int"),
    (pt.is_floating, "float"),
    (pt.is_decimal, "decimal"),
    (pt.is_date, "date"),
    (pt.is_time, "time"),
    (pt.is_duration, "duration"),
    (pt.is_null, NULL),
    (lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t), "string"),
    (lambda t: pt.is_binary(t) or pt.is_large_binary(t) or pt.is_binary_view(t) or pt.is_fixed_size_binary(t), "binary"),
)


@dataclass(frozen=True)
class SchemaClass:
    """Tables with one schema: lower-case column names in order, the kind of each, and the tables (positions in the scan)."""

    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    members: tuple[int, ...]


def kind_of(dtype: pa.DataType) -> str:
    """The logical kind of a type: equal kinds may hold equal values.

    Lists, maps and structs have the kinds of what they hold; the fields of a struct count without case and in any order.
    """
    if pt.is_dictionary(dtype) or pt.is_run_end_encoded(dtype):
        return kind_of(dtype.value_type)
    if pt.is_timestamp(dtype):
        return "local timestamp" if dtype.tz is None else "timestamp"
    if pt.is_nested(dtype):
        return _nested_kind(dtype)
    return next((family for test, family in _FAMILIES if test(dtype)), str(dtype))


def _nested_kind(dtype: pa.DataType) -> str:
    if pt.is_struct(dtype):
        # The name is quoted: it may hold whatever would end it.
        return "struct<" + ", ".join(sorted(f"{field.name.lower()!r}: {kind_of(field.type)}" for field in dtype)) + ">"
    if pt.is_map(dtype):
        return f"map<{kind_of(dtype.key_type)}, {kind_of(dtype.item_type)}>"
    return str(dtype) if pt.is_union(dtype) else f"list<{kind_of(dtype.value_type)}>"


def kinds_of(fields: Sequence[pa.Field], files: Sequence[DataFile]) -> dict[str, str]:
    """The kinds of a table's columns by lower-case name, as its files have them.

    A column in which every row of every file is NULL is of kind NULL, whatever its type: there was no value to tell it by. The
    counts are the log's; where one is missing, the type counts. Empty where two columns, or two fields of a struct, differ in
    nothing but case: such a table cannot be compared.
    """
    if _is_ambiguous(fields):
        return {}
    counted = [file for file in files if file.n_rows]
    return {field.name.lower(): NULL if _is_all_null(field.name, counted) else kind_of(field.type) for field in fields}


def _is_all_null(column: str, files: Sequence[DataFile]) -> bool:
    return bool(files) and all(file.stats.get(column, {}).get("n_nulls") == file.n_rows for file in files)


def _is_ambiguous(fields: Iterable[pa.Field]) -> bool:
    """Whether names among the fields, at any depth, differ in nothing but case."""
    held = list(fields)
    return len({field.name.lower() for field in held}) < len(held) or any(_is_ambiguous(_inner(field.type)) for field in held)


def _inner(dtype: pa.DataType) -> list[pa.Field]:
    if pt.is_dictionary(dtype) or pt.is_run_end_encoded(dtype):
        return _inner(dtype.value_type)
    return [dtype.field(place) for place in range(dtype.num_fields)]


def compatible(child: str, parent: str) -> bool:
    """Whether a value of one kind can be a value of the other. A column of the null type holds no value that could disagree."""
    return child == parent or NULL in (child, parent)


def schema_classes(schemas: Sequence[Mapping[str, str]]) -> list[SchemaClass]:
    """Tables grouped by equal schema, where a schema maps lower-case names to kinds; tables without columns belong to no
    class.
    """
    groups = defaultdict[tuple[tuple[str, str], ...], list[int]](list)
    for table, schema in enumerate(schemas):
        if schema:
            groups[tuple(sorted(schema.items()))].append(table)
    return [
        SchemaClass(tuple(name for name, _ in items), tuple(kind for _, kind in items), tuple(members))
        for items, members in groups.items()
    ]


def class_pairs(classes: Sequence[SchemaClass]) -> Iterator[tuple[int, int]]:
    """Every (child class, parent class) whose schemas fit, each class with itself among them."""
    postings = defaultdict[str, set[int]](set)
    for number, one in enumerate(classes):
        for column in one.columns:
            postings[column].add(number)
    schemas = [dict(zip(one.columns, one.kinds, strict=True)) for one in classes]
    for child, one in enumerate(classes):
        rarest_first = sorted((postings[column] for column in one.columns), key=len)
        for parent in sorted(set.intersection(*rarest_first)):
            if all(compatible(kind, schemas[parent][name]) for name, kind in schemas[child].items()):
                yield child, parent


def n_table_pairs(child: SchemaClass, parent: SchemaClass) -> int:
    """How many ordered pairs of two different tables a pair of classes stands for."""
    n_pairs = len(child.members) * len(parent.members)
    return n_pairs - len(child.members) if child is parent else n_pairs
