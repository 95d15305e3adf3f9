"""Which images a model is measured on, and which of them it was trained on.

What is measured is what is given, all of it, by none of the rules for data to train on: a class
may have a single image, and there may be a single class. Only what the adapter itself was trained
on is divided as it was then, and measured on the images that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gatehub.errors import DataError, LabelMismatchError
from gatehub.training.evaluation.recorded import Judged, Recorded
from gatehub.training.examples import Examples, make_examples
from gatehub.training.sources import (
    Given,
    Picture,
    collect_labels,
    list_given,
    name_given,
    name_some,
    read_source,
    takes_columns,
)
from gatehub.training.sources.decoding import take_readable
from gatehub.training.sources.pictures import LeftOut, spell_label

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
    adapter: Judged,
    source: Given,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Read a source of labelled images and choose those to measure an adapter on.

    Args:
        adapter: an `Adapter`, or a network of a task's own; its labels include those of the data.
        source: a form that `gatehub.training.sources` reads, or several tables.
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
    recorded, where = Recorded.read(adapter), name_given(source)
    given = tuple(map(str, list_given(source)))
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
        train_images=settings["train_images"] if given == recorded.data else None,
        to_train=False,
        columns=columns,
        multi_label=several,
    )
    if not found.pictures:
        raise DataError(f"{where} holds no images; expected at least one.")
    # In the spelling of the data, which is one for all.
    labels = [spell_label(label) for label in adapter.labels]
    _check_labels(found.pictures, labels, where)
    readable = take_readable(
        found.pictures,
        where,
        skip_bad=skip_bad,
        preprocessing=adapter.preprocessing,
        progress=progress,
    )
    pictures = readable.pictures
    if not pictures:
        raise DataError(f"None of the {len(readable.skipped)} images of {where} can be read.")
    replayed = recorded.replay(pictures, labels, found.default_train_images)
    known = replayed is not None and (recorded.digests is not None or recorded.names(given))
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
        raise _no_split(where, split, parts, recorded, len(pictures))
    trained = None
    if known and replayed is not None:
        names = {picture.name for picture in replayed["train"]}
        trained = sum(picture.name in names for picture in chosen)
    examples = make_examples(chosen, labels, multi_label=found.multi_label)
    if trained is None:
        trained = recorded.count_trained(examples, labels)
    notes = list(found.notes)
    if found.multi_label and (absent := _find_absent(pictures, labels)):
        named = name_some([labels[place] for place in absent])
        if known:  # then the training held them for unknown; see `ImageData.with_labels`
            examples = replace(examples, unknown=frozenset(absent))
            notes.append(
                f"No image has: {named}. As in the training, whether these images have them is "
                "taken as not known, and the figures are of the other labels."
            )
        else:
            notes.append(
                f"No image has: {named}. They count as absent, so it is wrong to find them."
            )
    return Selection(
        examples=examples,
        split=split,
        trained=trained,
        skipped=readable.skipped,
        left_out=found.left_out,
        notes=tuple(notes),
        remark=_remark(adapter.task, given, recorded, trained, len(pictures)),
    )


def _find_absent(pictures: Sequence[Picture], labels: Sequence[str]) -> list[int]:
    """Return the places of the labels that no picture has."""
    found = collect_labels(pictures)
    return [place for place, label in enumerate(labels) if label not in found]


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
    recorded: Recorded,
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
    task: str, sources: Sequence[str], recorded: Recorded, trained: int | None, images: int
) -> str | None:
    if trained:
        return f"{trained} of these images trained '{task}'; accuracy on new ones may be lower."
    if trained is None and recorded.names(sources):
        return (
            f"{name_given(sources)} bears the name of what '{task}' was trained on "
            f"({recorded.counts}), and now holds {images} images: some of them may have trained it."
        )
    return None
