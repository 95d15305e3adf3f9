"""Images with their classes, divided and not decoded: what batches are made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gatehub._text import quote
from gatehub.backbone.images import ImageSource, open_image
from gatehub.errors import DataError
from gatehub.training.sources import Picture
from gatehub.training.sources.pictures import PictureImage, Stored, fetch_image
from gatehub.training.split import stratified_order

Target = int | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Images with their classes, decoded when asked for.

    Attributes:
        names: one for each image: a path as the source spells it, or `digits/123`.
        targets: for each image, the index of its class in `ImageData.labels`; or the indices of all
            of its labels, in order.
        sources: for each image, `Picture.image`.
        label_count: how many labels there are, where an image may have any number of them; None
            where it has one.
        unknown: of those, the labels of which nobody says whether an image has them.
        features: for each image, what stands for it in every batch; None for the image itself. See
            `gatehub.training.economy.stem`.
    """

    names: tuple[str, ...]
    targets: tuple[Target, ...]
    sources: tuple[PictureImage, ...]
    label_count: int | None = None
    unknown: frozenset[int] = frozenset()
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def source(self, index: int) -> ImageSource:
        """Return one image as it is opened: its file, its pixels, or encoded bytes.

        Raises:
            InputError: it has vanished since the data was loaded.
        """
        return fetch_image(self.sources[index])

    def target(self, index: int) -> int | Tensor:
        """Return an image's class; or (label_count,) float32, 1 for each label that it has.

        Where it is not known whether it has a label, that is NaN.
        """
        own = self.targets[index]
        if self.label_count is None or isinstance(own, int):
            assert isinstance(own, int)
            return own
        row = torch.zeros(self.label_count)
        row[list(own)] = 1.0
        row[list(self.unknown)] = torch.nan
        return row

    def count_labels(self) -> Counter[int]:
        """Return how many images have each label."""
        return Counter(
            label for own in self.targets for label in ((own,) if isinstance(own, int) else own)
        )

    def image(self, index: int) -> Image.Image:
        """Decode one image to 8-bit RGB, by the rules of a new adapter.

        A task's own rules may differ: `Preprocessing.transform` takes `source(index)`.

        Raises:
            InputError: the file has become unreadable since the data was loaded.
        """
        return open_image(self.source(index))

    def sample(self, count: int, *, seed: int) -> Examples:
        """Return at most `count` of the examples, in their order, every class in proportion."""
        if count >= len(self):
            return self
        return self.take(sorted(stratified_order(self.targets, self.names, seed=seed)[:count]))

    def take(self, chosen: Sequence[int]) -> Examples:
        """Return the examples at these places, in this order."""
        held = self.features
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            targets=tuple(self.targets[i] for i in chosen),
            sources=tuple(self.sources[i] for i in chosen),
            features=None if held is None else tuple(held[i] for i in chosen),
        )


def make_examples(
    pictures: Sequence[Picture], labels: Sequence[str], *, multi_label: bool = False
) -> Examples:
    """Return pictures with the places of their labels in `labels`, which has them all."""
    index = {label: i for i, label in enumerate(labels)}

    def find(picture: Picture) -> Target:
        own = tuple(sorted(index[label] for label in picture.labels))
        return own if multi_label else own[0]

    return Examples(
        names=tuple(picture.name for picture in pictures),
        targets=tuple(map(find, pictures)),
        sources=tuple(picture.image for picture in pictures),
        label_count=len(labels) if multi_label else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What tells the images of a data set from others, wherever they lie.

    Each is a SHA-256 of labels and contents, so every file is read.

    Attributes:
        order: of both sides, with names and in order, which decide what a run draws.
        train: of what is learned from, whatever its names and order.
        val: of what is validated on, likewise.
    """

    order: str
    train: str
    val: str


def digest_sides(train: Examples, val: Examples, labels: Sequence[str]) -> Digests:
    """Read the images of both sides and digest them.

    Raises:
        DataError: a file is gone.
    """
    contents = {"train": _hash_images(train, labels), "val": _hash_images(val, labels)}
    names = {"train": train.names, "val": val.names}
    return Digests(
        order=_digest([side, names[side], contents[side]] for side in contents),
        train=_digest(sorted(contents["train"])),
        val=_digest(sorted(contents["val"])),
    )


def digest_images(examples: Examples, labels: Sequence[str]) -> str:
    """Return a SHA-256 of labels and contents, whatever the names and the order; see `Digests`.

    Raises:
        DataError: a file is gone.
    """
    return _digest(sorted(_hash_images(examples, labels)))


def _hash_images(examples: Examples, labels: Sequence[str]) -> list[str]:
    def spell(target: Target) -> str | list[str]:
        if isinstance(target, int):
            return labels[target]
        return sorted(labels[label] for label in target)

    return [
        _digest([spell(target), _hash_content(source)])
        for target, source in zip(examples.targets, examples.sources, strict=True)
    ]


def _hash_content(source: PictureImage) -> str:
    if isinstance(source, Stored):  # as if it were a file
        return hashlib.sha256(source.read()).hexdigest()
    if not isinstance(source, Path):
        return hashlib.sha256(str(source.shape).encode() + source.tobytes()).hexdigest()
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{quote(str(source))} cannot be read any more: {os.strerror(error.errno or 0)}.",
            hint="Put it back, or start anew without it.",
        ) from error


def _digest(parts: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()
