"""What workers do, one raw file at a time: read it once and write its rows as one data file, or again with wider types.

Functions may run twice; each run writes files of its own, and the driver's commit names those of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from infra.contracts import QUARANTINE, DataFile, LetheError
from infra.files import Folder, Part, filesystem, quarantine_source, read_part, write_part
from infra.ids import Keys
from infra.settings import SubjectSettings
from tasks.ingest import readers_csv, readers_jsonl, readers_parquet, rows
from tasks.ingest.blocks import INVALID_UTF8, Block, Reject, quarantine_batches
from tasks.ingest.columns import ColumnError, refuse_nested
from tasks.ingest.convert import as_type, from_text
from tasks.ingest.fields import Fields
from tasks.ingest.formats import KNOWN, Format, format_of
from tasks.ingest.infer import Shape, Shapes, as_subject, columns_of, join_all, schema_of
from tasks.ingest.sources import RawFile
from tasks.ingest.streams import HashingReader, Unreadable, byte_blocks, utf8_blocks

KEEP_BYTES = 32 << 20
_SINK_BYTES = 32 << 20
_OBJECT_BYTES = 2048


@dataclass(frozen=True)
class Site:
    """Where rows go and who may not come back: the quarantine's folder, the lake's keys, the suppressed subjects' tokens."""

    quarantine: Folder
    keys: Keys
    suppressed: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Job:
    """One raw file, the folder of its table, which of its columns are personal, and the digest under which the ledger knows
    it."""

    raw: RawFile
    folder: Folder
    subject: SubjectSettings | None = None
    text: str | None = None
    known_digest: str | None = None


@dataclass(frozen=True)
class Survey:
    """What one reading tells of a file: the shapes of its columns, its encoding, and the SHA-256 of its bytes."""

    raw: RawFile
    shapes: Shapes
    encoding: str
    content_digest: str


@dataclass(frozen=True)
class Written:
    """What became of a file: its data file (None without rows), its quarantine files, and where every row went."""

    survey: Survey
    schema: pa.Schema
    file: DataFile | None
    quarantine: tuple[DataFile, ...]
    n_rows: int
    n_quarantined: int
    n_suppressed: int


@dataclass(frozen=True)
class _Reader:
    shapes: Callable[[Any], Shapes]
    typed: Callable[[Any, pa.Schema, dict[str, Shape]], tuple[pa.RecordBatch, list[Reject]]]
    is_text: bool = True


_CSV = _Reader(readers_csv.shapes, readers_csv.typed)
_READERS = {
    "csv": _CSV,
    "tsv": _CSV,
    "jsonl": _Reader(readers_jsonl.shapes, readers_jsonl.typed),
    "parquet": _Reader(lambda _rows: {}, readers_parquet.typed, is_text=False),
}


class ChangedWhileRead(LetheError):
    """A raw file changed between two readings of one run."""


# --- reading ----------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(raw: RawFile) -> Iterator[HashingReader]:
    fs, path = filesystem(raw.uri)
    with fs.open(path, "rb", **({} if _is_local(fs) else {"cache_type": "readahead"})) as file:
        yield HashingReader(file)


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _blocks(job: Job, reader: HashingReader, encoding: str) -> Iterator[Block]:
    """The file's rows; what cannot be read is one reject at the end (line 0). Raises `ColumnError` where a subject is nested."""
    try:
        yield from _unguarded(job, format_of(job.raw.uri), reader, encoding)
    except ColumnError as error:
        raise ColumnError(f"table {job.raw.table}, {job.raw.uri}, {error}") from None
    except Unreadable as failure:
        yield Block(None, 0, (Reject(0, str(failure), ""),))


def _unguarded(job: Job, kind: Format, reader: HashingReader, encoding: str) -> Iterator[Block]:
    if kind.name == "parquet" and kind.compression is None:
        with _parquet(job.raw) as parquet:
            yield from readers_parquet.read(parquet)
    elif kind.name in ("csv", "tsv"):
        text = utf8_blocks(byte_blocks(reader, kind.compression), encoding)
        yield from readers_csv.read(text, delimiter="\t" if kind.name == "tsv" else None)
    elif kind.name == "jsonl":
        text = utf8_blocks(byte_blocks(reader, kind.compression), encoding)
        yield from readers_jsonl.read(text, job.subject and job.subject.column)
    else:
        raise Unreadable(f"not a format that is read here: {KNOWN}; Parquet only as it is")


@contextmanager
def _parquet(raw: RawFile) -> Iterator[Any]:
    fs, path = filesystem(raw.uri)
    with fs.open(path, "rb") as file, readers_parquet.opened(file) as parquet:
        yield parquet


# --- the first reading --------------------------------------------------------------------------------------------------------


class _Mistyped(Exception):
    """The types that the start of a file promised do not hold to its end, or it is not UTF-8."""


class _Pass:
    """What one reading of a file has met so far: the shapes of its columns, its rejects, how many rows were suppressed."""

    def __init__(self, job: Job, site: Site) -> None:
        self.shapes: Shapes = {}
        self.n_suppressed = 0
        self.tally = rows.Tally()
        self.sink = _Sink(job.raw, site.quarantine)
        self._job = job
        self._site = site
        self._reader = _READERS.get(format_of(job.raw.uri).name)
        self._n_invalid = 0
        self._is_wide = False

    def look(self, block: Block) -> None:
        """Take a block's shapes in."""
        if self._reader is not None and block.rows is not None:
            seen = self._reader.shapes(block.rows)
            if self._job.subject is not None:
                seen = as_subject(seen, self._job.subject.column)
            self.shapes = join_all([self.shapes, seen]) if self.shapes else seen
        self._n_invalid += sum(reject.reason == INVALID_UTF8 for reject in block.rejects)
        self._is_wide = self._is_wide or block.is_wide

    @property
    def is_other(self) -> bool:
        """Whether this is no UTF-8 file: lines beyond ASCII are there and none of them is valid. Parquet says what it is."""
        return self._n_invalid > 0 and not self._is_wide and format_of(self._job.raw.uri).name != "parquet"

    @property
    def columns(self) -> list[tuple[str, Shape]]:
        return columns_of([self.shapes])

    def rows(self, block: Block, schema: pa.Schema, known: dict[str, Shape]) -> Iterator[pa.RecordBatch]:
        """The block's rows as the table has them, if it has any; rejects go to the sink."""
        self.sink.add(block.rejects)
        if self._reader is None or not block.n_rows:
            return
        batch, rejects = self._reader.typed(block.rows, schema, known)
        self.sink.add(rejects)
        if self._reader.is_text:
            batch = rows.trimmed(batch, self._job.subject)
        batch, n = rows.suppress(batch, self._job.subject, self._site.keys, self._site.suppressed)
        self.n_suppressed += n
        yield rows.with_row_ids(batch, self._job.raw.table, self._site.keys, self.tally)


def read(jobs: Sequence[Job], site: Site) -> list[Written | Survey]:
    """Write files with the types of their own columns, in one reading each. A file whose content the ledger knows is only
    surveyed."""
    return [_unchanged(job) or _read(job, site) for job in jobs]


def _unchanged(job: Job) -> Survey | None:
    if job.known_digest is None:
        return None
    with _opened(job.raw) as reader:
        digest = reader.digest()
    return Survey(job.raw, {}, "utf-8", digest) if digest == job.known_digest else None


def _read(job: Job, site: Site) -> Written:
    try:
        return _optimistic(job, site)
    except _Mistyped:
        seen = _survey(job, site)
        columns = columns_of([seen.shapes])
        return _streamed(job, seen, schema_of(columns), {name.lower(): shape for name, shape in columns}, site)


def _optimistic(job: Job, site: Site) -> Written:
    """Take the types from the first 32 MiB and hold the rest to them: most files, and all small ones, are read once."""
    state = _Pass(job, site)
    with _opened(job.raw) as reader:
        blocks = _blocks(job, reader, "utf-8")
        held = list[Block]()
        n_bytes = 0
        for block in blocks:
            state.look(block)
            held.append(block)
            n_bytes += _n_bytes(block)
            if n_bytes >= KEEP_BYTES:
                break
        state.shapes = state.shapes or _footer(job.raw)
        schema = schema_of(state.columns)
        file = _data_file(job, schema, _held_to(schema, state, held, blocks), site.keys, state.tally)
        seen = Survey(job.raw, state.shapes, "utf-8", reader.digest())
    return _written(seen, schema, file, state)


def _held_to(schema: pa.Schema, state: _Pass, held: list[Block], blocks: Iterator[Block]) -> Iterator[pa.RecordBatch]:
    """Typed rows of the held blocks and of the others; raises `_Mistyped` as soon as the types need to be wider."""
    known = {name.lower(): shape for name, shape in state.columns}
    held.reverse()
    while held:
        yield from state.rows(held.pop(), schema, known)
    for block in blocks:
        before = state.shapes
        state.look(block)
        if state.shapes != before:
            if schema_of(state.columns) != schema:
                raise _Mistyped
            known = {name.lower(): shape for name, shape in state.columns}
        yield from state.rows(block, schema, known)
    if state.is_other:
        raise _Mistyped


def _n_bytes(block: Block) -> int:
    """About what a block holds in memory."""
    match block.rows:
        case Fields():
            n_bytes = block.rows.n_bytes
        case pa.RecordBatch():
            n_bytes = block.rows.get_total_buffer_size()
        case _:
            n_bytes = _OBJECT_BYTES * block.n_rows
    return n_bytes + sum(len(reject.raw) for reject in block.rejects)


def _footer(raw: RawFile) -> Shapes:
    """The shapes of a Parquet file; of another, or of one that cannot be opened, none."""
    if format_of(raw.uri) != Format("parquet"):
        return {}
    try:
        with _parquet(raw) as parquet:
            return readers_parquet.file_shapes(parquet)
    except Unreadable:
        return {}


def _survey(job: Job, site: Site) -> Survey:
    """The columns of a whole file, in UTF-8 or, if it is not, in Windows-1252."""
    for encoding in ("utf-8", "cp1252"):
        state = _Pass(job, site)
        with _opened(job.raw) as reader:
            for block in _blocks(job, reader, encoding):
                state.look(block)
            if encoding == "cp1252" or not state.is_other:
                return Survey(job.raw, state.shapes, encoding, reader.digest())
    raise AssertionError("unreachable")


# --- the second reading --------------------------------------------------------------------------------------------------------


def write(found: tuple[Job, Survey], schemas: dict[str, pa.Schema], shapes: dict[str, dict[str, Shape]], site: Site) -> Written:
    """Write the rows of a file that was read before, now with its table's schema. Raises `ChangedWhileRead` if its bytes are no
    longer the same."""
    job, seen = found
    table = job.raw.table
    return _streamed(job, seen, schemas[table], shapes[table], site)


def _streamed(job: Job, seen: Survey, schema: pa.Schema, known: dict[str, Shape], site: Site) -> Written:
    state = _Pass(job, site)
    with _opened(job.raw) as reader:
        blocks = _blocks(job, reader, seen.encoding)
        try:
            batches = chain.from_iterable(state.rows(block, schema, known) for block in blocks)
            file = _data_file(job, schema, batches, site.keys, state.tally)
        except pa.ArrowInvalid:
            if reader.digest() == seen.content_digest:
                raise
            raise _changed(job.raw) from None
        if reader.digest() != seen.content_digest:
            raise _changed(job.raw)
    return _written(seen, schema, file, state)


def _changed(raw: RawFile) -> ChangedWhileRead:
    return ChangedWhileRead(f"{raw.uri} changed while it was being ingested into {raw.table}. Run it again when it is written")


def _written(seen: Survey, schema: pa.Schema, file: DataFile | None, state: _Pass) -> Written:
    rejects = state.sink.close()
    n_rows = file.n_rows if file is not None else 0
    return Written(seen, schema, file, rejects, n_rows, state.sink.n_rows, state.n_suppressed)


def discard(folder: Folder, files: Sequence[DataFile]) -> None:
    """Delete files that no commit will name."""
    fs, path = filesystem(folder.uri)
    for file in files:
        fs.rm_file(f"{path}/{file.path}")


def _data_file(job: Job, schema: pa.Schema, batches: Iterator[pa.RecordBatch], keys: Keys, tally: rows.Tally) -> DataFile | None:
    """Write the batches, whose rows `tally` holds when they are through; None, and no file, if there is no row. Raises
    `ColumnError` where the subject's column is nested."""
    refuse_nested(job.raw.table, job.subject, schema)
    filled = (batch for batch in rows.by_subject(batches, job.subject, keys) if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    private = [name for name in (job.text, job.subject and job.subject.column) if name]
    stats = rows.stats_columns(schema, private=private)
    full, source = rows.table_schema(schema), job.raw.uri
    return write_part(job.folder, chain([first], filled), full, source=source, stats=stats, digest_of=lambda: tally.digest)


class _Sink:
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
            self._files.append(
                write_part(self._folder, batches, QUARANTINE, source=quarantine_source(self._raw.table, self._raw.uri))
            )
        self._held, self._n_bytes = [], 0

    def close(self) -> tuple[DataFile, ...]:
        self._flush()
        return tuple(self._files)


# --- files that are gone ----------------------------------------------------------------------------------------------------


def recast(
    found: tuple[Job, Part], schemas: dict[str, pa.Schema], shapes: dict[str, dict[str, Shape]], site: Site
) -> DataFile | None:
    """Rows of a raw file that is gone, from the lake, as the table's new types. Numbers and times that become text take the
    canonical spelling; the raw one is gone with the file."""
    job, part = found
    schema, known = schemas[job.raw.table], shapes[job.raw.table]
    tally = rows.Tally()

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in read_part(part):
            user = _recast(batch, schema, known)
            user, _ = rows.suppress(user, job.subject, site.keys, site.suppressed)
            yield rows.with_row_ids(user, job.raw.table, site.keys, tally)

    return _data_file(job, schema, batches(), site.keys, tally)


def _recast(batch: pa.RecordBatch, schema: pa.Schema, known: dict[str, Shape]) -> pa.RecordBatch:
    arrays = list[pa.Array]()
    present = {name.lower(): batch.column(name) for name in batch.schema.names}
    for target in schema:
        column = present.get(target.name.lower())
        if column is None:
            arrays.append(pa.nulls(batch.num_rows, target.type))
        elif pa.types.is_string(column.type):
            arrays.append(from_text(column, target.type, known[target.name.lower()].mask))
        else:
            arrays.append(as_type(column, target.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
