"""A data set's rows as pictures: an image and its class, on the side that the split's name says.

Images stay where they are, in files that are mapped into memory, and are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gatehub.errors import DataError
from gatehub.training.sources.huggingface.features import choose_features
from gatehub.training.sources.huggingface.loading import load_splits
from gatehub.training.sources.huggingface.rows import Place, Row
from gatehub.training.sources.pictures import LeftOut, Picture, Side, Source, spell_label
from gatehub.training.sources.side_names import find_splits
from gatehub.training.sources.walk import BESIDE

_WITHOUT_CLASS, _WITHOUT_LABELS = "without a class", "without labels"
_NO_CLASS = -1  # how data sets mark it


def read_dataset(source: str, *, columns: Mapping[str, str] | None = None) -> Source:
    """List the labelled images of a data set.

    Args:
        source: "hf:NAME" or "hf:NAME:SPLIT".
        columns: see `choose_features`.

    Raises:
        DataError: it cannot be loaded, or read in one way only.
    """
    splits = load_splits(source)
    sides, left_out = _find_sides(source, splits)
    pictures: list[Picture] = []
    unlabelled: list[str] = []
    order: dict[str, None] = {}
    for name, side in sides.items():
        found, names = _read_split(source, name, side, splits[name], columns or {})
        without = [picture for picture in found if not picture.label]
        if side == "test" and len(without) == len(found):
            left_out.append(LeftOut(why=_WITHOUT_LABELS, names=(f"{name}/",)))
            continue
        unlabelled += [picture.name for picture in without]
        pictures += [picture for picture in found if picture.label]
        order |= dict.fromkeys(names)
    if unlabelled:
        left_out.append(LeftOut(why=_WITHOUT_CLASS, names=tuple(unlabelled)))
    present = {picture.label for picture in pictures}
    return Source(
        pictures=tuple(pictures),
        notes=tuple(_describe_sides(sides)),
        left_out=tuple(left_out),
        labels=tuple(label for label in order if label in present) or None,
    )


def has_features(source: str, columns: Mapping[str, str]) -> bool:
    """Whether a data set has columns of these names, in every split."""
    names = {name.strip() for name in columns.values()}
    return all(names <= set(split.features) for split in load_splits(source).values())


def _find_sides(
    source: str, splits: Mapping[str, Any]
) -> tuple[dict[str, Side | None], list[LeftOut]]:
    """Return the sides of the splits that are used, and the splits that are not."""
    if len(splits) == 1:
        return dict.fromkeys(splits), []
    found = find_splits(splits)
    if len(found) != 1 or any(len(rivals) > 1 for rivals in found[0].values()):
        raise DataError(
            f"{source} has the splits {', '.join(splits)}; expected one each to train on, and to "
            "validate or test on.",
            hint=f"Name one, such as {source}:{next(iter(splits))}; what is validated on is split "
            "off it.",
        )
    order: tuple[Side, ...] = ("train", "val", "test")
    sides: dict[str, Side | None] = {found[0][s][0]: s for s in order if s in found[0]}
    beside = tuple(f"{name}/" for name in splits if name not in sides)
    return sides, [LeftOut(why=BESIDE, names=beside)] if beside else []


def _describe_sides(sides: Mapping[str, Side | None]) -> Iterator[str]:
    what = {"train": "to train on", "val": "to validate on", "test": "kept apart as the test"}
    if told := [f"{name} {what[side]}" for name, side in sides.items() if side is not None]:
        yield f"Splits: {', '.join(told)}."


def _read_split(
    source: str, split: str, side: Side | None, dataset: Any, columns: Mapping[str, str]
) -> tuple[list[Picture], list[str]]:
    """Return a split's pictures, those without a class under an empty label, and its classes."""
    where = f"{source} ({split})"
    image, label = choose_features(dataset.features, columns, where=where)
    names = getattr(dataset.features[label], "names", None)
    encoded = Row.encoded(dataset, image)
    pictures = []
    for index, value in enumerate(dataset[label]):
        if value is None or (names is not None and value == _NO_CLASS):
            spelled = ""
        else:
            spelled = spell_label(names[value] if names is not None else str(value).strip())
        row = Row(dataset=encoded, place=Place(source, split, image, index))
        pictures.append(Picture(name=f"{split}/{index}", label=spelled, image=row, side=side))
    classes = [spell_label(name) for name in names or ()]
    return pictures, classes
