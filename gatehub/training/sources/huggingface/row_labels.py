"""What the rows of a data set say of their images: a class, or any number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from gatehub.errors import DataError
from gatehub.training.sources.huggingface.features import (
    choose_class,
    choose_sets,
    describe_type,
    find_names,
    holds_names,
    list_flags,
)
from gatehub.training.sources.pictures import Side, spell_label
from gatehub.training.sources.tables.columns import has_columns
from gatehub.training.sources.tables.delimited import Row, find_stranger
from gatehub.training.sources.tables.flags import find_flags, read_flags
from gatehub.training.sources.tables.label_sets import split_cells

_NO_CLASS = -1  # how data sets mark it

RowLabel = str | tuple[str, ...] | None


class Split(NamedTuple):
    """A split that is used.

    Attributes:
        name: its own.
        side: which it is.
        dataset: its rows.
    """

    name: str
    side: Side | None
    dataset: Any


class RowLabels(NamedTuple):
    """The labels of rows.

    Attributes:
        each: for each row of all splits, its class or its labels, sorted; None where nobody says.
        order: the labels in the order of the data set; none where it gives none.
        notes: sentences on how they were read.
    """

    each: Sequence[RowLabel]
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_classes(
    splits: Sequence[Split], columns: Mapping[str, str], *, source: str, to_train: bool
) -> RowLabels:
    """Read the class of each row.

    Args:
        splits: of one data set.
        columns: see `choose_class`.
        source: what errors call it.
        to_train: see `read_source`.

    Raises:
        DataError: no column is known to hold it.
    """
    each: list[RowLabel] = []
    order: dict[str, None] = {}
    for split in splits:
        features = split.dataset.features
        column = choose_class(
            features, columns, where=f"{source} ({split.name})", to_train=to_train
        )
        names = find_names(features[column])
        order |= dict.fromkeys(map(spell_label, names or ()))
        each += [_spell_class(value, names) for value in split.dataset[column]]
    return RowLabels(each, tuple(order))


def read_sets(splits: Sequence[Split], columns: Mapping[str, str], *, source: str) -> RowLabels:
    """Read the labels of each row, any number of them: lists, texts, or columns of 0 and 1.

    Args:
        splits: of one data set.
        columns: see `choose_sets`.
        source: what errors call it.

    Raises:
        DataError: no column is known to hold them, or they can be read in two ways.
    """
    chosen = [
        choose_sets(s.dataset.features, columns, where=f"{source} ({s.name})") for s in splits
    ]
    if None in chosen or _are_flags(splits, chosen):
        return _read_flags(splits, columns.get("label", ""), source)
    found = [
        (split.dataset.features[column], split.dataset[column])
        for split, column in zip(splits, chosen, strict=True)
    ]
    if all(describe_type(feature) in ("string", "large_string") for feature, _ in found):
        cells = [None if c is None else str(c).strip() for c in chain(*(v for _, v in found))]
        labels, notes = split_cells([cell or "" for cell in cells], repeated=False, where=source)
        sets = [tuple(sorted(own)) for own in labels]
        each = [None if c is None else own for c, own in zip(cells, sets, strict=True)]
        return RowLabels(each, notes=notes)
    order: dict[str, None] = {}
    rows: list[RowLabel] = []
    for feature, values in found:
        names = find_names(feature)
        order |= dict.fromkeys(map(spell_label, names or ()))
        spell = _spell_set if holds_names(feature) else _spell_only
        rows += [spell(value, names) for value in values]
    return RowLabels(rows, tuple(order))


def _spell_class(value: Any, names: Sequence[str] | None) -> str | None:
    if value is None or (names is not None and value == _NO_CLASS):
        return None
    return spell_label(names[value] if names is not None else str(value).strip()) or None


def _spell_set(values: Any, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Spell the labels of a row; what marks the absence of a class, or fills a list up, is none."""
    if values is None:
        return None
    return tuple(sorted({own for v in values if (own := _spell_class(v, names)) is not None}))


def _spell_only(value: Any, names: Sequence[str] | None) -> tuple[str, ...] | None:
    own = _spell_class(value, names)
    return None if own is None else (own,)


def _are_flags(splits: Sequence[Split], chosen: Sequence[str | None]) -> bool:
    """Whether a column that is named is one label, 0 or 1, and not a column of labels."""
    (name, *others) = set(chosen)
    if others or name is None or has_columns([name], {}, ("label",)):
        return False
    if not all(name in list_flags(split.dataset.features) for split in splits):
        return False
    rows = _read_rows(splits, [name])
    return bool(rows) and find_stranger(rows, 0) is None


def _read_flags(splits: Sequence[Split], named: str, source: str) -> RowLabels:
    wanted = [name.strip() for name in named.split("|")] if named else []
    names = [
        *dict.fromkeys(
            name
            for split in splits
            for name in split.dataset.features
            if name in wanted or name in list_flags(split.dataset.features)
        )
    ]
    for split in splits:
        if lacking := [name for name in names if name not in split.dataset.features]:
            raise DataError(
                f"{source} ({split.name}) has no column '{lacking[0]}', which another split has; "
                "expected the same columns in all.",
                hint="Name one split, such as "
                f"{source}:{split.name}; what is validated on is split off it.",
            )
    rows = _read_rows(splits, names)
    sides = [split.side for split in splits for _ in range(len(split.dataset))]
    flags = find_flags(source, names, rows, taken=(), named=named, sides=sides, row_name="row")
    each = [tuple(sorted(read_flags(names, row, flags.places))) for row in rows]
    return RowLabels(each, tuple(spell_label(names[place]) for place in flags.places), flags.notes)


def _read_rows(splits: Sequence[Split], names: Sequence[str]) -> list[Row]:
    """Return columns as a table has them."""
    columns = [[str(v) for s in splits for v in s.dataset[name]] for name in names]
    cells = zip(*columns, strict=True)
    return [Row(number, list(row)) for number, row in enumerate(cells)]
