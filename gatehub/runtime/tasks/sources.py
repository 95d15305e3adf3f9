"""Where a task's gates can be had again, when they had to leave memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gatehub.adapter import Adapter
from gatehub.errors import TaskUnavailableError
from gatehub.runtime.tasks.packed import PackedTask


class Source(Protocol):
    """A place from which one task's gates come."""

    @property
    def key(self) -> object:
        """Equal for loads of the same thing."""

    @property
    def lasting(self) -> bool:
        """Whether the gates can be read again; if not, they stay in memory."""

    def read(self) -> Adapter:
        """Read the adapter, or refuse it."""


@dataclass(frozen=True, slots=True, eq=False)
class MemorySource:
    """An adapter that was handed over as an object."""

    adapter: Adapter

    @property
    def key(self) -> object:
        return id(self.adapter)

    @property
    def lasting(self) -> bool:
        return False

    def read(self) -> Adapter:
        return self.adapter


@dataclass(frozen=True, slots=True, eq=False)
class PlaceSource:
    """An adapter's folder, or its name on a hub."""

    place: str | Path

    @property
    def key(self) -> object:
        return str(self.place)

    @property
    def lasting(self) -> bool:
        return True

    def read(self) -> Adapter:
        return Adapter.load(self.place)


def open_source(adapter: Adapter | str | Path) -> Source:
    """Return where an adapter comes from: itself, a folder, or a name on a hub."""
    return MemorySource(adapter) if isinstance(adapter, Adapter) else PlaceSource(adapter)


def read_again(
    source: Source, *, task: str, digest: str, pack: Callable[[Adapter], PackedTask]
) -> PackedTask:
    """Read a task's gates a second time.

    Raises:
        TaskUnavailableError: what lies there now is another adapter.
        AdapterFormatError: the folder is not sound any more.
        HubError: the hub cannot give it.
    """
    packed = pack(source.read())
    if packed.digest != digest:
        raise TaskUnavailableError(
            f"Task '{task}' had to leave memory, and where it was read from now lies another "
            f"adapter: digest {packed.digest[:12]}… instead of {digest[:12]}….",
            hint="Load the task again to serve that one.",
        )
    return packed
