"""An image in a row of a data set, read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gatehub.errors import InputError
from gatehub.training.sources.huggingface.loading import load_splits


class Place(NamedTuple):
    """Where a row is found again, also by another process.

    Attributes:
        source: "hf:NAME" or "hf:NAME:SPLIT".
        split: its name.
        column: that of the images.
        row: its number.
    """

    source: str
    split: str
    column: str
    row: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """An encoded image that lies in a data set.

    Args:
        dataset: from `Row.encoded`.
        place: where the row is.
    """

    dataset: Any
    place: Place

    @staticmethod
    def encoded(dataset: Any, column: str) -> Any:
        """Return a data set of one column, whose images are given as they are stored."""
        from datasets import Image

        return dataset.select_columns([column]).cast_column(column, Image(decode=False))

    def read(self) -> bytes:
        """Return the file that the row holds.

        Raises:
            InputError: it holds none.
        """
        column, row = self.place.column, self.place.row
        stored = self.dataset[row][column] or {}
        if stored.get("bytes") is not None:
            return bytes(stored["bytes"])
        if not stored.get("path"):
            raise InputError(f"Row {row} has no image in the column '{column}'.")
        try:
            return Path(stored["path"]).read_bytes()
        except OSError as error:
            raise InputError(f"'{stored['path']}' cannot be read: {error.strerror}.") from error


def find_rows(places: Iterable[Place]) -> Iterator[Row]:
    """Yield the rows at places; each data set is loaded once.

    Raises:
        DataError: one cannot be loaded any more.
    """
    load = cache(load_splits)

    @cache
    def encode(source: str, split: str, column: str) -> Any:
        return Row.encoded(load(source)[split], column)

    for place in places:
        yield Row(dataset=encode(*place[:3]), place=place)
