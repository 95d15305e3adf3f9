"""What reading a source gives: its labelled images, and what was left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Side = Literal["train", "val", "test"]


@runtime_checkable
class Stored(Protocol):
    """An encoded image that lies in something else than a file of its own."""

    def read(self) -> bytes:
        """Return the file that it would be.

        Raises:
            InputError: it is not there.
        """


# What `open_image` takes, but for what is stored.
PictureImage = Path | NDArray[np.uint8] | Stored


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """One labelled image that has not been decoded yet.

    Attributes:
        name: the path as the source spells it, with forward slashes, or `digits/123`; the
            same on every machine that holds the source.
        label: the class; where an image may have any number of labels, all that it has, sorted.
        image: the file, (H, W, 3) uint8 pixels in 0..255, or what is stored elsewhere.
        side: where the source puts the picture, None where the source has no split.
    """

    name: str
    label: str | tuple[str, ...]
    image: PictureImage
    side: Side | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What it has of labels; its class alone, where it has one."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Files or folders of a source that are not used, for one reason.

    Attributes:
        why: what they are, such as "not an image".
        names: as `Picture.name`; a folder's ends with a slash.
        rows: they are rows of a data set, which have numbers and no names.
    """

    why: str
    names: tuple[str, ...]
    rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source holds.

    Attributes:
        pictures: in an order that does not depend on the file system; either all of them
            have a side or none has.
        default_train_images: how many pictures to train on unless the caller says, None
            where a fraction decides.
        notes: sentences on how the layout was understood, where that is not plain.
        left_out: what was not used, and why.
        labels: the classes in the order that the source gives; None where it gives none.
        multi_label: whether a picture may have any number of labels.
    """

    pictures: tuple[Picture, ...]
    default_train_images: int | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    labels: tuple[str, ...] | None = None
    multi_label: bool = False


def fetch_image(image: PictureImage) -> Path | NDArray[np.uint8] | bytes:
    """Return an image as `open_image` takes it.

    Raises:
        InputError: it is stored, and not there.
    """
    return image.read() if isinstance(image, Stored) else image


def spell_label(text: str) -> str:
    """Return a label in the one spelling that Unicode calls NFC.

    A Mac writes é as two characters in a folder's name and most keyboards as one: both look alike,
    and are one class.
    """
    return unicodedata.normalize("NFC", text)


def name_some(names: Sequence[str], *, most: int = 10) -> str:
    """Join the first names for a message, and count those left out."""
    rest = len(names) - most
    return (", ".join(names[:most]) or "none") + (f" and {rest} more" if rest > 0 else "")


def collect_labels(pictures: Iterable[Picture]) -> set[str]:
    """Return every label that a picture has."""
    return {label for picture in pictures for label in picture.labels}
