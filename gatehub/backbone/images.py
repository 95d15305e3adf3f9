"""Files of images as pictures: 8-bit RGB, upright and opaque, by rules that an adapter records.

`docs/preprocessing.md` states the rules, and how a picture becomes a tensor.
"""

from __future__ import annotations

import io
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from gatehub._arguments import check_fields, checked
from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer_text
from gatehub._text import shorten
from gatehub.backbone._depth import scale_depth
from gatehub.backbone._headers import START_BYTES, check_header, check_start
from gatehub.errors import ImageTooLargeError, InputError

DEFAULT_MAX_PIXELS = 50_000_000
IMAGE_RULES_VERSION = 1


def _has_avif() -> bool:
    try:
        from PIL import AvifImagePlugin
    except ImportError:  # before Pillow 11.3
        return False
    return AvifImagePlugin.SUPPORTED


# Pillow reads more; some of it starts other programs (EPS runs Ghostscript).
IMAGE_FORMATS = (
    *("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"),
    *(("AVIF",) if _has_avif() else ()),
)

ImageSource: TypeAlias = bytes | str | Path | Image.Image | NDArray[np.uint8]

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """How a file becomes a picture, where files leave a choice.

    By the rules of version 1, the orientation in EXIF is applied, transparent pixels are laid
    over the background, and 16 bits per channel are scaled to 8.

    Args:
        version: of the rules; there is one.
        background: (red, green, blue) behind transparent pixels, each 0 to 255.

    Raises:
        InputError: no such version, or no such colour.
    """

    version: int = IMAGE_RULES_VERSION
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        check_fields(self, InputError)
        if self.version != IMAGE_RULES_VERSION:
            raise InputError(
                f"The image rules are of version {shorten(str(self.version), 40)}; this gatehub "
                f"knows version {IMAGE_RULES_VERSION}.",
                hint="Upgrade gatehub (pip install -U gatehub).",
            )
        colour = self.background
        if not all(0 <= value <= 255 for value in colour):
            raise InputError(
                f"The background of the image rules is {str(colour)[:80]}; expected red, green "
                "and blue, each a whole number from 0 to 255.",
                hint="White is (255, 255, 255).",
            )


NEWEST_RULES = ImageRules()


@checked(InputError)
def parse_colour(text: str) -> tuple[int, int, int]:
    """Read a colour, as "#ffffff", "white" or "rgb(255, 255, 255)".

    Raises:
        InputError: there is no such colour, or it is transparent itself.
    """
    colour: tuple[int, ...] = ()
    with suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if len(colour) != 3:
        raise InputError(
            f"{text[:80]!r} is not an opaque colour.", hint="Write it as '#ffffff' or 'white'."
        )
    return colour[0], colour[1], colour[2]


@checked(InputError)
def open_image(
    source: ImageSource,
    *,
    rules: ImageRules | None = NEWEST_RULES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image.Image:
    """Decode an image to 8-bit RGB; of an animation or a file of several pages, the first.

    Args:
        source: encoded bytes, the path of a file, an image of Pillow's, or (H, W, 3) uint8 pixels.
        rules: those of the adapter that the image is for. None for an adapter that was made before
            there were any: the orientation is not applied, transparency is dropped whatever colour
            lies below it, 16 bits of grey are refused, and 16 bits of a colour lose the lower 8.
        max_pixels: refuse larger images, by their header, before decoding them.

    Raises:
        ImageTooLargeError: more than `max_pixels`, or a file made to cost time or memory.
        InputError: not an image of `IMAGE_FORMATS`, truncated, or of pixels whose range is not
            known.
    """
    name = name_source(source)
    try:
        with _open(source, name) as image:
            check_header(image, name=name, max_pixels=max_pixels)
            return _convert(image, name) if rules is None else _flatten(image, rules, name)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"{name} has far more than {max_pixels:,} pixels.", hint="Scale it down first."
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist.", hint="Check the path.") from error
    except Exception as error:  # Pillow's decoders raise whatever their format trips over.
        raise InputError(
            f"{name} cannot be decoded as an image ({type(error).__name__}).",
            hint=f"Give a complete file in one of these formats: {', '.join(IMAGE_FORMATS)}.",
        ) from error


def is_image(path: Path) -> bool:
    """Whether a file begins as an image of `IMAGE_FORMATS` does; none of it is decoded."""
    try:
        with _open(path, str(path)):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, ImageTooLargeError):
        return True  # one that will be refused
    except Exception:  # Pillow's plugins raise whatever their format trips over
        return False


def name_source(source: ImageSource) -> str:
    """Return what an error calls an image: its path, or that it is one."""
    return f"'{source}'" if isinstance(source, str | Path) else "The image"


def _open(source: ImageSource, name: str) -> Image.Image | nullcontext[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # whoever opened it closes it
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, bytes):
        if is_pointer_text(source):
            raise InputError(describe_pointer(name), hint="Send the image itself.")
        check_start(source[:START_BYTES], name=name)
        return Image.open(io.BytesIO(source), formats=IMAGE_FORMATS)
    with open(source, "rb") as file:
        start = file.read(START_BYTES)
    if is_pointer_text(start):
        raise InputError(describe_pointer(name), hint=advise_pull(Path(source).parent))
    check_start(start, name=name)
    return Image.open(source, formats=IMAGE_FORMATS)


def _convert(image: Image.Image, name: str) -> Image.Image:
    """Make RGB of an image as it was done before there were rules."""
    if image.mode == "F" or image.mode.startswith("I"):
        raise InputError(
            f"{name} has more than 8 bits per channel (mode {image.mode}).",
            hint="Convert it to 8 bits first, so that its range is your choice.",
        )
    image.load()
    if image.mode == "RGB":
        return image
    if "transparency" in image.info:  # it is dropped, and Pillow would warn of that
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _flatten(image: Image.Image, rules: ImageRules, name: str) -> Image.Image:
    """Make RGB of an image by the rules; what is made so stays as it is when made so again."""
    flat = _scale_key(scale_depth(image, name=name))
    if flat.mode not in _MODES:
        raise InputError(
            f"{name} has pixels of mode {flat.mode}; expected one of {', '.join(sorted(_MODES))}.",
            hint="Convert it to RGB first.",
        )
    flat.load()
    if flat.has_transparency_data:
        layer = flat.convert("RGBA")
        flat = Image.new("RGB", layer.size, rules.background)
        flat.paste(layer, mask=layer)
    elif flat.mode != "RGB":
        flat = flat.convert("RGB")
    turn = _TURNS.get(_read_orientation(image))
    if turn is not None:
        flat = flat.transpose(turn)
    if flat is not image:
        flat.info.clear()  # or the orientation would be applied again
    return flat


def _scale_key(image: Image.Image) -> Image.Image:
    """Scale the transparent grey of a PNG of 1, 2 or 4 bits as Pillow scales its pixels."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", ())
    scale = (
        {"1": 255, "L;2": 85, "L;4": 17}.get(tiles[0][3])
        if tiles and image.format == "PNG"
        else None
    )
    if scale is None or not isinstance(key, int):
        return image
    scaled = image.copy()
    scaled.info["transparency"] = min(key * scale, 255)  # some versions scale that of 1 bit
    return scaled


def _read_orientation(image: Image.Image) -> int:
    """Return the orientation of a decoded image, 1 to 8; 1 where it cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a file's metadata may be broken in as many ways as its pixels
        return 1
    return orientation if isinstance(orientation, int) else 1
