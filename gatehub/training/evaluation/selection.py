"""Which images a model is measured on, and which of them it was trained on.

What is measured is what is given, all of it, by none of the rules for data to train on: a class
may have a single image, and there may be a single class. Only what the adapter itself was trained
on is divided as it was then, and measured on the images that were held out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gatehub.adapter import Adapter
from gatehub.errors import DataError, LabelMismatchError
from gatehub.training.examples import Examples, digest_images, make_examples
from gatehub.training.sources import (
    Picture,
    collect_labels,
    name_some,
    read_source,
    takes_columns,
)
from gatehub.training.sources.decoding import take_readable
from gatehub.training.sources.pictures import LeftOut, spell_label
from gatehub.training.sources.tables.columns import read_columns
from gatehub.training.split import SplitSettings, divide

ALL = "all"
SIDES = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """Images to measure an adapter on.

    Args:
        examples: at least one; targets index into the adapter's labels.
        split: "all", "train", "val" or "test".
        trained: how many of the images the adapter was trained on; None where that is not known.
        skipped: the names of the unreadable images that were left out.
        left_out: what else of the source is not used, and why.
        notes: sentences on how the source was understood, where that is not plain.
        remark: a sentence on what is known of these images and the training, or None.
    """

    examples: Examples
    split: str
    trained: int | None
    skipped: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    remark: str | None


def select_images(
    adapter: Adapter,
    source: str,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Read a source of labelled images and choose those to measure an adapter on.

    Args:
        adapter: its labels include those of the data.
        source: a form that `gatehub.training.sources` reads.
        split: "all", "train", "val" or "test"; None for "val" of what the adapter was trained on
            and for all of any other source.
        columns: the columns of a table by what is in them; see `load_data`. None for those that
            the adapter was trained with, if the table has them.
        skip_bad: leave unreadable images out instead of refusing the source.
        progress: called with (files decoded, files in all) as they are checked.

    Raises:
        DataError: the source cannot be read, or has no such split.
        LabelMismatchError: the data has a class that the adapter lacks.
        UnreadableImageError: images that cannot be decoded, unless `skip_bad`.
    """
    recorded = _Recorded.read(adapter)
    settings = recorded.settings
    several = adapter.problem.is_multi_label
    if (
        columns is None
        and recorded.columns
        and takes_columns(source, recorded.columns, multi_label=several)
    ):
        columns = recorded.columns
    found = read_source(
        source,
        seed=settings["seed"],
        # What is rendered is rendered as for the training; elsewhere it would mean nothing.
        train_images=settings["train_images"] if source == recorded.data else None,
        to_train=False,
        columns=columns,
        multi_label=several,
    )
    if not found.pictures:
        raise DataError(f"{source} holds no images; expected at least one.")
    # In the spelling of the data, which is one for all.
    labels = [spell_label(label) for label in adapter.labels]
    _check_labels(found.pictures, labels, source)
    readable = take_readable(
        found.pictures,
        source,
        skip_bad=skip_bad,
        preprocessing=adapter.preprocessing,
        progress=progress,
    )
    pictures = readable.pictures
    if not pictures:
        raise DataError(f"None of the {len(readable.skipped)} images of {source} can be read.")
    replayed = recorded.replay(pictures, labels, found.default_train_images)
    known = replayed is not None and (recorded.digests is not None or recorded.names(source))
    split = split or ("val" if known else ALL)
    parts: dict[str, Sequence[Picture]] = {
        side: of_it
        for side in SIDES
        if (of_it := [picture for picture in pictures if picture.side == side])
    }
    # Where a split is asked for by name, the numbers of images are enough to go by.
    if replayed is not None and (known or split not in parts):
        parts |= replayed
    chosen = pictures if split == ALL else parts.get(split, ())
    if not chosen:
        raise _no_split(source, split, parts, recorded, len(pictures))
    trained = None
    if known and replayed is not None:
        names = {picture.name for picture in replayed["train"]}
        trained = sum(picture.name in names for picture in chosen)
    examples = make_examples(chosen, labels, multi_label=found.multi_label)
    if trained is None:
        trained = recorded.count_trained(examples, labels)
    return Selection(
        examples=examples,
        split=split,
        trained=trained,
        skipped=readable.skipped,
        left_out=found.left_out,
        notes=found.notes,
        remark=_remark(adapter.task, source, recorded, trained, len(pictures)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """What an adapter remembers of the data that it was trained on.

    Args:
        data: the source, or its last name where it was pushed to a hub; None if unknown.
        train_count: how many images it was trained on.
        val_count: how many it was validated on.
        digests: of the images to train on and to validate on, see `digest_images`; None in adapters
            that do not say.
        settings: how the source was divided; see `load_data`.
        columns: of a table, those that were named.
        multi_label: whether an image may have any number of labels.
    """

    data: str | None
    digests: tuple[str, str] | None
    train_count: int | None
    val_count: int | None
    settings: SplitSettings
    columns: Mapping[str, str]
    multi_label: bool

    @classmethod
    def read(cls, adapter: Adapter) -> _Recorded:
        training = adapter.config.training
        seed, share = training.get("split_seed"), training.get("split_val_fraction")
        count = training.get("split_train_images")
        data = training.get("data")
        train, val = training.get("train_digest"), training.get("val_digest")
        train_count, val_count = training.get("train_count"), training.get("val_count")
        return cls(
            data=data if isinstance(data, str) else None,
            digests=(train, val) if isinstance(train, str) and isinstance(val, str) else None,
            train_count=train_count if isinstance(train_count, int) else None,
            val_count=val_count if isinstance(val_count, int) else None,
            settings=SplitSettings(
                seed=seed if isinstance(seed, int) else 0,
                val_fraction=share if isinstance(share, float) else 0.2,
                train_images=count if isinstance(count, int) else None,
            ),
            columns=read_columns(training.get("columns")),
            multi_label=adapter.problem.is_multi_label,
        )

    @property
    def counts(self) -> str:
        """The numbers of images, for a sentence."""
        if self.train_count is None or self.val_count is None:
            return "it does not say how many"
        return f"{self.train_count} images and {self.val_count} held out"

    def names(self, source: str) -> bool:
        """Whether a source bears the name of the data; the folders above it may be others."""
        if self.data is None or ":" in self.data or ":" in source:
            return self.data == source
        name, recorded = (os.path.basename(os.path.abspath(path)) for path in (source, self.data))
        return name == recorded

    def replay(
        self, pictures: Sequence[Picture], labels: Sequence[str], default_train_images: int | None
    ) -> dict[str, list[Picture]] | None:
        """Divide pictures as the data was divided; None if they are others.

        By their digests, or by classes and numbers where the adapter has none.

        Returns:
            The images of "train" and of "val".
        """
        found = collect_labels(pictures)
        present = [label for label in labels if label in found]
        # An adapter that went on from another may have classes that its own data lacks.
        if self.digests is None and len(present) < len(labels):
            return None
        try:
            sides = divide(
                pictures,
                "",
                labels=present,
                default_train_images=default_train_images,
                **self.settings,
            )
        except DataError:  # what could not have been trained on
            return None
        if (len(sides.train), len(sides.val)) != (self.train_count, self.val_count):
            return None
        parts = {"train": sides.train, "val": sides.val}
        if self.digests is not None:
            digests = [
                digest_images(make_examples(part, labels, multi_label=self.multi_label), labels)
                for part in parts.values()
            ]
            if tuple(digests) != self.digests:
                return None
        return parts

    def count_trained(self, examples: Examples, labels: Sequence[str]) -> int | None:
        """Return how many images the adapter was trained on; None where that is not known.

        It is where they are all that it was trained on, or all that it was validated on.
        """
        if self.digests is None or len(examples) not in (self.train_count, self.val_count):
            return None
        digest = digest_images(examples, labels)
        return {self.digests[1]: 0, self.digests[0]: len(examples)}.get(digest)


def _check_labels(pictures: Sequence[Picture], labels: Sequence[str], source: str) -> None:
    unknown = sorted(collect_labels(pictures) - set(labels))
    if unknown:
        raise LabelMismatchError(
            f"{source} has the class {unknown[0]!r}, which the adapter lacks "
            f"({len(unknown)} such); its labels are {name_some(labels)}."
        )


def _no_split(
    source: str,
    split: str,
    parts: Mapping[str, Sequence[Picture]],
    recorded: _Recorded,
    images: int,
) -> DataError:
    if parts:
        there = ", ".join(f"{side} ({len(part)})" for side, part in parts.items())
        return DataError(
            f"{source} has no {split} images; it has {there}.",
            hint="Name one of these with --split, or all.",
        )
    return DataError(
        f"{source} is not split, and its {images} images are not those that the adapter was "
        f"trained on ({recorded.counts}), so there is no telling which are {split} images.",
        hint="Leave --split out to measure all of them.",
    )


def _remark(
    task: str, source: str, recorded: _Recorded, trained: int | None, images: int
) -> str | None:
    if trained:
        return f"{trained} of these images trained '{task}'; accuracy on new ones may be lower."
    if trained is None and recorded.names(source):
        return (
            f"{source} bears the name of what '{task}' was trained on ({recorded.counts}), and "
            f"now holds {images} images: some of them may have trained it."
        )
    return None
