"""Writing that is whole or not at all, and outlasts a power cut."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can do that."""
    if os.name != "posix":  # Windows does not open folders; its renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what some network file systems say for folders
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file beside its place, force it to the disk, and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
