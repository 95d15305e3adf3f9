"""Labelled pictures of letters and symbols, drawn from fonts that are already installed.

matplotlib ships a few dozen freely licensed font files. Drawn large, bent, turned,
thickened, blurred and recoloured at random, they give image-classification tasks of any
size from nothing but a pip package: the demo backbone is pretrained on Latin letters and
then meets scripts it has never seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from gatehub.errors import DataError

# Families whose files map characters to the shapes that Unicode gives them. Left out are
# LastResort, which draws the same placeholder box for whole blocks, and the mathematical
# Computer Modern files, which put other shapes at the codes of letters.
_FAMILIES = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
_COMPUTER_MODERN = ("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10")

# Lower-case letters that are the upper-case one made smaller (c, o, s, ...) are left out:
# the augmentation rescales, so their labels could not be told apart. No letter that could
# be read as a digit, or that another script below shares.
_LATIN = "ABCDEFGHJKLMNPQRSTUVWXYZabdefghijmnqrtæœßþðŋđŁÞŒÐĦÄÇÉÑÖŠÛÅĂĘŐŢĜŻ"

SCRIPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "latin": tuple(_LATIN),
        "armenian": tuple(map(chr, range(0x0561, 0x0587))),
        "cyrillic": tuple("бгджзилпфцчшщъыэюя"),
        "georgian": tuple(map(chr, range(0x10D0, 0x10F1))),
        "greek": tuple("αβγδεζηθλμξπρστφχψω"),
        "symbols": tuple("←↑→↓↔↕↖↗↘↙↰↱↲↳↶↷↺↻⇄⇅⇆⇇⇈⇉⇊⇋⇌⇐⇑⇒⇓⇔"),
    }
)

_EM = 112  # font size, in pixels, at which a glyph is drawn before it is bent and shrunk
_MARGIN = 5  # empty pixels around a drawn glyph, so that thicker strokes still fit
_GRID = 3  # cells a side of the mesh that bends a glyph
_OVERSAMPLING = 2  # a picture is bent at this multiple of its size, then averaged down


def available_fonts() -> Mapping[str, Path]:
    """Find the fonts that glyphs are drawn from.

    Returns:
        Sorted mapping from font name ("DejaVuSans-Bold") to its file in matplotlib's data.
    """
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return {
        path.stem: path
        for path in sorted(folder.glob("*.ttf"))
        if path.stem in _COMPUTER_MODERN
        or (path.stem.startswith(_FAMILIES) and "Display" not in path.stem)
    }


def render_glyphs(
    characters: Sequence[str],
    *,
    count: int,
    size: int,
    seed: int,
    fonts: Sequence[str] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw labelled, randomly distorted pictures of characters.

    The classes take turns, so each has `count / len(characters)` pictures, give or take
    one. The font is drawn at random among those that truly have the character.

    Args:
        characters: one single character for each class, in the order of the labels.
        count: pictures in all.
        size: height and width of a picture in pixels.
        seed: the same seed, fonts and library versions give the same pictures.
        fonts: names from `available_fonts`; all of them by default.

    Returns:
        images (count, size, size, 3) uint8 RGB and labels (count,) int64, the index into
        `characters`, in random order.

    Raises:
        DataError: a setting is out of range, a font is unknown, or no font has a character.
    """
    if count < 1 or size < 8:
        raise DataError(f"Glyphs need count >= 1 and size >= 8, got count={count} and size={size}.")
    if not characters or len(set(characters)) != len(characters):
        raise DataError(f"Glyphs need distinct characters, got {list(characters)!r}.")
    masks = _draw_masks(characters, _select_fonts(fonts))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(characters))
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        choices = masks[label]
        images[index] = _distort(choices[rng.integers(len(choices))], size, rng)
    return images, labels


def _select_fonts(names: Sequence[str] | None) -> list[Path]:
    """Return the files of the named fonts, or of all."""
    found = available_fonts()
    if names is None:
        return list(found.values())
    unknown = sorted(set(names) - set(found))
    if unknown or not names:
        raise DataError(
            f"Cannot draw glyphs with fonts {unknown}.",
            hint=f"Choose from: {', '.join(found)}.",
        )
    return [found[name] for name in names]


def _draw_masks(characters: Sequence[str], fonts: Sequence[Path]) -> list[list[Image.Image]]:
    """Draw each character once with each font that has it; fonts without it are skipped."""
    masks: list[list[Image.Image]] = [[] for _ in characters]
    for path in fonts:
        character_map = FT2Font(str(path))
        font = ImageFont.truetype(str(path), _EM)
        for drawn, character in zip(masks, characters, strict=True):
            if len(character) != 1:
                raise DataError(f"A glyph class is one single character, got {character!r}.")
            if character_map.get_char_index(ord(character)) == 0:
                continue
            mask = _draw_mask(character, font)
            if mask is not None:
                drawn.append(mask)
    missing = [character for drawn, character in zip(masks, characters, strict=True) if not drawn]
    if missing:
        raise DataError(
            f"No font among {[path.stem for path in fonts]} draws the characters {missing}.",
            hint="Leave them out, or allow more fonts.",
        )
    return masks


def _draw_mask(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """Draw one glyph as an "L" image cropped to its ink; None if it has no ink."""
    left, top, right, bottom = font.getbbox(character)
    width, height = math.ceil(right - left), math.ceil(bottom - top)
    if width < 1 or height < 1:
        return None
    mask = Image.new("L", (width + 2 * _MARGIN, height + 2 * _MARGIN))
    ImageDraw.Draw(mask).text((_MARGIN - left, _MARGIN - top), character, fill=255, font=font)
    return mask


def _distort(mask: Image.Image, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn one glyph mask into one picture (size, size, 3)."""
    # A threshold on the blurred mask thickens strokes, at a tenth of a rank filter's cost.
    threshold = rng.uniform(0.1, 0.45) * 255.0
    ramp = np.clip((np.arange(256) - threshold) * 5.0 + 127.5, 0.0, 255.0).astype(int).tolist()
    thick = mask.filter(ImageFilter.BoxBlur(rng.uniform(1.0, _MARGIN - 1.0))).point(ramp)
    side = size * _OVERSAMPLING
    bent = thick.transform(
        (side, side), Image.Transform.MESH, _mesh(mask.size, side, rng), Image.Resampling.BILINEAR
    ).reduce(_OVERSAMPLING)
    blurred = bent.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.025) * size))
    return _colour(np.asarray(blurred, dtype=np.float32) / 255.0, rng)


def _mesh(
    source: tuple[int, int], side: int, rng: np.random.Generator
) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
    """Draw a rotation, shear, scale, shift and bend, as Pillow's list of (box, source quad).

    Each box of the target picture is filled from a quadrilateral of the source mask, so
    the map runs from the picture back to the mask.
    """
    angle = math.radians(rng.uniform(-20.0, 20.0))
    shear = rng.uniform(-0.25, 0.25)
    scale = rng.uniform(0.5, 0.88) * side / (max(source) - 2 * _MARGIN)
    stretch = math.exp(rng.uniform(-0.18, 0.18))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([stretch, 1.0 / stretch])
    inverse = np.linalg.inv(forward * scale)
    shift = rng.uniform(-0.09, 0.09, size=2) * side

    edges = [round(side * step / _GRID) for step in range(_GRID + 1)]
    target = np.stack(np.meshgrid(edges, edges), axis=-1)
    bend = rng.normal(0.0, 0.022 * side, size=target.shape)
    points = ((target - side / 2 - shift + bend) @ inverse.T + np.array(source) / 2).tolist()
    cells = []
    for row in range(_GRID):
        for column in range(_GRID):
            box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
            quad = (
                *points[row][column],
                *points[row + 1][column],
                *points[row + 1][column + 1],
                *points[row][column + 1],
            )
            cells.append((box, quad))
    return cells


def _colour(ink: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a glyph (size, size) in [0, 1] on a background of another brightness, with noise."""
    dark, bright = rng.uniform(0.0, 0.4), rng.uniform(0.6, 1.0)
    levels = np.array([dark, bright]) if rng.random() < 0.5 else np.array([bright, dark])
    # Half of the pictures are grey, as scans are; the others get a tint of either colour.
    tint = rng.uniform(-0.2, 0.2, size=(2, 3)) if rng.random() < 0.5 else np.zeros((2, 3))
    background, foreground = levels[:, None] + tint
    picture = background + ink[:, :, None] * (foreground - background)
    picture = picture + rng.normal(0.0, rng.uniform(0.0, 0.08), size=ink.shape)[:, :, None]
    return np.asarray(np.clip(np.rint(picture * 255.0), 0, 255), dtype=np.uint8)
