"""Data as it is given: one source, or several tables of one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import name_some

Given = str | Path | Sequence[str | Path]


def list_given(source: Given) -> tuple[str | Path, ...]:
    """Return the sources that are given, each as it is.

    Raises:
        DataError: there are none, or something else is given.
    """
    each = (source,) if isinstance(source, str | Path) else source
    if not isinstance(each, Sequence) or not all(isinstance(one, str | Path) for one in each):
        raise DataError(f"The data source is {source!r:.100}; expected text, a path, or several.")
    if not each:
        raise DataError("No data source is given; expected one, or several tables.")
    return tuple(each)


def spell_given(source: Given) -> str | tuple[str, ...]:
    """Return what is given as text: one source, or several.

    Raises:
        DataError: see `list_given`.
    """
    one, *others = map(str, list_given(source))
    return (one, *others) if others else one


def name_given(source: Given) -> str:
    """Name what is given, for a sentence.

    Raises:
        DataError: see `list_given`.
    """
    return name_some(list(map(str, list_given(source))))


def refuse_several(other: str) -> DataError:
    """What is said where several sources are given and one of them is no table."""
    return DataError(
        f"Several data sources are given, and {quote(other)} is no table; expected one source, or "
        "tables alone.",
        hint="Put the images into one folder, or write a table with the columns path and label.",
    )
