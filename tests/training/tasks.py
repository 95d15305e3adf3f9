"""Small tasks that can be learned in a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gatehub.training.data import ImageData
from gatehub.training.examples import Examples

LABELS = ("blue", "green", "red")


def colour_data(train: int = 48, val: int = 30, *, seed: int = 0) -> ImageData:
    """Noisy images of 32 x 32 pixels whose strongest channel is their class."""
    return ImageData(
        train=_examples(train, seed=2 * seed, side="train"),
        val=_examples(val, seed=2 * seed + 1, side="val"),
        labels=LABELS,
        source="colours",
        skipped=(),
        split={"seed": seed, "val_fraction": 0.2, "train_images": None},
    )


def light_data(train: int = 48, val: int = 30, *, seed: int = 0) -> ImageData:
    """Noisy images of 32 x 32 pixels that have the label of each channel that is lit."""
    return ImageData(
        train=_lit(train, seed=2 * seed, side="train"),
        val=_lit(val, seed=2 * seed + 1, side="val"),
        labels=LABELS,
        source="lights.csv",
        skipped=(),
        split={"seed": seed, "val_fraction": 0.2, "train_images": None},
    )


def take_labels(data: ImageData, *labels: str) -> ImageData:
    """The same images, with only some of their labels."""

    def cut(side: Examples) -> Examples:
        names = ([data.labels[place] for place in own] for own in side.targets)  # type: ignore[union-attr]
        targets = (sorted(labels.index(name) for name in own if name in labels) for own in names)
        return replace(side, targets=tuple(map(tuple, targets)), label_count=len(labels))

    return replace(data, train=cut(data.train), val=cut(data.val), labels=labels)


def _lit(count: int, *, seed: int, side: str) -> Examples:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    targets = [tuple(label for label in range(3) if (i >> label) % 2) for i in range(count)]
    for i, own in enumerate(targets):
        for label in own:
            pixels[i, :, :, 2 - label] += 60
    return Examples(
        names=tuple(f"{side}/{i}" for i in range(count)),
        targets=tuple(targets),
        sources=tuple(pixels),
        label_count=len(LABELS),
    )


def _examples(count: int, *, seed: int, side: str) -> Examples:
    generator = np.random.default_rng(seed)
    targets = [i % len(LABELS) for i in range(count)]
    pixels = generator.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    for i, target in enumerate(targets):
        pixels[i, :, :, 2 - target] += 100
    return Examples(
        names=tuple(f"{side}/{i}" for i in range(count)),
        targets=tuple(targets),
        sources=tuple(pixels),
    )
