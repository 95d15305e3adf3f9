"""Columns of 0 and 1 that mark the images on a side of a split: is_valid, train."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from gatehub._text import shorten
from gatehub.errors import DataError
from gatehub.training.sources.pictures import Side, name_some, spell_label
from gatehub.training.sources.side_names import find_side
from gatehub.training.sources.tables.delimited import Row, find_stranger, read_flag

_IS = re.compile(r"^is[ _-]*", re.IGNORECASE)


def find_marked_side(column: str) -> Side | None:
    """Return the side whose images a column of 0 and 1 would mark by its name: is_valid, train."""
    found = find_side(_IS.sub("", column))
    return found[0] if found is not None and not found[1] else None


def is_mark(name: str, rows: Sequence[Row], place: int, sides: Sequence[Side | None]) -> bool:
    """Whether a column of 0 and 1 says which images are on a side: by its name, and by its cells.

    A column called train may be a label, is_train is none.
    """
    marked = find_marked_side(name)
    if marked is None or find_side(name) != (marked, frozenset()):
        return marked is not None
    cells = [read_flag(row.cells[place]) for row in rows]
    return cells == [side == marked for side in sides]


def check_marks(
    table: Path,
    header: Sequence[str],
    rows: Sequence[Row],
    *,
    places: Mapping[str, int],
    columns: Mapping[str, str],
    may_be_labels: bool,
) -> None:
    """Refuse columns of 0 and 1 that may mark the sides of a split, such as train and val.

    Args:
        table: for the sentences.
        header: names of the columns.
        rows: below it, each as long.
        places: of the columns that are used.
        columns: see `read_source`.
        may_be_labels: whether a column of 0 and 1 may be a label.

    Raises:
        DataError: there are some, and nothing else tells that they are no split.
    """
    if not rows:
        return
    named = {spell_label(name.strip()) for name in columns.get("label", "").split("|")}
    marks = {
        place: side
        for place, name in enumerate(header)
        if (side := find_marked_side(name)) is not None
        and not (
            place in places.values() or spell_label(name) in named or find_stranger(rows, place)
        )
    }
    held_out = set(marks.values()) - {"train"}
    if "split" in places:
        own = find_marked_side(header[places["split"]])
        if own is None or held_out <= {own}:
            return
    elif "split" in columns:
        return
    hint = "Write one column called split, of train, val and test"
    if "split" not in places:
        if len(held_out) == 1:
            held = next(header[place] for place, side in marks.items() if side != "train")
            hint += f"; or take 1 for held out: --columns {shlex.quote(f'split={held}')}"
        hint += "; or say that there is no split: --columns split="
    if marks:
        listed = name_some([shorten(header[place], 60) for place in marks])
        or_labels = ", or be labels" if may_be_labels else ""
        raise DataError(
            f"{table}: the columns of 0 and 1 {listed} may say how images are split{or_labels}; "
            "expected one column for the split.",
            hint=f"{hint}.",
        )
