"""A data set's rows as pictures: an image and its labels, on the side that the split's name says.

Images stay where they are, in files that are mapped into memory, and are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gatehub.errors import DataError
from gatehub.training.sources.huggingface.features import choose_image
from gatehub.training.sources.huggingface.loading import load_splits
from gatehub.training.sources.huggingface.row_labels import (
    RowLabel,
    Split,
    read_classes,
    read_sets,
)
from gatehub.training.sources.huggingface.rows import Place, Row
from gatehub.training.sources.pictures import LeftOut, Picture, Side, Source, collect_labels
from gatehub.training.sources.side_names import find_splits
from gatehub.training.sources.walk import BESIDE

_WITHOUT_CLASS, _WITHOUT_LABELS = "without a class", "without labels"


def read_dataset(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    to_train: bool = True,
    multi_label: bool = False,
) -> Source:
    """List the labelled images of a data set.

    Args:
        source: "hf:NAME" or "hf:NAME:SPLIT".
        columns: see `choose_image`, `choose_class` and `choose_sets`.
        to_train: see `read_source`.
        multi_label: see `read_source`.

    Raises:
        DataError: it cannot be loaded, or read in one way only.
    """
    columns = columns or {}
    loaded = load_splits(source)
    sides, left_out = _find_sides(source, loaded)
    splits = [Split(name, side, loaded[name]) for name, side in sides.items()]
    images = {
        split.name: choose_image(split.dataset.features, columns, where=f"{source} ({split.name})")
        for split in splits
    }
    if multi_label:
        read = read_sets(splits, columns, source=source)
    else:
        read = read_classes(splits, columns, source=source, to_train=to_train)
    pictures: list[Picture] = []
    unlabelled: list[str] = []
    each = iter(read.each)
    for split in splits:
        rows = list(_list_rows(source, split, images[split.name], each))
        labelled = [Picture(**row, label=label) for row, label in rows if label is not None]
        # Whoever publishes a test without its answers leaves them out, or empty.
        if split.side == "test" and not collect_labels(labelled):
            left_out.append(LeftOut(why=_WITHOUT_LABELS, names=(f"{split.name}/",)))
            continue
        pictures += labelled
        unlabelled += [row["name"] for row, label in rows if label is None]
    if unlabelled:
        why = _WITHOUT_LABELS if multi_label else _WITHOUT_CLASS
        left_out.append(LeftOut(why=why, names=tuple(unlabelled), rows=True))
    present = collect_labels(pictures)
    return Source(
        pictures=tuple(pictures),
        notes=(*_describe_sides(sides), *read.notes),
        left_out=tuple(left_out),
        labels=tuple(label for label in read.order if label in present) or None,
        multi_label=multi_label,
    )


def has_features(source: str, columns: Mapping[str, str], *, multi_label: bool = False) -> bool:
    """Whether a data set has columns of these names, in every split.

    Args:
        source: see `read_dataset`.
        columns: see `read_dataset`.
        multi_label: see `read_dataset`; then | may stand between several columns of labels.
    """
    names = {role: name.strip() for role, name in columns.items()}
    for split in load_splits(source).values():
        wanted = dict(names)
        labels = {wanted["label"]} if "label" in wanted else set()
        if multi_label and not labels <= set(split.features):
            labels = {part.strip() for part in wanted["label"].split("|")}
        wanted.pop("label", None)
        if not {*wanted.values(), *labels} <= set(split.features):
            return False
    return True


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


def _list_rows(
    source: str, split: Split, image: str, labels: Iterator[RowLabel]
) -> Iterator[tuple[dict[str, Any], RowLabel]]:
    """Yield what a split's pictures are made of, and their labels, the next ones of all rows."""
    encoded = Row.encoded(split.dataset, image)
    for index in range(len(split.dataset)):
        row = Row(dataset=encoded, place=Place(source, split.name, image, index))
        made = {"name": f"{split.name}/{index}", "image": row, "side": split.side}
        yield made, next(labels)
