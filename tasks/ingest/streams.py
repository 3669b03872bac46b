"""A raw file as blocks of UTF-8 bytes: decompressed, decoded, digested while it is read, in bounded memory."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

BLOCK_BYTES = 4 << 20
_SIP = 16 << 10  # compressed streams: what a broken one loses at most
_BOMS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_GAPS = "lethe.latin-1"
# Latin-1 fills the five gaps of Windows-1252: every byte is a character, so nothing is lost.
codecs.register_error(_GAPS, lambda error: (error.object[error.start : error.end].decode("latin-1"), error.end))  # pyright: ignore


class Unreadable(Exception):
    """The rest of a file cannot be read; the text says why. Never leaves this stage: it becomes a row of quarantine."""


class HashingReader:
    """A binary file that digests (SHA-256) what is read from it."""

    closed = False

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._at_end = False
        self._hash = hashlib.sha256()

    def read(self, n_bytes: int = -1) -> bytes:
        data = self._raw.read(n_bytes)
        self._at_end = not data and n_bytes != 0
        self._hash.update(data)
        return data

    def close(self) -> None:
        """Whoever opened the file closes it: pyarrow must not, for the digest may still have to read on."""

    def digest(self) -> str:
        """The digest of the whole file: what was not read yet is read now."""
        while not self._at_end:
            self.read(BLOCK_BYTES)
        return self._hash.hexdigest()


def byte_blocks(reader: HashingReader, compression: str | None) -> Iterator[bytes]:
    """Blocks of about 4 MiB. A broken compressed stream gives what it holds up to the damage, then raises `Unreadable`."""
    if compression is None:
        while block := reader.read(BLOCK_BYTES):
            yield block
        return
    stream = pa.CompressedInputStream(pa.PythonFile(reader, mode="r"), compression)  # pyright: ignore[reportArgumentType]
    held, n_held, failure = list[bytes](), 0, ""
    while True:
        try:
            sip = stream.read(_SIP)
        except OSError as error:
            failure = type(error).__name__
            break
        if not sip:
            break
        held.append(sip)
        n_held += len(sip)
        if n_held >= BLOCK_BYTES:
            yield b"".join(held)
            held, n_held = [], 0
    if held:
        yield b"".join(held)
    if failure:
        raise Unreadable(f"the {compression} stream is broken: {failure}")


def utf8_blocks(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8, without a byte-order mark. `encoding` is "utf-8" (left as it is, valid or not; UTF-16 is known by
    its mark) or "cp1252"."""
    first = next(blocks, b"")
    if (found := _BOMS.get(first[:2])) is not None:
        yield from _decoded(_chained(first[2:], blocks), found)
        return
    for block in _chained(first.removeprefix(codecs.BOM_UTF8), blocks):
        yield block if encoding == "utf-8" else block.decode("cp1252", _GAPS).encode()


def _decoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            yield decoder.decode(block).encode()
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise Unreadable(f"not {encoding}: {error.__class__.__name__}") from None


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
