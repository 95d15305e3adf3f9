"""Every file of a source decoded once, as a check."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from gatehub.backbone.images import open_image
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import InputError
from gatehub.training.sources.pictures import Picture

# Decoding releases the interpreter lock; more threads than this only wait for the disk.
_MAX_THREADS = 8
_FILES_PER_ROUND = 512

Size = tuple[int, int]


def look_at(
    pictures: Sequence[Picture],
    preprocessing: Preprocessing | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, str], tuple[Size, Size] | None]:
    """Decode every file once.

    Args:
        pictures: files and pixels.
        preprocessing: what refuses an image that it could not use; None refuses only what cannot
            be decoded.
        progress: called with (files decoded, files in all).

    Returns:
        The reason of each that fails, by its picture's name; and (width,
        height) in pixels of the image with the fewest and the one with the most pixels, None if
        there is no image.
    """
    files = [
        (picture.name, picture.image) for picture in pictures if isinstance(picture.image, Path)
    ]
    check = partial(_measure, open_image if preprocessing is None else preprocessing.open)
    reasons: dict[str, str] = {}
    sizes = {
        (picture.image.shape[1], picture.image.shape[0])
        for picture in pictures
        if not isinstance(picture.image, Path)
    }
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        # In rounds, so that a million files are not queued at once and Ctrl-C ends it soon.
        for start in range(0, len(files), _FILES_PER_ROUND):
            batch = files[start : start + _FILES_PER_ROUND]
            found = threads.map(check, [path for _, path in batch])
            for done, ((name, _), size) in enumerate(
                zip(batch, found, strict=True), start=start + 1
            ):
                if isinstance(size, str):
                    reasons[name] = size
                else:
                    sizes.add(size)
                if progress is not None:
                    progress(done, len(files))
    order = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return reasons, (order[0], order[-1]) if order else None


def _measure(decode: Callable[[Path], Image.Image], path: Path) -> Size | str:
    """Return an image's width and height, or why it cannot be decoded."""
    try:
        return decode(path).size
    except InputError as error:
        return error.message
