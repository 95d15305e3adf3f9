"""Images that a network answers for an adapter to learn: labels are not needed, but may be there.

Some are held out, and only these are measured on. Of what the network itself was trained on, they
are those that were held out then: elsewhere it answers too well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gatehub._text import quote
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import AdapterExistsError, DataError
from gatehub.training.destination import check_apart
from gatehub.training.evaluation.recorded import Recorded
from gatehub.training.examples import Examples, make_examples
from gatehub.training.methods.trained_network import TrainedNetwork
from gatehub.training.sources import (
    Given,
    Picture,
    collect_labels,
    list_given,
    name_given,
    read_source,
)
from gatehub.training.sources.decoding import take_readable
from gatehub.training.sources.pictures import LeftOut, Source, spell_label
from gatehub.training.sources.walk import Walk
from gatehub.training.split import stratified_order

_FEWEST = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredImages:
    """Images for which a network's answers are learned.

    Args:
        train: to learn from.
        held_out: to measure on.
        labelled: whether their targets are their classes; they mean nothing otherwise.
        source: what they are of.
        notes: sentences on how that was understood.
        left_out: what of it is not used, and why.
        skipped: the names of unreadable images.
    """

    train: Examples
    held_out: Examples
    labelled: bool
    source: str
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    skipped: tuple[str, ...] = ()


def read_images(
    network: TrainedNetwork,
    source: Given,
    *,
    preprocessing: Preprocessing,
    seed: int = 0,
    held_out: float = 0.2,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> AnsweredImages:
    """Read images, and hold some of them out.

    Args:
        network: what will answer; classes that are among its labels are used to measure.
        source: a form that `gatehub.training.sources` reads, or a folder of images.
        preprocessing: the network's, so that one which it refuses counts as unreadable.
        seed: decides which are held out, where the source does not.
        held_out: share of them, above 0 and below 1.
        columns: of a table; see `load_data`.
        skip_bad: leave unreadable images out instead of refusing the source.
        progress: called with (files decoded, files in all).

    Raises:
        DataError: the source cannot be read, or holds too few images.
        UnreadableImageError: images that cannot be decoded, unless `skip_bad`.
    """
    where = name_given(source)
    found, labelled = _read(network, source, seed=seed, columns=columns)
    labels = [spell_label(label) for label in network.labels]
    unknown = collect_labels(found.pictures) - set(labels) if labelled else set()
    notes = list(found.notes)
    if unknown:
        labelled = False
        notes.append(
            f"{where} has classes that are no labels of '{network.task}' "
            f"({sorted(unknown)[0]!r}, {len(unknown)} such), so no accuracy is measured."
        )
    readable = take_readable(
        found.pictures,
        where,
        skip_bad=skip_bad,
        preprocessing=preprocessing,
        progress=progress,
    )
    apart = _find_held_out(
        network, readable.pictures, labels, found, labelled, seed=seed, share=held_out
    )
    usable = [picture for picture in readable.pictures if picture.side != "test"]
    parts = [[p for p in usable if (p.name in apart) is held] for held in (False, True)]
    if min(map(len, parts)) < _FEWEST:
        raise DataError(
            f"{where} has {len(readable.pictures)} images, {len(parts[1])} of them held out; "
            f"expected at least {_FEWEST} on each side.",
            hint="Give more images; they need no labels.",
        )
    make = [_make(part, labels, labelled, network.problem.is_multi_label) for part in parts]
    return AnsweredImages(
        train=make[0],
        held_out=make[1],
        labelled=labelled,
        source=where,
        notes=tuple(notes),
        left_out=found.left_out,
        skipped=readable.skipped,
    )


def check_outside(folder: Path, source: str | Path) -> None:
    """Refuse to write an adapter over images, or in among them.

    Raises:
        AdapterExistsError: it would be.
    """
    if not _is_flat(source):
        check_apart(folder, source)
        return
    place, data = Path(os.path.realpath(folder)), Path(os.path.realpath(source))
    if place in (data, *data.parents) or data in place.parents:
        raise AdapterExistsError(
            f"The images lie in {quote(str(source))}; an adapter needs a folder of its own, "
            "apart from them.",
            hint="Choose another folder.",
        )


def _is_flat(source: str | Path) -> bool:
    """Whether it is a folder of images without folders of classes."""
    return os.path.isdir(source) and not Walk(Path(source)).folders()


def _read(
    network: TrainedNetwork, source: Given, *, seed: int, columns: Mapping[str, str] | None
) -> tuple[Source, bool]:
    """Return the pictures of a source, and whether they have labels of the network's kind."""
    given = list_given(source)
    several = network.problem.is_multi_label
    folder = Path(given[0])
    if len(given) == 1 and os.path.isdir(folder) and (several or _is_flat(folder)):
        walk = Walk(folder)
        pictures = tuple(
            Picture(name=path, label="", image=walk.root / path) for path in walk.images("")
        )
        return Source(pictures=pictures, left_out=walk.left_out()), False
    recorded = Recorded.read(network)
    known = tuple(map(str, given)) == recorded.data
    return (
        read_source(
            source,
            seed=recorded.settings["seed"] if known else seed,
            train_images=recorded.settings["train_images"] if known else None,
            to_train=False,
            columns=columns or (recorded.columns if known else None) or None,
            multi_label=several,
        ),
        True,
    )


def _find_held_out(
    network: TrainedNetwork,
    pictures: list[Picture],
    labels: list[str],
    found: Source,
    labelled: bool,
    *,
    seed: int,
    share: float,
) -> set[str]:
    """Return the names of the pictures that are held out."""
    if labelled:
        replayed = Recorded.read(network).replay(pictures, labels, found.default_train_images)
        if replayed is not None:
            return {picture.name for picture in replayed["val"]}
    named = {picture.name for picture in pictures if picture.side == "val"}
    if named:
        return named
    rest = [picture for picture in pictures if picture.side != "test"]
    order = stratified_order(
        [picture.label for picture in rest], [picture.name for picture in rest], seed=seed
    )
    count = max(1, round(share * len(rest)))
    return {rest[place].name for place in order[-count:]}


def _make(part: list[Picture], labels: list[str], labelled: bool, several: bool) -> Examples:
    if labelled:
        return make_examples(part, labels, multi_label=several)
    blank = [replace(picture, label=labels[0]) for picture in part]
    return make_examples(blank, labels)
