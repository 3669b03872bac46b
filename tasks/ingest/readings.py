"""The driver's side of reading: raw files into packs and segments, their outcomes into one reading a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from infra.contracts import QUARANTINE, DataFile
from infra.files import Part, quarantine_source
from tasks.ingest import frames
from tasks.ingest.blocks import Reject
from tasks.ingest.commits import Run
from tasks.ingest.content import content_digest, segments
from tasks.ingest.frames import Written
from tasks.ingest.packs import Pack, calls, packs
from tasks.ingest.passes import Reading, Sink, joined
from tasks.ingest.plan import Target
from tasks.ingest.sources import RawFile

_CHECK_FILES = 256
_SHOWN = 5


def unchanged(run: Run, known: Mapping[RawFile, str]) -> set[RawFile]:
    """Those of the files whose bytes have the digest that the ledger knows."""
    items = [(run.job(raw), segment) for raw in known for segment in segments(raw.n_bytes)]
    batches = [items[start : start + _CHECK_FILES] for start in range(0, len(items), _CHECK_FILES)]
    blocks: dict[RawFile, list[str]] = defaultdict(list)
    found = [one for ones in run.workers.map(frames.digests, batches) for one in ones]
    for (job, _), digests in zip(items, found, strict=True):
        blocks[job.raw] += digests
    return {raw for raw, digest in known.items() if content_digest(blocks[raw]) == digest}


def read(run: Run, raws: Iterable[RawFile]) -> list[Written]:
    """The first reading of raw files: written with their own types."""
    written = _read(run, packs(run.job(raw) for raw in raws))
    cut = [one for one in written if one.pack.segment.n > 1]
    again = {raw for raw, reading in _by_raw(cut).items() if reading.again or reading.is_other}
    for one in cut:
        if one.pack.jobs[0].raw in again:
            discard(run, one)
    whole = [one for one in written if one.pack.jobs[0].raw not in again]
    return relined(run, whole, whole) + _read(run, [Pack((run.job(raw),)) for raw in sorted(again)])


def _read(run: Run, work: Sequence[Pack]) -> list[Written]:
    return [one for ones in run.workers.map(frames.read, calls(work), run.site, name=_names) for one in ones]


def _names(call: Sequence[Pack]) -> str:
    """The files of a worker's call, for a person."""
    uris = [job.raw.uri for pack in call for job in pack.jobs]
    return f"{', '.join(uris[:_SHOWN])}{f' and {len(uris) - _SHOWN} more files' if len(uris) > _SHOWN else ''}"


def by_file(written: Iterable[Written]) -> dict[str, Reading]:
    """One reading a raw file of one table, by uri; those of segments are joined in their order."""
    return {raw.uri: reading for raw, reading in _by_raw(written).items()}


def _by_raw(written: Iterable[Written]) -> dict[RawFile, Reading]:
    found: dict[RawFile, list[tuple[int, Reading]]] = defaultdict(list)
    for one in written:
        for reading in one.readings:
            found[reading.raw].append((one.pack.segment.index, reading))
    return {raw: joined([reading for _, reading in sorted(ones, key=lambda one: one[0])]) for raw, ones in found.items()}


def discard(run: Run, written: Written) -> None:
    """Delete what was written of a pack."""
    frames.discard(written.pack.jobs[0].folder, written.files)
    frames.discard(run.site.quarantine, written.quarantine)


# --- segments -----------------------------------------------------------------------------------------------------------------


def relined(run: Run, fresh: Sequence[Written], known: Sequence[Written]) -> list[Written]:
    """Segments count their lines from 1: the rejects of what was just written get the numbers that the lines have in the file.
    `known`: all segments of the files, whenever they were written."""
    before = dict[tuple[RawFile, int], int]()
    n_lines: dict[RawFile, int] = defaultdict(int)
    for one in sorted(known, key=lambda one: one.pack.segment.index):
        raw = one.pack.jobs[0].raw
        before[raw, one.pack.segment.index] = n_lines[raw]
        n_lines[raw] += one.readings[0].n_lines
    return [_moved(run, one, before[one.pack.jobs[0].raw, one.pack.segment.index]) for one in fresh]


def _moved(run: Run, written: Written, n_lines: int) -> Written:
    if written.pack.segment.index == 0 or not written.quarantine:
        return written
    raw, folder = written.pack.jobs[0].raw, run.site.quarantine
    source = quarantine_source(raw.table, raw.uri)
    items = [(Part(f"{folder.uri}/{file.path}", file, QUARANTINE), source, n_lines) for file in written.quarantine]
    moved = run.workers.map(frames.reline, items, folder)
    frames.discard(folder, written.quarantine)
    return replace(written, quarantine=tuple(moved))


# --- files that are stopped ---------------------------------------------------------------------------------------------------


def without_stopped(run: Run, written: Sequence[Written], wanted: Target) -> tuple[list[Written], list[Written]]:
    """Packs that hold a stopped file, without it, to be written again; and the packs that may stay."""
    again, kept = list[Written](), list[Written]()
    for one in written:
        places = [i for i, reading in enumerate(one.readings) if reading.raw.uri not in wanted.stopped]
        if len(places) == len(one.readings):
            kept.append(one)
            continue
        discard(run, one)
        if places:
            pack = replace(one.pack, jobs=tuple(one.pack.jobs[i] for i in places))
            again.append(replace(one, pack=pack, files=(), quarantine=(), readings=tuple(one.readings[i] for i in places)))
    return again, kept


def quarantine_stopped(run: Run, table: str, stopped: Mapping[str, str]) -> list[DataFile]:
    """One reject a stopped file, which says why."""
    files = list[DataFile]()
    for uri, why in sorted(stopped.items()):
        sink = Sink(RawFile(table, uri, 0, ""), run.site.quarantine)
        sink.add([Reject(0, why, "")])
        files += sink.close()
    return files
