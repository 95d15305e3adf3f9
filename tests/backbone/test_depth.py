"""More than 8 bits a channel: each value is scaled and rounded, none is cut."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gatehub.backbone import _depth
from gatehub.backbone._depth import scale_depth
from gatehub.errors import InputError
from tests.backbone.files import encode, png, tiff_of

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}


def draw(channels: int, *, shape: tuple[int, int] = (5, 7)) -> NDArray[np.uint16]:
    """Random values, and those where cutting and rounding differ."""
    values = np.random.default_rng(channels).integers(0, 65536, (*shape, channels), dtype=np.uint16)
    values[0, :5] = np.array([0, 128, 129, 255, 65535], np.uint16)[:, None]
    return values


def scaled(values: NDArray[np.uint16], *, most: int = 65535) -> NDArray[np.uint8]:
    return np.rint(values.astype(np.float64) * 255 / most).astype(np.uint8)


def read(encoded: bytes) -> tuple[str, NDArray[np.uint8]]:
    with Image.open(io.BytesIO(encoded)) as image:
        made = scale_depth(image, name="it")
        pixels = np.asarray(made)
    return made.mode, pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize(
    ("colour_type", "mode"), [(GREY, "L"), (RGB, "RGB"), (GREY_ALPHA, "LA"), (RGB_ALPHA, "RGBA")]
)
def test_a_png_of_16_bits_is_scaled(colour_type: int, mode: str) -> None:
    values = draw(CHANNELS[colour_type])
    found, pixels = read(png(values, colour_type))
    assert found == mode
    assert np.array_equal(pixels, scaled(values))


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(
    ("photometric", "channels", "extra", "mode"),
    [
        (1, 1, None, "L"),
        (2, 3, None, "RGB"),
        (2, 4, 2, "RGBA"),
        (2, 4, 0, "RGB"),
        (5, 4, None, "CMYK"),
    ],
    ids=["grey", "colour", "alpha", "unused", "cmyk"],
)
def test_a_tiff_of_16_bits_is_scaled(
    photometric: int, channels: int, extra: int | None, mode: str, order: str, compressed: bool
) -> None:
    values = draw(channels)
    more = {} if extra is None else {"t338": (extra,)}
    found, pixels = read(tiff_of(values, photometric, order=order, compressed=compressed, **more))
    assert found == mode
    assert np.array_equal(pixels, scaled(values[..., : pixels.shape[-1]]))


def test_a_file_on_disk_is_read_twice(tmp_path: Path) -> None:
    values = draw(3)
    for name, encoded in (
        ("a.png", png(values, RGB)),
        ("a.tiff", tiff_of(values, 2, compressed=True)),
        ("b.tiff", tiff_of(values, 2)),
    ):
        (tmp_path / name).write_bytes(encoded)
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(scale_depth(image, name="it"))
        assert np.array_equal(pixels, scaled(values))


def test_a_large_image_is_scaled_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watch(image: Image.Image, box: tuple[int, int, int, int]) -> NDArray[np.generic]:
        sizes.append((box[2] - box[0], box[3] - box[1]))
        return original(image, box)

    original = _depth._read
    monkeypatch.setattr(_depth, "_read", watch)
    for limit, rows in ((28, 2), (1, 1)):
        monkeypatch.setattr(_depth, "_STRIP_PIXELS", limit)
        for colour_type, channels in CHANNELS.items():
            values = draw(channels, shape=(5, 13))
            assert np.array_equal(read(png(values, colour_type))[1], scaled(values))
        assert set(sizes) == {(13, rows), (13, 1)}
        sizes.clear()


@pytest.mark.parametrize(
    ("colour_type", "key", "near"), [(GREY, (4711,), (4712,)), (RGB, (1, 2, 300), (1, 2, 301))]
)
def test_the_transparent_colour_is_told_from_one_beside_it(
    colour_type: int, key: tuple[int, ...], near: tuple[int, ...]
) -> None:
    values = draw(CHANNELS[colour_type])
    values[1, 1], values[1, 2] = key, near
    _, pixels = read(png(values, colour_type, key=key))
    assert np.array_equal(pixels[..., :-1], scaled(values))
    alpha = np.full(values.shape[:2], 255)
    alpha[1, 1] = 0
    assert np.array_equal(pixels[..., -1], alpha)


def test_a_portable_greymap_is_scaled_by_what_it_says_is_white() -> None:
    values = draw(1)
    binary = b"P5 7 5 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(read(binary)[1], scaled(values))
    plain = b"P2 3 1 1000\n0 500 1000\n"
    assert read(plain)[1].ravel().tolist() == [0, 128, 255]


def test_a_tiff_of_12_bits_is_scaled_by_4095() -> None:
    values = np.array([[[0], [2048], [4095], [9]]], np.uint16)
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    encoded = tiff_of(values, 1, t258=(12,))
    encoded = encoded[: -values.nbytes] + np.packbits(bits).tobytes()
    assert np.array_equal(read(encoded)[1], scaled(values, most=4095))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_an_image_in_memory_is_scaled(mode: str) -> None:
    values = draw(1)[..., 0]
    order = ">" if mode.endswith("B") else "<"
    image = Image.frombytes(mode, (7, 5), values.astype(f"{order}u2").tobytes())
    assert np.array_equal(np.asarray(scale_depth(image, name="it")), scaled(values))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_an_image_of_8_bits_stays_what_it_is(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    assert scale_depth(image, name="it") is image
    with Image.open(io.BytesIO(encode(image, "TIFF"))) as opened:
        assert scale_depth(opened, name="it") is opened


def test_a_bitmap_of_5_bits_a_channel_is_not_taken_for_one_of_16() -> None:
    header = b"BM" + (54 + 4).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    header += b"".join(v.to_bytes(4, "little") for v in (40, 1, 1)) + b"\1\0\x10\0" + bytes(24)
    with Image.open(io.BytesIO(header + b"\xff\x7f\0\0")) as image:
        assert scale_depth(image, name="it").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        (encode(Image.new("I", (4, 4)), "TIFF"), "it has pixels of mode I, whose range is not"),
        (encode(Image.new("F", (4, 4)), "TIFF"), "it has pixels of mode F, whose range is not"),
        (tiff_of(draw(1), 1, t339=(2,)), "pixels of mode I, whose range is not known"),
        (tiff_of(draw(1), 0), "16 bits of grey of which 0 is white"),
        (tiff_of(draw(4), 2, t338=(1,)), "16 bits per channel in a form of which only 8"),
        (tiff_of(draw(3), 2, planes=True), "16 bits per channel in a form of which only 8"),
        (tiff_of(draw(3), 2, planes=True, compressed=True), "16 bits per channel in a form of"),
        (b"Pf 1 1 -1.0\n\0\0\0\0", "pixels of mode F, whose range is not known"),
    ],
    ids=["32", "float", "signed", "white is zero", "premultiplied", "planes", "packed", "pfm"],
)  # fmt: skip
def test_what_would_be_cut_is_refused(encoded: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(encoded)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_an_image_in_memory_of_an_unknown_range_is_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"it has pixels of mode {mode}, whose range is not"):
        scale_depth(Image.new(mode, (4, 4)), name="it")
