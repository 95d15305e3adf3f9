"""Whether the labels of a source are such that a task can be learned from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gatehub.adapter.names import check_line
from gatehub.errors import DataError
from gatehub.training.sources import Picture, collect_labels, name_some


def check_labels(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    where: str,
    *,
    train_images: int | None,
    multi_label: bool,
) -> None:
    """Refuse labels that tell nothing apart, or that no adapter can store.

    Args:
        pictures: of a source.
        labels: that they have, or that the source says they have.
        where: what errors call the source.
        train_images: how many are asked for to train on.
        multi_label: whether a picture may have any number of labels.

    Raises:
        DataError: there are too few labels, images of them, or images without them.
        ConfigError: a label is not one line of text.
    """
    _check_test_classes(pictures, where)
    if not pictures:
        raise DataError(f"{where} holds no images; expected some of at least 2 classes.")
    if multi_label:
        _check_sets(pictures, labels, where)
    elif len(labels) < 2:
        raise DataError(
            f"{where} holds a single class, {labels[0]!r}; expected at least 2.",
            hint="Add a second class, such as images that do not belong to the first.",
        )
    for label in labels:
        check_line(label, f"{where} has the class")
    if train_images is not None and train_images < len(labels) and not multi_label:
        raise DataError(
            f"{train_images} training images are too few for the {len(labels)} classes of "
            f"{where}; expected at least one for each class."
        )


def check_negatives(
    train: Sequence[Picture], val: Sequence[Picture], labels: Sequence[str], where: str
) -> Iterator[str]:
    """Refuse labels that every image to train on has, and name those of every image to validate on.

    Args:
        train: pictures to learn from, which may have any number of labels.
        val: pictures to validate on.
        labels: that they have.
        where: what errors call the source.

    Yields:
        Sentences.

    Raises:
        DataError: a label is on every image to train on.
    """
    if everywhere := _list_constant(train, labels):
        raise DataError(
            f"{where} has on every image to train on: {name_some(everywhere)}; expected some "
            "without it.",
            hint="Add images to train on that do not have that label, or remove it.",
        )
    if everywhere := _list_constant(val, labels):
        yield (
            f"Every image to validate on has: {name_some(everywhere)}; nothing tells there how "
            "often it is said wrongly."
        )


def _list_constant(pictures: Sequence[Picture], labels: Sequence[str]) -> list[str]:
    counts = Counter(label for picture in pictures for label in picture.labels)
    return [label for label in labels if counts[label] == len(pictures)]


def _check_sets(pictures: Sequence[Picture], labels: Sequence[str], where: str) -> None:
    """Refuse labels that tell no image from another."""
    if not labels:
        raise DataError(f"{where} has no label on any image; expected at least one on some.")
    if everywhere := _list_constant(pictures, labels):
        raise DataError(
            f"{where} has on every image: {name_some(everywhere)}; expected images without it.",
            hint="Remove that label, or add images that do not have it.",
        )


def _check_test_classes(pictures: Sequence[Picture], where: str) -> None:
    known = collect_labels(picture for picture in pictures if picture.side != "test")
    unknown = sorted(collect_labels(pictures) - known)
    if unknown and known:
        raise DataError(
            f"{where} has test images of classes that it has no others of: {name_some(unknown)}.",
            hint="Add images of those classes to train on, or remove the classes.",
        )
