"""An image in a row of a data set, read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatehub.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """An encoded image that lies in a data set.

    Args:
        dataset: from `Row.encoded`.
        column: that of the images.
        index: of the row.
    """

    dataset: Any
    column: str
    index: int

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
        stored = self.dataset[self.index][self.column] or {}
        if stored.get("bytes") is not None:
            return bytes(stored["bytes"])
        if not stored.get("path"):
            raise InputError(f"Row {self.index} has no image in the column '{self.column}'.")
        try:
            return Path(stored["path"]).read_bytes()
        except OSError as error:
            raise InputError(f"'{stored['path']}' cannot be read: {error.strerror}.") from error
