"""The images that a command names: files, folders, globs, and paths on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gatehub.errors import DataError, GatehubError

if TYPE_CHECKING:
    from gatehub.training.sources import LeftOut

T = TypeVar("T")

STANDARD_INPUT = "-"


def find_images(
    given: Sequence[str], *, report: Callable[[Sequence[LeftOut]], None] | None = None
) -> Iterator[tuple[str, GatehubError | None]]:
    """Yield the images that are named, one by one, in the order of their names.

    Args:
        given: for each, a file, a folder (every image below it), a glob that the shell has left
            as it is, or "-" for paths on standard input, one a line.
        report: is told what of a folder was passed over.

    Yields:
        A path, and None or why there is no image: a folder that holds none or cannot be listed.
    """
    for name in given:
        if name == STANDARD_INPUT:
            for line in sys.stdin.buffer:
                path = os.fsdecode(line.rstrip(b"\r\n"))
                if path:
                    yield from _find(path, report)
        elif glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(glob.glob(name, recursive=True))
            for path in found:
                yield from _find(path, report)
            if not found:
                yield name, DataError(f"'{name}' matches no file.", hint="Check the pattern.")
        else:
            yield from _find(name, report)


def count_images(given: Sequence[str]) -> int | None:
    """Return how many images `find_images` yields; None where that is not known beforehand."""
    if STANDARD_INPUT in given:
        return None
    return sum(1 for _ in find_images(given))


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one as long as it comes."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _find(
    path: str, report: Callable[[Sequence[LeftOut]], None] | None
) -> Iterator[tuple[str, GatehubError | None]]:
    from gatehub.training.sources.walk import Walk

    if not os.path.isdir(path):
        yield path, None
        return
    try:
        walk = Walk(Path(path))
        images = walk.images("")
    except DataError as error:  # a folder that cannot be listed
        yield path, error
        return
    if report is not None:
        report(walk.left_out())
    for image in images:
        yield os.path.join(path, image), None
    if not images:
        yield path, DataError(f"The folder '{path}' holds no images.", hint="Check the path.")
