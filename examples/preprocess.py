"""An image as an adapter wants it, with numpy and Pillow (11.3 or newer) alone.

    python examples/preprocess.py birds/config.json robin.jpg robin.npy

gives bit for bit what `Preprocessing.transform()` gives; docs/preprocessing.md explains each step.
A device or another language can follow it line by line. It leaves out the limits on hostile files,
and refuses what is rare: 16-bit colours in other files than PNG, and in a PNG of 2, 4 or 16 bits a
colour that is declared transparent.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def prepare(image: Image.Image, preprocessing: dict[str, Any]) -> np.ndarray:
    """Return (3, H, W) float32 for an image and the "preprocessing" of a config.json."""
    _, height, width = preprocessing["input_size"]
    mean, std = (np.array(preprocessing[k], np.float32).reshape(3, 1, 1) for k in ("mean", "std"))
    picture = flatten(image, preprocessing.get("image_rules"))
    size = choose_size(*picture.size, **preprocessing)
    picture = picture.resize(size, Image.Resampling[preprocessing["interpolation"].upper()])
    border = tuple(min(max(round(255 * v), 0), 255) for v in preprocessing["mean"])
    cut = Image.new("RGB", (width, height), border)
    cut.paste(picture, (centre(picture.width, width), centre(picture.height, height)))
    return (np.asarray(cut, np.float32).transpose(2, 0, 1) / np.float32(255) - mean) / std


def flatten(image: Image.Image, rules: dict[str, Any] | None) -> Image.Image:
    """Return the first frame upright, opaque, in 8-bit RGB."""
    if rules is None:  # an adapter made before there were rules
        if image.mode[0] in "IF":
            raise ValueError(f"{image.mode}: save the image with 8 bits per channel.")
        return image.convert("RGB")
    flat = scale_depth(image)
    if flat.mode in ("LAB", "La", "RGBa"):
        raise ValueError(f"{flat.mode}: save the image with RGB or RGBA pixels.")
    if flat.has_transparency_data:
        layer = flat.convert("RGBA")
        flat = Image.new("RGB", layer.size, tuple(rules["background"]))
        flat.paste(layer, mask=layer)
    flat = flat.convert("RGB")
    flat.getexif()[0x0112] = image.getexif().get(0x0112, 1)
    return ImageOps.exif_transpose(flat)


def scale_depth(image: Image.Image) -> Image.Image:
    """Return 16 bits per channel as 8, rounded: 0 to 65535 become 0 to 255."""
    raw = str(image.tile[0].args) if getattr(image, "tile", None) else ""
    if "transparency" in image.info and raw in ("L;2", "L;4", "I;16B", "RGB;16B"):
        raise ValueError(f"{raw} with a transparent colour: save the image with an alpha channel.")
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
    elif raw in ("RGB;16B", "RGBA;16B"):  # Pillow keeps the upper bytes: read the lower ones too
        lower = Image.open(image.fp)
        lower.tile = [lower.tile[0]._replace(args=raw[:-1] + "L")]
        values = np.asarray(lower).astype(np.uint32) | np.asarray(image).astype(np.uint32) << 8
    elif image.mode in ("I", "F") or ";16" in raw:
        raise ValueError(f"{image.mode} {raw}: save the image with 8 bits per channel.")
    else:
        return image
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def choose_size(
    width: int, height: int, *, input_size: Any, crop_pct: float, crop_mode: str, **_: Any
) -> tuple[int, int]:
    """Return the (width, height) to resize to before the crop."""
    down, across = (math.floor(side / crop_pct) for side in input_size[1:])
    if crop_mode == "squash":
        return across, down
    if crop_mode == "center" and across == down:
        longer = int(across * max(width, height) / min(width, height))
        return (across, longer) if width <= height else (longer, across)
    ratio = (max if crop_mode == "border" else min)(height / down, width / across)
    return round(width / ratio), round(height / ratio)


def centre(side: int, crop: int) -> int:
    """Return where the image begins in the crop; Python rounds halves to the even number."""
    return (crop - side) // 2 if side < crop else -round((side - crop) / 2)


if __name__ == "__main__":
    config, photo, out = sys.argv[1:]
    with open(config, encoding="utf-8") as file:
        fields = json.load(file)["preprocessing"]
    np.save(out, prepare(Image.open(photo), fields))
