"""How a table that is not stored is made again from its parents: the recipe, and its one written form. Pure.

A recipe names versions, columns, conditions on columns that carry no personal data, and the tables that hold the rest: the
keyed hashes of the child's rows (`members/<table>`) and the rows that its parents lack (`residual/<table>`).
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from infra.contracts import LetheError, Snapshot

PROJECTION, PREDICATE, MEMBERSHIP = "projection", "predicate", "membership"
MEMBERS, RESIDUAL, ROW_ID = "members/", "residual/", "row_id"


class NoRecipe(LetheError):
    """A table cannot be made from the parents it was said to have."""


@dataclass(frozen=True)
class Term:
    """A condition on one column of the parents. A row meets it where the value lies between `low` and `high` (None: no such
    bound; no bound at all: no range), is one of `values`, or is NULL and `nulls` says so; no row meets one that says nothing.

    A NaN lies in no range and equals a NaN among `values`; timestamps are datetimes, those with a zone in UTC.
    """

    column: str
    low: Any | None = None
    high: Any | None = None
    values: tuple[Any, ...] | None = None
    nulls: bool = False


@dataclass(frozen=True)
class Recipe:
    """What makes the table `table` (its name as in lethe.toml) from versions of its parents.

    `columns` pairs each of its columns with the parents' column, as written. All rows of all parents that meet every term are
    its rows; with `members`, those whose hashes over its columns are there, each as often as its count. The rows of `residual`
    are added. `digest` and `n_rows` are what must come out; `schema` is its Arrow schema (`row_id` included) as base64 of the IPC
    message. `source` is the key of the one raw file that all its rows came from, else empty. `subjects` are [kind, column] of
    those whom its rows name, `private` the columns whose bounds no log may tell.
    """

    table: str
    kind: str
    parents: tuple[Snapshot, ...]
    columns: tuple[tuple[str, str], ...]
    terms: tuple[Term, ...]
    members: Snapshot | None
    residual: Snapshot | None
    digest: str
    n_rows: int
    schema: str
    partition_by: tuple[str, ...] = ()
    source: str = ""
    subjects: tuple[tuple[str, str], ...] = ()
    private: tuple[str, ...] = ()


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as a recipe keeps it."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(recipe: Recipe) -> pa.Schema:
    """The Arrow schema of the table, `row_id` included."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(recipe.schema)))


# --- the written form ----------------------------------------------------------------------------------------------------------


def as_json(recipe: Recipe) -> str:
    """A recipe in one line of JSON; values of terms with their kinds."""
    document = asdict(recipe)
    document["terms"] = [_written_term(term) for term in recipe.terms]
    return json.dumps(document, sort_keys=True, allow_nan=False)


def of_json(text: str) -> Recipe:
    """The recipe that `as_json` wrote."""
    document: dict[str, Any] = json.loads(text)
    made: dict[str, Any] = {
        "parents": tuple(Snapshot(**parent) for parent in document["parents"]),
        "columns": _pairs(document["columns"]),
        "terms": tuple(_read_term(term) for term in document["terms"]),
        "members": _snapshot(document["members"]),
        "residual": _snapshot(document["residual"]),
        "partition_by": tuple(document["partition_by"]),
        "subjects": _pairs(document["subjects"]),
        "private": tuple(document["private"]),
    }
    return Recipe(**{**document, **made})


def _pairs(written: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((one, other) for one, other in written)


def _snapshot(written: dict[str, Any] | None) -> Snapshot | None:
    return None if written is None else Snapshot(**written)


def _written_term(term: Term) -> dict[str, Any]:
    values = None if term.values is None else [_written(value) for value in term.values]
    return {"column": term.column, "low": _written(term.low), "high": _written(term.high), "values": values, "nulls": term.nulls}


def _read_term(written: dict[str, Any]) -> Term:
    values = None if written["values"] is None else tuple(_read(value) for value in written["values"])
    return Term(written["column"], _read(written["low"]), _read(written["high"]), values, written["nulls"])


_READERS: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "float": float.fromhex,
    "str": str,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
}


def _written(value: Any) -> list[Any] | None:
    """[kind, value]: floats in hexadecimal, so that every bit comes back."""
    if value is None:
        return None
    if isinstance(value, float):
        return ["float", value.hex() if math.isfinite(value) else str(value)]
    if isinstance(value, dt.date):
        return [type(value).__name__, value.isoformat()]
    return [type(value).__name__, value]


def _read(written: list[Any] | None) -> Any:
    return None if written is None else _READERS[written[0]](written[1])
