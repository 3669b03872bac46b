"""What workers do: read a pack of raw files once and write its rows, or again with wider types; rewrite data files.

Functions may run twice; each run writes files of its own, and the driver's commit names those of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.contracts import MIXED, QUARANTINE, DataFile, LetheError
from infra.files import SOURCE, Folder, Part, filesystem, read_part, source_key, source_number, write_part
from infra.ids import I64
from infra.layout import table_schema
from tasks.ingest import archives, contract, parts, unique
from tasks.ingest.blocks import Block, Reject
from tasks.ingest.columns import ColumnError
from tasks.ingest.content import ContentReader, Segment
from tasks.ingest.convert import as_type, from_text
from tasks.ingest.infer import Shape, columns_of, schema_of
from tasks.ingest.packs import Job, Pack
from tasks.ingest.passes import Pass, Reading, Sink, Site, Typing, n_bytes
from tasks.ingest.plan import Target, forced_types

KEEP_BYTES = 32 << 20


@dataclass(frozen=True)
class Written:
    """What became of a pack: its data files, its quarantine files, and one reading a raw file."""

    pack: Pack
    schema: pa.Schema
    files: tuple[DataFile, ...]
    quarantine: tuple[DataFile, ...]
    readings: tuple[Reading, ...]


class ChangedWhileRead(LetheError):
    """A raw file changed between two readings of one run."""


def digests(items: Sequence[tuple[Job, Segment]]) -> list[tuple[str, ...]]:
    """The digests of the blocks of segments."""
    found = list[tuple[str, ...]]()
    for job, segment in items:
        with archives.opened(job.raw.uri, modified=job.raw.modified, then=job.raw.labels) as file:
            found.append(ContentReader(file, segment).blocks())
    return found


# --- the first reading --------------------------------------------------------------------------------------------------------


class _Mistyped(Exception):
    """The types that the start of a file promised do not hold to its end, or it is not UTF-8."""


def read(packs: Sequence[Pack], site: Site) -> list[Written]:
    """Write packs with the types of their own columns, in one reading each."""
    return [written for pack in packs for written in _read(pack, site)]


def _read(pack: Pack, site: Site) -> Iterator[Written]:
    if len(pack.jobs) == 1:
        yield _read_one(pack, site)
        return
    held, size = list[_Held](), 0
    for job in pack.jobs:
        one = _hold(job, site)
        if one is None:
            yield _read_one(Pack((job,)), site)
            continue
        held.append(one)
        size += one.size
        if size > KEEP_BYTES:  # small files may be big ones, compressed
            yield _together(held, site)
            held, size = [], 0
    if held:
        yield _together(held, site)


@dataclass(frozen=True)
class _Held:
    """A small file, wholly in memory."""

    state: Pass
    kept: list[Block]
    size: int
    blocks: tuple[str, ...]
    n_lines: int


def _hold(job: Job, site: Site) -> _Held | None:
    """All blocks of a small file, in UTF-8 or, if it is not, in Windows-1252; None if it grows too big (compressed, say)."""
    held: _Held | None = None
    for encoding in (None, "cp1252"):
        state, kept, size = Pass(job, site, encoding), list[Block](), 0
        with state.opened() as (reader, blocks):
            for block in blocks:
                state.look(block)
                kept.append(block)
                size += n_bytes(block)
                if size > KEEP_BYTES:
                    return None
            state.finish()
            held = _Held(state, kept, size, reader.blocks(), reader.n_lines)
        if not state.is_other:
            break
    return held


def _together(held: list[_Held], site: Site) -> Written:
    """Small files of one table as one data file, with types that hold the values of all of them."""
    pack = Pack(tuple(one.state.job for one in held))
    columns = columns_of([one.state.shapes for one in held])
    target = _typing(pack.jobs[0], columns)
    mixed = len(held) > 1

    def batches() -> Iterator[pa.RecordBatch]:
        for one in held:
            while one.kept:
                for batch in one.state.rows(one.kept.pop(0), target):
                    yield parts.with_source(batch, one.state.job.raw.uri) if mixed else batch

    files = parts.data_files(pack.jobs[0], target.schema, batches(), site.keys, mixed=mixed)
    quarantine = tuple(file for one in held for file in one.state.sink.close())
    return Written(pack, target.schema, files, quarantine, tuple(one.state.reading(one.blocks, one.n_lines) for one in held))


def _typing(job: Job, columns: list[tuple[str, Shape]]) -> Typing:
    """The types of these columns alone, with those that lethe.toml forces."""
    schema = schema_of(columns)
    forced = forced_types(job.table, schema.names)
    schema = pa.schema([pa.field(f.name, forced.get(f.name, f.type)) for f in schema])
    return Typing(schema, {name.lower(): shape for name, shape in columns}, forced, _rules(job, schema))


def _rules(job: Job, schema: pa.Schema) -> contract.Rules:
    """The table's rules on rows of this schema; whether the table has their columns is the driver's to ask."""
    return contract.compile_rules(job.raw.table, job.table, schema, partial_rows=True)


def _read_one(pack: Pack, site: Site) -> Written:
    try:
        return _optimistic(pack, site)
    except _Mistyped:
        encoding, columns = _survey(pack, site)
        return _streamed(pack, (encoding,), _typing(pack.jobs[0], columns), site)


def _optimistic(pack: Pack, site: Site) -> Written:
    """Take the types from the first 32 MiB and hold the rest to them: most files, and all small ones, are read once."""
    [job] = pack.jobs
    state = Pass(job, site, segment=pack.segment)
    with state.opened() as (reader, blocks):
        held = list[Block]()
        size = 0
        for block in blocks:
            state.look(block)
            held.append(block)
            size += n_bytes(block)
            if size >= KEEP_BYTES:
                break
        state.finish()
        target = _typing(job, state.columns)
        batches = _held_to(target, state, held, blocks, whole=pack.segment.n == 1)
        files = parts.data_files(job, target.schema, batches, site.keys)
        reading = state.reading(reader.blocks(), reader.n_lines)
    return Written(pack, target.schema, files, state.sink.close(), (reading,))


def _held_to(target: Typing, state: Pass, held: list[Block], blocks: Iterator[Block], *, whole: bool) -> Iterator[pa.RecordBatch]:
    """Typed rows of the held blocks and of the others; raises `_Mistyped` as soon as the types need to be wider."""
    held.reverse()
    while held:
        yield from state.rows(held.pop(), target)
    for block in blocks:
        before = state.shapes
        state.look(block)
        if state.shapes != before:
            wider = _typing(state.job, state.columns)
            if wider.schema != target.schema:
                raise _Mistyped
            target = wider
        yield from state.rows(block, target)
    if whole and state.is_other:
        raise _Mistyped


def _survey(pack: Pack, site: Site) -> tuple[str | None, list[tuple[str, Shape]]]:
    """The encoding and the columns of a whole file or segment, in UTF-8 or, if a file is not, in Windows-1252."""
    [job] = pack.jobs
    encoding: str | None = None
    while True:
        state = Pass(job, site, encoding, pack.segment)
        with state.opened() as (_, blocks):
            for block in blocks:
                state.look(block)
        if encoding is not None or pack.segment.n > 1 or not state.is_other:
            return encoding, state.columns
        encoding = "cp1252"


# --- the second reading -------------------------------------------------------------------------------------------------------


def write(found: Written, targets: Mapping[str, Target], site: Site) -> Written:
    """Write the rows of a pack that was read before, now with its table's schema. Raises `ChangedWhileRead` if its bytes are no
    longer the same."""
    job = found.pack.jobs[0]
    target = targets[found.pack.table]
    typing = Typing(target.schema, target.known, forced_types(job.table, target.schema.names), _rules(job, target.schema))
    encodings = tuple(reading.encoding for reading in found.readings)
    again = _streamed(found.pack, encodings, typing, site)
    for old, new in zip(found.readings, again.readings, strict=True):
        if old.blocks != new.blocks:
            raise _changed(old)
    shapes = [reading.shapes for reading in found.readings]
    readings = tuple(replace(new, shapes=known) for new, known in zip(again.readings, shapes, strict=True))
    return replace(again, readings=readings)


def _streamed(pack: Pack, encodings: tuple[str | None, ...], target: Typing, site: Site) -> Written:
    """Write a pack's files, one after another, with types that are known to hold their values."""
    states = [Pass(job, site, encoding, pack.segment) for job, encoding in zip(pack.jobs, encodings, strict=True)]
    readings = list[Reading]()
    mixed = len(states) > 1

    def batches() -> Iterator[pa.RecordBatch]:
        for state in states:
            with state.opened() as (reader, blocks):
                for block in blocks:
                    state.look(block)
                    for batch in state.rows(block, target):
                        yield parts.with_source(batch, state.job.raw.uri) if mixed else batch
                state.finish()
                readings.append(state.reading(reader.blocks(), reader.n_lines))

    try:
        files = parts.data_files(pack.jobs[0], target.schema, batches(), site.keys, mixed=mixed)
    except (pa.ArrowInvalid, KeyError):
        raise _changed(states[len(readings)].reading(())) from None
    return Written(pack, target.schema, files, tuple(file for state in states for file in state.sink.close()), tuple(readings))


def _changed(reading: Reading) -> ChangedWhileRead:
    raw = reading.raw
    return ChangedWhileRead(f"{raw.uri} changed while it was being ingested into {raw.table}. Run it again when it is written")


# --- keys that rows share -----------------------------------------------------------------------------------------------------


def without_losers(item: tuple[Written, dict[str, unique.Losers]], rules: Sequence[unique.KeyRule], site: Site) -> Written:
    """A pack without the rows that break a key (by data file), which go to quarantine under their raw files."""
    written, losers = item
    job = written.pack.jobs[0]
    sinks = {source_number(source_key(one.raw.uri)): Sink(one.raw, site.quarantine) for one in written.pack.jobs}
    full = table_schema(written.schema)
    files = list[DataFile]()
    for file in written.files:
        if file.path not in losers:
            files.append(file)
            continue
        part = Part(f"{job.folder.uri}/{file.path}", file, full)
        batches = _kept(unique.without(part, losers[file.path], rules), sinks)
        files += parts.data_files(job, written.schema, batches, site.keys, mixed=file.source == MIXED)
    quarantine = [*written.quarantine, *(file for sink in sinks.values() for file in sink.close())]
    readings = tuple(_less(reading, sinks[source_number(source_key(reading.raw.uri))].n_rows) for reading in written.readings)
    return replace(written, files=tuple(files), quarantine=tuple(quarantine), readings=readings)


def _kept(
    found: Iterator[tuple[pa.RecordBatch, list[tuple[int | None, Reject]]]], sinks: Mapping[int, Sink]
) -> Iterator[pa.RecordBatch]:
    for batch, rejects in found:
        for number, reject in rejects:
            sinks[number if number is not None else next(iter(sinks))].add([reject])
        yield batch.drop_columns(["row_id"])


def _less(reading: Reading, n_rows: int) -> Reading:
    return replace(reading, n_rows=reading.n_rows - n_rows, n_quarantined=reading.n_quarantined + n_rows)


# --- data files that are there ------------------------------------------------------------------------------------------------


def discard(folder: Folder, files: Iterable[DataFile]) -> None:
    """Delete files that no commit will name."""
    fs, path = filesystem(folder.uri)
    for file in files:
        fs.rm_file(f"{path}/{file.path}")


def without(item: tuple[Job, Part], sources: Collection[str], site: Site) -> tuple[DataFile, ...] | None:
    """A mixed data file again without the rows of some raw files (their keys); None if it holds none of them."""
    _, part = item
    gone = _numbers(sources)
    if not any(_is_of(batch, gone).any() for batch in read_part(part, [], with_source=True)):
        return None
    return _again(item, site, lambda batch: batch.filter(pa.array(~_is_of(batch, gone))))


def recast(item: tuple[Job, Part], targets: Mapping[str, Target], sources: Collection[str], site: Site) -> tuple[DataFile, ...]:
    """A data file's rows that are not of `sources` (keys of raw files that were read again), as the table's new types: their raw
    files are gone. Numbers and times that become text take the canonical spelling; the raw one is gone with the file."""
    target, gone = targets[item[0].raw.table], _numbers(sources)
    return _again(item, site, lambda batch: _recast(batch.filter(pa.array(~_is_of(batch, gone))), target), target.schema)


def _numbers(sources: Collection[str]) -> I64:
    return np.array(sorted(source_number(key) for key in sources), np.int64)


def _is_of(batch: pa.RecordBatch, numbers: I64) -> npt.NDArray[np.bool_]:
    """Which rows are of these raw files."""
    column = batch.column(batch.schema.get_field_index(SOURCE))
    return np.isin(np.asarray(column.fill_null(0)), numbers) & np.asarray(column.is_valid())


def _again(
    item: tuple[Job, Part], site: Site, change: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema | None = None
) -> tuple[DataFile, ...]:
    """The rows of a data file, changed, in new ones; row ids are computed anew."""
    job, part = item
    user = schema or pa.schema([field for field in part.schema if field.name != "row_id"])
    batches = (change(batch.drop_columns(["row_id"])) for batch in read_part(part, with_source=True))
    return parts.data_files(job, user, batches, site.keys, mixed=True)


def _recast(batch: pa.RecordBatch, target: Target) -> pa.RecordBatch:
    """Rows as the target's schema has them, with their sources."""
    present = {name.lower(): batch.column(name) for name in batch.schema.names}
    arrays = [_recast_column(present.get(field.name.lower()), batch.num_rows, field, target) for field in target.schema]
    fields = [*target.schema, batch.schema.field(SOURCE)]
    return pa.RecordBatch.from_arrays([*arrays, batch.column(SOURCE)], schema=pa.schema(fields))


def _recast_column(column: pa.Array | None, n_rows: int, field: pa.Field, target: Target) -> pa.Array:
    if column is None:
        return pa.nulls(n_rows, field.type)
    try:
        if pa.types.is_string(column.type) and not pa.types.is_string(field.type):
            return from_text(column, field.type, target.known[field.name.lower()].mask)
        return as_type(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ColumnError(
            f"column {field.name!r}: rows whose raw files are gone hold values that are no {field.type}. Take its type out of "
            "lethe.toml, put the files back, or give those rows up with: lethe ingest --prune"
        ) from None


def reline(item: tuple[Part, str, int], folder: Folder) -> DataFile:
    """A quarantine file of a segment again, with the line numbers of its whole raw file, of which `n_lines` lie before it."""
    part, source, n_lines = item

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in read_part(part):
            lines = np.asarray(batch.column("line"))
            moved = pa.array(np.where(lines > 0, lines + n_lines, lines))
            yield batch.set_column(batch.schema.get_field_index("line"), QUARANTINE.field("line"), moved)

    return write_part(folder, batches(), QUARANTINE, source=source)
