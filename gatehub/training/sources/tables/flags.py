"""Columns of 0 and 1, each of a label of its own."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gatehub._text import quote, shorten
from gatehub.errors import DataError
from gatehub.training.sources.pictures import Side, name_some, spell_label
from gatehub.training.sources.tables.delimited import Row, find_stranger, read_flag
from gatehub.training.sources.tables.label_sets import say_way, spell_set
from gatehub.training.sources.tables.marks import is_mark

_FEWEST_FLAGS = 2


class Flags(NamedTuple):
    """Columns of 0 and 1, each of a label of its own.

    Attributes:
        places: in the header.
        notes: sentences on which they are.
    """

    places: tuple[int, ...]
    notes: tuple[str, ...]


def find_flags(
    where: str,
    header: Sequence[str],
    rows: Sequence[Row],
    *,
    taken: Iterable[int],
    named: str,
    sides: Sequence[Side | None],
    row_name: str = "line",
) -> Flags:
    """Find the columns of 0 and 1.

    Args:
        where: what errors call the table, or the data set.
        header: names of the columns.
        rows: below it, each as long.
        taken: places of columns that are something else.
        named: names with | between them, where somebody has said which they are; "" if not.
        sides: of the split, for each row.
        row_name: what the number of a row is of.

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
                f"{where}: the columns are {name_some([shorten(name, 60) for name in header])}; "
                f"expected {quote(lacking[0], 60)}, a label, once among them.",
                hint="Name columns of 0 and 1 with | between them: --columns 'label=cat|dog'.",
            )
        free = [spelt.index(name) for name in wanted]
    strangers = {place: row for place in free if (row := find_stranger(rows, place)) is not None}
    flags = tuple(place for place in free if place not in strangers)
    marks = [] if named else [i for i in flags if is_mark(header[i], rows, i, sides)]
    places = tuple(place for place in flags if place not in marks)
    _refuse_twins(where, [spelt[place] for place in places])
    if named and strangers:
        place, row = next(iter(strangers.items()))
        raise DataError(
            f"{where}, {row_name} {row.line}: {quote(header[place], 60)} is "
            f"{quote(row.cells[place], 60)}; expected 0 or 1."
        )
    if not places:
        raise DataError(
            f"{where} has no column of labels, and none that is 0 or 1 throughout.",
            hint="Name the labels' column (--columns label=COLUMN), or those of 0 and 1 "
            "(--columns 'label=cat|dog').",
        )
    if not named:
        _refuse_constants(where, header, rows, places)
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
        notes.append(f"Not 0 or 1 throughout, so no labels: {_list(header, strangers)}.")
    return Flags(places, tuple(notes))


def read_flags(header: Sequence[str], row: Row, places: Iterable[int]) -> frozenset[str]:
    """Return the names of the columns that are 1."""
    return spell_set(header[place] for place in places if read_flag(row.cells[place]))


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


def _refuse_twins(where: str, names: Sequence[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise DataError(
            f"{where}: several columns of 0 and 1 are called {quote(twins[0], 60)}; expected each "
            "label once.",
            hint="Rename all but one of them, or remove them.",
        )


def _refuse_constants(
    where: str, header: Sequence[str], rows: Sequence[Row], places: Sequence[int]
) -> None:
    """Refuse columns that are 1 throughout beside others: they may be anything, such as a width."""
    constant = [place for place in places if all(read_flag(row.cells[place]) for row in rows)]
    others = [place for place in places if place not in constant]
    if constant and others:
        raise DataError(
            f"{where} has 1 throughout in: {_list(header, constant)}; expected labels that some "
            "images do not have.",
            hint=f"If these are no labels, name those that are: {_spell_option(header, others)}.",
        )


def _spell_option(header: Sequence[str], places: Iterable[int]) -> str:
    return f"--columns {shlex.quote('label=' + '|'.join(header[place] for place in places))}"


def _list(header: Sequence[str], places: Iterable[int] | Mapping[int, object]) -> str:
    return name_some([shorten(header[place], 60) for place in places])
