"""Images: pixels as they were written, in planes; what is no whole image is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.ingest import readers_arrow, readers_image, readers_parquet
from tasks.ingest.infer import columns_of, schema_of
from tasks.ingest.streams import Unreadable


def written(array: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(array, np.uint8)) if mode is None else array.convert(mode)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def row_of(data: bytes, path: str = "cat/1.png", **options: Any) -> dict[str, Any]:
    [block] = readers_image.read(iter([data[:7], data[7:]]), path, **options)
    schema = schema_of(columns_of([readers_arrow.shapes(block.rows)]))
    batch, rejects = readers_parquet.typed(block.rows, schema, {})
    assert not rejects
    return batch.to_pylist()[0]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.randoms(use_true_random=False))
def test_pixels_are_those_that_were_written_plane_by_plane(height: int, width: int, channels: int, random: Any) -> None:
    planes = np.array([random.randrange(256) for _ in range(height * width * channels)]).reshape(channels, height, width)
    row = row_of(written(planes[0] if channels == 1 else np.moveaxis(planes, 0, 2)))
    assert (row["height"], row["width"], row["channels"]) == (height, width, channels)
    assert row["pixels"] == planes.reshape(-1).tolist()


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4), st.sampled_from(["PNG", "JPEG"]))
def test_damage_is_refused_or_gives_an_image(at: int, patch: bytes, kind: str) -> None:
    whole = written(np.arange(256).reshape(16, 16), kind)
    data = whole[:at] + patch + whole[at + len(patch) :]
    for broken in (data, whole[:at]):
        try:
            row = row_of(broken)
        except Unreadable:
            continue
        assert len(row["pixels"]) == row["height"] * row["width"] * row["channels"]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))
def test_images_of_any_size_become_those_of_one(height: int, width: int, to_height: int, to_width: int) -> None:
    row = row_of(written(np.full((height, width), 77)), size=(to_height, to_width))
    assert row["pixels"] == [77] * (to_height * to_width)
    assert (row["height"], row["width"]) == (to_height, to_width)


def test_the_label_is_the_folder_by_eye() -> None:
    data = written([[0, 128], [255, 1]])
    row = {"height": 2, "width": 2, "channels": 1, "pixels": [0, 128, 255, 1]}
    assert row_of(data, "x/cat/1.png") == {"path": "x/cat/1.png", "label": "cat", **row}
    assert row_of(data, "1.png") == {"path": "1.png", "label": None, **row}


def test_modes_by_eye() -> None:
    red = Image.new("RGB", (1, 1), (200, 10, 20))
    assert row_of(written(red, mode="P"))["pixels"] == [204, 0, 0]  # the nearest of the palette
    assert row_of(written(red, mode="1"))["channels"] == 1
    assert row_of(written(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), mode="RGBA"))["pixels"] == [255, 255, 255]
    assert row_of(written(Image.new("LA", (1, 1), (0, 255)), mode="LA"))["pixels"] == [0]
    assert row_of(written(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "JPEG", mode="CMYK"))["pixels"] == [0, 0, 0]
    deep = io.BytesIO()
    Image.fromarray(np.array([[0x1234, 0xFFFF]], np.uint16)).save(deep, "PNG")
    assert row_of(deep.getvalue())["pixels"] == [0x12, 0xFF]


def test_exif_turns_the_image_by_eye() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    row = row_of(written([[0, 100], [200, 50], [25, 75]], exif=exif))
    assert (row["height"], row["width"], row["pixels"]) == (2, 3, [25, 200, 0, 75, 50, 100])


def test_bombs_and_other_formats_are_refused_by_eye(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    gif = io.BytesIO()
    Image.new("L", (1, 1)).save(gif, "GIF")
    for data in (b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT", gif.getvalue(), b"", b"no image"):
        with pytest.raises(Unreadable, match="not a whole PNG or JPEG image"):
            row_of(data)
    monkeypatch.setattr(readers_image, "MAX_PIXELS", 3)
    with pytest.raises(Unreadable, match="2 x 2 pixels"):
        row_of(written([[0, 0], [0, 0]]))
