"""Small files that would cost much memory or time: refused before anything is decoded."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from gatehub.backbone._headers import MAX_SCANS, MAX_SIDE, START_BYTES, check_header
from gatehub.backbone.images import open_image
from gatehub.errors import ImageTooLargeError
from tests.backbone.files import announce_png, encode, gradient, tiff


def check(encoded: bytes, *, max_pixels: int = 1_000_000) -> None:
    with Image.open(io.BytesIO(encoded)) as image:
        check_header(image, name="'it'", max_pixels=max_pixels)


@pytest.fixture(autouse=True)
def _decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)


def announce_gif(frame: tuple[int, int]) -> bytes:
    """A GIF whose screen has 4 x 4 pixels, and its first frame others."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x01\x00\x00;"


def tiled_tiff(width: int, height: int, tile: int) -> bytes:
    data = zlib.compress(b"\0")
    tags: dict[int, int | Sequence[int]] = {
        256: width,
        257: height,
        258: (8,),
        259: (8,),
        262: (1,),
        277: (1,),
    }
    return tiff([data], tags | {322: tile, 323: tile}, places=(324, 325))


def repeat_scan(jpeg: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan stands there several times more."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * times + b"\xff\xd9"


@pytest.mark.parametrize(
    "encoded",
    [
        announce_png(1001, 1000),
        announce_gif((1001, 1000)),
        tiled_tiff(1001, 1000, 16),
        b"P6 1001 1000 255\n",
        encode(Image.new("1", (1001, 1000)), "BMP"),
        encode(Image.new("L", (1001, 1000)), "WEBP", lossless=True),
        encode(Image.new("L", (1001, 1000)), "JPEG"),
    ],
    ids=["PNG", "GIF", "TIFF", "PPM", "BMP", "WEBP", "JPEG"],
)
def test_an_image_of_too_many_pixels_is_refused(encoded: bytes) -> None:
    check(encoded, max_pixels=1_001_000)
    sentence = r"'it' has 1001 x 1000 pixels; at most 1,000,999 are decoded"
    with pytest.raises(ImageTooLargeError, match=sentence):
        check(encoded, max_pixels=1_000_999)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
def test_a_side_that_is_too_long_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError, match="a side may have at most 200,000"):
        check(announce_png(*size))
    check(announce_png(MAX_SIDE, 1))


def test_tiles_larger_than_the_limit_are_refused_however_small_the_image() -> None:
    check(tiled_tiff(10, 10, 992))
    with pytest.raises(ImageTooLargeError, match="'it' is stored in tiles of 1008 x 1008 pixels"):
        check(tiled_tiff(10, 10, 1008))


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_a_jpeg_of_very_many_scans_is_refused(form: str) -> None:
    jpeg = encode(gradient(), form, progressive=True)
    scans = len(re.findall(rb"\xff\xda", jpeg))
    assert scans > 5
    check(jpeg)
    check(repeat_scan(jpeg, MAX_SCANS - scans))
    with pytest.raises(ImageTooLargeError, match="'it' is a JPEG of more than 32 scans"):
        check(repeat_scan(jpeg, MAX_SCANS - scans + 1))


def test_what_looks_like_a_scan_and_is_none_does_not_count() -> None:
    looks = b"\xff\xda\0\2" * 100
    comment = b"\xff\xfe" + struct.pack(">H", len(looks) + 2) + looks
    jpeg = encode(gradient(), "JPEG")
    check(jpeg[:2] + comment + jpeg[2:])
    check(jpeg + b"\0\2" + looks)  # as phones append a film


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_netpbm_file_of_a_long_header_is_refused_before_it_is_opened(
    magic: bytes, in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args, **_: opened.append(args))
    words = [magic, b"9", b"9", b"255"][: 3 if magic in (b"P1", b"P4") else 4]
    for place in range(1, len(words) + 1):
        comment = b"#" + b"x" * START_BYTES
        header = b" ".join(words[:place]) + comment + b"\n " + b" ".join(words[place:])
        data: bytes | Path = header + b"\n" + bytes(400)
        if in_file:
            (tmp_path / "a.ppm").write_bytes(header)
            data = tmp_path / "a.ppm"
        with pytest.raises(ImageTooLargeError, match="header does not end within 4,096 bytes"):
            open_image(data)
    assert opened == []


def test_a_netpbm_file_may_have_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    comment = b"#" + b"x" * (START_BYTES - 100) + b"\n"
    for header in (b"P6\n" + comment + b"40 30\n255\n", b"P6 4" + comment + b"0 30 255\n"):
        assert open_image(header + bytes(3600)).size == (40, 30)
    assert open_image(b"P1 90 90\n" + b"0" * 8100).size == (90, 90)


def test_an_image_in_memory_has_nothing_to_check_but_its_size() -> None:
    check_header(gradient(), name="it", max_pixels=1200)
    with pytest.raises(ImageTooLargeError, match="it has 40 x 30 pixels"):
        check_header(gradient(), name="it", max_pixels=1199)
