"""The few storage operations a folder hub is made of.

Keys are components joined by "/". What a key names appears whole or not at all, and of many
who create one key at once exactly one does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gatehub.errors import HubIntegrityError
from gatehub.hub.files import StoredFile
from gatehub.hub.names import is_component


class Storage(Protocol):
    """Where a folder hub keeps its bytes."""

    @property
    def where(self) -> str:
        """The place as a person reads it."""

    def exists(self) -> bool:
        """Whether there is anything at all."""

    def url(self, key: str) -> str:
        """Where a key lies, as a URL."""

    def path(self, key: str) -> object:
        """Where a key lies, for messages.

        Raises:
            HubIntegrityError: the key could lead elsewhere.
        """

    def names(self, key: str) -> list[str]:
        """What lies directly under a key, sorted; nothing if there is no such folder."""

    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """The bytes under a key, None if there are none.

        Raises:
            HubIntegrityError: there are more than `max_bytes`, or it is not a file.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Give a key its bytes if it has none. Of many callers at once exactly one succeeds.

        Returns:
            Whether this call did it.
        """

    def put(self, key: str, source: Path, expected: StoredFile) -> None:
        """Give a key the bytes of a file. What lies there already stays if it is sound.

        Raises:
            HubError: the source no longer has the expected bytes.
        """

    def get(self, key: str, target: Path, expected: StoredFile) -> None:
        """Copy the bytes under a key into a new file, which is not complete if this raises.

        Raises:
            HubIntegrityError: they are not there, or not the expected ones.
        """

    def is_sound(self, key: str, expected: StoredFile) -> bool:
        """Whether a key has the expected bytes."""

    def has(self, key: str) -> bool:
        """Whether a key has bytes, whichever."""

    def age_s(self, key: str) -> float:
        """Seconds since a key got its bytes; 0 if it has none."""

    def move(self, key: str, to: str) -> None:
        """Give the bytes of a key another key; nothing happens if there are none."""

    def remove(self, key: str) -> None:
        """Forget a key; nothing happens if it has no bytes."""

    def sweep(self, *, older_than_s: float) -> tuple[int, int]:
        """Remove what killed processes left beside the keys.

        Returns:
            How many files, and their bytes.
        """


def check_key(key: str, where: str) -> None:
    """Refuse a key that could lead out of a hub.

    Raises:
        HubIntegrityError: a component is not a plain name.
    """
    if not all(map(is_component, key.split("/"))):
        raise HubIntegrityError(f"{key!r} could lead out of the hub {where}.")


def check_length(data: bytes, place: object, max_bytes: int) -> bytes:
    """Return what was read at a place, of which one byte more than allowed was asked for.

    Raises:
        HubIntegrityError: there is more.
    """
    if len(data) > max_bytes:
        raise HubIntegrityError(f"{place} is over its limit of {max_bytes} bytes.")
    return data


def check_bytes(found: StoredFile, expected: StoredFile, place: object) -> None:
    """Refuse what was read at a place if it is not what was pushed.

    Raises:
        HubIntegrityError: it is something else.
    """
    if found != expected:
        raise HubIntegrityError(
            f"{place} does not hold the bytes that were pushed: SHA-256 {found.sha256[:12]}…, "
            f"expected {expected.sha256[:12]}….",
            hint="Push the same adapter again to put sound bytes there.",
        )


def missing(place: object) -> HubIntegrityError:
    """Return the refusal of a place where nothing is."""
    return HubIntegrityError(
        f"{place} is missing from the hub.",
        hint="Push the same adapter again to put it there.",
    )
