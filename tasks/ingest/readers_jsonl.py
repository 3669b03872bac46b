"""JSON lines: blocks of objects. Each line stands alone, so a bad one is set aside alone.

Objects and arrays become structs and lists where the whole table agrees, JSON text where it does not. Keys that differ only in
case are one column; a line that holds two such keys, or one key twice, has no single meaning and is rejected.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.ingest import scan
from tasks.ingest.blocks import INVALID_UTF8, Block, Reject, as_text, is_utf8
from tasks.ingest.columns import ColumnError, nested
from tasks.ingest.convert import json_text
from tasks.ingest.infer import OURS, Shape, Shapes, join, join_all, text_shape
from tasks.ingest.streams import Unreadable

MAX_LINE_BYTES = 256 << 20
_MAX_DEPTH = 64
_SMALL = 1 << 53
_INT64 = 1 << 63
_SCALARS = {type(None): scan.NULL, bool: scan.BOOL, float: scan.DOUBLE, str: scan.TEXT}

Row = dict[str, Any]


class _Repeated(ValueError):
    """An object holds a key twice."""


def read(blocks: Iterator[bytes], subject: str | None = None, *, spelled: Collection[str] = ()) -> Iterator[Block]:
    """Objects of a JSON lines file in UTF-8, about a block at a time. Fractions in the column `subject`, and in the columns
    `spelled` (any case), are text, as they are spelled.

    Raises `Unreadable` when a line is longer than 256 MiB, and `ColumnError` when a subject is a list or an object.
    """
    wanted = frozenset(name.lower() for name in (*spelled, *([] if subject is None else [subject])))
    carry, line = list[bytes](), 1
    for fresh in blocks:
        cut = fresh.rfind(b"\n") + 1
        if not cut:
            carry.append(fresh)
            if sum(map(len, carry)) > MAX_LINE_BYTES:
                raise Unreadable(f"line {line} is longer than {MAX_LINE_BYTES >> 20} MiB")
            continue
        whole = b"".join([*carry, fresh[:cut]])
        carry = [fresh[cut:]]
        yield _block(whole, line, subject, wanted)
        line += whole.count(b"\n")
    if any(carry):
        yield _block(b"".join(carry), line, subject, wanted)


def _block(data: bytes, line: int, subject: str | None, spelled: frozenset[str]) -> Block:
    rows, lines, rejects, is_wide = list[Row](), list[int](), list[Reject](), False
    for number, raw in enumerate(data.split(b"\n"), line):
        if not raw.strip():
            continue
        row = _parsed(raw)
        if isinstance(row, str):
            rejects.append(Reject(number, row, as_text(raw)))
            continue
        if subject is not None:
            _refuse_nested(row, subject, number)
        rows.append(_as_spelled(row, raw, spelled) if spelled else row)
        lines.append(number)
        is_wide = is_wide or not raw.isascii()
    return Block(rows, len(rows), tuple(rejects), is_wide, np.array(lines, np.int64))


def _parsed(raw: bytes) -> Row | str:
    """The object on a line, or the reason why there is none. Reasons quote no data."""
    if not is_utf8(raw):
        return INVALID_UTF8
    try:
        row = json.loads(raw.decode(), object_pairs_hook=_unrepeated)
        if b"\\u" in raw:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "half a surrogate pair in a string"
    except _Repeated:
        return "a key is there twice"
    except json.JSONDecodeError as error:
        return f"not JSON from character {error.pos + 1} on"
    except ValueError:  # the only other one that the decoder raises
        return f"an integer of more than {sys.get_int_max_str_digits()} digits"
    except RecursionError:
        return "nested too deeply"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, not an object"
    if not row:
        return "an object without keys"
    return _columns(row)


def _unrepeated(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _Repeated
    return row


def _refuse_nested(row: Row, subject: str, line: int) -> None:
    name = subject if subject in row else next((name for name in row if name.lower() == subject.lower()), subject)
    if isinstance(row.get(name), (dict, list)):
        raise ColumnError(nested(f"line {line}", name))


def _as_spelled(row: Row, raw: bytes, spelled: frozenset[str]) -> Row:
    """The row with its numbers in some columns (lower-cased) as text, as they are spelled, where one of them has a fraction or an
    exponent."""
    names = {name for name, value in row.items() if isinstance(value, float) and name.lower() in spelled}
    if not names:
        return row
    texts: Row = json.loads(raw.decode(), parse_float=str, parse_constant=str)
    return row | {_column_name(key): value for key, value in texts.items() if _column_name(key) in names}


def _columns(row: Row) -> Row | str:
    named = {_column_name(key): value for key, value in row.items()}
    if len({name.lower() for name in named}) != len(row):
        return "two keys differ only in case or blanks"
    if any(_depth(value) > _MAX_DEPTH for value in named.values() if isinstance(value, (dict, list))):
        return "nested too deeply"
    return named


def _column_name(key: str) -> str:
    name = key if key and key.isidentifier() else " ".join(key.split()) or "column"
    return f"{name}_" if name.lower() in OURS else name


def _depth(value: Any) -> int:
    """How deep a value nests, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        inner = list[Any]()
        for one in level:
            inner.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        level = inner
    return depth


# --- types ------------------------------------------------------------------------------------------------------------------


def shapes(rows: list[Row]) -> Shapes:
    """The shape of every column that the objects have."""
    masks, nested = dict[str, int](), dict[str, Shape]()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, (dict, list)):
                masks.setdefault(name, 0)  # keeps the columns in order of appearance
                nested[name] = join(nested.get(name, Shape()), shape_of(value))
            else:
                masks[name] = masks.get(name, 0) | _bits(value)
    return join_all([{name: text_shape(mask) for name, mask in masks.items()}, nested])


def shape_of(value: Any) -> Shape:
    """The shape of one JSON value."""
    if isinstance(value, dict):
        fields = {name: shape_of(inner) for name, inner in value.items()}
        return Shape(scan.STRUCT | scan.FREE, fields=tuple(sorted(fields.items())))
    if isinstance(value, list):
        items = join_all({"item": shape_of(inner)} for inner in value)
        return Shape(scan.LIST | scan.FREE, item=items.get("item"))
    return text_shape(_bits(value))


def _bits(value: Any) -> int:
    bits = _SCALARS.get(type(value))
    if bits is not None:
        return bits
    if -_SMALL < value < _SMALL:
        return scan.INT
    return scan.BIG if -_INT64 <= value < _INT64 else scan.TEXT


def typed(rows: list[Row], schema: pa.Schema, known: dict[str, Shape]) -> tuple[pa.RecordBatch, list[Reject]]:
    """The objects as columns of the schema; what a line lacks is NULL, what the schema lacks is not wanted. `known` is not
    needed: JSON spells no NULL but null."""
    del known
    columns: dict[str, list[Any]] = {field.name.lower(): [None] * len(rows) for field in schema}
    held = {name: columns.get(name.lower(), [None] * len(rows)) for row in rows for name in row}
    for place, row in enumerate(rows):
        for name, value in row.items():
            held[name][place] = value
    arrays = [pa.array(_fitted(columns[field.name.lower()], field.type), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), []


def _fitted(values: list[Any], kind: pa.DataType) -> list[Any]:
    """Values as pyarrow takes them for a type: text for what is no text in a column that ended as text, at any depth."""
    if pa.types.is_string(kind):
        return [v if v is None or isinstance(v, str) else json_text(v) for v in values]
    if pa.types.is_nested(kind):
        return [_fit(v, kind) for v in values]
    return values


def _fit(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json_text(value)
    if pa.types.is_struct(kind):
        return {field.name: _fit(value.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_fit(inner, kind.value_type) for inner in value]
    return value
