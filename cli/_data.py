"""Reading labelled images for a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub.cli._output import Output

if TYPE_CHECKING:
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.training.data import ImageData, Listing

_MAX_WORKERS = 8


def read_data(
    output: Output,
    source: str,
    *,
    seed: int,
    skip_bad: bool,
    preprocessing: Preprocessing,
    val_fraction: float = 0.2,
    train_images: int | None = None,
) -> ImageData:
    """List and decode labelled images; see `decode_data`."""
    from gatehub.training.data import list_data

    listing = list_data(source, seed=seed, val_fraction=val_fraction, train_images=train_images)
    return decode_data(output, listing, skip_bad=skip_bad, preprocessing=preprocessing)


def decode_data(
    output: Output, listing: Listing, *, skip_bad: bool, preprocessing: Preprocessing
) -> ImageData:
    """Decode labelled images, with a bar, and name those that were left out."""
    with output.progress("checking images") as advance:
        images = listing.decode(skip_bad=skip_bad, preprocessing=preprocessing, progress=advance)
    for name in images.skipped:
        output.note(f"Left out, unreadable: {name}")
    if images.skipped:
        output.note(f"{len(images.skipped)} unreadable images left out.")
    return images


def choose_workers(wanted: int | None, images: ImageData) -> int:
    """Decode files beside the main process, and pictures that are in memory in it."""
    if wanted is not None:
        return wanted
    in_files = isinstance(images.train.sources[0], Path)
    return min(_MAX_WORKERS, (os.cpu_count() or 1) - 1) if in_files else 0
