"""What is read at once: several small files of one table, one file, or one segment of a big one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from infra.files import Folder
from infra.settings import TableSettings
from tasks.ingest.content import WHOLE, Segment, segments
from tasks.ingest.formats import format_of, is_http
from tasks.ingest.sources import RawFile

SMALL_BYTES = 1 << 20
_PACK_FILES = 512
_PACK_BYTES = 8 << 20
_CALL_BYTES = 16 << 20
_CALL_FILES = 512
_LINES = ("csv", "tsv", "jsonl")
# Encodings in which the byte of a line end is nothing else.
PLAIN = ("utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1", "cp1250", "cp1251", "cp1252", "iso-8859-15")


@dataclass(frozen=True)
class Job:
    """One raw file, the folder of its table, and what lethe.toml says of the table."""

    raw: RawFile
    folder: Folder
    table: TableSettings


@dataclass(frozen=True)
class Pack:
    """What one reading takes in; only a pack of one file can be a segment of it."""

    jobs: tuple[Job, ...]
    segment: Segment = WHOLE

    @property
    def table(self) -> str:
        return self.jobs[0].raw.table

    @property
    def n_bytes(self) -> int:
        return sum(job.raw.n_bytes for job in self.jobs) // self.segment.n


def packs(jobs: Iterable[Job]) -> list[Pack]:
    """The jobs in packs. It depends on the files of a table alone, in their order, not on who reads them."""
    made = list[Pack]()
    for _, of_table in groupby(jobs, key=lambda job: job.raw.table):
        small = list[Job]()
        for job in of_table:
            if job.raw.n_bytes > SMALL_BYTES:
                made += alone(job)
                continue
            if small and (len(small) == _PACK_FILES or sum(one.raw.n_bytes for one in small) + job.raw.n_bytes > _PACK_BYTES):
                made.append(Pack(tuple(small)))
                small = []
            small.append(job)
        if small:
            made.append(Pack(tuple(small)))
    return made


def alone(job: Job) -> list[Pack]:
    """A file by itself, in segments if it is big and made of lines."""
    return [Pack((job,), segment) for segment in (segments(job.raw.n_bytes) if _is_splittable(job) else [WHOLE])]


def _is_splittable(job: Job) -> bool:
    kind = format_of(job.raw.uri, job.table.format)
    encoding = (job.table.encoding or "utf-8").lower()
    is_seekable = "::" not in job.raw.uri and not is_http(job.raw.uri)
    return kind.name in _LINES and kind.compression is None and is_seekable and encoding in PLAIN


def calls(work: Sequence[Pack]) -> list[list[Pack]]:
    """Packs by worker call: a call costs more than a tiny file."""
    made, held, n_bytes, n_files = list[list[Pack]](), list[Pack](), 0, 0
    for pack in work:
        if held and (n_files + len(pack.jobs) > _CALL_FILES or n_bytes + pack.n_bytes > _CALL_BYTES):
            made.append(held)
            held, n_bytes, n_files = [], 0, 0
        held.append(pack)
        n_bytes, n_files = n_bytes + pack.n_bytes, n_files + len(pack.jobs)
    return [*made, held] if held else made
