"""Labelled images for training and evaluation: read from a source, checked, and split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gatehub.adapter.names import check_line
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.training.examples import Digests, Examples, Target, digest_sides, make_examples
from gatehub.training.label_checks import check_labels, check_negatives
from gatehub.training.objectives import MULTI_LABEL, SINGLE_LABEL, Measured, Objective
from gatehub.training.sources import (
    Given,
    LeftOut,
    Picture,
    Source,
    collect_labels,
    list_given,
    name_given,
    read_source,
    spell_given,
)
from gatehub.training.sources.decoding import take_readable
from gatehub.training.sources.pictures import spell_label
from gatehub.training.split import (
    Sides,
    SplitSettings,
    check_split,
    divide,
)

_NO_EXAMPLES = Examples(names=(), targets=(), sources=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """A data set whose every class has images to train on and images to validate on.

    Only classes that `with_labels` added have none.

    Attributes:
        train: what an adapter learns from.
        val: what its accuracy is measured on.
        labels: the names of the classes, which targets index into: in the order of the source's
            classes.txt if there is one, else sorted by code point.
        source: what the data was loaded from, as it was given; several tables in their order.
        skipped: the names of the unreadable images that were left out.
        split: the arguments of `load_data` that, with the source and its columns, give this split
            again.
        test: what the source keeps apart; nothing is learned or chosen by it.
        extremes: (width, height) in pixels of the image with the fewest and the one with the most
            pixels, upright; None where nobody looked.
        columns: those of the table that were named, by what is in them.
    """

    train: Examples
    val: Examples
    labels: tuple[str, ...]
    source: str | tuple[str, ...]
    skipped: tuple[str, ...]
    split: SplitSettings
    test: Examples = _NO_EXAMPLES
    extremes: tuple[tuple[int, int], tuple[int, int]] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels, or none."""
        return self.train.label_count is not None

    @property
    def objective(self) -> Objective[Measured]:
        """What a task is trained for on these images."""
        return MULTI_LABEL if self.multi_label else SINGLE_LABEL

    def digests(self) -> Digests:
        """Read the images, and return what tells them from others."""
        return digest_sides(self.train, self.val, self.labels)

    def with_labels(self, labels: Sequence[str]) -> ImageData:
        """Return the same images with their classes as places in other labels, which have them all.

        Where an image may have any number of labels, nothing is known of those that are new here.

        Args:
            labels: in any order, and spelled in any of the ways that Unicode allows.
        """
        places = {spell_label(label): place for place, label in enumerate(labels)}
        moved = [places[label] for label in self.labels]

        def move_target(target: Target) -> Target:
            if isinstance(target, int):
                return moved[target]
            return tuple(sorted(moved[label] for label in target))

        def move(side: Examples) -> Examples:
            targets = tuple(map(move_target, side.targets))
            if side.label_count is None:
                return replace(side, targets=targets)
            others = frozenset(range(len(labels))).difference(moved)
            return replace(side, targets=targets, label_count=len(labels), unknown=others)

        return replace(
            self,
            train=move(self.train),
            val=move(self.val),
            test=move(self.test),
            labels=tuple(labels),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """A source whose images are listed and not decoded yet; its classes and sides are sound.

    Attributes:
        pictures: as the source lists them.
        labels: the names of the classes, in the order of `ImageData.labels`.
        source: what was listed, as it was given; several tables in their order.
        default_train_images: see `Source`.
        split: see `ImageData`.
        notes: sentences on how the source was understood, where that is not plain.
        left_out: what of the source is not used, and why.
        columns: see `ImageData`.
        multi_label: whether an image may have any number of labels, or none.
    """

    pictures: tuple[Picture, ...]
    labels: tuple[str, ...]
    source: str | tuple[str, ...]
    default_train_images: int | None
    split: SplitSettings
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    multi_label: bool = False

    def decode(
        self,
        *,
        skip_bad: bool = False,
        preprocessing: Preprocessing | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImageData:
        """Decode each file once as a check, and split what can be read.

        The arguments are those of `load_data`.

        Raises:
            UnreadableImageError: images that cannot be decoded, unless `skip_bad`.
            DataError: too few can be.
        """
        where = name_given(self.source)
        found = take_readable(
            self.pictures,
            where,
            skip_bad=skip_bad,
            preprocessing=preprocessing,
            progress=progress,
        )
        if found.skipped:
            where += f" (without {len(found.skipped)} unreadable images)"
        sides = self._divide(found.pictures, where)
        make = partial(make_examples, labels=self.labels, multi_label=self.multi_label)
        return ImageData(
            train=make(sides.train),
            val=make(sides.val),
            test=make(sides.test),
            labels=self.labels,
            source=self.source,
            skipped=found.skipped,
            split=self.split,
            extremes=found.extremes,
            columns=self.columns,
        )

    def _divide(self, pictures: Sequence[Picture], where: str) -> Sides:
        return divide(
            pictures,
            where,
            labels=self.labels,
            default_train_images=self.default_train_images,
            **self.split,
        )


def list_data(
    source: Given,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    train_images: int | None = None,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
) -> Listing:
    """List a source of labelled images, and check all that can be checked without decoding one.

    The arguments are those of `load_data`.

    Raises:
        DataError: a source or a setting that cannot be used.
        ConfigError: a path, or a class's name, that no adapter can store.
    """
    check_split(seed=seed, val_fraction=val_fraction, train_images=train_images)
    given, where = spell_given(source), name_given(source)
    for each in list_given(given):
        check_line(str(each), "The data source is")  # the adapter keeps it
    found = read_source(
        source, seed=seed, train_images=train_images, columns=columns, multi_label=multi_label
    )
    labels = found.labels or tuple(sorted(collect_labels(found.pictures)))
    check_labels(found.pictures, labels, where, train_images=train_images, multi_label=multi_label)
    listing = Listing(
        pictures=found.pictures,
        labels=labels,
        source=given,
        default_train_images=found.default_train_images,
        split=SplitSettings(seed=seed, val_fraction=val_fraction, train_images=train_images),
        notes=found.notes,
        left_out=found.left_out,
        columns=columns or {},
        multi_label=multi_label,
    )
    sides = listing._divide(found.pictures, where)  # a class that lacks a side is found here
    notes = [*found.notes, *_describe_split(found, sides, val_fraction, seed)]
    if multi_label:
        notes += check_negatives(sides.train, sides.val, labels, where)
    return replace(listing, notes=tuple(notes))


def _describe_split(found: Source, sides: Sides, val_fraction: float, seed: int) -> Iterator[str]:
    """Say what is validated on where the source does not."""
    named = {picture.side for picture in found.pictures}
    if "val" in named or found.default_train_images is not None:
        return
    whose = "images to train on" if "train" in named else "images"
    candidates = sum(picture.side in (None, "train") for picture in found.pictures)
    if len(sides.val) == round(candidates * val_fraction):
        yield f"Validation: {100 * val_fraction:.3g} % of the {whose}, held out by seed {seed}."
    else:
        yield (
            f"Validation: {len(sides.val):,} of the {candidates:,} {whose}, held out by seed "
            f"{seed}: each class needs images on both sides."
        )


def load_data(
    source: Given,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    train_images: int | None = None,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
    skip_bad: bool = False,
    preprocessing: Preprocessing | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Read a source of labelled images, decode each file once as a check, and split it.

    Args:
        source: a form that `gatehub.training.sources` reads, or several tables; an image has the
            labels of all of them that it stands in.
        seed: decides the split, the choice of `train_images`, and what `glyphs:` renders.
        val_fraction: share of the images to validate on, above 0 and below 1, where the
            source itself neither has a split nor says how many images to train on.
        train_images: train on this many images, with every class in proportion. Those
            left over are not used, but for `sklearn:digits`, where they join the
            validation side; `glyphs:` renders as many as asked for.
        columns: the columns of a table by what is in them, such as `{"path": "file", "label":
            "class"}`; what is not named is found by its usual names.
        multi_label: whether an image may have any number of labels, or none; the source is a table
            then, see `gatehub.training.sources.tables.label_sets`.
        skip_bad: leave unreadable images out instead of refusing the source.
        preprocessing: what the images are for, so that one which it refuses counts as unreadable;
            None checks only that they can be decoded.
        progress: called with (files decoded, files in all) as the check goes on.

    Raises:
        UnreadableImageError: images that cannot be decoded, unless `skip_bad`.
        DataError: a source or a setting that cannot be used.
        ConfigError: a path, or a class's name, that no adapter can store.
    """
    listing = list_data(
        source,
        seed=seed,
        val_fraction=val_fraction,
        train_images=train_images,
        columns=columns,
        multi_label=multi_label,
    )
    return listing.decode(skip_bad=skip_bad, preprocessing=preprocessing, progress=progress)
