"""Files and folders that appear whole or not at all, and outlast a power cut.

Everything is made beside its place, forced to the disk, and renamed. Until then it is called
`.gatehub-`, 16 hexadecimal digits and `.tmp`; a folder of that name also holds a file
`.gatehub-making`. The process that makes it keeps it locked, so the next one that writes to that
place can tell what a killed process left behind, and removes it. Nothing else is removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

_NAME = re.compile(r"\.gatehub-[0-9a-f]{16}\.tmp")
_MARK = ".gatehub-making"
# Where files cannot be locked, age has to tell.
_ABANDONED_S = 24 * 3600
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


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
    """Replace a file, or make it and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes its place at the end of the with block; after an error it is gone.

    Args:
        path: of a file or of nothing, in a folder that exists. A link is replaced, not followed.
    """
    remove_abandoned(path.parent)
    with making(path.parent) as (beside, stream):
        yield stream
        _sync(stream)
        if os.name != "posix":  # Windows renames no open file
            stream.close()
        os.replace(beside, path)


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Name the place in errors that name none: a write knows no name, and a disk to free has."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(place)
        raise


def create_whole(path: Path, data: bytes) -> bool:
    """Make a file in a folder that exists, if nothing is there.

    Returns:
        Whether this call made it; of many at once exactly one does.

    Raises:
        OSError: the file system has no hard links, or refuses.
    """
    with making(path.parent) as (beside, stream):
        stream.write(data)
        _sync(stream)
        try:
            os.link(beside, path)
        except FileExistsError:
            # NFS may say so of a link that this very call made, when an answer was lost.
            return os.fstat(stream.fileno()).st_nlink > 1
    return True


@contextmanager
def making(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file in a folder for the length of a with block; it is gone afterwards.

    Yields:
        Its path, to rename or link, and the open file.
    """
    while True:
        path = folder / f".gatehub-{secrets.token_hex(8)}.tmp"
        # Not the tempfile module: its files are readable by their owner alone.
        with naming(folder), path.open("xb") as stream:  # closing writes, too
            try:
                if _claim(stream):
                    yield path, stream
                    return
            finally:
                path.unlink(missing_ok=True)


def is_taken(folder: Path) -> bool:
    """Whether something is there that a rename onto it could cost; an empty folder is nothing."""
    if not os.path.lexists(folder):
        return False
    return folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())


@contextmanager
def staged(folder: Path, *, private: bool = False) -> Iterator[Path]:
    """Make a folder of the same name on the same file system, in one that is removed afterwards.

    Args:
        folder: the place that it is for; the folders above it are made.
        private: no other user can look into it (on Windows, as the folders above it say).

    Yields:
        The new folder, which is empty. Beside it is room to move things out of the way.
    """
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    while True:
        room = parent / f".gatehub-{secrets.token_hex(8)}.tmp"
        room.mkdir(0o700 if private else 0o777)
        try:
            with naming(parent), (room / _MARK).open("xb") as mark:
                if _claim(mark):
                    stage = room / folder.absolute().name
                    stage.mkdir()
                    yield stage
                    return
        finally:
            shutil.rmtree(room, ignore_errors=True)


def publish_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files, in place of whatever it held.

    A crash leaves the old files or the new ones.

    Args:
        folder: where to; a link is followed.
        contents: the files' bytes by their names.

    Raises:
        OSError: the disk refuses; what was there is there still.
    """
    place = Path(os.path.realpath(folder))
    with staged(place) as stage:
        for name, content in contents.items():
            with (stage / name).open("xb") as stream:
                stream.write(content)
                _sync(stream)
        sync_folder(stage)
        _exchange(stage, place)
        sync_folder(place.parent)


def remove_abandoned(folder: Path, *, older_than_s: float = 0.0) -> tuple[int, int]:
    """Remove what killed processes left half made in a folder.

    Args:
        folder: what lies in its subfolders is left alone.
        older_than_s: what has changed since then is left alone, too.

    Returns:
        How many files and folders, and their bytes.
    """
    count = size = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if _NAME.fullmatch(entry.name)]:
            with suppress(OSError):
                path, found = Path(entry.path), entry.stat(follow_symlinks=False)
                if time.time() - found.st_mtime < older_than_s:
                    continue
                is_folder = stat.S_ISDIR(found.st_mode)
                # Removed under the lock, or its maker could lock it in between and trust it.
                with _abandoned(path / _MARK if is_folder else path) as abandoned:
                    if abandoned:
                        size += _remove(path)
                        count += 1
    return count, size


def _remove(path: Path) -> int:
    """Remove a file or a folder, and return how many bytes it had."""
    if not path.is_dir():
        size = path.lstat().st_size
        path.unlink()
        return size
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether who made a file is gone: nobody locks it, or it is old where nobody can lock.

    It stays locked within the with block.

    Raises:
        OSError: there is no such file, or it is somebody else's.
    """
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb+") as stream:
        found = os.fstat(stream.fileno())
        locked = _lock(stream) if stat.S_ISREG(found.st_mode) else False
        if locked is not None:
            yield locked
            return
    yield time.time() - found.st_mtime > _ABANDONED_S


def _claim(stream: BinaryIO) -> bool:
    """Lock a file that was just made; False if somebody took it for abandoned before that."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
    return os.fstat(stream.fileno()).st_nlink > 0


def _lock(stream: BinaryIO) -> bool | None:
    """Lock a file until it is closed; False if another holds it, None where that cannot be done."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _exchange(stage: Path, place: Path) -> None:
    """Move a finished folder to its place; what was there is gone, or is in the stage's place."""
    if not place.exists():
        os.replace(stage, place)
    elif not _swap(stage, place):
        # Not where the stage is: should it fail to come back, it must not go with that.
        old = place.with_name(f".{place.name}.old-{secrets.token_hex(8)}")
        os.replace(place, old)
        try:
            os.replace(stage, place)
        except OSError:
            os.replace(old, place)
            raise
        shutil.rmtree(old, ignore_errors=True)


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
