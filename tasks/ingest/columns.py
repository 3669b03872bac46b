"""The columns that lethe.toml names: whether a table has them as they are written there, and whether ids can be found in them.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from infra import subjects
from infra.contracts import LetheError
from infra.settings import Settings, SubjectSettings, TableSettings
from tasks.ingest import scan
from tasks.ingest.infer import Shapes, as_subject

_NESTED = scan.LIST | scan.STRUCT


class ColumnError(LetheError):
    """A table lacks a column that lethe.toml names, or its subject's column holds lists or objects."""


def refuse_missing(settings: Settings, table: str, schema: pa.Schema) -> None:
    """Raise `ColumnError` unless the table has the columns that lethe.toml names, under exactly these names.

    A table of a collection may lack them (it has no subject then), but not have them in another case. A table without any column
    is not looked at.
    """
    section = settings.table(table)
    names = [name for name in schema.names if name != "row_id"]
    for role, column in _named(section):
        if not names or column in names:
            continue
        near = [name for name in names if _folded(name) == _folded(column)]
        if near:
            raise ColumnError(f"{_missing(table, role, column, names)}. Names match exactly: write {near[0]!r} in lethe.toml")
        if table in settings.tables:
            raise ColumnError(f"{_missing(table, role, column, names)}. Correct lethe.toml")
    for subject in section.subjects:
        _refuse_subject(settings, table, schema, subject)


def _named(section: TableSettings) -> Iterable[tuple[str, str]]:
    if section.text:
        yield "text", section.text
    for role, columns in (("columns", section.columns or ()), ("types", section.types), ("partition_by", section.partition_by)):
        yield from ((role, column) for column in columns)


def _refuse_subject(settings: Settings, table: str, schema: pa.Schema, subject: SubjectSettings) -> None:
    why = subjects.missing(schema, subject) if schema.names else None
    is_optional = table not in settings.tables and subjects.is_absent(schema, subject)
    if why is not None and not (is_optional and not _is_near(schema.names, subject.column)):
        raise ColumnError(f"table {table}, subject: {why}. Correct lethe.toml")


def _is_near(names: Sequence[str], column: str) -> bool:
    return any(_folded(name) == _folded(column) for name in names)


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _missing(table: str, role: str, column: str, names: Sequence[str]) -> str:
    # Of a table that keeps some columns, the others are not known any more.
    has = "" if role == "columns" else f"; they have: {', '.join(names)}"
    return f"table {table}, {role}: no column {column!r} in its files{has}"


def refuse_nested_shapes(place: str, subject: SubjectSettings, shapes: Shapes) -> None:
    """Raise `ColumnError` where a file's column of subjects is lists or objects, and no path says where the ids are in them."""
    for name in shapes:
        if _is_nested(shapes, name, subject.column):
            raise ColumnError(nested(place, name))


def nested(place: str, column: str) -> str:
    """What is said of a subject's column that holds lists or objects."""
    return f"{place}: the subject's column {column!r} holds lists or objects. Name the ids in it: {column}[] or {column}.field"


def is_unsettled(section: TableSettings, remembered: Mapping[str, Shapes]) -> bool:
    """Whether a file was ingested when a subject's column was not known to be one, and has to be looked at again: its ids are no
    longer as they were written, or are nested."""
    return any(
        as_subject(shapes, subject.column) != shapes or any(_is_nested(shapes, name, subject.column) for name in shapes)
        for subject in section.subjects
        for shapes in remembered.values()
    )


def _is_nested(shapes: Shapes, name: str, column: str) -> bool:
    return name.lower() == column.lower() and bool(shapes[name].mask & _NESTED)
