"""Opens every object that the residue scan meets and shows it each cell, bound, log line and name. Pure, over open files.

What an object is, its bytes tell, not its name: Parquet (data, change data, checkpoints), JSON and JSON lines, SQLite,
safetensors, NumPy, Arrow, zip, gzip, text. Of anything else the printable runs are looked at, and it counts as opaque.
"""

from __future__ import annotations

import gzip
import io
import re
import sqlite3
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.files import SOURCE
from infra.ids import U64, subject_text
from infra.mentions import MAX_ID_BYTES, text_tokens
from infra.rowhash import UnhashableColumn, row_hashes
from tasks.forget.locate import quarantined
from tasks.forget.parquet_bytes import MAGIC, NotParquetError, bounds, n_blooms
from tasks.forget.residue import (
    Findings,
    Role,
    Tally,
    Target,
    Wanted,
    any_subject,
    hit,
    look,
    look_json,
    look_name,
    look_piece,
    parse_json,
    place_of,
    speaks_of_subject,
    without_names,
)

_LISTS = re.compile(r"\.(list\.(element|item)|bag\.array_element)\b")  # how Parquet's own paths spell the items of a list
_PRINTABLE = re.compile(rb"[\x20-\x7e\x80-\xff]{6,}")
_BATCH_ROWS = 65_536
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


# --- Arrow ----------------------------------------------------------------------------------------------------------------------


def _look_array(tally: Tally, array: Any, path: str, role: Role) -> None:
    """Every cell of a column, nested ones too. A dictionary is looked through whole: it may hold values that no row has."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        _look_array(tally, array.storage, path, role)
    elif pa.types.is_dictionary(kind):
        tally.n_cells += len(array)
        _look_array(tally, array.dictionary, path, role)
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            _look_array(tally, array.field(i), f"{path}.{kind.field(i).name}", role)
    elif pa.types.is_map(kind):
        _look_array(tally, array.keys, f"{path}.key", role)
        _look_array(tally, array.items, f"{path}.value", role)
    elif hasattr(array, "flatten") and pa.types.is_nested(kind):
        _look_array(tally, array.flatten(), f"{path}[]", role)
    else:
        tally.n_cells += len(array)
        _look_leaves(tally, array, path, _leaf_role(tally, path, role))


def _leaf_role(tally: Tally, path: str, role: Role) -> Role:
    """The role of a leaf: places name them as lethe.toml does, `cells of people[].id`."""
    return "subject" if path.casefold().endswith(tuple(f" of {column}" for column in tally.target.columns)) else role


def _look_leaves(tally: Tally, array: Any, path: str, role: Role) -> None:
    if pa.types.is_integer(array.type) and _holds_row_id(tally.wanted, array):
        hit(tally, f"{path} (row id)")
    if role == "subject":
        if any_subject(tally, _texts(pc.unique(array))):
            hit(tally, path)
    elif _is_textual(array.type):
        _look_strings(tally, pc.unique(array), path, role)


def _look_strings(tally: Tally, distinct: Any, path: str, role: Role) -> None:
    if role == "free":
        for value in distinct.to_pylist():
            look(tally, value, path, role)
        return
    lengths: Any = pc.binary_length(distinct)
    short = distinct.filter(pc.less_equal(lengths, pa.scalar(MAX_ID_BYTES, lengths.type)))
    if any_subject(tally, _texts(short)):
        tally.mentions.add(place_of(tally, path))


def _texts(distinct: Any) -> set[str]:
    values = distinct.drop_null().to_pylist()
    return set(values) if pa.types.is_string(distinct.type) else {subject_text(value) for value in values}


def _is_textual(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    views = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in (*checks, *views))


def _holds_row_id(wanted: Wanted, array: pa.Array) -> bool:
    if array.type not in (pa.int64(), pa.uint64()) or not len(wanted.row_ids):
        return False
    values = wanted.row_ids if array.type == pa.int64() else wanted.row_ids.view(np.uint64)
    return bool(pc.any(pc.is_in(array, value_set=pa.array(values))).as_py())


# --- Parquet --------------------------------------------------------------------------------------------------------------------


def _look_parquet(tally: Tally, file: BinaryIO) -> None:
    """Cells, unreferenced dictionary values, row hashes, key-value metadata, and the bounds in footer, pages and page index."""
    for bound in bounds(file):
        look(tally, bound.value, f"{bound.where} of {bound.column}", _column_role(tally, bound.column))
    tally.n_opaque += n_blooms(file)
    file.seek(0)
    flat = pq.ParquetFile(file).schema
    texts = [flat.column(i).path for i in range(len(flat)) if flat.column(i).physical_type == "BYTE_ARRAY"]
    file.seek(0)
    parquet = pq.ParquetFile(file, read_dictionary=texts)
    for key, value in (parquet.metadata.metadata or {}).items():
        look(tally, f"{subject_text(key)} {subject_text(value)}", "footer metadata", "free")
    for field in parquet.schema_arrow:
        for key, value in (field.metadata or {}).items():
            look(tally, f"{subject_text(key)} {subject_text(value)}", f"metadata of {field.name}", "free")
    is_log = "_delta_log" in tally.target.name
    for batch in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
        if is_log:
            _look_actions(tally, batch)
        else:
            _look_batch(tally, batch)


def _column_role(tally: Tally, column: str) -> Role:
    folded = column.casefold()
    if {folded, folded.partition(".")[0], _LISTS.sub("[]", folded)} & tally.target.columns:
        return "subject"
    return "free" if "_delta_log" in tally.target.name else "other"


def _look_batch(tally: Tally, batch: pa.RecordBatch) -> None:
    if {"table", "raw", "line"} <= set(batch.schema.names):
        tally.n_cells += batch.num_rows
        if quarantined(batch, tally.wanted.subjects, tally.wanted.sought, tally.wanted.keys).any():
            hit(tally, "raw lines")
    for column, array in zip(batch.schema.names, batch.columns, strict=True):
        _look_array(tally, array, f"cells of {column}", _column_role(tally, column))
    if tally.wanted.hashes:
        _look_rows(tally, batch)


def _look_rows(tally: Tally, batch: pa.RecordBatch) -> None:
    columns = [name for name in batch.schema.names if name not in ("row_id", SOURCE)]
    try:
        hashes = row_hashes(batch, columns, tally.wanted.keys.row)
    except UnhashableColumn:
        return
    if contains_hash(hashes, tally.wanted.hashes):
        hit(tally, "a whole row")


def contains_hash(hashes: U64, wanted: Iterable[int]) -> bool:
    """Whether one of the row hashes, uint64 (n, 2), is among 128-bit numbers."""
    numbers = frozenset(wanted)
    low = np.fromiter((number & 0xFFFFFFFFFFFFFFFF for number in numbers), np.uint64, len(numbers))
    near = hashes[np.isin(hashes[:, 0], low)]
    return any(int(a) | int(b) << 64 in numbers for a, b in near)


def _look_actions(tally: Tally, batch: pa.RecordBatch) -> None:
    """A checkpoint of a Delta log: its rows are the log's lines again."""
    for row in batch.to_pylist(maps_as_pydicts="lossy"):
        look_json(tally, {key: value for key, value in row.items() if value is not None}, "log")


# --- other formats --------------------------------------------------------------------------------------------------------------


def _look_sqlite(tally: Tally, path: str) -> None:
    """All cells of all tables of a database file, opened read-only, and what its schema says."""
    uri = f"file:{urllib.parse.quote(path)}?mode=ro"
    connection = sqlite3.connect(uri, uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        tally.n_opaque += bool(connection.execute("PRAGMA freelist_count").fetchone()[0])
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        for table, definition in tables:
            look(tally, definition, f"definition of {table}", "free")
            _look_rows_of(tally, connection.execute('SELECT * FROM "{}"'.format(table.replace('"', '""'))), table)
    finally:
        connection.close()


def _look_rows_of(tally: Tally, cursor: sqlite3.Cursor, table: str) -> None:
    columns = [description[0] for description in cursor.description]
    for row in cursor:
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, bytes):
                _look_bytes(tally, value, f"{table}.{column}")
            else:
                look(tally, value, f"{table}.{column}", "free")


def _look_bytes(tally: Tally, data: bytes, path: str) -> None:
    """Bytes by what they are: a container is opened, a text is read, of anything else the printable runs are looked at."""
    try:
        opened = _look_container(tally, data, path)
    except _BROKEN:
        opened = False
    if opened:
        return
    if (text := _utf8(data)) is not None:
        _look_lines(tally, text, path)
        return
    tally.n_opaque += 1
    for run in _PRINTABLE.finditer(data):
        text = run[0].decode("utf-8", "replace").replace("\ufffd", " ")
        look(tally, text, path, "free")
        # The byte before a text is often its length, and may look like a letter.
        look(tally, text[1:], path, "free")


def _look_container(tally: Tally, data: bytes, path: str) -> bool:
    if data[:2] == b"\x1f\x8b":
        _look_bytes(tally, gzip.decompress(data), path)
    elif data[:4] == b"PK\x03\x04":
        _look_zip(tally, data, path)
    elif data[:6] == b"\x93NUMPY":
        _look_numpy(tally, data, path)
    elif data[:6] == b"ARROW1":
        _look_arrow(tally, pa.ipc.open_file(data).read_all(), path)
    elif data[:4] == b"\xff\xff\xff\xff":
        _look_arrow(tally, pa.ipc.open_stream(data).read_all(), path)
    elif (header := _safetensors_header(data)) is not None:
        _look_safetensors(tally, data, header, path)
    else:
        return False
    return True


def _look_lines(tally: Tally, text: str, path: str) -> None:
    """A text: one JSON document, JSON lines, or a text whose first line may name its columns."""
    document = parse_json(text)
    if document is not None:
        look_json(tally, document, path)
        return
    lines = text.splitlines()
    titled = bool(lines) and speaks_of_subject(tally, lines[0])
    for line in lines:
        document = parse_json(line) if line[:1] in ("{", "[") else None
        if document is not None:
            look_json(tally, document, path)
            continue
        tally.n_cells += 1
        left = without_names(tally, line, path)
        named = titled or speaks_of_subject(tally, left)
        for piece in text_tokens(left):
            look_piece(tally, piece, path, whole=False, named=named)


def _look_zip(tally: Tally, data: bytes, path: str) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            look_name(tally, member.filename, f"{path} (member name)")
            _look_bytes(tally, archive.read(member), f"{path}!{member.filename}")


def _look_arrow(tally: Tally, table: pa.Table, path: str) -> None:
    for batch in table.to_batches():
        for column, array in zip(batch.schema.names, batch.columns, strict=True):
            _look_array(tally, array, f"{path} cells of {column}", _column_role(tally, column))


def _look_numpy(tally: Tally, data: bytes, path: str) -> None:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if values.dtype.kind in "iuSU":
        _look_array(tally, pa.array(values.ravel()), path, "free")
    else:
        tally.n_cells += values.size


def _safetensors_header(data: bytes) -> dict[str, Any] | None:
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or length + 8 > len(data):
        return None
    header = parse_json(data[8 : 8 + length].decode("utf-8", "replace"))
    return header if isinstance(header, dict) else None


def _look_safetensors(tally: Tally, data: bytes, header: dict[str, Any], path: str) -> None:
    """The header (names, shapes, metadata) and the 64-bit integer tensors, which may hold row ids; weights count as cells."""
    look_json(tally, header, path)
    body = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        start, stop = tensor["data_offsets"]
        if tensor["dtype"] in ("I64", "U64"):
            _look_array(tally, pa.array(np.frombuffer(body[start:stop], np.int64)), f"{path} tensor {name}", "free")
        else:
            tally.n_cells += int(np.prod(tensor["shape"]))


def _utf8(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


# --- one object -----------------------------------------------------------------------------------------------------------------


def scan_name(target: Target, wanted: Wanted) -> Findings:
    """What the name of a folder says."""
    tally = Tally(wanted, target)
    look_name(tally, target.name)
    return tally.findings(0)


def scan_file(target: Target, wanted: Wanted, file: BinaryIO, *, path: str | None = None) -> Findings:
    """Decode one open file and look for what is wanted. `path` is its local path, which SQLite needs.

    Memory: a row group of Parquet, a row of SQLite; the whole file of any other format.
    """
    tally = Tally(wanted, target)
    look_name(tally, target.name)
    head = file.read(16)
    file.seek(0)
    if head[:4] == MAGIC:
        n_bytes = file.seek(0, 2)
        _try_parquet(tally, file)
    elif head == b"SQLite format 3\x00" and path is not None and _try_sqlite(tally, path):
        n_bytes = file.seek(0, 2)
    else:
        data = file.read()
        n_bytes = len(data)
        _look_bytes(tally, data, "content")
    return tally.findings(n_bytes)


def _try_sqlite(tally: Tally, path: str) -> bool:
    """False for a database that is damaged or locked: it is looked at as bytes then, and counts as opaque."""
    try:
        _look_sqlite(tally, path)
    except sqlite3.DatabaseError:
        return False
    return True


def _try_parquet(tally: Tally, file: BinaryIO) -> None:
    """A draft that a killed writer left has no footer: its pages cannot be decoded, and it is reported as a hit of its own."""
    try:
        _look_parquet(tally, file)
    except (NotParquetError, pa.ArrowInvalid, OSError):
        hit(tally, "a Parquet file that cannot be decoded")
