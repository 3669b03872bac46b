"""idx files: arrays of numbers with their shape in front, as MNIST has them; one row for each item of the first dimension."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.ingest.blocks import Block
from tasks.ingest.streams import Unreadable

_KINDS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_BLOCK_BYTES = 4 << 20
_MAX_ITEM_BYTES = 256 << 20
_IMAGES = re.compile(r"([-.])images([-.])idx3([-.])([a-z]+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Header:
    """The numbers' type, how many items there are, how many numbers make one, and of how many dimensions it all is."""

    kind: np.dtype[np.generic]
    n_items: int
    n_numbers: int
    n_dims: int

    @property
    def n_bytes(self) -> int:
        return 4 + 4 * self.n_dims + self.n_items * self.item_bytes

    @property
    def item_bytes(self) -> int:
        return self.n_numbers * self.kind.itemsize


def labels_of(uri: str) -> str | None:
    """The URI under which the labels of a file of images lie, if they are there: `train-images-idx3-ubyte.gz` has them in
    `train-labels-idx1-ubyte.gz`. None for any other file."""
    labels, n = _IMAGES.subn(r"\1labels\2idx1\3\4", uri)
    return labels if n else None


def read(blocks: Iterator[bytes], labels: Iterator[bytes] | None = None) -> Iterator[Block]:
    """Batches of rows: `index`, and `pixels` with their `label` where labels are given, else `values`, or `value` of an array of
    one dimension. Types are the file's. `blocks` are decompressed bytes; those of the labels may follow those of the images.

    Raises `Unreadable` where a file is no idx file, ends early, or has another number of items than its labels.
    """
    header, data = _header(blocks)
    if labels is None:
        for start, items in _items(header, data, blocks):
            yield _block(start, items, "value" if items.ndim == 1 else "values", None)
        return
    marks = _Marks(labels)
    for start, items in _items(header, data, blocks, n_after=marks.n_bytes):
        of_items = marks.take(len(items))
        if len(of_items):
            yield _block(start, items[: len(of_items)], "pixels", of_items)
        if len(of_items) < len(items):
            raise Unreadable(f"the file of labels ends after {start + len(of_items)} of the images")
    if len(marks.take(1)):
        raise Unreadable("the file of labels holds more labels than there are images")


class _Marks:
    """Labels, taken as many at a time as there are images."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        header, data = _header(blocks)
        self.n_bytes = header.n_bytes
        self._items = _items(header, data, blocks)
        self._held: npt.NDArray[np.generic] | None = None

    def take(self, n_items: int) -> npt.NDArray[np.generic]:
        """The next labels: fewer than asked for at the end. Raises `Unreadable`."""
        parts, n_found = list[npt.NDArray[np.generic]](), 0
        while n_found < n_items:
            if self._held is None or not len(self._held):
                _, self._held = next(self._items, (0, None))
                if self._held is None:
                    break
            part, self._held = self._held[: n_items - n_found], self._held[n_items - n_found :]
            parts.append(part)
            n_found += len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _block(start: int, items: npt.NDArray[np.generic], name: str, labels: npt.NDArray[np.generic] | None) -> Block:
    n_rows = len(items)
    columns: dict[str, pa.Array] = {"index": pa.array(np.arange(start, start + n_rows, dtype=np.int64))}
    columns[name] = pa.array(items) if items.ndim == 1 else _lists(items)
    if labels is not None:
        columns["label"] = pa.array(labels) if labels.ndim == 1 else _lists(labels)
    return Block(pa.RecordBatch.from_pydict(columns), n_rows)


def _lists(items: npt.NDArray[np.generic]) -> pa.Array:
    offsets = np.arange(len(items) + 1, dtype=np.int32) * items.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(items).reshape(-1)))


def _items(
    header: _Header, data: bytes, blocks: Iterator[bytes], *, n_after: int = 0
) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
    """(number of the first, items) of about 4 MiB a time: shape (n,) or (n, numbers an item). `n_after` bytes may follow."""
    step = max(1, _BLOCK_BYTES // header.item_bytes)
    done = 0
    while done < header.n_items:
        wanted = min(step, header.n_items - done)
        data = _filled(data, blocks, wanted * header.item_bytes)
        whole = min(wanted, len(data) // header.item_bytes)
        if whole:
            yield done, _numbers(data[: whole * header.item_bytes], header, whole)
        data, done = data[whole * header.item_bytes :], done + whole
        if whole < wanted:
            raise Unreadable(f"the idx file ends after {done} of {header.n_items} items")
    if len(data) + sum(map(len, blocks)) not in (0, n_after):
        raise Unreadable(f"the idx file goes on after its {header.n_items} items")


def _numbers(data: bytes, header: _Header, n_items: int) -> npt.NDArray[np.generic]:
    flat = np.frombuffer(data, header.kind).astype(header.kind.newbyteorder("="))
    return flat if header.n_dims == 1 else flat.reshape(n_items, header.n_numbers)


def _header(blocks: Iterator[bytes]) -> tuple[_Header, bytes]:
    data = _filled(b"", blocks, 4)
    kind = _KINDS.get(data[2]) if len(data) >= 4 and data[:2] == b"\0\0" else None
    n_dims = data[3] if kind else 0
    data = _filled(data, blocks, 4 + 4 * n_dims)
    if kind is None or not n_dims or len(data) < 4 + 4 * n_dims:
        raise Unreadable("not an idx file")
    n_items, *inner = np.frombuffer(data[4 : 4 + 4 * n_dims], ">u4").tolist()
    header = _Header(np.dtype(kind), n_items, math.prod(inner), n_dims)
    if not header.item_bytes:
        raise Unreadable("the items of the idx file are empty")
    if header.item_bytes > _MAX_ITEM_BYTES:
        raise Unreadable(f"an item of the idx file is larger than {_MAX_ITEM_BYTES >> 20} MiB")
    return header, data[4 + 4 * n_dims :]


def _filled(data: bytes, blocks: Iterator[bytes], n_bytes: int) -> bytes:
    """The data with as many blocks as it takes to have `n_bytes`, or with all there are."""
    parts, n_held = [data], len(data)
    while n_held < n_bytes and (block := next(blocks, None)) is not None:
        parts.append(block)
        n_held += len(block)
    return b"".join(parts)
