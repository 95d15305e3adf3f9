"""Dividing labelled images into those to train on, to validate on and to test on.

A split depends on the seed, the labels and the names of the images, and on nothing else:
each class is shuffled by the SHA-256 of seed and name. So it is the same on every
machine, file system and version of every library, and adding an image moves few others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from gatehub.errors import DataError
from gatehub.training.sources import Picture, collect_labels, name_some


class SplitSettings(TypedDict):
    """What decides how a source is divided; see `gatehub.training.data.load_data`."""

    seed: int
    val_fraction: float
    train_images: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A source's pictures, divided.

    Attributes:
        train: to learn from.
        val: to choose by.
        test: to measure on at the end; empty where the source has no such side.
    """

    train: list[Picture]
    val: list[Picture]
    test: list[Picture]


def check_split(*, seed: int, val_fraction: float, train_images: int | None) -> None:
    """Refuse settings of a split that no source can be divided by; see `load_data`.

    Raises:
        DataError: one is out of its range.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise DataError(f"The seed is {seed!r:.100}; expected 0 or more, below 2^63.")
    if not isinstance(val_fraction, int | float) or not 0.0 < val_fraction < 1.0:
        raise DataError(
            f"The validation fraction is {val_fraction!r:.100}; expected above 0 and below 1."
        )
    if train_images is not None and (not isinstance(train_images, int) or train_images < 1):
        raise DataError(
            f"The number of training images is {train_images!r:.100}; expected 1 or more."
        )


def divide(
    pictures: Sequence[Picture],
    where: str,
    *,
    labels: Sequence[str],
    seed: int,
    val_fraction: float,
    train_images: int | None,
    default_train_images: int | None,
) -> Sides:
    """Divide pictures as their source says, or by the seed.

    Where the source has no validation side, it is split off what there is to train on. A test
    side is left alone: nobody learns or chooses anything by it.

    Args:
        pictures: either all of them have a side or none has.
        where: what errors call the source.
        labels: the classes; each must have a picture to train on and one to validate on.
        seed: decides the split where the source has none, and the choice of `train_images`.
        val_fraction: share to validate on, where nothing else decides.
        train_images: train on this many, with every class in proportion; None for all.
        default_train_images: `Source.default_train_images`.

    Returns:
        The sides, each in the order of `pictures`.

    Raises:
        DataError: a class lacks images on one side, or there are too few to train on.
    """
    train = [picture for picture in pictures if picture.side in (None, "train")]
    val = [picture for picture in pictures if picture.side == "val"]
    test = [picture for picture in pictures if picture.side == "test"]
    if pictures and not train:
        raise DataError(
            f"{where} has no images to train on, only {'/'.join(_present(pictures))}.",
            hint="Call the folder to train on train, or pass a folder of class folders to have it "
            "split.",
        )
    if val:
        _check_sides(where, labels, train=train, val=val)
    else:
        counts = Counter(label for picture in train for label in picture.labels)
        scarce = [f"{label} ({counts[label]})" for label in labels if counts[label] < 2]
        if scarce:
            raise DataError(
                f"{where} has too few images to split of: {name_some(scarce)}; "
                "expected at least 2 of each class.",
                hint="Add images of those classes, or remove the classes.",
            )
        if default_train_images is None:
            wanted = len(train) - round(len(train) * val_fraction)
        else:
            wanted = default_train_images if train_images is None else train_images
        order, heads, tails = _stratify_pictures(train, seed)
        cut = min(max(wanted, heads), len(train) - tails)
        train, val = _cut(train, order, cut)
    if train_images is not None:
        if train_images > len(train):
            raise DataError(
                f"{where} has {len(train)} images to train on; expected the {train_images} "
                "asked for."
            )
        train, _ = _cut(train, _stratify_pictures(train, seed)[0], train_images)
    # Of several labels an image has, one may be left without images on a side.
    _check_sides(where, labels, train=train, val=val)
    return Sides(train=train, val=val, test=test)


def stratified_order(targets: Sequence[Hashable], names: Sequence[str], *, seed: int) -> list[int]:
    """Order images so that every beginning holds each class in proportion.

    The order begins with one image of each class and ends with another one of each class
    that has two or more, so both parts of any cut between the two hold every class. Where images
    have several labels, or none, that is so for each label as far as they allow it, and in between
    for the rarest label of each image.

    Args:
        targets: (N,) the class of each image, or a tuple of its labels.
        names: (N,) the name of each image; with the seed, it decides the shuffle.
        seed: another seed, another shuffle.

    Returns:
        A permutation of 0..N-1.
    """
    return _stratify(targets, names, seed=seed)[0]


def _stratify(
    targets: Sequence[Hashable], names: Sequence[str], *, seed: int
) -> tuple[list[int], int, int]:
    """Return the order, and how many images are its beginning and its end."""
    draws = [
        hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
        for name in names
    ]
    several = any(isinstance(target, tuple) for target in targets)
    sets = [t if isinstance(t, tuple) else (t,) for t in targets]
    counts = Counter(label for own in sets for label in own)
    classes: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, own in enumerate(sets):
        classes[min(own, key=lambda label: (counts[label], label), default=None)].append(index)
    ends = _choose_ends(sets, draws) if several else {}
    keys: dict[int, tuple[int, float, bytes, int]] = {}
    for members in classes.values():
        members.sort(key=lambda index: (draws[index], index))
        last = len(members) - 1
        for rank, index in enumerate(members):
            place = 0 if rank == 0 else 2 if rank == last else 1
            if several:
                place = ends.get(index, 1)
            # The middle of the image's share of its class: classes of every size advance alike.
            keys[index] = (place, (rank + 0.5) / len(members), draws[index], index)
    places = Counter(place for place, *_ in keys.values())
    return sorted(keys, key=keys.__getitem__), places[0], places[2]


def _choose_ends(sets: Sequence[tuple[Any, ...]], draws: Sequence[bytes]) -> dict[int, int]:
    """Choose images that have each label for the beginning, 0, and others for the end, 2.

    The rarest labels choose first; for the beginning, images that leave the end one of each label.
    """
    holders: defaultdict[Any, list[int]] = defaultdict(list)
    for index in sorted(range(len(sets)), key=lambda index: (draws[index], index)):
        for label in sets[index]:
            holders[label].append(index)
    left = {label: len(indices) for label, indices in holders.items()}
    places: dict[int, int] = {}
    for place in (0, 2):
        covered: set[Any] = set()
        for label in sorted(holders, key=lambda label: (len(holders[label]), label)):
            free = [index for index in holders[label] if index not in places]
            if label in covered or not free:
                continue
            sparing = (i for i in free if all(left[other] > 1 for other in sets[i]))
            chosen = next(sparing, free[0])
            places[chosen] = place
            covered.update(sets[chosen])
            for other in sets[chosen]:
                left[other] -= 1
    return places


def _present(pictures: Sequence[Picture]) -> list[str]:
    return sorted({picture.side for picture in pictures if picture.side is not None})


def _check_sides(
    where: str, labels: Sequence[str], *, train: Sequence[Picture], val: Sequence[Picture]
) -> None:
    for side, part in (("train", train), ("val", val)):
        missing = sorted(set(labels) - collect_labels(part))
        if missing:
            raise DataError(
                f"{where} has no {side} images of: {name_some(missing)}; "
                "expected every class on both sides.",
                hint="Add images of those classes, or remove the classes.",
            )


def _stratify_pictures(pictures: Sequence[Picture], seed: int) -> tuple[list[int], int, int]:
    return _stratify(
        [picture.label for picture in pictures], [picture.name for picture in pictures], seed=seed
    )


def _cut(
    pictures: Sequence[Picture], order: Sequence[int], count: int
) -> tuple[list[Picture], list[Picture]]:
    """Return the first `count` pictures of an order, and the others."""
    return (
        [pictures[index] for index in sorted(order[:count])],
        [pictures[index] for index in sorted(order[count:])],
    )
