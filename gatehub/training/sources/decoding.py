"""Every file of a source decoded once, as a check."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from gatehub.backbone.images import ImageSource, open_image
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import InputError, UnreadableImageError
from gatehub.training.sources.pictures import Picture, PictureImage, fetch_image, name_some

# Decoding releases the interpreter lock; more threads than this only wait for the disk.
_MAX_THREADS = 8
_FILES_PER_ROUND = 512

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """What of a source can be decoded.

    Attributes:
        pictures: those that can, in their order.
        skipped: the names of the others.
        extremes: (width, height) in pixels of the image with the fewest and the one with the most
            pixels; None if there is no image.
    """

    pictures: list[Picture]
    skipped: tuple[str, ...]
    extremes: tuple[Size, Size] | None


def take_readable(
    pictures: Sequence[Picture],
    where: str,
    *,
    skip_bad: bool,
    preprocessing: Preprocessing | None,
    progress: Callable[[int, int], None] | None,
) -> Readable:
    """Decode every file once.

    Args:
        pictures: files and pixels.
        where: what errors call their source.
        skip_bad: leave unreadable images out instead of refusing the source.
        preprocessing: what refuses an image that it could not use; None refuses only what cannot
            be decoded.
        progress: called with (files decoded, files in all).

    Raises:
        UnreadableImageError: images that cannot be decoded, unless `skip_bad`.
    """
    reasons, extremes = _look_at(pictures, preprocessing, progress)
    if reasons and not skip_bad:
        names = list(reasons)
        raise UnreadableImageError(
            f"{len(names)} of the {len(pictures)} images of {where} cannot be used: "
            f"{name_some(names)}. The first: {reasons[names[0]]}",
            hint="Repair or remove them, or leave them out with skip_bad.",
        )
    return Readable(
        pictures=[picture for picture in pictures if picture.name not in reasons],
        skipped=tuple(reasons),
        extremes=extremes,
    )


def _look_at(
    pictures: Sequence[Picture],
    preprocessing: Preprocessing | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, str], tuple[Size, Size] | None]:
    """Return the reason of each picture that fails, by its name, and the `Readable.extremes`."""
    files = [
        (picture.name, picture.image)
        for picture in pictures
        if not isinstance(picture.image, np.ndarray)
    ]
    check = partial(_measure, open_image if preprocessing is None else preprocessing.open)
    reasons: dict[str, str] = {}
    sizes = {
        (picture.image.shape[1], picture.image.shape[0])
        for picture in pictures
        if isinstance(picture.image, np.ndarray)
    }
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        # In rounds, so that a million files are not queued at once and Ctrl-C ends it soon.
        for start in range(0, len(files), _FILES_PER_ROUND):
            batch = files[start : start + _FILES_PER_ROUND]
            found = threads.map(check, [image for _, image in batch])
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


def _measure(decode: Callable[[ImageSource], Image.Image], image: PictureImage) -> Size | str:
    """Return an image's width and height, or why it cannot be decoded."""
    try:
        return decode(fetch_image(image)).size
    except InputError as error:
        return error.message
