"""Loading a data set: `hf:NAME`, where NAME is one on the Hub or a folder, or `hf:NAME:SPLIT`."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from gatehub._text import first_line
from gatehub.errors import DataError

PREFIX = "hf:"
_SPLIT = re.compile(r"\w[\w.-]*")
# What `save_to_disk` leaves, in which `load_dataset` cannot find its way.
_SAVED = ("dataset_dict.json", "state.json")


def load_splits(source: str) -> dict[str, Any]:
    """Load a data set's splits, by name; of a source that names one, that one.

    Args:
        source: "hf:NAME" or "hf:NAME:SPLIT".

    Raises:
        DataError: `datasets` is not installed, or cannot load it, or it has no such split.
    """
    name, split = divide_name(source)
    if not name:
        raise DataError(
            f"The data source '{source}' names no data set; expected hf:NAME or hf:NAME:SPLIT.",
            hint="Such as hf:acme/birds, or hf:./birds for a folder.",
        )
    datasets = _import()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    saved = any(os.path.isfile(os.path.join(name, file)) for file in _SAVED)
    try:
        loaded = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # whatever a data set on the Hub, or its files, trip over
        what = "is no folder here, and" if not os.path.exists(name) else "is a folder, but"
        raise DataError(
            f"'{name}' {what} cannot be loaded as a data set: {first_line(error)}.",
            hint=f"Try it in Python: datasets.load_dataset({name!r}).",
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if split is not None and split not in splits:
        raise DataError(
            f"The data set '{name}' has no split '{split}'; it has {', '.join(splits)}.",
            hint=f"Name one of these, such as hf:{name}:{next(iter(splits))}.",
        )
    return splits if split is None else {split: splits[split]}


def divide_name(source: str) -> tuple[str, str | None]:
    """Return the name of a data set, and the split that is named behind it, if one is."""
    whole = source.removeprefix(PREFIX)
    name, colon, split = whole.rpartition(":")
    if colon and _SPLIT.fullmatch(split) and not os.path.exists(whole):
        return name, split
    return whole, None


def _import() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "Data sets of Hugging Face are read by their package 'datasets', which is not "
            "installed.",
            hint="pip install 'gatehub[datasets]'",
        ) from error
    return datasets
