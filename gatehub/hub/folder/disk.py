"""A folder hub's storage on a local or mounted file system.

Bytes go to a temporary file in the same folder (its name begins with a dot, which no key
may), are forced to the disk, and only then get their name; see `gatehub._disk`. A crash leaves
a temporary file at most.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gatehub._disk import create_whole, remove_abandoned, replacing, sync_folder
from gatehub.errors import HubError, HubIntegrityError
from gatehub.hub.files import StoredFile, changed_meanwhile, digest_stream, open_regular
from gatehub.hub.folder.storage import check_bytes, check_key, check_length, missing
from gatehub.hub.names import is_component

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Disk:
    """Files under one folder.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.root.is_dir()

    def url(self, key: str) -> str:
        """Where a key lies, as a `file://` URL."""
        return self.path(key).as_uri()

    def path(self, key: str) -> Path:
        """Where a key lies.

        Raises:
            HubIntegrityError: a component is not a plain name, or a link stands in the way.
        """
        check_key(key, self.where)
        path = self.root.joinpath(*key.split("/"))
        if os.path.realpath(path) != str(path):
            raise HubIntegrityError(
                f"{path} leads through a symbolic link, and a hub holds none.",
                hint="Somebody changed the hub's folder by hand: put the real files back.",
            )
        return path

    def names(self, key: str) -> list[str]:
        """What lies directly under a key, sorted; nothing if there is no such folder."""
        try:
            entries = os.listdir(self.path(key))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in entries if is_component(name))

    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """The bytes under a key, None if there are none.

        Raises:
            HubIntegrityError: there are more than `max_bytes`, or it is not a file.
        """
        try:
            with self._open(key) as stream:
                data = stream.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        return check_length(data, self.path(key), max_bytes)

    def create(self, key: str, data: bytes) -> bool:
        """Give a key its bytes if it has none. Of many callers at once exactly one succeeds.

        Returns:
            Whether this call did it.
        """
        path = self._make_folder(key)
        try:
            created = create_whole(path, data)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            raise HubError(
                f"The file system of {self.root} has no hard links, so two pushes at once "
                f"could not be told apart.",
                hint="Put the hub on another file system.",
            ) from error
        # Also when another process created it: it may not have reached the disk yet.
        self._sync_folders(key)
        return created

    def put(self, key: str, source: Path, expected: StoredFile) -> None:
        """Give a key the bytes of a file. What lies there already stays if it is sound.

        Raises:
            HubError: the source no longer has the expected bytes.
        """
        if self.is_sound(key, expected):
            with suppress(PermissionError):  # somebody else's file
                os.utime(self.path(key))  # it is in use: no garbage
        else:
            with replacing(self._make_folder(key)) as stream, source.open("rb") as origin:
                if digest_stream(origin, stream, max_bytes=expected.bytes) != expected:
                    raise changed_meanwhile(source)
        self._sync_folders(key)

    def get(self, key: str, target: Path, expected: StoredFile) -> None:
        """Copy the bytes under a key into a new file, which is not complete if this raises.

        Raises:
            HubIntegrityError: they are not there, or not the expected ones.
        """
        try:
            stream = self._open(key)
        except FileNotFoundError as error:
            raise missing(self.path(key)) from error
        with stream, target.open("xb") as copy:
            found = digest_stream(stream, copy, max_bytes=expected.bytes)
            _sync(copy)
        check_bytes(found, expected, self.path(key))

    def is_sound(self, key: str, expected: StoredFile) -> bool:
        """Whether a key has the expected bytes."""
        try:
            with self._open(key) as stream:
                return digest_stream(stream, max_bytes=expected.bytes) == expected
        except FileNotFoundError:
            return False

    def has(self, key: str) -> bool:
        """Whether a key has bytes, whichever."""
        return self.path(key).is_file()

    def age_s(self, key: str) -> float:
        """Seconds since a key got its bytes, or was pushed again; 0 if it has none."""
        try:
            return max(0.0, time.time() - self.path(key).stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def move(self, key: str, to: str) -> None:
        """Give the bytes of a key another key; nothing happens if there are none."""
        target = self.path(to)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(self.path(key), target)
            self._sync_folders(to)

    def remove(self, key: str) -> None:
        """Forget a key; nothing happens if it has no bytes."""
        path = self.path(key)
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync_folder(path.parent)

    def sweep(self, *, older_than_s: float) -> tuple[int, int]:
        """See `Storage.sweep`: temporary files of pushes that were killed."""
        count = size = 0
        for folder, _, _ in os.walk(self.root):
            files, their_bytes = remove_abandoned(Path(folder), older_than_s=older_than_s)
            count, size = count + files, size + their_bytes
        return count, size

    def _open(self, key: str) -> BinaryIO:
        path = self.path(key)
        if (stream := open_regular(path)) is None:
            raise HubIntegrityError(f"{path} is not a file.")
        return stream

    def _make_folder(self, key: str) -> Path:
        """Make the folders above a key, and return where it lies."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _sync_folders(self, key: str) -> None:
        """Force the names on the way to a key to the disk, the root's own name included."""
        folder = self.path(key).parent
        while folder != self.root:
            sync_folder(folder)
            folder = folder.parent
        sync_folder(self.root)
        with suppress(PermissionError):  # who may not read the parent did not make the root
            sync_folder(self.root.parent)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
