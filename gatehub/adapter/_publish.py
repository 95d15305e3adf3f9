"""Writing a folder whole or not at all: beside its place, synced, and exchanged with it."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gatehub._disk import sync_folder

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def publish_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files, in place of whatever it held.

    A crash leaves the old files or the new ones, and perhaps a hidden folder beside them.

    Args:
        folder: where to; a link is followed.
        contents: the files' bytes by their names.

    Raises:
        OSError: the disk refuses; what was there is there still.
    """
    place = Path(os.path.realpath(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.new-", dir=place.parent))
    try:
        aside.chmod(0o755)
        for name, content in contents.items():
            _write_synced(aside / name, content)
        sync_folder(aside)
        _exchange(aside, place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(aside: Path, place: Path) -> None:
    """Move a finished folder to its place; what was there is in `aside` afterwards."""
    if not place.exists():
        os.replace(aside, place)
    elif not _swap(aside, place):
        old = aside.with_name(f"{aside.name}.old")
        os.replace(place, old)
        try:
            os.replace(aside, place)
        except OSError:
            os.replace(old, place)
            raise
        os.replace(old, aside)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that no reader and no crash meets a gap.

    Returns:
        Whether it was done: only Linux can, and not on every file system.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return bool(rename(*paths, _RENAME_EXCHANGE) == 0)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
