"""Any number of labels for an image: in a table's cell, on several lines, in columns of 0 and 1.

    path,labels            path,label          path,cat,dog,red
    a.png,cat|red          a.png,cat           a.png,1,0,1
    b.png,                 a.png,red           b.png,0,0,0

In a cell they are separated by |, by ; or by a comma, whichever the table has first in this order,
or are written as a list in brackets. Where it has none of these, blanks separate them, unless
images stand on several lines: then a line has one label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from gatehub._text import quote, shorten
from gatehub.errors import DataError
from gatehub.training.sources.delimited import Row
from gatehub.training.sources.pictures import name_some, spell_label
from gatehub.training.sources.side_names import find_side

OPTION = "--multi-label (multi_label=True)"

_SEPARATORS = ("|", ";", ",")
_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^,\s'"][^,]*)""")
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


def split_cells(cells: Sequence[str], *, repeated: bool, where: str) -> Cells:
    """Read the labels of cells.

    Args:
        cells: of one column.
        repeated: whether images stand on several lines.
        where: what errors call the table.

    Raises:
        DataError: labels are separated in two ways.
    """
    if all(_is_list(cell) for cell in cells if cell) and any(cells):
        return Cells([_spell(_read_list(cell)) for cell in cells], ())
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
    table: Path, header: Sequence[str], rows: Sequence[Row], *, taken: Iterable[int], named: str
) -> Flags:
    """Find the columns of 0 and 1.

    Args:
        table: for the sentences.
        header: names of the columns.
        rows: below it, each as long.
        taken: places of columns that are something else.
        named: names with | between them, where somebody has said which they are; "" if not.

    Raises:
        DataError: there are none, or one that is named is not there or has something else.
    """
    taken = set(taken)
    free = [i for i, name in enumerate(header) if i not in taken and name and not _is_side(name)]
    if named:
        wanted = [name.strip() for name in named.split("|")]
        lacking = [name for name in wanted if wanted.count(name) > 1 or header.count(name) != 1]
        if lacking:
            raise DataError(
                f"{table}: the columns are {name_some([shorten(name, 60) for name in header])}; "
                f"expected {quote(lacking[0], 60)}, a label, once among them.",
                hint="Name columns of 0 and 1 with | between them: --columns 'label=cat|dog'.",
            )
        free = [header.index(name) for name in wanted]
    strangers = {place: row for place in free if (row := _find_stranger(rows, place)) is not None}
    places = tuple(place for place in free if place not in strangers)
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
    notes = [f"{len(places)} columns of 0 and 1 are the labels: {_list(header, places)}."]
    if strangers:
        notes.append(f"Not 0 or 1 on every line, so no labels: {_list(header, strangers)}.")
    return Flags(places, tuple(notes))


def read_flags(header: Sequence[str], row: Row, places: Iterable[int]) -> frozenset[str]:
    """Return the names of the columns that are 1."""
    return _spell(header[place] for place in places if _FLAGS[row.cells[place].casefold()])


def refuse_flags(header: Sequence[str], rows: Sequence[Row], *, where: str) -> None:
    """Refuse a table without a column of labels that has several of 0 and 1.

    Args:
        header: names of the columns.
        rows: below it.
        where: what errors call the table.

    Raises:
        DataError: it has.
    """
    whole = [row for row in rows if len(row.cells) == len(header)]
    flags = [i for i in range(len(header)) if whole and _find_stranger(whole, i) is None]
    if len(flags) >= _FEWEST_FLAGS:
        raise DataError(
            f"{where} has no column of labels, but {len(flags)} of 0 and 1: "
            f"{_list(header, flags)}.",
            hint=f"If these are labels, of which an image may have several, add {OPTION}.",
        )


def refuse_sets(cells: Iterable[str], *, where: str) -> Iterator[str]:
    """Refuse what is read as one label an image, and holds several; say where that is not certain.

    It is certain where a column holds more different cells than labels that these would be made
    of: cat, dog and cat|dog. Names may hold any sign, so it is not where there are fewer.

    Args:
        cells: of the column of labels.
        where: what errors call the table.

    Yields:
        Sentences.

    Raises:
        DataError: they are several labels.
    """
    different = set(cells)
    for separator in (*_SEPARATORS, None):
        parts = {cell: [part.strip() for part in cell.split(separator)] for cell in different}
        several = sorted(cell for cell, found in parts.items() if len(found) > 1 and all(found))
        if not several:
            continue
        fewer = len(set(chain.from_iterable(parts.values()))) < len(different)
        told = f"{where} has {len(different)} different labels, such as {quote(several[0], 60)}"
        if separator is None:
            if fewer:
                yield f"{told}; if an image has several labels there, add {OPTION}."
        elif fewer:
            raise DataError(
                f"{told}: they are made of fewer, with {quote(separator)} between them.",
                hint=f"Images with several labels need {OPTION}; if each is one class, write it "
                f"without {quote(separator)}.",
            )
        elif separator != ",":
            yield f"{told}; if these are several labels, add {OPTION}."


def _is_list(cell: str) -> bool:
    return cell.startswith("[") and cell.endswith("]")


def _read_list(cell: str) -> list[str]:
    return [next(filter(None, found), "").strip() for found in _ITEM.findall(cell[1:-1])]


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


def _is_side(name: str) -> bool:
    found = find_side(name)
    return found is not None and found[1] <= {"is"}


def _find_stranger(rows: Sequence[Row], place: int) -> Row | None:
    """Return the first row that is neither 0 nor 1 in a column."""
    return next((row for row in rows if row.cells[place].casefold() not in _FLAGS), None)


def _list(header: Sequence[str], places: Iterable[int] | Mapping[int, object]) -> str:
    return name_some([shorten(header[place], 60) for place in places])
