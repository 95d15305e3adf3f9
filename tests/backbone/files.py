"""Small files of images, also such as Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """An RGB image without symmetry, so that no flip, turn or shift goes unseen."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6, y * 8, x * y], axis=-1).astype(np.uint8))


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    """EXIF that says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png(
    pixels: NDArray[np.uint16],
    colour_type: int,
    *,
    bits: int = 16,
    key: Sequence[int] = (),
    chunks: bytes = b"",
) -> bytes:
    """A PNG of (H, W, C) values of `bits` each, with a transparent colour if there is a key."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    if bits == 16:
        rows = [b"\0" + row.astype(">u2").tobytes() for row in pixels]
    else:
        flat = np.unpackbits(pixels.astype(np.uint8).reshape(height, -1, 1), axis=-1)[..., -bits:]
        rows = [b"\0" + np.packbits(row).tobytes() for row in flat.reshape(height, -1)]
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + transparent
        + chunks
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """One piece of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def announce_png(width: int, height: int) -> bytes:
    """The beginning of a PNG that announces a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + struct.pack(">I", 0) + b"IDAT\0\0\0\0"


def tiff(data: bytes, tags: dict[int, int | Sequence[int]], *, order: str = "<") -> bytes:
    """A TIFF of one piece of data, where a tag's value is given or is 'the data's place' (-1)."""
    place = 8 + 2 + 12 * len(tags) + 4
    longer, entries = b"", b""
    start = place + sum(2 * len(v) for v in tags.values() if not isinstance(v, int) and len(v) > 2)
    for tag, value in sorted(tags.items()):
        values = [value] if isinstance(value, int) else [*value]
        short = not isinstance(value, int)
        packed = struct.pack(f"{order}{len(values)}{'H' if short else 'i'}", *values)
        if value == -1:
            packed = struct.pack(f"{order}I", start)
        if len(packed) > 4:
            where = place + len(longer)
            longer += packed
            packed = struct.pack(f"{order}I", where)
        entries += struct.pack(f"{order}HHI", tag, 3 if short else 4, len(values))
        entries += packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + longer + data


def tiff_of(
    pixels: NDArray[np.uint16],
    photometric: int,
    *,
    order: str = "<",
    compressed: bool = False,
    **more: Sequence[int],
) -> bytes:
    """A TIFF of (H, W, C) 16-bit values; `more` are tags as `t284=(2,)`."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    if compressed:
        data = zlib.compress(data)
    tags: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: (16,) * channels,
        259: (8 if compressed else 1,),
        262: (photometric,),
        273: -1,
        277: (channels,),
        278: height,
        279: len(data),
    }
    tags |= {int(name[1:]): value for name, value in more.items()}
    return tiff(data, tags, order=order)
