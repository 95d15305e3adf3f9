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


def tiff(
    pieces: Sequence[bytes],
    tags: dict[int, int | Sequence[int]],
    *,
    places: tuple[int, int] = (273, 279),
    order: str = "<",
) -> bytes:
    """A TIFF of one page.

    Args:
        pieces: its data, which follow the tags.
        tags: a whole number is stored in 32 bits, a sequence of them in 16 bits each.
        places: the tags of where the pieces begin, and of how long they are.
        order: "<" or ">", as struct calls it.
    """

    def pack(value: int | Sequence[int]) -> tuple[int, int, bytes]:
        short = not isinstance(value, int)
        values = [*value] if short else [value]
        return (
            (3 if short else 4),
            len(values),
            struct.pack(f"{order}{len(values)}{'HI'[not short]}", *values),
        )

    packed = {tag: pack(value) for tag, value in tags.items()}
    lengths = [len(piece) for piece in pieces]
    packed[places[1]] = 4, len(pieces), struct.pack(f"{order}{len(pieces)}I", *lengths)
    packed[places[0]] = 4, len(pieces), bytes(4 * len(pieces))
    longer = 8 + 2 + 12 * len(packed) + 4
    start = longer + sum(len(data) for _, _, data in packed.values() if len(data) > 4)
    starts = [start + sum(lengths[:i]) for i in range(len(pieces))]
    packed[places[0]] = 4, len(pieces), struct.pack(f"{order}{len(pieces)}I", *starts)
    entries = behind = b""
    for tag, (kind, count, data) in sorted(packed.items()):
        if len(data) > 4:
            behind, data = behind + data, struct.pack(f"{order}I", longer + len(behind))
        entries += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(packed))
    return head + entries + bytes(4) + behind + b"".join(pieces)


def tiff_of(
    pixels: NDArray[np.uint16],
    photometric: int,
    *,
    order: str = "<",
    compressed: bool = False,
    planes: bool = False,
    **more: Sequence[int],
) -> bytes:
    """A TIFF of (H, W, C) 16-bit values; `more` are tags as `t339=(2,)`."""
    height, width, channels = pixels.shape
    stored = [pixels[..., i] for i in range(channels)] if planes else [pixels]
    data = [values.astype(f"{order}u2").tobytes() for values in stored]
    tags: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: (16,) * channels,
        259: (8 if compressed else 1,),
        262: (photometric,),
        277: (channels,),
        278: height,
        284: (2 if planes else 1,),
    }
    tags |= {int(name[1:]): value for name, value in more.items()}
    return tiff([zlib.compress(d) if compressed else d for d in data], tags, order=order)
