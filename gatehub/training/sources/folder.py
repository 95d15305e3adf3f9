"""Folders of images: which of their folders are classes, and which the sides of a split.

    DIR/train/CLASS/*, DIR/val/CLASS/*, DIR/test/CLASS/*    split; val and test need not be there
    DIR/CLASS/*                                             not split
    DIR/ONE/...                                             further down: what is in ONE counts

Sides are told by a word in their name, see `side_names`. A layout that can be read in two ways is
refused: folders taken for classes that are none train a model that is right about nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatehub.errors import DataError
from gatehub.training.sources.class_order import find_order_files, order_classes
from gatehub.training.sources.pictures import Picture, Side, Source, name_some, spell_label
from gatehub.training.sources.products import is_product
from gatehub.training.sources.side_names import Split, find_side, find_splits
from gatehub.training.sources.walk import BESIDE, LOOSE, UNLABELLED, Walk, join

_FORMATS = "BMP, GIF, JPEG, PNG, WebP and the like"

# The folders of each class, by its label: two spellings of a label are one class.
_Classes = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Class folders that lie together.

    Attributes:
        side: of the split, or None.
        inside: the folder that holds them.
        classes: their paths.
    """

    side: Side | None
    inside: str
    classes: _Classes


def read_folder(folder: Path, *, to_train: bool = True) -> Source:
    """List the labelled images of a folder.

    Args:
        folder: of images.
        to_train: see `read_source`.

    Raises:
        DataError: its layout is not sound, or can be read in two ways.
    """
    walk = Walk(folder)
    if is_product(walk.look().files):
        raise DataError(
            f"{folder} is an adapter, or a training run's state; expected images.",
            hint="Pass the folder of the images.",
        )
    parts, notes = _find_parts(walk)
    if to_train:
        _compare_classes(walk, parts)
    pictures = tuple(picture for part in parts for picture in _read_part(walk, part, to_train))
    source = Source(pictures=pictures, notes=tuple(notes), left_out=walk.left_out())
    orders = find_order_files(walk, [part.inside for part in parts]) if to_train else []
    return order_classes(source, orders, str(folder))


def folders_of_images(source: str | Path) -> list[Path]:
    """Return the folders whose every image counts: those of the classes, and what holds them.

    Raises:
        DataError: a layout that is not sound.
    """
    folder = Path(source)
    if not folder.is_dir():
        return []
    parts, _ = _find_parts(Walk(folder))
    return [
        folder / path
        for part in parts
        for path in (part.inside, *(path for paths in part.classes.values() for path in paths))
    ]


def _find_parts(walk: Walk) -> tuple[list[_Part], list[str]]:
    """Find the class folders, and say how they were found where that is not plain."""
    notes: list[str] = []
    inside = ""
    while True:
        names = walk.folders(inside)
        where = walk.root / inside
        splits = find_splits(names)
        real = [split for split in splits if _is_split(walk, inside, names, split)]
        if len(real) > 1:
            raise DataError(
                f"{where} holds more than one split: "
                f"{'; '.join(name_some(_names(split)) for split in real)}.",
                hint="Keep one of them, or pass the folder of class folders to train on.",
            )
        if real:
            return _split_parts(walk, inside, names, real[0], notes), notes
        below = _only_level(walk, inside, names)
        if below is None:
            _check_classes(walk, inside, names, splits)
            walk.leave_out_files(LOOSE, inside)
            return [_Part(side=None, inside=inside, classes=_classes(walk, inside))], notes
        walk.leave_out_files(LOOSE, inside)
        inside = below
        notes.append(f"Further down: the images are in {walk.root / inside}.")


def _is_split(walk: Walk, inside: str, names: Sequence[str], split: Split) -> bool:
    """Whether folders with the names of sides are sides: several, or all that there is."""
    alone = sorted(names) == sorted(_names(split))
    return len(split) > 1 or (alone and any(walk.folders(join(inside, name)) for name in names))


def _split_parts(
    walk: Walk, inside: str, names: Sequence[str], split: Split, notes: list[str]
) -> list[_Part]:
    where = walk.root / inside
    parts: list[_Part] = []
    for side, rivals in _sorted(split):
        holders = [name for name in rivals if walk.folders(join(inside, name))]
        if len(holders) > 1:
            raise DataError(
                f"{where} holds more than one folder for {side}: {name_some(holders)}.",
                hint="Keep one of them there.",
            )
        if not holders and side == "test":  # as competitions give them
            for name in rivals:
                walk.leave_out(UNLABELLED, f"{join(inside, name)}/")
            continue
        name = (holders or rivals)[0]
        place = _go_down(walk, join(inside, name), notes)
        parts.append(_Part(side=side, inside=place, classes=_classes(walk, place)))
        walk.leave_out_files(LOOSE, place)
    used = {name for rivals in split.values() for name in rivals}
    for name in names:
        if name not in used:
            walk.leave_out(BESIDE, f"{join(inside, name)}/")
    walk.leave_out_files(LOOSE, inside)
    return _keep_labelled(walk, parts, notes)


def _keep_labelled(walk: Walk, parts: list[_Part], notes: list[str]) -> list[_Part]:
    """Leave out a test side without any of the classes: it has no labels."""
    known = {label for part in parts if part.side != "test" for label in part.classes}
    kept = []
    for part in parts:
        if part.side == "test" and known and not part.classes.keys() & known:
            walk.leave_out(UNLABELLED, f"{part.inside}/")
        else:
            kept.append(part)
    what = {"train": "to train on", "val": "to validate on", "test": "kept apart as the test"}
    sides = [f"{part.inside}/ {what[part.side or 'train']}" for part in kept]
    if [part.inside for part in kept] != ["train", "val"]:
        notes.append(f"Split by folders: {', '.join(sides)}.")
    return kept


def _compare_classes(walk: Walk, parts: Sequence[_Part]) -> None:
    """Refuse sides to train and to validate on whose classes differ."""
    first = parts[0]
    for part in parts[1:]:
        extra, missing = part.classes.keys() - first.classes, first.classes.keys() - part.classes
        if extra or (missing and part.side != "test"):
            one, other = walk.root / first.inside, walk.root / part.inside
            raise DataError(
                f"The classes of {one} and {other} differ: "
                f"only in {one.name}: {name_some(sorted(missing))}; "
                f"only in {other.name}: {name_some(sorted(extra))}.",
                hint="Give every class a folder of images on both sides.",
            )


def _go_down(walk: Walk, inside: str, notes: list[str]) -> str:
    """Return the folder that holds the classes of a side: itself, or the only one in it."""
    below = _only_level(walk, inside, walk.folders(inside))
    if below is None:
        return inside
    notes.append(f"Further down: the images are in {walk.root / below}.")
    return below


def _only_level(walk: Walk, inside: str, names: Sequence[str]) -> str | None:
    """Return the folder of classes that lies alone in a folder, or alone in one alone in it."""
    if len(names) != 1 or walk.has_images(below := join(inside, names[0])):
        return None
    folders = walk.folders(below)
    if len(folders) > 1 or any(map(find_side, folders)):
        return below
    return _only_level(walk, below, folders)


def _check_classes(walk: Walk, inside: str, names: Sequence[str], splits: Sequence[Split]) -> None:
    """Refuse folders that are hardly classes: what is in them looks like classes itself."""
    where = walk.root / inside
    within = {
        name: {spell_label(folder) for folder in folders}
        for name in names
        if len(folders := walk.folders(path := join(inside, name))) > 1
        and not walk.has_images(path)
    }
    siblings = {spell_label(name) for name in names}
    for name, inner_labels in within.items():
        if len(repeated := sorted(inner_labels & siblings)) > 1:
            raise DataError(
                f"'{name}' in {where} holds folders with the names of those beside it "
                f"({name_some(repeated)}): it looks like a copy of the data, not like a class.",
                hint=f"Move {where / name} away, or pass it alone.",
            )
    shared = set.intersection(*within.values()) if within else set()
    # One of them may lack a class or have one more.
    if len(within) > 1 and len(shared) > 1 and 2 * len(shared) >= max(map(len, within.values())):
        inner = name_some(sorted(shared))
        if any(len(split) > 1 for split in find_splits(sorted(shared))):
            raise DataError(
                f"Every class of {where} holds the same folders ({inner}), which look like the "
                "sides of a split.",
                hint="Turn the levels round: train/CLASS and val/CLASS.",
            )
        raise DataError(
            f"{where} holds {name_some(list(within))}, and each of them holds the same folders: "
            f"{inner}. Which of the two are the classes?",
            hint="For sides of a split, call them train and val; of several versions of the data, "
            f"pass one, such as {where / next(iter(within))}. If the outer folders are the "
            "classes, put their images straight into them.",
        )
    for name in (name for split in splits for name in _names(split)):
        if name in within:
            raise DataError(
                f"{where} holds {name_some(names)}. '{name}' holds folders "
                f"({name_some(sorted(within[name]))}), so it may be a side of a split or a class.",
                hint=f"Pass {where / name} to train on what is in it. If it is a class, put its "
                "images straight into it.",
            )


def _classes(walk: Walk, inside: str) -> _Classes:
    """Return the class folders in a folder, by label.

    Raises:
        DataError: there are none, or a name that cannot be read.
    """
    folder = walk.root / inside
    classes: dict[str, list[str]] = {}
    for name in walk.folders(inside):
        # Python stands in surrogates for bytes that it cannot read; no adapter could store them.
        if any("\ud800" <= character <= "\udfff" for character in name):
            encoding = sys.getfilesystemencoding().upper()  # UTF-8, unless somebody has set it
            raise DataError(
                f"The class folder {name!r} in {folder} has a name that is not {encoding}.",
                hint=None if encoding == "UTF-8" else "Set PYTHONUTF8=1 in the environment.",
            )
        classes.setdefault(spell_label(name), []).append(join(inside, name))
    if not classes:
        raise DataError(
            f"{folder} has no class folders; expected one folder of images for each class.",
            hint="Move the images of a class into a folder that bears the class's name, or pass a "
            "table of path and label.",
        )
    return dict(sorted(classes.items()))


def _read_part(walk: Walk, part: _Part, to_train: bool) -> Iterator[Picture]:
    for label, folders in part.classes.items():
        paths = [path for folder in folders for path in walk.images(folder)]
        if not paths and part.side != "test" and to_train:
            raise DataError(
                f"The class folder {walk.root / folders[0]} holds no images; expected at least "
                f"one file of {_FORMATS}.",
                hint=_advise_on_empty(walk, part),
            )
        for path in paths:
            yield Picture(name=path, label=label, image=walk.root / path, side=part.side)


def _advise_on_empty(walk: Walk, part: _Part) -> str:
    """Say what to do about a class folder without images."""
    folders = [path for paths in part.classes.values() for path in paths]
    holders = [path for path in folders if len(walk.folders(path)) > 1]
    if len(holders) == 1 and not walk.has_images(holders[0]):
        return f"If the classes are in {walk.root / holders[0]}, pass that folder."
    return "Add images of the class, or move the folder out of the data."


def _sorted(split: Split) -> Iterator[tuple[Side, list[str]]]:
    sides: tuple[Side, ...] = ("train", "val", "test")
    yield from ((side, split[side]) for side in sides if side in split)


def _names(split: Split) -> list[str]:
    return [name for _, names in _sorted(split) for name in names]
