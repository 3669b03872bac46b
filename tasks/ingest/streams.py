"""A raw file as blocks of UTF-8 bytes: decompressed and decoded while it is read, in bounded memory.

What is damaged is said, after everything before the damage was given out. Bytes that an encoding has no character for become
\\xff, which no UTF-8 holds: readers set aside the line that holds it, as they do with a line that is no UTF-8 in a UTF-8 file.
"""

from __future__ import annotations

import bz2
import codecs
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa

from infra.settings import ConfigError

BLOCK_BYTES = 4 << 20
UTF8 = "utf-8"
_SIP = 16 << 10  # zstd: what a broken stream loses at most
_GZIP_SIP = 64 << 10
_GZIP_MOST = 1 << 20  # a sip may hold a thousand times its bytes
_BZIP2_SIP = 256  # what is read together is lost together; bzip2 is slow enough not to feel the calls
_GZIP = 31  # zlib's word for a gzip header and trailer
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOK_BYTES = 64 << 10  # of a file, to tell UTF-16 by
_UTF16_FRACTION = 0.25  # of characters below U+0100: line ends, separators and digits alone make as many
_GAPS, _MARKED = "lethe.latin-1", "lethe.marked"
# Latin-1 fills the five gaps of Windows-1252: every byte is a character, so nothing is lost.
codecs.register_error(_GAPS, lambda error: (error.object[error.start : error.end].decode("latin-1"), error.end))  # pyright: ignore
# Escapes that surrogateescape turns into the byte \xff, then the bytes as they are shown.
codecs.register_error(_MARKED, lambda e: ("\udcff" + "".join(f"\\x{b:02x}" for b in e.object[e.start : e.end]), e.end))  # pyright: ignore


class Unreadable(Exception):
    """The rest of a file cannot be read; the text says why. Never leaves this stage: it becomes a row of quarantine."""


class Readable(Protocol):
    """What gives the next `n` bytes or fewer, none at the end."""

    def read(self, n: int, /) -> bytes: ...


# --- compression ------------------------------------------------------------------------------------------------------------


def byte_blocks(reader: Readable, compression: str | None) -> Iterator[bytes]:
    """Blocks of about 4 MiB. A broken compressed stream gives what it holds up to the damage (zstd: up to 16 KiB before it), then
    raises `Unreadable`. `compression`: None, gzip, bz2 (each of several members) or zstd."""
    if compression is None:
        while block := reader.read(BLOCK_BYTES):
            yield block
        return
    pieces = {"gzip": _gunzipped, "bz2": _bunzipped, "zstd": _unzstd}[compression](reader)
    failure: Unreadable | None = None
    held, n_held = list[bytes](), 0
    while failure is None:
        try:
            piece = next(pieces, None)
        except Unreadable as error:
            failure, piece = error, None
        if piece is not None:
            held.append(piece)
            n_held += len(piece)
        if held and (piece is None or n_held >= BLOCK_BYTES):
            yield b"".join(held)
            held, n_held = [], 0
        if piece is None:
            break
    if failure is not None:
        raise failure


def _gunzipped(reader: Readable) -> Iterator[bytes]:
    stream = zlib.decompressobj(_GZIP)
    is_fed = False
    while data := reader.read(_GZIP_SIP):
        while data:
            if stream.eof:
                data = data.lstrip(b"\0")  # padding, as tapes have it
                stream, is_fed = zlib.decompressobj(_GZIP), False
                continue
            before, is_fed = stream.copy(), True
            try:
                yield stream.decompress(data, _GZIP_MOST)
            except zlib.error:
                yield from _salvaged(before, data)
                raise _broken("gzip", "damaged") from None
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
    if is_fed and not stream.eof:
        yield stream.flush()
        if not stream.eof:
            raise _broken("gzip", "cut short")


def _salvaged(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:  # pyright: ignore[reportPrivateUsage]
    """What decodes before the damage that lies in `data`, by halving; of the byte that ends it, value by value."""
    while len(data) > 1:
        half = len(data) // 2
        trial = stream.copy()
        try:
            yield trial.decompress(data[:half])
        except zlib.error:
            data = data[:half]
        else:
            stream, data = trial, data[half:]
    try:
        while piece := stream.decompress(data, 1):
            yield piece
            data = stream.unconsumed_tail
    except zlib.error:
        return


def _bunzipped(reader: Readable) -> Iterator[bytes]:
    stream, is_fed = bz2.BZ2Decompressor(), False
    while block := reader.read(_GZIP_SIP):
        for at in range(0, len(block), _BZIP2_SIP):
            data = block[at : at + _BZIP2_SIP]
            while data:
                if stream.eof:
                    stream = bz2.BZ2Decompressor()
                try:
                    yield stream.decompress(data)
                except OSError:
                    raise _broken("bz2", "damaged") from None
                is_fed, data = True, stream.unused_data
    if is_fed and not stream.eof:
        raise _broken("bz2", "cut short")


def _unzstd(reader: Readable) -> Iterator[bytes]:
    stream = pa.CompressedInputStream(pa.PythonFile(reader, mode="r"), "zstd")  # pyright: ignore[reportArgumentType]
    while True:
        try:
            sip = stream.read(_SIP)
        except OSError:
            raise _broken("zstd", "damaged or cut short") from None
        if not sip:
            return
        yield sip


def _broken(compression: str, how: str) -> Unreadable:
    return Unreadable(f"the {compression} stream is {how}: what follows is lost")


# --- encodings --------------------------------------------------------------------------------------------------------------


def encoding_of(head: bytes, given: str | None = None) -> str:
    """The encoding of a file by its first bytes: that of its byte-order mark if there is one, else the one given, else UTF-16 if
    it can be nothing else, else UTF-8.

    Raises `ConfigError` if Python knows no text encoding of the name given.
    """
    if given is not None:
        _check(given)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    name = UTF8 if given is None else codecs.lookup(given).name
    if name in ("utf-16", "utf-32"):  # no mark, so the order of the bytes is to be found
        return _unmarked_utf16(head) or f"{name}-le"
    if given is None or name == UTF8:
        return _unmarked_utf16(head) or UTF8
    return UTF8 if name == "utf-8-sig" else given


def _check(given: str) -> None:
    try:
        found = codecs.lookup(given)
    except (LookupError, ValueError):  # a name with a NUL
        found = None
    if found is None or found.incrementaldecoder is None or not found._is_text_encoding:  # pyright: ignore
        known = "utf-8, utf-16, latin-1, cp1252, cp1250, shift_jis, gb18030"
        raise ConfigError(f"encoding = {given!r}: no text encoding that Python knows. Write one like {known}")


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark: many characters have NUL for their high byte, none for their low one, and the text has lines."""
    whole = head[: min(len(head), _LOOK_BYTES) & ~1]
    is_zero = (np.frombuffer(whole, np.uint8) == 0).reshape(-1, 2)
    if not is_zero.any():
        return None
    first, second = is_zero.mean(axis=0).tolist()
    found = "utf-16-be" if first else "utf-16-le"
    if (first and second) or max(first, second) < _UTF16_FRACTION:
        return None
    try:
        text = codecs.getincrementaldecoder(found)().decode(whole)
    except UnicodeError:
        return None
    return found if text.strip() and ("\n" in text or "\r" in text) else None


def utf8_blocks(blocks: Iterator[bytes], encoding: str | None = None) -> Iterator[bytes]:
    """The same text in UTF-8, without its byte-order mark. UTF-8 is left as it is, valid or not; without an encoding, or with
    "utf-8", the first block tells whether it is another one (`encoding_of`). Of "cp1252", every byte is a character.

    Raises `ConfigError` for an encoding that is none, `Unreadable` where a decoder cannot go on.
    """
    first = next(blocks, b"")
    return recoded(chain([first], blocks), encoding_of(first, encoding))


def recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8, without its byte-order mark, from an encoding as `encoding_of` names it."""
    first = next(blocks, b"")
    mark = next((mark for mark, name in _MARKS if name == encoding and first.startswith(mark)), b"")
    rest = chain([first[len(mark) :]], blocks)
    return (block for block in rest if block) if encoding == UTF8 else _decoded(rest, encoding)


def _decoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    is_windows = codecs.lookup(encoding).name == "cp1252"
    decoder = codecs.getincrementaldecoder(encoding)(_GAPS if is_windows else _MARKED)
    try:
        for block in blocks:
            if text := decoder.decode(block):
                yield text.encode(errors="surrogateescape")
        if text := decoder.decode(b"", final=True):
            yield text.encode(errors="surrogateescape")
    except UnicodeError as error:
        raise Unreadable(f"not {encoding}: {error.__class__.__name__}") from None
