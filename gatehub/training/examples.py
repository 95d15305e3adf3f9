"""Images with their classes, divided and not decoded: what batches are made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gatehub._text import quote
from gatehub.backbone.images import open_image
from gatehub.errors import DataError
from gatehub.training.sources import Picture
from gatehub.training.split import stratified_order


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Images with their classes, decoded when asked for.

    Attributes:
        names: one for each image: a path as the source spells it, or `digits/123`.
        targets: for each image, the index of its class in `ImageData.labels`.
        sources: for each image, its file or its (H, W, 3) uint8 pixels.
    """

    names: tuple[str, ...]
    targets: tuple[int, ...]
    sources: tuple[Path | NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """Decode one image to 8-bit RGB, by the rules of a new adapter.

        A task's own rules may differ: `Preprocessing.transform` takes `sources[index]` as it is.

        Raises:
            InputError: the file has become unreadable since the data was loaded.
        """
        return open_image(self.sources[index])

    def sample(self, count: int, *, seed: int) -> Examples:
        """Return at most `count` of the examples, in their order, every class in proportion."""
        if count >= len(self):
            return self
        chosen = sorted(stratified_order(self.targets, self.names, seed=seed)[:count])
        return Examples(
            names=tuple(self.names[i] for i in chosen),
            targets=tuple(self.targets[i] for i in chosen),
            sources=tuple(self.sources[i] for i in chosen),
        )


def make_examples(pictures: Sequence[Picture], labels: Sequence[str]) -> Examples:
    """Return pictures with the places of their classes in `labels`, which has them all."""
    index = {label: i for i, label in enumerate(labels)}
    return Examples(
        names=tuple(picture.name for picture in pictures),
        targets=tuple(index[picture.label] for picture in pictures),
        sources=tuple(picture.image for picture in pictures),
    )


def digest_images(sides: Mapping[str, Examples], labels: Sequence[str]) -> str:
    """Return a SHA-256 that tells images apart, wherever they lie.

    It is one of sides, names, classes and sizes: bytes of a file, shape of an array. So an image
    that was replaced by one of as many bytes is not noticed, and no file is read.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256()
    for side, examples in sides.items():
        columns = zip(examples.names, examples.targets, examples.sources, strict=True)
        for name, target, source in columns:
            entry = [side, name, labels[target], _measure(source)]
            digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def _measure(source: Path | NDArray[np.uint8]) -> int | tuple[int, ...]:
    if not isinstance(source, Path):
        return source.shape
    try:
        return source.stat().st_size
    except OSError as error:
        raise DataError(
            f"{quote(str(source))} cannot be read any more: {os.strerror(error.errno or 0)}.",
            hint="Put it back, or start anew without it.",
        ) from error
