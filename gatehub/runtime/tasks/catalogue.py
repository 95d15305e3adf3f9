"""What is served at this moment: one immutable mapping, replaced as a whole."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from gatehub._text import quote
from gatehub.errors import TaskNotFoundError
from gatehub.runtime.tasks.served import Served
from gatehub.runtime.tasks.sources import Source

T = TypeVar("T")


class Catalogue:
    """The tasks that are served, and the places of those that are to be loaded.

    Of a task that has both the place is the newer word: it is loaded from there before it answers
    again. Readers take no lock: they read one reference, and what they find there never changes.
    """

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._served: Mapping[str, Served] = MappingProxyType({})
        self._places: Mapping[str, tuple[Source, int]] = MappingProxyType({})

    @property
    def served(self) -> Mapping[str, Served]:
        """Each task's current generation, by name."""
        return self._served

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tasks that are known, in order."""
        return tuple(sorted({*self._served, *self._places}))

    def present(self, task: str) -> Served | None:
        """Return the generation of a task that is in memory, be it to be replaced or not.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        self.find(task)
        return self._served.get(task)

    def find(self, task: str) -> Served | None:
        """Return what answers for a task, None if it is to be loaded before anything can.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        if not isinstance(task, str):
            raise self.not_found(task)
        # In this order: a load publishes before it takes the place away.
        if task in self._places:
            return None
        try:
            return self._served[task]
        except KeyError:
            raise self.not_found(task) from None

    def place(self, task: str) -> tuple[Source, int] | None:
        """Return where a task is to be loaded from, None if it is served.

        With it goes how many loads had begun when the place was named.
        """
        return self._places.get(task)

    def is_current(self, served: Served) -> bool:
        """Whether a generation is the one that is served."""
        return self._served.get(served.info.task) is served

    def publish(self, served: Served) -> tuple[Served, Served | None]:
        """Let a generation be the one that is served, unless a later one is already.

        A place that was named before its load began is done with.

        Returns:
            What is served now, and the generation that had to go for it, if any.
        """
        task = served.info.task
        with self._writing:
            before = self._served.get(task)
            if before is not None and before.info.generation > served.info.generation:
                return before, None
            self._served = MappingProxyType({**self._served, task: served})
            place = self._places.get(task)
            if place is not None and place[1] < served.info.generation:
                self._places = _without(self._places, task)
            return served, before

    def register(self, task: str, source: Source, *, loads: int) -> None:
        """Name where a task is to be loaded from before it answers again.

        Args:
            task: its name.
            source: where it is.
            loads: how many loads have begun; later ones are newer than this.
        """
        with self._writing:
            self._places = MappingProxyType({**self._places, task: (source, loads)})

    def remove(self, task: str) -> Served | None:
        """Take a task out, and return the generation that was served, if any was.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        with self._writing:
            if not isinstance(task, str) or (task not in self._served and task not in self._places):
                raise self.not_found(task)
            gone = self._served.get(task)
            self._served = _without(self._served, task)
            self._places = _without(self._places, task)
            return gone

    def not_found(self, task: object) -> TaskNotFoundError:
        """Say that a task is not served, and which are."""
        names = self.names
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return TaskNotFoundError(
            f"No task {quote(task)} is served.",
            hint=f"Served here: {', '.join(names[:20]) or 'none'}{more}.",
        )


def _without(mapping: Mapping[str, T], name: str) -> Mapping[str, T]:
    return MappingProxyType({key: value for key, value in mapping.items() if key != name})
