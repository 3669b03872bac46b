"""Schema drift: whether a file may join a table as the table's files so far have made it. Pure.

New columns, new fields of objects and types that widen without loss may always join, in any order of files. What may not is a
file after which a typed column could only be text (or JSON as text): the types of everybody's rows would change for one file's
sake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.ingest.infer import Shape, Shapes, columns_of, join, type_of

_SHOWN = 5
_NAMES = {
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamp_utc",
    pa.decimal128(20, 0): "decimal(20,0)",
}
_KINDS = ((pa.types.is_struct, "object"), (pa.types.is_list, "list"), (pa.types.is_map, "map"))


@dataclass(frozen=True)
class _Clash:
    """A place at or within a column that cannot hold the values of both, and its type on either side."""

    column: str
    path: str
    stands: pa.DataType
    comes: pa.DataType

    def __str__(self) -> str:
        return f"column {self.path!r} is {_said(self.stands)} in the table and {_said(self.comes)} in this file"


def conflict(known: Mapping[str, Shape], coming: Shapes, forced: Collection[str] = ()) -> str | None:
    """Why a file cannot join a table, for a person; None if it can.

    `known`: the joined shapes of the files that the table stands on, by lower-cased name; `coming`: the file's own. Columns with
    `forced` types (lower-cased names) meet no drift. The message says `tables.NAME` where the table's section belongs.
    """
    clashes = [
        clash
        for name, shape in columns_of([coming])
        if name.lower() in known and name.lower() not in forced
        for clash in _clashes(name, name, known[name.lower()], shape, 0)
    ]
    if not clashes:
        return None
    more = f", and {len(clashes) - _SHOWN} more" if len(clashes) > _SHOWN else ""
    return f"{', '.join(str(clash) for clash in clashes[:_SHOWN])}{more}; to take both set {_way_out(clashes)}"


def _clashes(column: str, path: str, stands: Shape, comes: Shape, depth: int) -> Iterator[_Clash]:
    """The places at or below `path` where two shapes meet in text although the first is something narrower."""
    before, after = type_of(stands, depth), type_of(join(stands, comes), depth)
    if before is None or after is None or pa.types.is_string(before):
        return
    if pa.types.is_string(after):
        yield _Clash(column, path, before, type_of(comes, depth) or pa.string())
    elif pa.types.is_struct(after):
        fields = dict(stands.fields)
        for name, inner in comes.fields:
            if name in fields:
                yield from _clashes(column, f"{path}.{name}", fields[name], inner, depth + 1)
    elif pa.types.is_list(after) and stands.item is not None and comes.item is not None:
        yield from _clashes(column, f"{path}[]", stands.item, comes.item, depth + 1)


def _said(kind: pa.DataType) -> str:
    """A type's name, as lethe.toml would have it where it can."""
    nested = next((word for is_one, word in _KINDS if is_one(kind)), None)
    return nested or _NAMES.get(kind, str(kind))


def _way_out(clashes: Sequence[_Clash]) -> str:
    """The options that decide. What lies within a column has no type of its own in lethe.toml."""
    whole = 'drift = "text" for the whole table'
    if len(clashes) > _SHOWN or any(clash.path != clash.column for clash in clashes):
        return whole
    types = [f'tables.NAME.types.{_key(clash.column)} = "string"' for clash in clashes]
    return f"{', '.join(types)}, or {whole}"


def _key(name: str) -> str:
    """A column's name as a key of TOML."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
