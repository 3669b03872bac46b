"""idx files: an item is a row, wherever the blocks are cut; labels go with their images."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest import readers_idx
from tasks.ingest.readers_idx import labels_of
from tasks.ingest.streams import Unreadable

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx(array: Any, kind: str = "u1") -> bytes:
    values = np.asarray(array)
    return (
        bytes([0, 0, CODES[kind], values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(kind).tobytes()
    )


def cut(data: bytes, n_bytes: int) -> Iterator[bytes]:
    return (data[i : i + n_bytes] for i in range(0, len(data), n_bytes))


def rows_of(blocks: Iterator[Any]) -> list[dict[str, Any]]:
    return [row for block in blocks for row in block.rows.to_pylist()]


@given(st.sampled_from([*CODES]), st.integers(0, 4), st.lists(st.integers(1, 4), max_size=2), st.integers(1, 9))
def test_every_item_is_a_row(kind: str, n_items: int, inner: list[int], n_bytes: int) -> None:
    shape = [n_items, *inner]
    values = np.arange(np.prod(shape)).reshape(shape)
    rows = rows_of(readers_idx.read(cut(idx(values, kind), n_bytes)))
    name = "value" if len(shape) == 1 else "values"
    expected = values.tolist() if len(shape) == 1 else values.reshape(shape[0], int(np.prod(shape[1:]))).tolist()
    assert rows == [{"index": i, name: value} for i, value in enumerate(expected)]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_labels_go_with_their_images(n_images: int, n_labels: int, n_bytes: int, n_label_bytes: int, is_chained: bool) -> None:
    images, labels = np.arange(n_images * 4).reshape(n_images, 2, 2), np.arange(n_labels)
    rows = list[dict[str, Any]]()
    all_bytes = idx(images) + (idx(labels) if is_chained else b"")
    blocks = readers_idx.read(cut(all_bytes, n_bytes), cut(idx(labels), n_label_bytes))
    try:
        for block in blocks:
            rows += block.rows.to_pylist()
    except Unreadable:
        assert n_images != n_labels
    else:
        assert n_images == n_labels
    expected = [{"index": i, "pixels": images[i].reshape(-1).tolist(), "label": i} for i in range(min(n_images, n_labels))]
    assert rows == expected


@given(st.integers(0, 30), st.integers(1, 9))
def test_a_file_that_is_cut_off_gives_its_whole_items(n_kept: int, n_bytes: int) -> None:
    whole = idx(np.arange(12).reshape(6, 2))
    rows = list[dict[str, Any]]()
    try:
        for block in readers_idx.read(cut(whole[:n_kept], n_bytes)):
            rows += block.rows.to_pylist()
    except Unreadable:
        assert n_kept < len(whole)
    assert [row["values"] for row in rows] == np.arange(12).reshape(6, 2).tolist()[: max(0, n_kept - 12) // 2]


def test_what_is_no_idx_file_says_so_by_eye() -> None:
    for data, said in (
        (b"", "not an idx file"),
        (b"\0\0\x07\x01....", "not an idx file"),
        (b"\0\0\x0e\x03" + b"\xff" * 12, "larger than 256 MiB"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\0\0\0\0", "items of the idx file are empty"),
        (idx([1, 2]) + b"x", "goes on after its 2 items"),
    ):
        with pytest.raises(Unreadable, match=said):
            rows_of(readers_idx.read(iter([data])))


def test_bytes_after_the_images_are_those_of_the_labels_or_refused() -> None:
    with pytest.raises(Unreadable, match="goes on after its 1 items"):
        rows_of(readers_idx.read(iter([idx([[1, 2]]) + b"x"]), iter([idx([7])])))


def test_names_of_labels_by_eye() -> None:
    assert labels_of("/x/train-images-idx3-ubyte.gz") == "/x/train-labels-idx1-ubyte.gz"
    assert labels_of("tar://t10k-images.idx3-ubyte::file:///x.tar") == "tar://t10k-labels.idx1-ubyte::file:///x.tar"
    assert labels_of("/x/train-labels-idx1-ubyte.gz") is None


def test_mnist_by_eye(shared_data: Path) -> None:
    folder = shared_data / "image" / "mnist"
    blocks = [iter([gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes())]) for name in ("images-idx3", "labels-idx1")]
    found = list(readers_idx.read(*blocks))
    assert sum(block.n_rows for block in found) == 10_000
    assert found[0].rows.column("label").to_pylist()[:5] == [7, 2, 1, 0, 4]
    assert {len(one) for one in found[0].rows.column("pixels").to_pylist()[:9]} == {784}
