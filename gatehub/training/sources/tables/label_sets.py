"""Any number of labels for an image: in a table's cell, on several lines, in columns of 0 and 1.

    path,labels            path,label          path,cat,dog,red
    a.png,cat|red          a.png,cat           a.png,1,0,1
    b.png,                 a.png,red           b.png,0,0,0

In a cell they are separated by |, by ; or by a comma, whichever the table has first in this order,
or are written as a list, in brackets or as JSON or Python writes it. Where it has none of these,
blanks separate them, unless images stand on several lines: then a line has one label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import spell_label
from gatehub.training.sources.tables.delimited import begins_as_list, read_flag, read_list

_TO_TRAIN = "add --multi-label (multi_label=True)"
_TO_MEASURE = "the adapter does not fit: it gives one label an image"

_SEPARATORS = ("|", ";", ",")


class Cells(NamedTuple):
    """The labels that cells hold, and how they were told apart.

    Attributes:
        labels: for each cell, its labels.
        notes: sentences on how they were read.
    """

    labels: list[frozenset[str]]
    notes: tuple[str, ...]


def say_way(*, to_train: bool) -> str:
    """Say what there is to do where images have several labels, and one each is read."""
    return _TO_TRAIN if to_train else _TO_MEASURE


def split_cells(cells: Sequence[str], *, repeated: bool, where: str) -> Cells:
    """Read the labels of cells.

    Args:
        cells: of one column.
        repeated: whether images stand on several lines.
        where: what errors call the table.

    Raises:
        DataError: labels are separated in two ways.
    """
    lists = [read_list(cell) if cell else [] for cell in cells]
    whole = [found for found in lists if found is not None]
    if any(cells) and len(whole) == len(cells):
        return Cells([spell_set(found) for found in whole], ())
    separator = next((each for each in _SEPARATORS if any(each in cell for cell in cells)), None)
    if separator is not None:
        labels = [spell_set(cell.split(separator)) for cell in cells]
        _check_others(labels, separator, where)
        return Cells(labels, (f"Labels in a cell are separated by {quote(separator)}.",))
    if not repeated and any(len(cell.split()) > 1 for cell in cells):
        note = "Labels in a cell are separated by blanks; write | between labels that hold blanks."
        return Cells([spell_set(cell.split()) for cell in cells], (note,))
    return Cells([spell_set([cell]) for cell in cells], ())


def join_labels(labels: Iterable[str]) -> Callable[[Iterable[str]], str]:
    """Return what writes some of a task's labels into one cell, from which they are read again.

    They have | between them, cat|red. Where the name of any label holds a sign by which labels are
    told apart, or could be taken for a list or for 0 and 1, each cell is a JSON list instead,
    ["traffic light", "red"]: a task has one way of writing, whichever labels an image has.

    Args:
        labels: all that the task has.
    """
    if any(map(_is_ambiguous, labels)):
        return lambda chosen: json.dumps(list(chosen), ensure_ascii=False)
    return _SEPARATORS[0].join


def refuse_sets(cells: Iterable[str], *, where: str, to_train: bool) -> Iterator[str]:
    """Refuse what is read as one label an image, and holds several; say where that is not certain.

    It is certain where a column holds more different cells than labels that these would be made
    of: cat, dog and cat|dog. Names may hold any sign, so it is not where there are fewer.

    Args:
        cells: of the column of labels.
        where: what errors call the table.
        to_train: see `read_source`.

    Yields:
        Sentences.

    Raises:
        DataError: they are several labels.
    """
    different = set(cells)
    way = say_way(to_train=to_train)
    for separator in (*_SEPARATORS, None):
        parts = {cell: [part.strip() for part in cell.split(separator)] for cell in different}
        several = sorted(cell for cell, found in parts.items() if len(found) > 1 and all(found))
        if not several:
            continue
        fewer = len(set(chain.from_iterable(parts.values()))) < len(different)
        told = f"{where} has {len(different)} different labels, such as {quote(several[0], 60)}"
        if separator is None:
            if fewer:
                yield f"{told}; if an image has several labels there, {way}."
        elif fewer:
            raise DataError(
                f"{told}: they are made of fewer, with {quote(separator)} between them.",
                hint=f"If these are several labels, {way}; if each is one class, write it without "
                f"{quote(separator)}.",
            )
        elif separator != ",":
            yield f"{told}; if these are several labels, {way}."


def spell_set(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(spell_label(text.strip()) for text in texts if text.strip())


def _is_ambiguous(label: str) -> bool:
    return (
        label.split() != [label]
        or any(sign in label for sign in _SEPARATORS)
        or begins_as_list(label)
        or read_flag(label) is not None
    )


def _check_others(labels: Sequence[frozenset[str]], separator: str, where: str) -> None:
    """Refuse labels that other labels of the table make up, with another separator between."""
    known = frozenset(chain.from_iterable(labels))
    for other in _SEPARATORS:
        for label in sorted(known):
            parts = spell_set(label.split(other))
            if len(parts) > 1 and parts <= known:
                raise DataError(
                    f"{where} separates labels by {quote(separator)}, and has the label "
                    f"{quote(label, 60)}, whose parts are labels, too.",
                    hint="Separate all labels by the same sign.",
                )
