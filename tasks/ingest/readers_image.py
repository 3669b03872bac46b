"""PNG and JPEG files: an image is one row, its pixels a list of numbers from 0 to 255. Rows are typed as those of Parquet."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from tasks.ingest.blocks import Block
from tasks.ingest.streams import Unreadable

MAX_BYTES = 256 << 20
MAX_PIXELS = 1 << 26
_FORMATS = ("PNG", "JPEG")
_GREY = ("1", "L", "I", "F")
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    LookupError,
    TypeError,
    Image.DecompressionBombError,
)
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("pixels", pa.list_(pa.uint8())),
    ]
)


def read(blocks: Iterator[bytes], path: str, *, size: tuple[int, int] | None = None) -> Iterator[Block]:
    """One row {path, label, height, width, channels, pixels} of an image file.

    `path` is that of the `RawFile`; `label` the name of the folder that it lies in, NULL at the top. `pixels` holds plane after
    plane (channels x height x width), each from the top row by row: one channel of greys, else red, green, blue. Turned as EXIF
    says; what is transparent is white; palettes and CMYK become colours, 16 bits the upper 8, of several frames the first is
    taken, colour profiles are not. `size` is the (height, width) that it is scaled to, bilinearly.

    Raises `Unreadable` where there is no whole image, and above 256 MiB or 67 million pixels.
    """
    data = _all(blocks)
    try:
        pixels = _pixels(data, size)
    except _DAMAGE as error:
        raise Unreadable(f"not a whole PNG or JPEG image: {type(error).__name__}") from None
    yield Block(_row(path, pixels), 1)


def _all(blocks: Iterator[bytes]) -> bytes:
    held, n_bytes = list[bytes](), 0
    for block in blocks:
        held.append(block)
        n_bytes += len(block)
        if n_bytes > MAX_BYTES:
            raise Unreadable(f"larger than {MAX_BYTES >> 20} MiB: too much for one image")
    return b"".join(held)


def _pixels(data: bytes, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """The image in shape (channels, height, width)."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"an image of {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
        image.load()
        plain = _plain(ImageOps.exif_transpose(image))
        if size is not None:
            plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        array = np.asarray(plain)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def _plain(image: Image.Image) -> Image.Image:
    """The image in 8 bits of grey or of red, green and blue."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        return seen.convert("L" if image.mode in (*_GREY, "LA", "La") else "RGB")
    return image.convert("L" if image.mode in _GREY else "RGB")


def _row(path: str, pixels: npt.NDArray[np.uint8]) -> pa.RecordBatch:
    n_channels, height, width = pixels.shape
    values = pa.array(np.ascontiguousarray(pixels).reshape(-1))
    columns = [
        pa.array([path], pa.string()),
        pa.array([PurePosixPath(path).parent.name or None], pa.string()),
        *(pa.array([number], pa.int32()) for number in (height, width, n_channels)),
        pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
