"""Reading labelled images for a command, and saying what was understood."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from gatehub._text import shorten
from gatehub.cli._output import Output, format_percent, make_table

if TYPE_CHECKING:
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.training.data import ImageData, Listing
    from gatehub.training.examples import Examples
    from gatehub.training.sources import LeftOut

_MAX_WORKERS = 8
_MAX_CLASSES = 10
_MAX_NAMES = 3
_MAX_NAME_CHARACTERS = 60
_MAX_LABEL_CHARACTERS = 30
# From here on a class is so rare that the accuracy hardly shows how it fares.
_LARGE_IMBALANCE = 10
_LEAST_IMBALANCE = 1.05  # below, it would read 1.0 to 1


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
    """Decode labelled images, with a bar; say how they are split, and what was left out and why."""
    describe_reading(output, listing.notes, listing.left_out)
    with output.progress("checking images") as advance:
        images = listing.decode(skip_bad=skip_bad, preprocessing=preprocessing, progress=advance)
    name_skipped(output, images.skipped)
    return images


def describe_reading(output: Output, notes: Sequence[str], left_out: Sequence[LeftOut]) -> None:
    """Say how a source was understood, and what of it was left out and why."""
    for text in (*notes, *_describe_left_out(left_out)):
        output.paragraph(text)


def show_classes(output: Output, images: ImageData) -> None:
    """Show what there is to learn from: each class's images, their sizes, how even they are."""
    sides = {"train": images.train, "val": images.val, "test": images.test}
    counts = {name: side.count_labels() for name, side in sides.items() if len(side)}
    shown = range(min(_MAX_CLASSES, len(images.labels)))
    output.note(
        make_table(
            ["label" if images.multi_label else "class", *counts],
            [
                [
                    shorten(images.labels[index], _MAX_LABEL_CHARACTERS),
                    *(f"{side[index]:,}" for side in counts.values()),
                ]
                for index in shown
            ],
        )
    )
    if rest := len(images.labels) - len(shown):
        output.note(f"and {rest:,} more {'labels' if images.multi_label else 'classes'}")
    describe_balance = _describe_sets if images.multi_label else _describe_balance
    for text in (*_describe_sizes(images), *describe_balance(images, counts["train"])):
        output.paragraph(text)


def name_skipped(output: Output, skipped: Sequence[str]) -> None:
    """Name the images that were left out because they cannot be read."""
    for name in skipped:
        output.note(f"Left out, unreadable: {name}")
    if skipped:
        output.note(f"Unreadable and left out: {len(skipped):,}.")


def choose_workers(wanted: int | None, examples: Examples) -> int:
    """Decode files beside the main process, and pictures that are in memory in it."""
    if wanted is not None:
        return wanted
    decoded = hasattr(examples.sources[0], "shape")
    return 0 if decoded else min(_MAX_WORKERS, (os.cpu_count() or 1) - 1)


def _describe_left_out(left_out: Sequence[LeftOut]) -> Iterator[str]:
    for part in left_out:
        first = [shorten(name, _MAX_NAME_CHARACTERS) for name in part.names[:_MAX_NAMES]]
        rest = len(part.names) - len(first)
        more = f" and {rest:,} more" if rest else ""
        count = f"{len(part.names):,}{'' if part.rows else _count_suffixes(part.names)}"
        yield f"Left out ({count}), {part.why}: {', '.join(first)}{more}."


def _count_suffixes(names: Sequence[str]) -> str:
    """Return how many of the files have each ending, the commonest first."""
    files = [name for name in names if not name.endswith("/")]
    counts = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in files)
    common = [f"{shorten(suffix, 12)} {count:,}" for suffix, count in counts.most_common(4)]
    if len(counts) > len(common):
        common.append("others")
    return f": {', '.join(common)}" if common else ""


def _describe_sizes(images: ImageData) -> Iterator[str]:
    if images.extremes is None:
        return
    small, large = (f"{width} x {height}" for width, height in images.extremes)
    if small == large:
        yield f"All images have {small} pixels."
    else:
        yield f"The smallest image has {small} pixels, the largest {large}."


def _describe_sets(images: ImageData, counts: Counter[int]) -> Iterator[str]:
    """Say how many labels an image has, and how rare the rarest is."""
    several = [len(own) for own in images.train.targets if isinstance(own, tuple)]
    yield (
        f"To train on, an image has {sum(several) / len(several):.1f} labels on average, "
        f"{max(several)} at most; {several.count(0):,} have none."
    )
    (most, largest), (least, smallest) = counts.most_common()[0], counts.most_common()[-1]
    if largest >= _LARGE_IMBALANCE * smallest:
        big, small = (
            f"'{shorten(images.labels[i], _MAX_LABEL_CHARACTERS)}'" for i in (most, least)
        )
        yield (
            f"{largest:,} images have {big}, and {smallest:,} have {small}. With --class-weights "
            "balanced, the images with a label weigh as much as those without it."
        )


def _describe_balance(images: ImageData, counts: Counter[int]) -> Iterator[str]:
    ordered = counts.most_common()
    (most, largest), (least, smallest) = ordered[0], ordered[-1]
    if largest == smallest:
        return
    big, small = (f"'{shorten(images.labels[i], _MAX_LABEL_CHARACTERS)}'" for i in (most, least))
    ratio = largest / smallest
    if ratio < _LEAST_IMBALANCE:
        return
    yield (
        f"To train on, {big} has {largest:,} images and {small} has {smallest:,}: "
        f"{ratio:,.1f} to 1."
    )
    if ratio >= _LARGE_IMBALANCE:
        share = images.val.count_labels()[most] / len(images.val)
        yield (
            f"That is a large imbalance: whoever always answers {big} is right for "
            f"{format_percent(share)} of the validation images, so the accuracy says little about "
            "the small classes. With --class-weights balanced every class counts alike."
        )
