"""Labelled images that need no files: scikit-learn's digits, and letters rendered from fonts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gatehub.errors import DataError
from gatehub.training.sources.pictures import Picture, Side

GLYPH_TRAIN_IMAGES = 400
GLYPH_VAL_IMAGES = 600
GLYPH_SIZE_PX = 40


def scanned_digits() -> Iterator[Picture]:
    """Return scikit-learn's 1,797 handwritten digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scans count ink in 0..16.
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for i, (pixels, target) in enumerate(zip(grey, digits.target, strict=True)):
        image = np.repeat(pixels[:, :, None], 3, axis=2)
        yield Picture(name=f"digits/{i}", label=str(target), image=image)


def rendered_glyphs(script: str, seed: int, train_images: int | None) -> Iterator[Picture]:
    """Return letters of a script, rendered from fonts.

    Raises:
        DataError: there is no such script.
    """
    # Imported here because it loads matplotlib.
    from gatehub.training.sources.glyphs import SCRIPTS, render_glyphs

    if script not in SCRIPTS:
        raise DataError(
            f"There is no script {script!r} for glyphs:SCRIPT; "
            f"expected one of {', '.join(sorted(SCRIPTS))}."
        )
    # Twice the seed and the odd number after it: no run validates on what another trains on.
    sides: tuple[tuple[Side, int, int], ...] = (
        ("train", GLYPH_TRAIN_IMAGES if train_images is None else train_images, 2 * seed),
        ("val", GLYPH_VAL_IMAGES, 2 * seed + 1),
    )
    for side, count, side_seed in sides:
        images, targets = render_glyphs(
            SCRIPTS[script], count=count, size=GLYPH_SIZE_PX, seed=side_seed
        )
        for i, (image, target) in enumerate(zip(images, targets, strict=True)):
            name, label = f"glyphs/{side}/{i}", SCRIPTS[script][target]
            yield Picture(name=name, label=label, image=image, side=side)
