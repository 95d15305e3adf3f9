"""Preprocessings and images for hypothesis to draw."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from tests.backbone.files import turned

_INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16")


@st.composite
def preprocessings(draw: st.DrawFn) -> Preprocessing:
    """Any crop, square or not, of any filter; the backbone's numbers as they could be."""
    side = st.integers(1, 40)
    height = draw(side)
    return Preprocessing(
        input_size=(3, height, draw(st.one_of(st.just(height), side))),
        mean=draw(st.tuples(*[st.floats(0, 1)] * 3)),
        std=draw(st.tuples(*[st.floats(0.05, 1)] * 3)),
        interpolation=draw(st.sampled_from(_INTERPOLATIONS)),
        crop_pct=draw(st.one_of(st.sampled_from([0.875, 0.9, 0.95, 1.0]), st.floats(0.2, 1))),
        crop_mode=draw(st.sampled_from(["center", "squash", "border"])),
        image_rules=ImageRules(background=draw(st.tuples(*[st.integers(0, 255)] * 3))),
    )


@st.composite
def images(draw: st.DrawFn, *, modes: tuple[str, ...] = ("RGB",)) -> Image.Image:
    """Noise of any small size."""
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    noise = np.random.default_rng(draw(st.integers(0, 2**32)))
    mode = draw(st.sampled_from(modes))
    if mode == "I;16":
        deep = noise.integers(0, 65536, (height, width), dtype=np.uint16)
        return Image.frombytes(mode, (width, height), deep.astype("<u2").tobytes())
    pixels = noise.integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert("RGB").convert(mode)


@st.composite
def any_images(draw: st.DrawFn) -> Image.Image:
    """Noise of any small size, mode, transparency and orientation."""
    image = draw(images(modes=_MODES))
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.random.default_rng(image.width).integers(0, 256, image.size[::-1])
        image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    if image.mode in ("P", "L") and draw(st.booleans()):
        image.info["transparency"] = draw(st.integers(0, 255))
    elif image.mode == "P" and draw(st.booleans()):
        image.info["transparency"] = draw(st.binary(min_size=1, max_size=256))
    if draw(st.booleans()):
        image.info["exif"] = turned(draw(st.integers(0, 9))).tobytes()
    return image
