from __future__ import annotations

import io
import struct
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import EpsImagePlugin, Image
from timm.data import create_transform, resolve_data_config

from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import IMAGE_FORMATS, Preprocessing, open_image
from gatehub.errors import ImageTooLargeError, InputError

SQUARE = Preprocessing(
    input_size=(3, 32, 32),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    interpolation="bilinear",
    crop_pct=0.875,
    crop_mode="center",
)


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """An RGB image without symmetry, so that no flip, turn or shift goes unseen."""
    image = Image.new("RGB", (width, height))
    image.putdata(
        [(x * 6 % 256, y * 8 % 256, (x * y) % 256) for y in range(height) for x in range(width)]
    )
    return image


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def announce_png(width: int, height: int) -> bytes:
    """The beginning of a PNG that announces a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", 0)


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "test_resnet", "tf_efficientnet_b0.ns_jft_in1k"]
)
def test_it_is_read_from_timms_own_configuration(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    config = timm.get_pretrained_cfg(name)
    preprocessing = Preprocessing.from_model(model)
    assert preprocessing.input_size == config.input_size
    assert (preprocessing.mean, preprocessing.std) == (config.mean, config.std)
    assert preprocessing.interpolation == config.interpolation
    assert preprocessing.crop_pct == config.crop_pct
    assert preprocessing.crop_mode == config.crop_mode


def test_a_model_without_a_configuration_has_timms_defaults() -> None:
    defaults = Preprocessing.from_model(torch.nn.Identity())
    assert (defaults.input_size, defaults.interpolation) == ((3, 224, 224), "bicubic")


def test_a_backbone_has_the_one_of_its_model(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.preprocessing == Preprocessing.from_model(tiny_backbone.model)
    assert tiny_backbone.preprocessing.input_size == (3, 32, 32)


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"input_size": (3, 48, 64), "crop_pct": 1.0},
        {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_mode": "border", "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)},
    ],
    ids=str,
)
def test_the_transform_is_timms_evaluation_transform(overlay: dict[str, object]) -> None:
    with torch.device("meta"):
        model = timm.create_model("test_resnet", pretrained_cfg_overlay=overlay)
    theirs = create_transform(**resolve_data_config({}, model=model), is_training=False)
    image = gradient(90, 70)
    tensor = Preprocessing.from_model(model).transform()(image)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, theirs(image))


def test_it_survives_being_written_as_a_mapping() -> None:
    assert Preprocessing(**asdict(SQUARE)) == SQUARE


def test_a_plain_image_is_normalised_channel_by_channel() -> None:
    tensor = SQUARE.transform()(Image.new("RGB", (50, 40), (51, 102, 204)))
    expected = torch.tensor([(0.2 - 0.4) / 0.2, (0.4 - 0.5) / 0.25, (0.8 - 0.6) / 0.3])
    assert tensor.shape == (3, 32, 32)
    torch.testing.assert_close(tensor, expected[:, None, None].expand(3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 32, 32)}, r"input_size is \(1, 32, 32\); expected 3 channels"),
        ({"input_size": (3, 0, 32)}, "expected 3 channels and sides of 1 to 4096"),
        ({"input_size": (3, 32, 4097)}, "expected 3 channels and sides of 1 to 4096"),
        ({"mean": (0.5,)}, r"mean \(0.5,\) .* must each have 3 finite values"),
        ({"std": (0.2, 0.2, 0.2, 0.2)}, "must each have 3 finite values, std above 0"),
        ({"std": (0.2, 0.0, 0.2)}, "must each have 3 finite values, std above 0"),
        ({"std": ()}, "must each have 3 finite values, std above 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "must each have 3 finite values"),
        ({"std": (0.2, float("nan"), 0.2)}, "must each have 3 finite values"),
        ({"std": (0.2, float("inf"), 0.2)}, "must each have 3 finite values"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of bicubic, bilinear"),
        ({"crop_pct": 0.0}, r"crop is 0.0 'center'; expected a share in \(0, 1\]"),
        ({"crop_pct": 1.01}, "crop is 1.01 'center'"),
        ({"crop_pct": float("nan")}, "crop is nan 'center'"),
        ({"crop_mode": "corner"}, "crop is 0.875 'corner'; .* one of border, center, squash"),
    ],
    ids=str,
)
def test_values_out_of_their_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SQUARE, **changes)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF"])
def test_a_lossless_image_is_decoded_to_its_pixels(tmp_path: Path, form: str) -> None:
    encoded = encode(gradient(), form, **({"lossless": True} if form == "WEBP" else {}))
    (tmp_path / "image").write_bytes(encoded)
    for source in (encoded, tmp_path / "image", str(tmp_path / "image")):
        image = open_image(source)
        assert (image.mode, image.size) == ("RGB", (40, 30))
        assert image.tobytes() == gradient().tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_mode_of_8_bits_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert open_image(encode(gradient().convert(mode), form)).mode == "RGB"


@pytest.mark.parametrize("form", [form for form in IMAGE_FORMATS if form != "TIFF"])
def test_every_accepted_format_is_read(form: str) -> None:
    assert open_image(encode(gradient(), form)).size == (40, 30)


def test_a_phone_picture_of_several_frames_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    encoded = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    red, green, blue = open_image(encoded).getpixel((4, 4))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


def test_postscript_is_refused_before_it_can_start_a_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append("gs"))
    with pytest.raises(InputError, match="cannot be decoded"):
        open_image(encode(Image.new("RGB", (4, 4)), "EPS"))
    assert not started


def test_an_orientation_tag_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert open_image(encode(gradient(), "JPEG", exif=exif)).size == (40, 30)


def test_an_image_in_memory_is_refused_by_its_size() -> None:
    encoded = encode(gradient())
    assert open_image(encoded, max_pixels=1200).size == (40, 30)
    with pytest.raises(ImageTooLargeError, match="The image has 40 x 30 pixels; at most 1,199"):
        open_image(encoded, max_pixels=1199)


def test_a_large_image_is_refused_before_it_is_decoded() -> None:
    # There are no pixels in it: decoding would say that it is truncated.
    with pytest.raises(ImageTooLargeError, match="has 8000 x 8000 pixels; at most 50,000,000"):
        open_image(announce_png(8000, 8000))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_what_pillow_takes_for_a_bomb_is_refused(side: int) -> None:
    with pytest.raises(ImageTooLargeError, match="has far more than 50,000,000 pixels"):
        open_image(announce_png(side, side))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode: str) -> None:
    encoded = encode(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(InputError, match=r"The image has more than 8 bits per channel .mode"):
        open_image(encoded)


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
    ],
    ids=["empty", "text", "png", "jpeg", "header", "no-width", "no-pixels"],
)
def test_what_is_no_whole_image_is_refused(encoded: bytes) -> None:
    with pytest.raises(InputError, match="The image cannot be decoded as an image") as refusal:
        open_image(encoded)
    assert "JPEG, PNG" in str(refusal.value.hint)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bird.jpg").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"bird.jpg' cannot be decoded"):
        open_image(str(tmp_path / "bird.jpg"))
