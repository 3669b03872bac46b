"""The columns that lethe.toml names: whether a table has them as they are written there, and whether ids can be found in them.
Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from infra.contracts import LetheError
from infra.settings import Settings, SubjectSettings
from tasks.ingest import scan
from tasks.ingest.infer import Shapes, as_subject

_NESTED = scan.LIST | scan.STRUCT


class ColumnError(LetheError):
    """A table lacks a column that lethe.toml names, or its subject's column holds lists or objects."""


def refuse_missing(settings: Settings, table: str, names: Sequence[str]) -> None:
    """Raise `ColumnError` unless the table has its subject's and its text's column under exactly these names.

    A table of a collection may lack them (it has no subject then), but not have them in another case. A table without any column
    is not looked at.
    """
    section = settings.table(table)
    for role, column in (("subject", section.subject and section.subject.column), ("text", section.text)):
        if not column or not names or column in names:
            continue
        near = [name for name in names if _folded(name) == _folded(column)]
        if near:
            raise ColumnError(f"{_missing(table, role, column, names)}. Names match exactly: write {near[0]!r} in lethe.toml")
        if table in settings.tables:
            raise ColumnError(f"{_missing(table, role, column, names)}. Correct lethe.toml")


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _missing(table: str, role: str, column: str, names: Sequence[str]) -> str:
    return f"table {table}, {role}: no column {column!r} in its files; they have: {', '.join(names)}"


def refuse_nested(table: str, subject: SubjectSettings | None, schema: pa.Schema) -> None:
    """Raise `ColumnError` where the subject's column is a list, a struct or a map."""
    for field in schema:
        if subject is not None and field.name.lower() == subject.column.lower() and pa.types.is_nested(field.type):
            raise ColumnError(nested(f"table {table}", field.name))


def nested(place: str, column: str) -> str:
    """What is said of a subject's column that holds lists or objects."""
    return f"{place}: the subject's column {column!r} holds lists or objects. Name one that holds one id a row"


def is_unsettled(settings: Settings, table: str, remembered: Mapping[str, Shapes]) -> bool:
    """Whether a file was ingested when its subject's column was not known to be one, and has to be looked at again: its ids are
    no longer as they were written, or are nested."""
    subject = settings.table(table).subject
    if subject is None:
        return False
    return any(
        as_subject(shapes, subject.column) != shapes or any(_is_nested(shapes, name, subject.column) for name in shapes)
        for shapes in remembered.values()
    )


def _is_nested(shapes: Shapes, name: str, column: str) -> bool:
    return name.lower() == column.lower() and bool(shapes[name].mask & _NESTED)
