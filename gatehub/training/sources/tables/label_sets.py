"""Any number of labels for an image: in a table's cell, on several lines, in columns of 0 and 1.

    path,labels            path,label          path,cat,dog,red
    a.png,cat|red          a.png,cat           a.png,1,0,1
    b.png,                 a.png,red           b.png,0,0,0

In a cell they are separated by |, by ; or by a comma, whichever the table has first in this order,
or are written as a list, in brackets or as JSON or Python writes it. Where it has none of these,
blanks separate them, unless images stand on several lines: then a line has one label.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from gatehub._text import quote, shorten
from gatehub.errors import DataError
from gatehub.training.sources.pictures import Side, name_some, spell_label
from gatehub.training.sources.tables.delimited import Row, find_stranger, read_flag, read_list
from gatehub.training.sources.tables.marks import is_mark

_TO_TRAIN = "add --multi-label (multi_label=True)"
_TO_MEASURE = "the adapter does not fit: it gives one label an image"

_SEPARATORS = ("|", ";", ",")
_FEWEST_FLAGS = 2


class Cells(NamedTuple):
    """The labels that cells hold, and how they were told apart.

    Attributes:
        labels: for each cell, its labels.
        notes: sentences on how they were read.
    """

    labels: list[frozenset[str]]
    notes: tuple[str, ...]


class Flags(NamedTuple):
    """Columns of 0 and 1, each of a label of its own.

    Attributes:
        places: in the header.
        notes: sentences on which they are.
    """

    places: tuple[int, ...]
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
        return Cells([_spell(found) for found in whole], ())
    separator = next((each for each in _SEPARATORS if any(each in cell for cell in cells)), None)
    if separator is not None:
        labels = [_spell(cell.split(separator)) for cell in cells]
        _check_others(labels, separator, where)
        return Cells(labels, (f"Labels in a cell are separated by {quote(separator)}.",))
    if not repeated and any(len(cell.split()) > 1 for cell in cells):
        note = "Labels in a cell are separated by blanks; write | between labels that hold blanks."
        return Cells([_spell(cell.split()) for cell in cells], (note,))
    return Cells([_spell([cell]) for cell in cells], ())


def find_flags(
    table: Path,
    header: Sequence[str],
    rows: Sequence[Row],
    *,
    taken: Iterable[int],
    named: str,
    sides: Sequence[Side | None],
) -> Flags:
    """Find the columns of 0 and 1.

    Args:
        table: for the sentences.
        header: names of the columns.
        rows: below it, each as long.
        taken: places of columns that are something else.
        named: names with | between them, where somebody has said which they are; "" if not.
        sides: of the split, for each row.

    Raises:
        DataError: there are none, two have one name, one is 1 throughout, or one that is named is
            not there or has something else.
    """
    taken = set(taken)
    spelt = [spell_label(name) for name in header]
    free = [place for place, name in enumerate(header) if place not in taken and name]
    if named:
        wanted = [spell_label(name.strip()) for name in named.split("|")]
        lacking = [name for name in wanted if wanted.count(name) > 1 or spelt.count(name) != 1]
        if lacking:
            raise DataError(
                f"{table}: the columns are {name_some([shorten(name, 60) for name in header])}; "
                f"expected {quote(lacking[0], 60)}, a label, once among them.",
                hint="Name columns of 0 and 1 with | between them: --columns 'label=cat|dog'.",
            )
        free = [spelt.index(name) for name in wanted]
    strangers = {place: row for place in free if (row := find_stranger(rows, place)) is not None}
    flags = tuple(place for place in free if place not in strangers)
    marks = [] if named else [i for i in flags if is_mark(header[i], rows, i, sides)]
    places = tuple(place for place in flags if place not in marks)
    _refuse_twins(table, [spelt[place] for place in places])
    if named and strangers:
        place, row = next(iter(strangers.items()))
        raise DataError(
            f"{table}, line {row.line}: {quote(header[place], 60)} is "
            f"{quote(row.cells[place], 60)}; expected 0 or 1."
        )
    if not places:
        raise DataError(
            f"{table} has no column of labels, and none that is 0 or 1 on every line.",
            hint="Name the labels' column (--columns label=COLUMN), or those of 0 and 1 "
            "(--columns 'label=cat|dog').",
        )
    if not named:
        _refuse_constants(table, header, rows, places)
    several = "columns of 0 and 1 are the labels" if len(places) > 1 else "column of 0 and 1 is"
    several += "" if len(places) > 1 else " the label"
    notes = [f"{len(places)} {several}: {_list(header, places)}."]
    if marks:
        option = _spell_option(header, (*places, *marks))
        notes.append(
            f"Taken for a split by name, so no labels: {_list(header, marks)}. If labels, name "
            f"all: {option}."
        )
    if strangers:
        notes.append(f"Not 0 or 1 on every line, so no labels: {_list(header, strangers)}.")
    return Flags(places, tuple(notes))


def read_flags(header: Sequence[str], row: Row, places: Iterable[int]) -> frozenset[str]:
    """Return the names of the columns that are 1."""
    return _spell(header[place] for place in places if read_flag(row.cells[place]))


def refuse_flags(header: Sequence[str], rows: Sequence[Row], *, where: str, to_train: bool) -> None:
    """Refuse a table without a column of labels that has several of 0 and 1.

    Args:
        header: names of the columns.
        rows: below it.
        where: what errors call the table.
        to_train: see `read_source`.

    Raises:
        DataError: it has.
    """
    whole = [row for row in rows if len(row.cells) == len(header)]
    flags = [i for i, name in enumerate(header) if name and whole and not find_stranger(whole, i)]
    if len(flags) >= _FEWEST_FLAGS:
        raise DataError(
            f"{where} has no column of labels, but {len(flags)} of 0 and 1: "
            f"{_list(header, flags)}.",
            hint="If these are labels, of which an image may have several, "
            f"{say_way(to_train=to_train)}.",
        )


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


def _spell(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(spell_label(text.strip()) for text in texts if text.strip())


def _check_others(labels: Sequence[frozenset[str]], separator: str, where: str) -> None:
    """Refuse labels that other labels of the table make up, with another separator between."""
    known = frozenset(chain.from_iterable(labels))
    for other in _SEPARATORS:
        for label in sorted(known):
            parts = _spell(label.split(other))
            if len(parts) > 1 and parts <= known:
                raise DataError(
                    f"{where} separates labels by {quote(separator)}, and has the label "
                    f"{quote(label, 60)}, whose parts are labels, too.",
                    hint="Separate all labels by the same sign.",
                )


def _refuse_twins(table: Path, names: Sequence[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise DataError(
            f"{table}: several columns of 0 and 1 are called {quote(twins[0], 60)}; expected each "
            "label once.",
            hint="Rename all but one of them, or remove them.",
        )


def _refuse_constants(
    table: Path, header: Sequence[str], rows: Sequence[Row], places: Sequence[int]
) -> None:
    """Refuse columns that are 1 throughout beside others: they may be anything, such as a width."""
    constant = [place for place in places if all(read_flag(row.cells[place]) for row in rows)]
    others = [place for place in places if place not in constant]
    if constant and others:
        raise DataError(
            f"{table} has 1 on every line of: {_list(header, constant)}; expected labels that some "
            "images do not have.",
            hint=f"If these are no labels, name those that are: {_spell_option(header, others)}.",
        )


def _spell_option(header: Sequence[str], places: Iterable[int]) -> str:
    return f"--columns {shlex.quote('label=' + '|'.join(header[place] for place in places))}"


def _list(header: Sequence[str], places: Iterable[int] | Mapping[int, object]) -> str:
    return name_some([shorten(header[place], 60) for place in places])
