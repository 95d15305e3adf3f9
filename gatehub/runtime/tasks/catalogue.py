"""What is served at this moment: one immutable mapping, replaced as a whole."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from gatehub.errors import TaskNotFoundError
from gatehub.runtime.tasks.served import Served
from gatehub.runtime.tasks.sources import Source

T = TypeVar("T")


class Catalogue:
    """The tasks that are served, and those of which only the place is known.

    Readers take no lock: they read one reference, and what they find there never changes.
    """

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._served: Mapping[str, Served] = MappingProxyType({})
        self._known: Mapping[str, Source] = MappingProxyType({})

    @property
    def served(self) -> Mapping[str, Served]:
        """Each task's current generation, by name."""
        return self._served

    def source(self, task: str) -> Source:
        """Return where a task is to be loaded from.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        try:
            return self._known[task]
        except KeyError:
            raise self.not_found(task) from None

    def is_current(self, served: Served) -> bool:
        """Whether a generation is the one that is served."""
        return self._served.get(served.info.task) is served

    def publish(self, served: Served) -> tuple[Served, Served | None]:
        """Let a generation be the one that is served, unless a later one is already.

        Returns:
            What is served now, and the generation that had to go for it, if any.
        """
        task = served.info.task
        with self._writing:
            before = self._served.get(task)
            if before is not None and before.info.generation > served.info.generation:
                return before, None
            self._served = MappingProxyType({**self._served, task: served})
            return served, before

    def register(self, task: str, source: Source) -> None:
        """Name where a task is."""
        with self._writing:
            self._known = MappingProxyType({**self._known, task: source})

    def remove(self, task: str) -> Served | None:
        """Take a task out, and return the generation that was served, if any was.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        with self._writing:
            if task not in self._served and task not in self._known:
                raise self.not_found(task)
            gone = self._served.get(task)
            self._served = _without(self._served, task)
            self._known = _without(self._known, task)
            return gone

    def not_found(self, task: str) -> TaskNotFoundError:
        """Say that a task is not served, and which are."""
        names = sorted({*self._served, *self._known})
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return TaskNotFoundError(
            f"No task '{task[:100]}' is served.",
            hint=f"Served here: {', '.join(names[:20]) or 'none'}{more}.",
        )


def _without(mapping: Mapping[str, T], name: str) -> Mapping[str, T]:
    return MappingProxyType({key: value for key, value in mapping.items() if key != name})
