"""Whose row is it: the ids that a row names, their tokens (computed once a distinct value), and the place of the row.

Ids lie in a column or on a path into one: `author_id`, `author.id` (a field of a struct), `people[].id` (of every struct in a
list), `tags[]` (the items of a list), to any depth. A column's exact name is never read as a path. Maps, and JSON in a text,
are not looked into. A row concerns everybody whom any of its subject columns names; its place is decided by the first one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.ids import I64, U64, Keys, subject_places, subject_token
from infra.settings import SubjectSettings

Mask = npt.NDArray[np.bool_]

_ITEMS = -1  # the step from a list to its items; every other step is the number of a struct's field
_N_NAMED = 12


# --- where the ids are --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Way:
    """A column's number, the steps from there to the ids, and the type that they end on."""

    column: int
    steps: tuple[int, ...]
    leaf: pa.DataType


def root(schema: pa.Schema, subject: SubjectSettings) -> str | None:
    """The column that must be read to find the subject's ids; None where the schema has no ids of it."""
    way = _way(schema, subject)
    return None if way is None else schema.names[way.column]


def roots(schema: pa.Schema, subjects: Iterable[SubjectSettings]) -> list[str]:
    """The columns that must be read for several subjects, each once; those that the schema lacks are left out."""
    found = (root(schema, subject) for subject in subjects)
    return list(dict.fromkeys(name for name in found if name is not None))


def declared(schema: pa.Schema, subjects: Iterable[SubjectSettings]) -> list[list[str]]:
    """[kind, column] of each subject that the schema has, as a commit's parameters keep them (see `remembered`)."""
    return [[subject.kind, subject.column] for subject in subjects if _way(schema, subject) is not None]


def remembered(params: Mapping[str, Any]) -> tuple[SubjectSettings, ...]:
    """The subjects that a commit's parameters tell of: `subjects`, a list of [kind, column], or `subject`, one of them."""
    one = params.get("subject")
    pairs = params.get("subjects") or ([one] if one else [])
    return tuple(SubjectSettings(kind=kind, column=column) for kind, column in pairs)


def is_absent(schema: pa.Schema, subject: SubjectSettings) -> bool:
    """Whether the schema has no column at all that the subject's path could start from: such a table has nobody of this kind."""
    return _start(schema, subject) is None


def missing(schema: pa.Schema, subject: SubjectSettings) -> str | None:
    """What keeps the subject's ids from being found in a schema, in words, with the way out; None where they are found."""
    if _way(schema, subject) is not None:
        return None
    asked, start = subject.column, _start(schema, subject)
    if start is None:
        near = [name for name in schema.names if _folded(name) == _folded(asked)]
        out = f"Names match exactly: write {near[0]!r}" if near else f"It has: {_listed(schema.names)}"
        return f"there is no column {asked!r}. {out}"
    kind = schema.field(start).type
    text = " Text that holds JSON is not looked into." if _is_text(kind) and asked != start else ""
    inside = [start + path for path in _leaves(kind)]
    out = f"It has: {_listed(inside)}" if inside else "Name a column that holds ids"
    return f"{asked!r} leads to no ids in column {start!r}, which holds {_noun(kind)}.{text} {out}"


def _way(schema: pa.Schema, subject: SubjectSettings) -> _Way | None:
    found = _walk(pa.struct(list(schema)), f".{subject.column}")
    if found is None or pa.types.is_nested(found[1]):
        return None
    (column, *steps), leaf = found
    return _Way(column, tuple(steps), leaf)


def _walk(kind: pa.DataType, path: str) -> tuple[tuple[int, ...], pa.DataType] | None:
    """The steps that a path takes into a type, and the type it ends on; None where it leads nowhere."""
    if not path:
        return (), kind
    if path.startswith("[]"):
        return _stepped(_ITEMS, kind.value_type, path[2:]) if _is_list(kind) else None
    if not pa.types.is_struct(kind):
        return None
    fields = {kind.field(i).name: i for i in range(kind.num_fields)}
    found = (_stepped(fields[name], kind.field(fields[name]).type, rest) for name, rest in _heads(path, fields))
    return next((steps for steps in found if steps is not None), None)


def _stepped(step: int, kind: pa.DataType, rest: str) -> tuple[tuple[int, ...], pa.DataType] | None:
    found = _walk(kind, rest)
    return None if found is None else ((step, *found[0]), found[1])


def _heads(path: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """The names that a path `.name...` may start with, and what is left of it. Names may hold dots: the longest comes first."""
    begun = (name for name in names if path.startswith(f".{name}") and path[len(name) + 1 :][:1] in ("", ".", "["))
    return [(name, path[len(name) + 1 :]) for name in sorted(begun, key=len, reverse=True)]


def _start(schema: pa.Schema, subject: SubjectSettings) -> str | None:
    return next((name for name, _ in _heads(f".{subject.column}", schema.names)), None)


def _leaves(kind: pa.DataType) -> list[str]:
    """The paths, as lethe.toml writes them, to everything in a nested type that may be an id."""
    if _is_list(kind):
        return [f"[]{path}" for path in _leaves(kind.value_type)] or ([] if pa.types.is_nested(kind.value_type) else ["[]"])
    if not pa.types.is_struct(kind):
        return []
    fields = (kind.field(i) for i in range(kind.num_fields))
    return [f".{f.name}{p}" for f in fields for p in (_leaves(f.type) if pa.types.is_nested(f.type) else [""])]


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return any(check(kind) for check in (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _noun(kind: pa.DataType) -> str:
    nouns = {"lists": _is_list, "objects": pa.types.is_struct, "maps": pa.types.is_map, "text": _is_text}
    return next((noun for noun, check in nouns.items() if check(kind)), str(kind))


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


# --- whose a row is -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    """Who is named by the rows of a batch: entry i says that row rows[i] names the subject of token tokens[codes[i]]. Entries
    follow the rows, and in a row the list; NULL names nobody."""

    rows: I64
    codes: I64
    tokens: list[str]


def subject_values(batch: pa.RecordBatch | pa.Table, subject: SubjectSettings) -> tuple[I64, pa.Array]:
    """The ids that a batch holds, NULLs left out, and the row of each: int64 (m,) and an array of length m, in the order of the
    rows. Nobody where the batch lacks the column."""
    way = _way(batch.schema, subject)
    if way is None:
        return np.empty(0, np.int64), pa.nulls(0)
    ids: Any = _whole(batch.column(way.column))
    rows = np.arange(batch.num_rows, dtype=np.int64)
    for step in way.steps:
        if step == _ITEMS:
            # Lengths, and not the parents' indices: those count what lies under a NULL, too.
            rows = np.repeat(rows, np.asarray(pc.fill_null(pc.list_value_length(ids), 0)))
            ids = ids.flatten()
        else:
            ids = pc.struct_field(ids, [step])
    if ids.null_count:
        rows, ids = rows[np.asarray(ids.is_valid())], ids.drop_null()
    return rows, ids


def concerned(
    batch: pa.RecordBatch | pa.Table, subjects: Iterable[SubjectSettings], sought: Mapping[str, frozenset[str]], keys: Keys
) -> Mask:
    """Which rows name one of the sought subjects (tokens, by kind) in any of the subject columns, bool (n,)."""
    mask = np.zeros(batch.num_rows, np.bool_)
    for subject in subjects:
        if tokens := sought.get(subject.kind):
            named = _named(batch, subject, keys)
            wanted = np.array([token in tokens for token in named.tokens], np.bool_)
            mask[named.rows[wanted[named.codes]]] = True
    return mask


def subject_tokens(column: pa.Array | pa.ChunkedArray, kind: str, keys: Keys) -> pa.Array:
    """The HMAC token (hex) of every value of a column of ids, NULL where it is NULL. Memory: one token a distinct value."""
    encoded = _encoded(_whole(column))
    tokens = pa.array([None if v is None else subject_token(keys, kind, v) for v in encoded.dictionary.to_pylist()], pa.string())
    return tokens.take(encoded.indices)


def row_places(batch: pa.RecordBatch | pa.Table, subject: SubjectSettings | None, keys: Keys) -> U64:
    """The place (keyed 64-bit number) of every row, shape (n,): that of the first id it names, or its own id where it names none.

    `batch` must hold `row_id`; `subject` is the table's first one.
    """
    places = np.asarray(batch.column("row_id")).astype(np.int64).view(np.uint64).copy()
    if subject is None or batch.num_rows == 0:
        return places
    named = _firsts(_named(batch, subject, keys))
    if named.tokens:
        places[named.rows] = subject_places(keys, named.tokens)[named.codes]
    return places


def subject_ranks(batch: pa.RecordBatch | pa.Table, subject: SubjectSettings, keys: Keys) -> I64:
    """The rank of every row's first subject in the order of the tokens, int64 (n,); rows that name nobody come last."""
    named = _firsts(_named(batch, subject, keys))
    ranks = np.full(batch.num_rows, len(named.tokens), np.int64)
    if named.tokens:
        ranks[named.rows] = np.argsort(np.argsort(np.array(named.tokens)))[named.codes]
    return ranks


def _firsts(named: _Named) -> _Named:
    """The first entry of each row that names anybody."""
    is_first = np.append(True, np.diff(named.rows) > 0)[: len(named.rows)]
    return _Named(named.rows[is_first], named.codes[is_first], named.tokens)


def _named(batch: pa.RecordBatch | pa.Table, subject: SubjectSettings, keys: Keys) -> _Named:
    rows, ids = subject_values(batch, subject)
    encoded = _encoded(ids)
    values = encoded.dictionary.to_pylist()
    codes = np.asarray(encoded.indices).astype(np.int64)
    if None in values:  # a dictionary may hold a NULL
        known = np.array([value is not None for value in values])
        rows, codes = rows[known[codes]], (np.cumsum(known) - 1)[codes[known[codes]]]
    return _Named(rows, codes, [subject_token(keys, subject.kind, value) for value in values if value is not None])


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _encoded(array: pa.Array) -> pa.DictionaryArray:
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


# --- JSON ---------------------------------------------------------------------------------------------------------------------


def json_ids(document: Any, subject: SubjectSettings) -> list[Any] | None:
    """The ids that a row names which is written as a JSON object; None where its keys do not lead to any place of ids, so that
    the row may be of another shape than the table's."""
    return _ids_at(document, f".{subject.column}")


def _ids_at(node: Any, path: str) -> list[Any] | None:
    if node is None:
        return []
    if not path:
        return None if isinstance(node, (dict, list)) else [node]
    if path.startswith("[]"):
        return _joined(_ids_at(item, path[2:]) for item in node) if isinstance(node, list) else None
    if not isinstance(node, dict):
        return None
    found = (_ids_at(node[name], rest) for name, rest in _heads(path, node))
    return next((ids for ids in found if ids is not None), None)


def _joined(parts: Iterable[list[Any] | None]) -> list[Any] | None:
    joined = list[Any]()
    for part in parts:
        if part is None:
            return None
        joined += part
    return joined
