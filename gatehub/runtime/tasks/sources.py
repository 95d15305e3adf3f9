"""Where a task's gates come from, and can be had again when they had to leave memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from gatehub._text import quote
from gatehub.adapter import Adapter
from gatehub.adapter.files import stored_dtypes
from gatehub.adapter.folder import TENSORS_FILE
from gatehub.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorFile:
    """The file that an adapter's tensors have just been read from.

    Args:
        digest: its SHA-256, which was checked.
        dtypes: in which it holds each tensor, by name.
    """

    digest: str
    dtypes: Mapping[str, torch.dtype]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """An adapter as its source gave it.

    Args:
        adapter: gates, normalisation values and head.
        file: where its tensors lie, or None if it was handed over as an object.
    """

    adapter: Adapter
    file: TensorFile | None


class Source(Protocol):
    """A place from which one task's gates come."""

    @property
    def key(self) -> object:
        """Equal for loads of the same thing."""

    @property
    def lasting(self) -> bool:
        """Whether the gates can be read again; if not, they stay in memory."""

    def read(self) -> Reading:
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

    def read(self) -> Reading:
        return Reading(adapter=self.adapter, file=None)


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

    def read(self) -> Reading:
        adapter = Adapter.load(self.place)
        config = adapter.config  # as it is in the folder, and true of it
        file = TensorFile(digest=config.files[TENSORS_FILE], dtypes=stored_dtypes(config))
        return Reading(adapter=adapter, file=file)


def open_source(adapter: Adapter | str | Path) -> Source:
    """Return where an adapter comes from: itself, a folder, or a name on a hub.

    Raises:
        EngineError: it is none of these.
    """
    if isinstance(adapter, Adapter):
        return MemorySource(adapter)
    if isinstance(adapter, str | Path):
        return PlaceSource(adapter)
    raise EngineError(
        f"A task comes from an Adapter, a folder or a name on a hub, not from {quote(adapter)}.",
        hint="Adapter.from_model(model, task=…) makes one of a gated model.",
    )
