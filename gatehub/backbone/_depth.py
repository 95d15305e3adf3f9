"""Images of more than 8 bits a channel, scaled to 8.

Pillow keeps 16 bits of grey only. Of colours it decodes the upper byte and drops the lower one,
so these are decoded twice, once for each byte: the same data are read as if their bytes stood in
the other order.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from gatehub.errors import InputError

Box = tuple[int, int, int, int]

_STRIP_PIXELS = 1_000_000

_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_TWO_BYTES = re.compile(r"(\w+);16([BLN])")
_DECODED_TWICE = ("RGB", "RGBX", "RGBA", "CMYK")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def scale_depth(image: Image.Image, *, name: str) -> Image.Image:
    """Scale an image of more than 8 bits a channel to 8, rounding to the nearest value.

    Args:
        image: opened. It is decoded here, if it was not.
        name: what it is called in the error.

    Returns:
        The image itself, or one of mode L, LA, RGB, RGBA or CMYK, whose alpha channel also says
        where the colour is that the file declares transparent.

    Raises:
        InputError: the range of its values is not known, or the lower bytes cannot be had.
    """
    if image.mode.startswith(("I", "F")):
        return _scale_grey(image, name)
    match = _TWO_BYTES.fullmatch(_find_raw_mode(image))
    tags = getattr(image, "tag_v2", {})
    if match is None and max(tags.get(_BITS, (8,))) <= 8:
        return image
    colours, order = match.groups() if match else ("", "")
    if colours == "LA":
        # Four bytes a pixel, grey and alpha, the upper one first: decoded as four channels.
        twin = _decode_as(image, "RGBA")
        image.load()
        return _by_strips(image.size, "LA", lambda box: _scale_pairs(twin, box))
    if colours not in _DECODED_TWICE or tags.get(_PLANES) == _SEPARATE:
        raise InputError(
            f"{name} has 16 bits per channel in a form of which only 8 can be read.",
            hint="Save it as a PNG, or with 8 bits per channel.",
        )
    lower = _decode_as(image, f"{colours};16{_OTHER_ORDER[order]}")
    image.load()
    key = image.info.get("transparency")
    mode = image.mode if key is None else "RGBA"

    def scale(box: Box) -> npt.NDArray[np.uint8]:
        values = _read(image, box).astype(np.uint32) << 8 | _read(lower, box)
        return _with_alpha(_to_bytes(values, 65535), values, key)

    return _by_strips(image.size, mode, scale)


def _scale_grey(image: Image.Image, name: str) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    # Pillow reads 16 bits of PNG and PPM as 32, in some of its versions.
    unsigned = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if image.mode == "F" or not unsigned:
        raise InputError(
            f"{name} has pixels of mode {image.mode}, whose range is not known.",
            hint="Convert it to 8 or 16 bits first, so that its range is your choice.",
        )
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise InputError(
            f"{name} has 16 bits of grey of which 0 is white.",
            hint="Save it with 0 for black, as a PNG does.",
        )
    image.load()
    most = 2 ** max(tags.get(_BITS, (16,))) - 1
    key = image.info.get("transparency")

    def scale(box: Box) -> npt.NDArray[np.uint8]:
        values = _read(image, box).astype(np.uint32)[..., None]
        return _with_alpha(_to_bytes(values, most), values, key)

    return _by_strips(image.size, "L" if key is None else "LA", scale)


def _find_raw_mode(image: Image.Image) -> str:
    """Return how the pixels of a file that is not decoded yet are stored, in Pillow's words."""
    for tile in getattr(image, "tile", ()):
        return _raw_mode(tile[3])
    return ""


def _decode_as(image: Image.Image, raw_mode: str) -> Image.Image:
    """Decode the file of an image once more, as if its pixels were stored in another way."""
    # Both read one file in turn; each goes to its own place in it before it decodes.
    file, form = cast(ImageFile, image).fp, cast(str, image.format)
    twin = Image.open(cast(IO[bytes], file), formats=(form,))
    twin.tile = [_replace_raw_mode(tile, raw_mode) for tile in twin.tile]
    twin.load()
    return twin


def _raw_mode(arguments: Any) -> str:
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _replace_raw_mode(tile: Any, raw_mode: str) -> Any:
    """Return one of Pillow's tiles: codec, box, offset, and the raw mode alone or with more."""
    arguments = tile[3]
    changed = (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
    # A plain tuple before Pillow 11.
    make = getattr(type(tile), "_make", tuple)
    return make((*tile[:3], changed))


def _by_strips(
    size: tuple[int, int], mode: str, scale: Callable[[Box], npt.NDArray[np.uint8]]
) -> Image.Image:
    """Make an image a few rows at a time, since arrays take several bytes for each of its own.

    Args:
        size: its width and height.
        mode: its mode.
        scale: (left, top, right, bottom) → the pixels there, (rows, columns, channels) uint8.
    """
    width, height = size
    made = Image.new(mode, size)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = Image.frombytes(mode, (width, box[3] - top), scale(box).tobytes())
        made.paste(strip, box[:2])
    return made


def _read(image: Image.Image, box: Box) -> npt.NDArray[Any]:
    return np.asarray(image.crop(box))


def _scale_pairs(twin: Image.Image, box: Box) -> npt.NDArray[np.uint8]:
    pairs = _read(twin, box).astype(np.uint32).reshape(-1, 2)
    return _to_bytes(pairs[:, 0] << 8 | pairs[:, 1], 65535)


def _to_bytes(values: npt.NDArray[Any], most: int) -> npt.NDArray[np.uint8]:
    """Scale values of 0 to `most`, an odd number, so that no result lies between two bytes."""
    return ((values * 255 + most // 2) // most).astype(np.uint8)


def _with_alpha(
    pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.uint32], key: Any
) -> npt.NDArray[np.uint8]:
    """Append an alpha channel that is 0 where a file's values are the transparent ones."""
    if key is None:
        return pixels
    alpha = np.where((values == np.asarray(key)).all(axis=-1, keepdims=True), 0, 255)
    return np.concatenate([pixels, alpha.astype(np.uint8)], axis=-1)
