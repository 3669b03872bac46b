"""JSON files: one array, or objects over many lines, are cut into objects and read as JSON lines are; all else is JSON lines.

The ends of the objects are found without parsing them, in bounded memory, and are certain: a bad object is set aside alone where
its brackets close in order and every string stands before punctuation; else nothing tells where the next one starts, and the rest
of the file is set aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from tasks.ingest import readers_jsonl
from tasks.ingest.blocks import Block, Reject, as_text
from tasks.ingest.readers_jsonl import MAX_LINE_BYTES
from tasks.ingest.streams import Unreadable

_HEAD_BYTES = 1 << 20
_BATCH_BYTES = 4 << 20
_RAW_BYTES = 1 << 20
_BLANK = b" \t\r\n"
_PAIRS = {ord("}"): ord("{"), ord("]"): ord("[")}
_MORE, _LOST = -1, -2
_STRING = rb'"(?:[^"\\]++|\\.)*+"(?=[ \t\r\n]*+[,:\]}])'


def _closed(depth: int) -> bytes:
    """An object or an array that nests so deep, as a regular expression."""
    inner = rb'(?:[^][{}"]++|' + _STRING + (b"|" + _closed(depth - 1) if depth else b"") + rb")*+"
    return rb"(?:\{" + inner + rb"\}|\[" + inner + rb"\])"


_OBJECT = re.compile(_closed(4), re.DOTALL)
_ELEMENT = re.compile(rb'(?:[^][{}",]++|' + _STRING + b"|" + _closed(4) + rb")*+(?=[,\]])", re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}",]', re.DOTALL)
_AFTER = re.compile(rb"[ \t\r\n]*+(?:([,:\]}])|(.))?", re.DOTALL)
_SOLID = re.compile(rb"[^ \t\r\n]")


def read(blocks: Iterator[bytes], subject: str | None = None, *, spelled: Collection[str] = ()) -> Iterator[Block]:
    """Objects of a JSON file in UTF-8: rows, rejects, `subject` and `spelled` as in `readers_jsonl.read`; an object's line is the
    one on which it starts.

    Raises `Unreadable` when an object is longer than 256 MiB, and `ColumnError` as `readers_jsonl.read` does.
    """
    head, blocks = _peeked(blocks)
    start = head.lstrip(_BLANK)
    if not start.startswith(b"[") and not _is_spread(start):
        yield from readers_jsonl.read(blocks, subject, spelled=spelled)
        return
    text = _Text(blocks)
    for elements, lines, failure in _batches(_elements(text) if start.startswith(b"[") else _objects(text)):
        for block in readers_jsonl.read(iter([elements]), subject, spelled=spelled):
            yield _placed(block, lines)
        if failure is not None:
            yield Block(None, 0, (failure,))


def _peeked(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first MiB of the blocks, and all of them."""
    held, n_bytes = list[bytes](), 0
    while n_bytes < _HEAD_BYTES and (block := next(blocks, None)) is not None:
        held.append(block)
        n_bytes += len(block)
    return b"".join(held)[:_HEAD_BYTES], chain(held, blocks)


def _is_spread(start: bytes) -> bool:
    """Whether an object goes over lines: its first line is no value, but with the second one still the start of one."""
    lines = [line for line in start.split(b"\n") if line.strip()][:2]
    if len(lines) < 2 or lines[0].rstrip()[-1:] not in b"{[,:" or not lines[0].startswith(b"{"):
        return False
    both = b"\n".join(lines).rstrip().decode("utf-8", "replace")
    try:
        json.loads(both)
    except json.JSONDecodeError as error:
        return error.pos >= len(both)
    except (ValueError, RecursionError):
        return False
    return True


def _placed(block: Block, lines: list[int]) -> Block:
    """A block of elements, each of which was a line, with the lines on which they start in the file."""
    rejects = tuple(Reject(lines[r.line - 1], r.reason, r.raw.replace("\r", "\n")) for r in block.rejects)
    known = block.lines if block.lines is None else np.array(lines, np.int64)[block.lines - 1]
    return replace(block, rejects=rejects, lines=known)


_Piece = tuple[bytes, int] | Reject


def _batches(pieces: Iterator[_Piece]) -> Iterator[tuple[bytes, list[int], Reject | None]]:
    """Elements as lines, some megabytes a time, with the line of each in the file; the last batch has the failure, if any."""
    held, lines, n_bytes, failure = list[bytes](), list[int](), 0, None
    for piece in pieces:
        if isinstance(piece, Reject):
            failure = piece
            break
        # A carriage return is a blank between values, as the line end was, and as wrong inside a string.
        held.append(piece[0].replace(b"\n", b"\r"))
        lines.append(piece[1])
        n_bytes += len(piece[0])
        if n_bytes >= _BATCH_BYTES:
            yield b"\n".join(held), lines, None
            held, lines, n_bytes = [], [], 0
    yield b"\n".join(held), lines, failure


# --- where elements end -------------------------------------------------------------------------------------------------------


class _Text:
    """What is left of a file: `data` from `at` on, and what was not read yet."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.data = b""
        self.at = 0
        self._blocks = blocks
        self._line = 1
        self._counted = 0

    def more(self) -> bool:
        """Read on, at least as much as is left already; False at the end of the file."""
        rest = len(self.data) - self.at
        if rest > MAX_LINE_BYTES:
            raise Unreadable(f"what starts on line {self.line()} is longer than {MAX_LINE_BYTES >> 20} MiB")
        self.line()
        parts, n_bytes = [self.data[self.at :]], 0
        while n_bytes <= rest and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            n_bytes += len(block)
        self.data, self.at, self._counted = b"".join(parts), 0, 0
        return n_bytes > 0

    def line(self) -> int:
        """The line of the next byte."""
        self._line += self.data.count(b"\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def skip(self, blank: bytes = _BLANK) -> bytes:
        """Go to the next byte that is not blank and return it; nothing at the end."""
        while True:
            match = _SOLID.search(self.data, self.at)
            self.at = match.start() if match else len(self.data)
            if match or not self.more():
                return match[0] if match else b""

    def take(self, end: int) -> bytes:
        """The bytes up to there; they are behind us then."""
        taken, self.at = self.data[self.at : end], end
        return taken

    def rest(self, reason: str) -> Reject:
        """All that is left, as a reject with the first MiB of it."""
        while len(self.data) - self.at < _RAW_BYTES and self.more():
            pass
        return Reject(self.line(), reason, as_text(self.data[self.at : self.at + _RAW_BYTES]))


def _elements(text: _Text) -> Iterator[_Piece]:
    """The elements of an array with their lines; what cannot be told apart is the last piece."""
    text.skip()
    text.at += 1
    while True:
        first, line = text.skip(), text.line()
        end = _end_of(text, in_array=True)
        if end < 0:
            yield from _last(text, first, end)
            return
        if element := text.take(end).strip():
            yield element, line
        text.at += 1
        if text.data[end : end + 1] == b"]":
            if text.skip():
                yield text.rest("text after the end of the array")
            return


def _last(text: _Text, first: bytes, end: int) -> Iterator[_Piece]:
    """What stands after the last element whose end is certain."""
    if end == _LOST:
        yield text.rest("brackets or quotes do not match: the rest of the file cannot be told apart")
        return
    if first and _end_in(text.data + b",", text.at, in_array=True) == len(text.data):
        yield text.take(len(text.data)).strip(), text.line()
    yield text.rest("the array is not closed" if text.at == len(text.data) else "the file ends in the middle of an element")


def _objects(text: _Text) -> Iterator[_Piece]:
    """Objects one after the other with their lines; what cannot be told apart is the last piece."""
    while first := text.skip():
        line = text.line()
        end = _end_of(text, in_array=False) if first == b"{" else _LOST
        if end < 0:
            yield text.rest("no object that is closed: the rest of the file cannot be told apart")
            return
        yield text.take(end), line


def _end_of(text: _Text, *, in_array: bool) -> int:
    """Where what starts at the next byte ends, reading on as far as it takes; `_LOST` if that is not certain, `_MORE` if the file
    ends before."""
    while (end := _end_in(text.data, text.at, in_array=in_array)) == _MORE:
        if not text.more():
            return _MORE
    return end


def _end_in(data: bytes, at: int, *, in_array: bool) -> int:
    """The end of an array's element (before its comma or the array's bracket) or of an object (behind its bracket)."""
    match = (_ELEMENT if in_array else _OBJECT).match(data, at)
    return match.end() if match else _slow_end(data, at, in_array=in_array)


def _slow_end(data: bytes, at: int, *, in_array: bool) -> int:
    """The same by looking at every bracket: for what nests deeper than the expressions, is not closed, or is not certain."""
    open_ones = bytearray()
    for token in _TOKEN.finditer(data, at):
        byte = data[token.start()]
        if byte == ord('"'):
            if (verdict := _after_string(data, token)) is not None:
                return verdict
        elif byte in b"{[":
            open_ones.append(byte)
        elif not open_ones:
            return token.start() if in_array and byte in b",]" else _LOST
        elif byte in b"}]":
            if open_ones.pop() != _PAIRS[byte]:
                return _LOST
            if not open_ones and not in_array:
                return token.end()
    return _MORE


def _after_string(data: bytes, token: re.Match[bytes]) -> int | None:
    """What a string tells of the end: nothing if it stands before punctuation."""
    if token.end() - token.start() == 1:
        return _MORE
    after = _AFTER.match(data, token.end())
    if after is None or after[1]:
        return None
    return _LOST if after[2] else _MORE
