from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageOps

from gatehub.backbone.images import IMAGE_FORMATS, ImageRules, is_image, open_image, parse_colour
from gatehub.errors import ImageTooLargeError, InputError
from tests.backbone.files import announce_png, chunk, encode, gradient, png, turned

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    """The pixels of an RGB image, row after row."""
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("rules", [None, ImageRules()], ids=["before", "rules"])
def test_a_lossless_image_is_decoded_to_its_pixels(
    tmp_path: Path, form: str, rules: ImageRules | None
) -> None:
    encoded = encode(gradient(), form, **({"lossless": True} if form == "WEBP" else {}))
    (tmp_path / "image").write_bytes(encoded)
    sources = (encoded, tmp_path / "image", str(tmp_path / "image"), gradient())
    for source in (*sources, np.asarray(gradient())):
        image = open_image(source, rules=rules)
        assert (image.mode, image.size) == ("RGB", (40, 30))
        assert image.tobytes() == gradient().tobytes()


@pytest.mark.parametrize("form", [form for form in IMAGE_FORMATS if form != "TIFF"])
def test_every_accepted_format_is_read(form: str) -> None:
    assert open_image(encode(gradient(), form)).size == (40, 30)


def test_an_image_is_known_by_its_beginning(tmp_path: Path) -> None:
    for form in IMAGE_FORMATS:
        (tmp_path / form).write_bytes(encode(gradient(), form))
        assert is_image(tmp_path / form), form
    (tmp_path / "bomb").write_bytes(announce_png(60_000, 60_000))
    assert is_image(tmp_path / "bomb")
    (tmp_path / "eps").write_bytes(encode(Image.new("RGB", (4, 4)), "EPS"))
    (tmp_path / "text").write_text("P3 what")
    (tmp_path / "empty").touch()
    for name in ("eps", "text", "empty", "nothing"):
        assert not is_image(tmp_path / name), name


def test_postscript_is_refused_before_it_can_start_a_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append("gs"))
    with pytest.raises(InputError, match="cannot be decoded"):
        open_image(encode(Image.new("RGB", (4, 4)), "EPS"))
    assert not started


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_orientation_is_applied(form: str, orientation: int) -> None:
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    expected = open_image(encode(gradient(), form, **options))
    expected.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(expected)
    image = open_image(encode(gradient(), form, exif=turned(orientation), **options))
    assert (image.size, image.tobytes()) == (expected.size, expected.tobytes())
    assert open_image(image).tobytes() == image.tobytes()  # and not a second time


def test_an_orientation_behind_the_pixels_of_a_png_is_applied() -> None:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    encoded = encode(gradient())
    assert open_image(encoded[:-12] + chunk(b"eXIf", exif) + encoded[-12:]).size == (30, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, whatever the rules
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x06"],
)
def test_an_orientation_that_cannot_be_read_is_none(exif: bytes) -> None:
    assert open_image(encode(gradient(), "JPEG", exif=exif)).size == (40, 30)


@pytest.mark.parametrize("exif", [b"nonsense", b"MM", b"MM\0*", b"II*\0\xff\xff\xff\xff"])
def test_metadata_of_a_png_that_cannot_be_read_says_nothing(exif: bytes) -> None:
    values = np.zeros((3, 4, 3), np.uint16)
    assert open_image(png(values, 2, chunks=chunk(b"eXIf", exif))).size == (4, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert open_image(encode(gradient(), exif=turned(orientation))).size == (40, 30)


# Transparency


def hidden(colour: tuple[int, ...]) -> Image.Image:
    """Two pixels: a red one, and one that cannot be seen."""
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (*colour, 0))
    return image


def test_a_colour_that_cannot_be_seen_decides_nothing() -> None:
    for form in ("PNG", "TIFF"):
        made = [pixels(open_image(encode(hidden(colour), form))) for colour in (RED, GREEN, BLUE)]
        assert made == [[RED, WHITE]] * 3


def test_transparent_pixels_take_the_colour_of_the_rules() -> None:
    rules = ImageRules(background=(10, 20, 30))
    assert pixels(open_image(hidden(GREEN), rules=rules)) == [RED, (10, 20, 30)]


def test_a_pixel_is_mixed_with_the_background_and_rounded() -> None:
    colour, alpha = np.mgrid[:256, :256].astype(np.uint8)
    layer = np.stack([colour, colour, colour, alpha], axis=-1)
    for behind in (0, 77, 255):
        rules = ImageRules(background=(behind,) * 3)
        mixed = (colour.astype(int) * alpha + behind * (255 - alpha.astype(int))) / 255
        image = open_image(Image.fromarray(layer), rules=rules)
        assert np.array_equal(np.asarray(image)[..., 0], np.rint(mixed))


def palette(*, transparency: bytes | int) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for index in range(3):
        image.putpixel((index, 0), index)
    return encode(image, transparency=transparency)


def test_a_palette_may_be_transparent() -> None:
    assert pixels(open_image(palette(transparency=1))) == [RED, WHITE, BLUE]
    half = (127, 127, 255)
    assert pixels(open_image(palette(transparency=b"\xff\x00\x80"))) == [RED, WHITE, half]


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [("L", 7, 7), ("RGB", (1, 2, 3), (1, 2, 3))],
)
def test_one_colour_may_be_transparent(
    mode: str, value: int | tuple[int, ...], colour: int | tuple[int, ...]
) -> None:
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), 0)
    encoded = encode(image, transparency=colour)
    assert pixels(open_image(encoded)) == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_one_grey_of_any_depth_may_be_transparent(bits: int) -> None:
    most = 2**bits - 1
    values = np.array([[[0], [most]]], np.uint16)
    for key, expected in (((0,), [WHITE, WHITE]), ((most,), [(0, 0, 0), WHITE])):
        assert pixels(open_image(png(values, 0, bits=bits, key=key))) == expected
    rules = ImageRules(background=BLUE)
    assert pixels(open_image(png(values, 0, bits=bits, key=(most,)), rules=rules))[1] == BLUE


def test_transparency_of_a_gif_is_seen() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    assert pixels(open_image(encode(image, "GIF", transparency=1))) == [RED, WHITE]


@pytest.mark.parametrize(("mode", "form"), [("LA", "PNG"), ("LA", "TIFF"), ("PA", "TIFF")])
def test_alpha_is_composed_in_every_mode(mode: str, form: str) -> None:
    image = Image.new("RGBA", (2, 1), (50, 50, 50, 255))
    image.putpixel((1, 0), (50, 50, 50, 0))
    encoded = encode(image.convert(mode), form)
    assert pixels(open_image(encoded)) == [(50, 50, 50), WHITE]


# Modes


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "PA", "1", "CMYK", "YCbCr"])
@pytest.mark.parametrize("rules", [None, ImageRules()], ids=["before", "rules"])
def test_every_mode_of_8_bits_becomes_rgb(mode: str, rules: ImageRules | None) -> None:
    form = "TIFF" if mode in ("CMYK", "YCbCr", "PA") else "PNG"
    made = gradient().convert(mode)
    image = open_image(encode(made, form), rules=rules)
    assert image.tobytes() == made.convert("RGB").tobytes()
    assert open_image(made, rules=rules).tobytes() == image.tobytes()


def test_the_ink_of_a_jpeg_is_converted() -> None:
    image = open_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    red, green, blue = pixels(image)[0]
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB"])
def test_a_mode_without_a_rule_is_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"The image has pixels of mode {mode}; expected one of"):
        open_image(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_without_rules_more_than_8_bits_are_refused(mode: str) -> None:
    encoded = encode(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(InputError, match=r"The image has more than 8 bits per channel .mode"):
        open_image(encoded, rules=None)


def test_16_bits_are_scaled_and_then_composed_and_turned() -> None:
    values = np.array([[[65535, 0, 0, 65535], [0, 65535, 0, 0], [0, 0, 129, 65535]]], np.uint16)
    encoded = png(values, 6, chunks=chunk(b"eXIf", turned(3).tobytes().removeprefix(b"Exif\0\0")))
    assert pixels(open_image(encoded)) == [(0, 0, 1), WHITE, RED]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    encoded = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    for rules in (None, ImageRules()):
        assert pixels(open_image(encoded, rules=rules))[0] == RED


def test_a_phone_picture_of_several_frames_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    encoded = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    red, green, blue = pixels(open_image(encoded))[36]
    assert red > 200
    assert max(green, blue) < 60


# Before there were rules


def test_without_rules_all_stays_as_it_was() -> None:
    assert open_image(encode(gradient(), "JPEG", exif=turned(6)), rules=None).size == (40, 30)
    assert pixels(open_image(encode(hidden(GREEN)), rules=None)) == [RED, GREEN]
    assert pixels(open_image(palette(transparency=b"\0\0\0"), rules=None)) == [RED, GREEN, BLUE]
    cut = np.array([[[255, 256, 65535]]], np.uint16)
    assert pixels(open_image(png(cut, 2), rules=None)) == [(0, 1, 255)]
    assert pixels(open_image(png(cut, 2))) == [(1, 1, 255)]


@settings(deadline=None)
@given(data=st.data())
def test_what_the_rules_made_stays_as_it_is(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]))
    size = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    channels = {"I;16": 2, "1": 1}.get(mode, len(Image.new(mode, (1, 1)).getbands()))
    stride = (size[0] + 7) // 8 if mode == "1" else size[0] * channels
    content = data.draw(st.binary(min_size=stride * size[1], max_size=stride * size[1]))
    image = Image.frombytes(mode, size, content)
    if data.draw(st.booleans()):
        image.info["exif"] = turned(data.draw(st.integers(0, 9))).tobytes()
    made = open_image(image)
    again = open_image(made)
    assert (made.mode, again.size) == ("RGB", made.size)
    assert again.tobytes() == made.tobytes()


# What is refused


def test_an_image_is_refused_by_its_size_and_named(tmp_path: Path) -> None:
    encoded = encode(gradient())
    assert open_image(encoded, max_pixels=1200).size == (40, 30)
    with pytest.raises(ImageTooLargeError, match="The image has 40 x 30 pixels; at most 1,199"):
        open_image(encoded, max_pixels=1199)
    (tmp_path / "a.png").write_bytes(encoded)
    with pytest.raises(ImageTooLargeError, match=r"a.png' has 40 x 30 pixels"):
        open_image(tmp_path / "a.png", max_pixels=1199)


def test_a_large_image_is_refused_before_it_is_decoded() -> None:
    # There are no pixels in it: decoding would say that it is truncated.
    with pytest.raises(ImageTooLargeError, match="has 8000 x 8000 pixels; at most 50,000,000"):
        open_image(announce_png(8000, 8000))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_what_pillow_takes_for_a_bomb_is_refused(side: int) -> None:
    with pytest.raises(ImageTooLargeError, match="has far more than 50,000,000 pixels"):
        open_image(announce_png(side, side))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bird.png' does not exist"):
        open_image(tmp_path / "bird.png")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be decoded as an image"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"hello",
        encode(gradient())[:-40],
        encode(gradient(), "JPEG")[:300],
        encode(gradient())[:20],
        announce_png(0, 4),
        announce_png(4, 4),
        png(np.zeros((9, 9, 3), np.uint16), 2)[:-30],
    ],
    ids=["empty", "text", "png", "jpeg", "header", "no-width", "no-pixels", "16-bits"],
)
def test_what_is_no_whole_image_is_refused(encoded: bytes) -> None:
    for rules in (None, ImageRules()):
        with pytest.raises(InputError, match="The image cannot be decoded as an image") as refusal:
            open_image(encoded, rules=rules)
        assert "JPEG, PNG" in str(refusal.value.hint)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bird.jpg").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"bird.jpg' cannot be decoded"):
        open_image(str(tmp_path / "bird.jpg"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"version": 2}, "of version 2; this gatehub knows version 1"),
        ({"background": (0, 0)}, r"tuple as background; expected tuple\[int, int, int\]"),
        ({"background": (0, 0, 256)}, "each a whole number from 0 to 255"),
        ({"background": (0, -1, 0)}, "each a whole number from 0 to 255"),
        ({"background": (0.5, 0, 0)}, r"0\.5 \(float\) as background\[0\]; expected int"),
        ({"background": (True, 0, 0)}, r"True \(bool\) as background\[0\]; expected int"),
    ],
    ids=str,
)
def test_rules_out_of_range_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ImageRules(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["#0a141e", "rgb(10, 20, 30)"])
def test_a_colour_is_read(text: str) -> None:
    assert parse_colour(text) == (10, 20, 30)
    assert parse_colour("White") == WHITE


@pytest.mark.parametrize("text", ["", "whitish", "#ff", "#ff000080", "10, 20, 30", "x" * 1000])
def test_a_colour_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not an opaque colour") as refusal:
        parse_colour(text)
    assert len(refusal.value.message) < 120


def test_an_image_is_left_as_it_was() -> None:
    image = Image.open(io.BytesIO(encode(hidden(GREEN), exif=turned(6))))
    open_image(image)
    assert (image.mode, image.size) == ("RGBA", (2, 1))
    assert image.getexif()[0x0112] == 6
    assert struct.unpack("4B4B", image.tobytes()) == (*RED, 255, *GREEN, 0)
    image = Image.open(io.BytesIO(palette(transparency=b"\0\0\0")))
    open_image(image, rules=None)
    assert image.info["transparency"] == b"\0\0\0"


def test_a_file_that_somebody_else_opened_stays_open(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as image:
        assert pixels(open_image(image))[0] == RED
        image.seek(1)
        assert pixels(open_image(image))[0] == BLUE
