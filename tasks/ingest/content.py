"""The bytes of a raw file: a whole file or one segment of a big one, digested while they are read.

A segment starts behind the first line end at or after its nominal start and ends behind the first one at or after its nominal
end, so that segments meet without knowing of each other. The digest of a file is its SHA-256, or the SHA-256 over those of its
blocks of `SEGMENT_BYTES` where it has several: each segment's worker digests one block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tasks.ingest.scan import occurrences
from tasks.ingest.streams import Unreadable

SEGMENT_BYTES = 64 << 20
_READ_BYTES = 4 << 20
_LINE_END = 10


@dataclass(frozen=True)
class Segment:
    """Number `index` of the `n` segments of a file."""

    index: int
    n: int

    @property
    def start(self) -> int:
        return self.index * SEGMENT_BYTES

    @property
    def end(self) -> int | None:
        """The nominal end; None for the last one, which ends with the file."""
        return self.start + SEGMENT_BYTES if self.index + 1 < self.n else None


WHOLE = Segment(0, 1)


def segments(n_bytes: int) -> list[Segment]:
    """The segments of a file of that size; a small rest goes with the last one but is a block of its own."""
    n = max(1, (n_bytes + SEGMENT_BYTES // 2) // SEGMENT_BYTES)
    return [Segment(index, n) for index in range(n)]


def content_digest(blocks: Sequence[str]) -> str:
    """The digest (hex) of a file from those of its blocks."""
    return blocks[0] if len(blocks) == 1 else hashlib.sha256("".join(blocks).encode()).hexdigest()


class ContentReader:
    """A file-like object over one segment of an open binary file. Counts the line ends that it gives out."""

    closed = False

    def __init__(self, raw: Any, segment: Segment = WHOLE) -> None:
        self.n_lines = 0
        self._raw = raw
        self._end = segment.end
        self._at = segment.start
        self._blocks = _Blocks()
        self._skips = segment.index > 0
        self._is_done = False
        self._is_drained = False
        if segment.start:
            raw.seek(segment.start)

    def read(self, n_bytes: int = -1) -> bytes:
        """At least one byte unless the segment is at its end; all of it with -1."""
        if n_bytes < 0:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))
        data = b""
        while not data and not self._is_done:
            data = self._cut(self._take(n_bytes))
        self.n_lines += occurrences(data, _LINE_END)
        return data

    def _take(self, n_bytes: int) -> bytes:
        data: bytes = self._raw.read(n_bytes)
        self._is_drained = not data and n_bytes != 0
        self._is_done = self._is_done or self._is_drained
        mine = data if self._end is None else data[: max(0, self._end - self._at)]
        self._blocks.update(mine)
        self._at += len(data)
        return data

    def _cut(self, data: bytes) -> bytes:
        """What of the bytes just taken belongs to this segment."""
        before = self._at - len(data)
        first = 0
        if self._skips:
            first = data.find(b"\n") + 1
            if not first:
                self._is_done = self._is_done or (self._end is not None and self._at >= self._end)
                return b""
            self._skips = False
        if self._end is None or self._at <= self._end:
            return data[first:]
        last = data.find(b"\n", max(0, self._end - before)) + 1
        self._is_done = self._is_done or last > 0
        return data[first:last] if last else data[first:]

    def blocks(self) -> tuple[str, ...]:
        """The digests of this segment's blocks; what was not read yet is read now."""
        while not self._is_drained and (self._end is None or self._at < self._end):
            with suppress(Unreadable):  # a damaged member of an archive says so once, and is at its end then
                self._take(_READ_BYTES)
        return self._blocks.digests()

    def close(self) -> None:
        """Whoever opened the file closes it: pyarrow must not, for the digest may still have to read on."""


class _Blocks:
    """SHA-256 of each block of what goes through, from a block's start on."""

    def __init__(self) -> None:
        self._done = list[str]()
        self._hash = hashlib.sha256()
        self._n_bytes = 0

    def update(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._n_bytes == SEGMENT_BYTES:
                self._done.append(self._hash.hexdigest())
                self._hash, self._n_bytes = hashlib.sha256(), 0
            mine = rest[: SEGMENT_BYTES - self._n_bytes]
            self._hash.update(mine)
            self._n_bytes += len(mine)
            rest = rest[len(mine) :]

    def digests(self) -> tuple[str, ...]:
        return (*self._done, self._hash.hexdigest())
