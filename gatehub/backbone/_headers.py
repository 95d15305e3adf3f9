"""What a file of an image announces, checked before anything of it is decoded."""

from __future__ import annotations

import re

from PIL import Image

from gatehub.errors import ImageTooLargeError

# The table of a resize has an entry for each pixel of a side and each one that it is made of.
MAX_SIDE = 200_000
# Encoders write about ten. Each costs a pass over all pixels and may be 70 bytes long.
MAX_SCANS = 32
# Headers of Netpbm, comments included, are read byte by byte.
START_BYTES = 4096

_TILE_WIDTH, _TILE_LENGTH = 322, 323
# Of JPEG: all but those that stand for a byte FF in the data, or have no length after them.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_END, _SCAN = 0xD9, 0xDA
# Pillow ends a comment at either character, and lets it stand in the middle of a number.
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
_BITMAPS = (b"P1", b"P4")  # which have no largest value


def check_start(start: bytes, *, name: str) -> None:
    """Refuse a Netpbm file (PBM, PGM, PPM, PFM) whose header does not end where it should.

    Args:
        start: the first `START_BYTES` of a file, or all of a shorter one.
        name: what it is called in the error.

    Raises:
        ImageTooLargeError: its header is longer than that.
    """
    if len(start) < START_BYTES or re.match(rb"P[0-9fy]", start) is None:
        return
    words = 3 if start.startswith(_BITMAPS) else 4
    if re.match(rb"(?:\S+\s+){%d}" % words, _COMMENT.sub(b"", start)) is None:
        raise ImageTooLargeError(
            f"{name} is a Netpbm file whose header does not end within {START_BYTES:,} bytes.",
            hint="Save it again without the comment.",
        )


def check_header(image: Image.Image, *, name: str, max_pixels: int) -> None:
    """Refuse an image that would cost too much memory or time to decode.

    Args:
        image: opened; nothing needs to be decoded.
        name: what it is called in the error.
        max_pixels: the limit.

    Raises:
        ImageTooLargeError: it has more pixels, a side of more than `MAX_SIDE`, TIFF tiles of more
            pixels, or more than `MAX_SCANS` passes of a JPEG.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name} has {width} x {height} pixels; at most {max_pixels:,} are decoded.",
            hint="Scale it down first.",
        )
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(
            f"{name} has {width} x {height} pixels; a side may have at most {MAX_SIDE:,}.",
            hint="Cut it into pieces first.",
        )
    # However small the image, the tiles that it is cut from are decoded whole.
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if all(isinstance(side, int) for side in tile) and tile[0] * tile[1] > max_pixels:
        raise ImageTooLargeError(
            f"{name} is stored in tiles of {tile[0]} x {tile[1]} pixels; at most "
            f"{max_pixels:,} are decoded at once.",
            hint="Save it again with smaller tiles.",
        )
    if image.format in ("JPEG", "MPO") and _count_scans(image) > MAX_SCANS:
        raise ImageTooLargeError(
            f"{name} is a JPEG of more than {MAX_SCANS} scans.", hint="Save it again."
        )


def _count_scans(image: Image.Image) -> int:
    """Return how many passes over its pixels a JPEG stores, up to one more than are allowed."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return 0  # it is decoded already
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    scans, place = 0, 0
    while scans <= MAX_SCANS and (marker := _MARKER.search(data, place)):
        kind = marker[1][0]
        if kind == _END:
            break
        scans += kind == _SCAN
        start = marker.end()
        # The start of the image has no length.
        place = start if place == 0 else start + int.from_bytes(data[start : start + 2], "big")
    return scans
