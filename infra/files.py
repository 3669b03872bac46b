"""One Parquet file at a time, in a folder or on s3://: written once under a unique name, read in bounded memory.

Arguments are small and picklable, so that workers need nothing but them. The name of a data file says its row count's digest and
its source: `part-<uuid>-<source>-<n rows>-<digest>.parquet`. The digest is keyed and tells nothing without the lake's secret; the
source is a plain hash of a raw file's uri, so whoever guesses the uri can confirm it. Where a file holds the rows of several raw
files (`m` for its source), one more column, which the table's schema does not name and no reader sees, says which row is whose.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts import MIXED, DataFile, LetheError
from infra.ids import Digest
from infra.rowhash import row_hashes

ROW_GROUP_BYTES = 8 << 20
ROW_GROUP_ROWS = 65_536
_TINY_BYTES = 64 << 10
_UPLOAD_BYTES = 8 << 20
_SAMPLE_ROWS = 4096  # of a file's first row group, from which its encodings are told
_NARROW = 1 << 48
SOURCE = "_lethe_source"  # the hidden column of mixed files: int64, `source_number` of each row's raw file
_NAME = re.compile(r"part-[0-9a-f]{32}-([0-9a-f]{16}|0|m)-(\d+)-([0-9a-f]{32})\.parquet$")


_SOURCE_FIELD = pa.field(SOURCE, pa.int64())


class MissingFile(LetheError):
    """A data file that the log names is not there."""


@dataclass(frozen=True, repr=False)
class Folder:
    """Where a worker writes data files: a table's folder, and the key of its row hashes."""

    uri: str
    row_key: bytes

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"


@dataclass(frozen=True)
class Part:
    """One data file to read, with the table's schema to read it as."""

    uri: str
    file: DataFile
    schema: pa.Schema


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path in it. Listings are never cached: other writers move under us."""
    if uri.startswith("/"):
        return _local(), uri.rstrip("/") or "/"
    fs, path = fsspec.core.url_to_fs(uri, **(_s3_options() if uri.startswith(("s3://", "s3a://")) else {}))
    return fs, str(path)


def _s3_options() -> dict[str, Any]:
    """A store that is busy or away for a moment is asked again. What FSSPEC_S3 says comes first."""
    told = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    patience = {"retries": {"mode": "standard", "max_attempts": 8}, "connect_timeout": 10, "read_timeout": 60}
    return {"use_listings_cache": False, "config_kwargs": {**patience, **told}}


@cache
def _local() -> Any:
    return fsspec.filesystem("file")


def source_key(uri: str) -> str:
    """16 hex characters that stand for a raw file in data file names."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def source_number(key: str) -> int:
    """A source key as the number that the hidden column of mixed files holds."""
    return int.from_bytes(bytes.fromhex(key), "big", signed=True)


def quarantine_source(table: str, uri: str) -> str:
    """The source under which a raw file's rejects lie in quarantine: one file may feed several tables."""
    return f"{table} {uri}"


def parse_name(path: str) -> tuple[Digest, str] | None:
    """(digest, source key) that a data file's name tells; None for a name that Lethe did not give."""
    match = _NAME.search(path)
    if match is None:
        return None
    return Digest(int(match[2]), int(match[3], 16)), "" if match[1] == "0" else match[1]


# --- writing ----------------------------------------------------------------------------------------------------------


def write_part(
    folder: Folder,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    *,
    source: str = "",
    stats: Sequence[str] = (),
    digest_columns: Sequence[str] | None = None,
    digest_of: Callable[[], Digest] | None = None,
    mixed: bool = False,
    partition: Mapping[str, str | None] | None = None,
) -> DataFile:
    """Write batches as one uniquely named Parquet file, in zstd unless it is tiny, and describe it.

    The digest covers `digest_columns` (all, if None); whoever hashed the rows already says it with `digest_of`, which is called
    after the last batch. Exact bounds of the `stats` columns go to the table's log and to the file's footer: name no column there
    that may hold personal data. Null counts of all flat columns go to the log. The file is invisible until a commit names it;
    that flushes it to the disk first.
    `mixed`: the batches hold the column `SOURCE` beside the schema's; it is written and counts for nothing else. `partition`: the
    rows' common values of the partition columns.
    """
    tally = _Tally([*schema.names] if digest_columns is None else [*digest_columns], stats, folder.row_key, digest_of)
    key = MIXED if mixed else source_key(source) if source else ""
    full = schema.append(_SOURCE_FIELD) if mixed else schema

    def name() -> str:
        digest = tally.digest()
        return f"part-{uuid.uuid4().hex}-{key or '0'}-{digest.n_rows}-{digest.total:032x}.parquet"

    put = _uploaded if _is_remote(folder.uri) else _renamed
    path, n_bytes = put(folder.uri.rstrip("/"), lambda sink: _write_rows(sink, batches, full, tally), name)
    described = {name: {"n_nulls": n_nulls} for name, n_nulls in tally.n_nulls.items()}
    described |= {name: bound.as_json() for name, bound in tally.bounds.items()}
    digest = tally.digest()
    return DataFile(path, digest.n_rows, n_bytes, str(digest), described, key, dict(partition or {}))


def _renamed(folder: str, write: Callable[[Any], None], name: Callable[[], str]) -> tuple[str, int]:
    """Write a file of a local folder under another name first: no reader meets half a file. Returns its name and bytes."""
    place = filesystem(folder)[1]
    os.makedirs(place, exist_ok=True)
    draft = f"{place}/draft-{uuid.uuid4().hex}.parquet"
    try:
        with open(draft, "xb") as sink:
            write(sink)
        n_bytes, path = os.path.getsize(draft), name()
        os.rename(draft, f"{place}/{path}")
    finally:
        Path(draft).unlink(missing_ok=True)
    return path, n_bytes


def _uploaded(folder: str, write: Callable[[Any], None], name: Callable[[], str]) -> tuple[str, int]:
    """Write a file without a name and upload it: a killed worker leaves no rows on its own disk."""
    fs, place = filesystem(folder)
    with tempfile.TemporaryFile() as draft:
        write(draft)
        n_bytes, path = draft.tell(), name()
        draft.seek(0)
        with fs.open(f"{place}/{path}", "wb") as target:
            shutil.copyfileobj(draft, target, _UPLOAD_BYTES)
    return path, n_bytes


def _write_rows(sink: Any, batches: Iterable[pa.RecordBatch], schema: pa.Schema, tally: _Tally) -> None:
    groups = _row_groups(batches, schema)
    first = next(groups, schema.empty_table())
    options: dict[str, Any] = {"write_statistics": [*tally.bounds] or False, **_encodings(first)}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for group in chain([first] if first.num_rows else [], groups):
            tally.take(group)
            writer.write_table(group, row_group_size=group.num_rows)


def _encodings(first: pa.Table) -> dict[str, Any]:
    """How a file's columns are written, told from its first rows.

    A zstd context for every column takes longer than a tiny file does. Elsewhere values that come back go to a dictionary, and
    whole numbers are written as differences, which take half the time of plain ones and half the place; not row ids and other
    numbers that fill their 64 bits, for which both are larger and slower. Every reader of Delta's knows these two encodings.
    """
    if first.nbytes <= _TINY_BYTES:
        return {"use_dictionary": [field.name for field in first.schema if _is_text(field.type)] or False}
    rows = pa.array(np.linspace(0, first.num_rows - 1, min(first.num_rows, _SAMPLE_ROWS), dtype=np.int64))
    sample = {field.name: first.column(field.name).take(rows) for field in first.schema if not pa.types.is_nested(field.type)}
    whole = [name for name, column in sample.items() if _is_narrow(column)]
    repeated = [name for name, column in sample.items() if name not in whole and _is_repeated(column)]
    differences = dict.fromkeys(whole, "DELTA_BINARY_PACKED")
    zstd = {"compression": "zstd", "compression_level": 1}
    return {"use_dictionary": repeated or False, "column_encoding": differences or None, **zstd}


def _is_narrow(column: pa.ChunkedArray) -> bool:
    """Whether these are whole numbers, dates or instants of a range that leaves some of their 64 bits empty."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)) or kind.bit_width < 32:
        return False
    bounds = pc.min_max(column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()))
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is None or high - low < _NARROW


def _is_repeated(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary pays: at most half of the texts, or an eighth of the numbers, are distinct."""
    kind = column.type
    per_value = 2 if _is_text(kind) else 8 if pa.types.is_int64(kind) or pa.types.is_floating(kind) else 0
    return per_value > 0 and per_value * pc.count_distinct(column).as_py() <= len(column)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)


class _Tally:
    """What is told of a file's rows while they are written: their digest and the bounds of some columns."""

    def __init__(
        self, columns: Sequence[str], stats: Sequence[str], row_key: bytes, digest_of: Callable[[], Digest] | None
    ) -> None:
        self.bounds = {name: _Bounds() for name in stats}
        self.n_nulls = dict[str, int]()
        self._columns = columns
        self._row_key = row_key
        self._digest_of = digest_of
        self._digest = Digest()

    def take(self, group: pa.Table) -> None:
        if self._digest_of is None:
            self._digest += Digest.of(row_hashes(group, self._columns, self._row_key))
        else:
            self._digest += Digest(group.num_rows)
        for name, bound in self.bounds.items():
            bound.update(group.column(name))
        for field in group.schema:
            if field.name not in self.bounds and field.name != SOURCE and not pa.types.is_nested(field.type):
                self.n_nulls[field.name] = self.n_nulls.get(field.name, 0) + group.column(field.name).null_count

    def digest(self) -> Digest:
        if self._digest_of is None:
            return self._digest
        digest = self._digest_of()
        if digest.n_rows != self._digest.n_rows:
            raise AssertionError(f"{self._digest.n_rows} rows were written, {digest.n_rows} hashed")
        return digest


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches joined into row groups of bounded bytes, cast to the schema and free of dictionaries (they would keep erased
    values).
    """
    held: list[pa.RecordBatch] = []
    n_rows, n_bytes = 0, 0.0
    for whole in batches:
        per_row = whole.nbytes / max(1, whole.num_rows)
        for start in range(0, whole.num_rows, ROW_GROUP_ROWS):
            batch = whole.slice(start, ROW_GROUP_ROWS)
            more = per_row * batch.num_rows
            if held and (n_rows + batch.num_rows > ROW_GROUP_ROWS or n_bytes + more > ROW_GROUP_BYTES):
                yield _conformed(held, schema)
                held, n_rows, n_bytes = [], 0, 0.0
            held.append(batch)
            n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + more
    if held:
        yield _conformed(held, schema)


def _conformed(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return table if table.schema.equals(schema) else table.select(schema.names).cast(schema)


class _Bounds:
    """Running exact minimum, maximum and null count of one column; unbounded as soon as NaN or an infinity is seen."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None
        self.n_nulls = 0
        self.bounded = True

    def update(self, column: pa.ChunkedArray) -> None:
        self.n_nulls += column.null_count
        if pa.types.is_floating(column.type):
            self.bounded = self.bounded and all(_is_finite(chunk) for chunk in column.chunks)
        if not self.bounded:
            return
        found = pc.min_max(column).as_py()
        if found["min"] is not None:
            self.low = found["min"] if self.low is None else min(self.low, found["min"])
            self.high = found["max"] if self.high is None else max(self.high, found["max"])

    def as_json(self) -> dict[str, Any]:
        bounds = {"min": _plain(self.low), "max": _plain(self.high)} if self.bounded and self.low is not None else {}
        return {**bounds, "n_nulls": self.n_nulls}


def _is_finite(chunk: pa.Array) -> bool:
    """Whether no value is NaN or infinite; NULLs are no values."""
    if chunk.null_count:
        return pc.all(pc.is_finite(chunk), skip_nulls=True).as_py() is not False
    return bool(np.isfinite(chunk.to_numpy()).all())


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float)) else str(value)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_part(part: Part, columns: Sequence[str] | None = None, *, with_source: bool = False) -> Iterator[pa.RecordBatch]:
    """The rows of one file, a row group or less at a time, as the table's schema: absent columns are NULL, narrower types
    widened. `with_source` adds the column `SOURCE`: the number of each row's raw file, NULL where none is known.
    """
    wanted = part.schema if columns is None else pa.schema([part.schema.field(name) for name in columns])
    for batch in _batches(part, wanted.append(_SOURCE_FIELD) if with_source and part.file.source == MIXED else wanted):
        yield _with_source(batch, part.file.source) if with_source and part.file.source != MIXED else batch


def _with_source(batch: pa.RecordBatch, source: str) -> pa.RecordBatch:
    number = pa.scalar(source_number(source) if source else None, pa.int64())
    return batch.append_column(_SOURCE_FIELD, pa.repeat(number, batch.num_rows))


def _batches(part: Part, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    fs, path = filesystem(part.uri)
    try:
        file = fs.open(path, "rb") if _is_remote(part.uri) else pa.memory_map(path)
    except FileNotFoundError:
        raise MissingFile(
            f"data file {part.file.path} is gone; the table was purged or vacuumed. Read its snapshot again"
        ) from None
    with file, pq.ParquetFile(file) as parquet:
        written = {*parquet.schema_arrow.names}  # made anew at each call
        present = [name for name in wanted.names if name in written]
        for batch in parquet.iter_batches(ROW_GROUP_ROWS, columns=present, use_threads=False):
            yield conform(batch, wanted)


def read_part_table(part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one file as a table."""
    wanted = part.schema if columns is None else pa.schema([part.schema.field(name) for name in columns])
    return pa.Table.from_batches(read_part(part, columns), schema=wanted)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the schema's columns and types: absent columns are NULL, types are cast without loss or refused."""
    if batch.schema.equals(schema):
        return batch
    arrays = [
        batch.column(field.name).cast(field.type) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
