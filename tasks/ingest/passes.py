"""One reading of one raw file, or of a segment of it: its blocks, what they tell of the file, and its rows as the table has
them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from aiohttp import ClientError

from infra.contracts import QUARANTINE, DataFile, LetheError
from infra.files import Folder, quarantine_source, write_part
from infra.ids import Keys
from tasks.ingest import (
    archives,
    contract,
    forced,
    readers_arrow,
    readers_csv,
    readers_idx,
    readers_image,
    readers_json,
    readers_jsonl,
    readers_parquet,
    readers_text,
    rows,
)
from tasks.ingest.blocks import INVALID_UTF8, Block, Reject, quarantine_batches
from tasks.ingest.columns import ColumnError, refuse_nested_shapes
from tasks.ingest.content import WHOLE, ContentReader, Segment, content_digest
from tasks.ingest.fields import Fields
from tasks.ingest.formats import Format, format_of, refusal
from tasks.ingest.infer import Shape, Shapes, as_subject, columns_of, join_all
from tasks.ingest.normal import Spelled
from tasks.ingest.packs import PLAIN, Job
from tasks.ingest.sources import RawFile
from tasks.ingest.streams import Unreadable, byte_blocks, encoding_of, recoded, utf8_blocks

_Lines = npt.NDArray[np.int64] | None
_ENCODED = ("csv", "tsv", "jsonl", "json")
_SINK_BYTES = 32 << 20
_OBJECT_BYTES = 2048


@dataclass(frozen=True)
class Site:
    """Where rows go and who may not come back: the quarantine's folder, the lake's keys, the suppressed subjects' tokens."""

    quarantine: Folder
    keys: Keys
    suppressed: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Reading:
    """What one reading tells of a file or a segment: the shapes of its columns, its encoding and dialect (JSON), the digests of
    its blocks, and where its rows went.

    `again`: it was no segment to be read by itself (a quote spans its end, or its encoding is not what a segment may have).
    `n_invalid` lines are not UTF-8; `is_wide`: others are, beyond ASCII.
    """

    raw: RawFile
    shapes: Shapes
    encoding: str = "utf-8"
    dialect: str = ""
    blocks: tuple[str, ...] = ()
    n_lines: int = 0
    n_rows: int = 0
    n_quarantined: int = 0
    n_suppressed: int = 0
    n_invalid: int = 0
    is_wide: bool = False
    again: bool = False

    @property
    def is_other(self) -> bool:
        """Whether this is no UTF-8 file: lines beyond ASCII are there and none of them is valid."""
        return self.n_invalid > 0 and not self.is_wide

    @property
    def content_digest(self) -> str:
        return content_digest(self.blocks)


def joined(readings: Sequence[Reading]) -> Reading:
    """The readings of a file's segments, in their order, as one of the file."""
    if len(readings) == 1:
        return readings[0]

    def total(name: str) -> int:
        return sum(getattr(reading, name) for reading in readings)

    return replace(
        readings[0],
        shapes=join_all(reading.shapes for reading in readings),
        blocks=tuple(block for reading in readings for block in reading.blocks),
        **{name: total(name) for name in ("n_lines", "n_rows", "n_quarantined", "n_suppressed", "n_invalid")},
        is_wide=any(reading.is_wide for reading in readings),
        again=any(reading.again for reading in readings),
    )


@dataclass(frozen=True)
class _Reader:
    shapes: Callable[[Any], Shapes]
    typed: Callable[[Any, pa.Schema, dict[str, Shape]], tuple[pa.RecordBatch, list[Reject]]]
    is_text: bool = True


_CSV = _Reader(readers_csv.shapes, readers_csv.typed)
_OBJECTS = _Reader(readers_jsonl.shapes, readers_jsonl.typed)
_PARQUET = _Reader(lambda _rows: {}, readers_parquet.typed, is_text=False)  # its footer tells the shapes
_COLUMNS = _Reader(readers_arrow.shapes, readers_parquet.typed, is_text=False)
_READERS = {
    **dict.fromkeys(("csv", "tsv"), _CSV),
    **dict.fromkeys(("jsonl", "json"), _OBJECTS),
    **dict.fromkeys(("arrow", "text", "image", "idx"), _COLUMNS),
    "parquet": _PARQUET,
}


class Unreached(LetheError):
    """The store of a raw file failed while it was read."""


class Watched:
    """A binary file whose store's failures are told as what they are: a decoder above it would take them for damage, and what was
    not read for rows that are not there."""

    def __init__(self, raw: RawFile, file: Any) -> None:
        self._raw = raw
        self._file = file

    def read(self, n_bytes: int = -1) -> bytes:
        """As the file's own. Raises `Unreached`."""
        try:
            data: bytes = self._file.read(n_bytes)
        except (OSError, ClientError) as error:
            said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            raise Unreached(f"{self._raw.uri}: its store broke off while it was read ({said}). Run the command again") from None
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Pass:
    """What one reading has met so far: the shapes of columns, rejects, how many rows were suppressed."""

    def __init__(self, job: Job, site: Site, encoding: str | None = None, segment: Segment = WHOLE) -> None:
        self.job = job
        self.shapes: Shapes = {}
        self.sink = Sink(job.raw, site.quarantine)
        self._encoding = encoding or job.table.encoding
        self.format = format_of(job.raw.uri, job.table.format)
        self._site = site
        self._segment = segment
        self._reader = _READERS.get(self.format.name)
        self._dialect = ""
        self._n = {"rows": 0, "suppressed": 0, "invalid": 0}
        self._is_wide = False
        self._again = False

    # --- blocks ---------------------------------------------------------------------------------------------------------------

    @contextmanager
    def opened(self) -> Iterator[tuple[ContentReader, Iterator[Block]]]:
        """The bytes and, read from them, the blocks; what cannot be read is one reject at the end (line 0)."""
        with archives.opened(self.job.raw.uri, modified=self.job.raw.modified, then=self.job.raw.labels) as file:
            reader = ContentReader(Watched(self.job.raw, file), self._segment)
            yield reader, self._blocks(reader)

    def _blocks(self, reader: ContentReader) -> Iterator[Block]:
        try:
            yield from self._unguarded(reader)
        except ColumnError as error:
            raise ColumnError(f"table {self.job.raw.table}, {self.job.raw.uri}, {error}") from None
        except Unreadable as failure:
            yield Block(None, 0, (Reject(0, str(failure), ""),))

    def _unguarded(self, reader: ContentReader) -> Iterator[Block]:
        raw, options = self.job.raw, self.job.table.reading
        match self.format.name:
            case "csv" | "tsv":
                yield from self._records(reader)
            case "jsonl" | "json":
                yield from self._objects(reader)
            case "parquet" | "arrow":
                yield from self._columnar()
            case "text":
                text = byte_blocks(reader, self.format.compression)
                yield from readers_text.read(text if options.encoding is None else utf8_blocks(text, options.encoding), raw.path)
            case "image":
                yield from readers_image.read(byte_blocks(reader, self.format.compression), raw.path, size=options.image_size)
            case "idx":
                yield from self._arrays(reader)
            case "zip" | "tar":
                raise Unreadable(archives.refusal(raw.uri))
            case _:
                raise Unreadable(refusal(raw.uri))

    def _columnar(self) -> Iterator[Block]:
        with _random_access(self.job.raw, self.format) as found:
            file = Watched(self.job.raw, found)
            if self.format.name == "arrow":
                yield from readers_arrow.read(file)
                return
            with readers_parquet.opened(file) as parquet:
                yield from readers_parquet.read(parquet)

    def _arrays(self, reader: ContentReader) -> Iterator[Block]:
        values, labels = byte_blocks(reader, self.format.compression), self.job.raw.labels
        if not labels:
            yield from readers_idx.read(values)
            return
        with archives.opened(labels) as file:  # they follow the images too, so that the digest is of both
            yield from readers_idx.read(values, byte_blocks(file, format_of(labels, "idx").compression))

    def _records(self, reader: ContentReader) -> Iterator[Block]:
        raw, table = byte_blocks(reader, self.format.compression), self.job.table
        is_first = self._segment.index == 0
        head = raw if is_first else iter([_head(self.job.raw)])
        dialect, text = readers_csv.opened(head, table.reading, self.format.name, self._encoding)
        self._dialect, self._encoding = dialect.to_json(), dialect.encoding
        if self._is_cut(dialect.encoding):
            text = text if is_first else recoded(raw, dialect.encoding)
            ids = [subject.column for subject in table.subjects]
            yield from readers_csv.read(text, dialect, table.reading, line=None if is_first else 1, spelled=ids)

    def _objects(self, reader: ContentReader) -> Iterator[Block]:
        raw, table = byte_blocks(reader, self.format.compression), self.job.table
        head = next(raw, b"")
        self._encoding = encoding_of(head if self._segment.index == 0 else _head(self.job.raw), self._encoding)
        if self._is_cut(self._encoding):
            plain = next((subject.column for subject in table.subjects), None)
            spelled = [*(subject.column for subject in table.subjects), *table.types]
            read = readers_json.read if self.format.name == "json" else readers_jsonl.read
            yield from read(utf8_blocks(chain([head], raw), self._encoding), plain, spelled=spelled)

    def _is_cut(self, encoding: str) -> bool:
        """Whether what was cut at line ends may be: a line end is one byte there, and that byte is nothing else."""
        self._again = self._again or (self._segment.n > 1 and encoding.lower() not in PLAIN)
        return not self._again

    # --- what they tell --------------------------------------------------------------------------------------------------------

    def look(self, block: Block) -> None:
        """Take in what a block tells."""
        if self._reader is not None and block.rows is not None:
            seen = self._kept(self._reader.shapes(block.rows))
            self.shapes = join_all([self.shapes, seen]) if self.shapes else seen
        reasons = [reject.reason for reject in block.rejects]
        self._n["invalid"] += reasons.count(INVALID_UTF8)
        self._is_wide = self._is_wide or block.is_wide
        self._again = self._again or (self._segment.n > 1 and readers_csv.OPEN_QUOTE in reasons)

    def finish(self) -> None:
        """Where the blocks told nothing: the columns of a Parquet file, from its footer."""
        if not self.shapes and self.format.name == "parquet":
            try:
                with (
                    _random_access(self.job.raw, self.format) as file,
                    readers_parquet.opened(Watched(self.job.raw, file)) as parquet,
                ):
                    self.shapes = self._kept(readers_parquet.file_shapes(parquet))
            except Unreadable:
                return

    def _kept(self, shapes: Shapes) -> Shapes:
        """The columns that lethe.toml wants, ids as text."""
        wanted = self.job.table.columns
        if wanted is not None:
            lowered = {name.lower() for name in wanted}
            shapes = {name: shape for name, shape in shapes.items() if name.lower() in lowered}
        for subject in self.job.table.subjects:
            refuse_nested_shapes(f"table {self.job.raw.table}, {self.job.raw.uri}", subject, shapes)
            shapes = as_subject(shapes, subject.column)
        return shapes

    @property
    def columns(self) -> list[tuple[str, Shape]]:
        return columns_of([self.shapes])

    @property
    def is_other(self) -> bool:
        return self.reading(()).is_other and self.format.name in _ENCODED and self.job.table.encoding is None

    def reading(self, blocks: tuple[str, ...], n_lines: int = 0) -> Reading:
        """What is known now."""
        return Reading(
            self.job.raw,
            self.shapes,
            self._encoding or "utf-8",
            self._dialect,
            blocks,
            n_lines,
            n_rows=self._n["rows"],
            n_quarantined=self.sink.n_rows,
            n_suppressed=self._n["suppressed"],
            n_invalid=self._n["invalid"],
            is_wide=self._is_wide,
            again=self._again,
        )

    # --- rows -------------------------------------------------------------------------------------------------------------------

    def rows(self, block: Block, target: Typing) -> Iterator[pa.RecordBatch]:
        """The block's rows as the table has them, without row ids; rejects go to the sink. Whoever was erased comes back neither
        as a row nor as a reject."""
        self._reject(block.rejects)
        if self._reader is None or not block.n_rows:
            return
        batch, rejects = self._reader.typed(block.rows, target.read if self._reader.is_text else target.schema, target.known)
        self._reject(rejects)
        lines = block.lines if batch.num_rows == block.n_rows else None
        if self._reader.is_text:
            batch = rows.trimmed(batch, self.job.table.subjects)
        batch, lines = self._suppressed(batch, lines)
        if self._reader.is_text and target.forced:
            batch, lines, rejects = forced.apply(batch, target.forced, lines, self.job.table.reading)
            self._reject(rejects)
        batch, lines, rejects = contract.check(batch, lines, target.rules)
        self._reject(rejects)
        self._n["rows"] += batch.num_rows
        yield batch

    def _suppressed(self, batch: pa.RecordBatch, lines: _Lines) -> tuple[pa.RecordBatch, _Lines]:
        gone = rows.suppressed_rows(batch, self.job.table.subjects, self._site.keys, self._site.suppressed)
        if gone is None:
            return batch, lines
        self._n["suppressed"] += int(gone.sum())
        return batch.filter(pa.array(~gone)), None if lines is None else lines[~gone]

    def _reject(self, rejects: Sequence[Reject]) -> None:
        kept, n = rows.suppress_rejects(rejects, self.job.table.subjects, self._site.keys, self._site.suppressed)
        self._n["suppressed"] += n
        self.sink.add(kept)


@dataclass(frozen=True)
class Typing:
    """How rows are made: the table's schema (user columns), the shapes that it was taken from by lower-cased name, and what
    lethe.toml demands. `read` is the schema before forced types are applied."""

    schema: pa.Schema
    known: dict[str, Shape]
    forced: dict[str, pa.DataType] = field(default_factory=dict[str, pa.DataType])
    rules: contract.Rules = ()

    @property
    def read(self) -> pa.Schema:
        if not self.forced:
            return self.schema
        return pa.schema([pa.field(f.name, pa.string()) if f.name in self.forced else f for f in self.schema])


def n_bytes(block: Block) -> int:
    """About what a block holds in memory."""
    match block.rows:
        case Fields() | Spelled():
            size = block.rows.n_bytes
        case pa.RecordBatch():
            size = block.rows.get_total_buffer_size()
        case _:
            size = _OBJECT_BYTES * block.n_rows
    return size + sum(len(reject.raw) for reject in block.rejects)


def _head(raw: RawFile) -> bytes:
    with archives.opened(raw.uri, modified=raw.modified) as file:
        return file.read(1 << 20)


def _random_access(raw: RawFile, kind: Format) -> AbstractContextManager[Any]:
    return archives.random_access(raw.uri, modified=raw.modified, compression=kind.compression)


class Sink:
    """Collects a file's rejects and writes them to quarantine, a file per 32 MiB: a file may be nothing but rejects."""

    def __init__(self, raw: RawFile, folder: Folder) -> None:
        self.n_rows = 0
        self._raw = raw
        self._folder = folder
        self._held = list[Reject]()
        self._n_bytes = 0
        self._files = list[DataFile]()

    def add(self, rejects: Sequence[Reject]) -> None:
        self._held.extend(rejects)
        self.n_rows += len(rejects)
        self._n_bytes += sum(len(reject.raw) for reject in rejects)
        if self._n_bytes > _SINK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            batches = quarantine_batches(self._raw.table, self._raw.uri, self._held)
            source = quarantine_source(self._raw.table, self._raw.uri)
            self._files.append(write_part(self._folder, batches, QUARANTINE, source=source))
        self._held, self._n_bytes = [], 0

    def close(self) -> tuple[DataFile, ...]:
        self._flush()
        return tuple(self._files)
