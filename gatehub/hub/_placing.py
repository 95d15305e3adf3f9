"""Making a folder appear at its place, whole, and never over something else."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".gatehub-"
_ABANDONED_S = 24 * 3600


def is_taken(folder: Path) -> bool:
    """Whether something is there that a rename onto it could cost; an empty folder is nothing."""
    if not os.path.lexists(folder):
        return False
    return folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())


def set_aside(folder: Path, place: Path) -> None:
    """Move a folder away, if there is one."""
    with suppress(FileNotFoundError):
        os.rename(folder, place)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder of the same name on the same file system, in one that is removed afterwards.

    What killed processes left in the same place more than a day ago is removed too.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_PREFIX) as place:
        stage = Path(place, folder.absolute().name)
        stage.mkdir()
        yield stage
