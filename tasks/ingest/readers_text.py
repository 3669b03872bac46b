"""Plain text: a file is one row, its path and what it says. Rows are batches, typed as Parquet's are."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from tasks.ingest.blocks import Block, is_utf8
from tasks.ingest.streams import Unreadable, utf8_blocks

MAX_BYTES = 256 << 20
_SCHEMA = pa.schema([("path", pa.string()), ("text", pa.string())])


def read(blocks: Iterator[bytes], path: str) -> Iterator[Block]:
    """One row {path, text} of a file in UTF-8 or UTF-16 or, if it is neither, in Windows-1252, without its byte-order mark.
    `path` is that of the `RawFile`: the same on every machine. An empty file is an empty text. Line ends stay as they are.

    Raises `Unreadable` where a file is larger than 256 MiB; of a damaged one, when the row with what it holds was given out.
    """
    held, n_bytes, failure = list[bytes](), 0, None
    try:
        for block in blocks:
            held.append(block)
            n_bytes += len(block)
            if n_bytes > MAX_BYTES:
                held, failure = [], Unreadable(f"larger than {MAX_BYTES >> 20} MiB: too much for one text")
                break
    except Unreadable as error:
        failure = error
    if failure is None or held:
        yield _block(_utf8(b"".join(held)), path)
    if failure is not None:
        raise failure


def _utf8(data: bytes) -> bytes:
    text = b"".join(utf8_blocks(iter([data])))
    return text if is_utf8(text) else b"".join(utf8_blocks(iter([data]), "cp1252"))


def _block(text: bytes, path: str) -> Block:
    rows = pa.RecordBatch.from_arrays([pa.array([path]), pa.array([text.decode()])], schema=_SCHEMA)
    return Block(rows, 1, is_wide=not text.isascii())
