"""classes.txt: the classes of a source in an order of one's own, one a line."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import (
    Source,
    collect_labels,
    name_some,
    spell_label,
)
from gatehub.training.sources.text import read_text
from gatehub.training.sources.walk import Walk, join

CLASS_ORDER_FILE = "classes.txt"

_HINT = (
    "List every class that has images once, one a line, or remove the file to have the classes "
    "sorted."
)


def find_order_files(walk: Walk, insides: Iterable[str]) -> list[Path]:
    """List the files of that name in a folder of images and on the way to its class folders.

    Args:
        walk: through the folder.
        insides: the folders that hold class folders.
    """
    ways = [accumulate(inside.split("/"), join) for inside in insides if inside]
    levels = dict.fromkeys(["", *(level for way in ways for level in way)])
    return [
        walk.root / level / CLASS_ORDER_FILE
        for level in levels
        if CLASS_ORDER_FILE in walk.look(level).files
    ]


def order_classes(source: Source, files: Sequence[Path], where: str) -> Source:
    """Return a source with its classes in the order that files give; as it is, if there are none.

    Args:
        source: what was read.
        files: they must agree.
        where: what errors call the source.

    Raises:
        DataError: a file cannot be read, or does not list every class once and nothing else.
    """
    orders = {file: _read_order(file) for file in files}
    found = collect_labels(source.pictures)
    for file, labels in orders.items():
        extra, missing = sorted(set(labels) - found), sorted(found - set(labels))
        if extra:
            raise DataError(
                f"{file} lists classes of which {where} has no images: {name_some(extra)}.",
                hint=_HINT,
            )
        if missing:
            raise DataError(
                f"{file} lacks classes of which {where} has images: {name_some(missing)}.",
                hint=_HINT,
            )
        if labels != orders[files[0]]:
            raise DataError(
                f"{files[0]} and {file} list the classes in different orders.",
                hint="Keep one of the two files.",
            )
    if not files:
        return source
    note = f"The classes are in the order of {files[0]}."
    return replace(source, labels=orders[files[0]], notes=(*source.notes, note))


def _read_order(file: Path) -> tuple[str, ...]:
    lines: dict[str, int] = {}
    text = io.StringIO(read_text(file, "list of classes"), newline=None)
    for number, line in enumerate(text, start=1):
        label = spell_label(line.strip())
        if label in lines:
            raise DataError(
                f"{file}, line {number}: the class {quote(label)} is on line {lines[label]} "
                "already.",
                hint=_HINT,
            )
        if label:
            lines[label] = number
    return tuple(lines)
