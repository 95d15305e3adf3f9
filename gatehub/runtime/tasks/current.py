"""The present generations of tasks, for the length of one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gatehub.backbone.torch_settings import pin_thread_settings
from gatehub.errors import TaskUnavailableError
from gatehub.runtime.tasks.catalogue import Catalogue
from gatehub.runtime.tasks.haste import check_may_wait
from gatehub.runtime.tasks.loading import Loader
from gatehub.runtime.tasks.served import Served

T = TypeVar("T")


class Current:
    """Finds what answers for a task, and loads it if need be.

    Args:
        catalogue: what is served.
        loader: loads what is registered.
        wait_s: how long a request waits for a load that is under way.
    """

    def __init__(self, catalogue: Catalogue, loader: Loader, *, wait_s: float) -> None:
        self._catalogue, self._loader, self._wait_s = catalogue, loader, wait_s

    def find(self, task: str) -> Served:
        """Return what answers for a task; one that is only registered is loaded.

        Raises:
            TaskNotFoundError: no task of that name is known.
            TaskUnavailableError: another thread loads it, and takes longer than that.
        """
        served = self._catalogue.find(task)
        if served is None:
            check_may_wait()
            served = self._loader.load(task, wait_s=self._wait_s)
        return served

    def answer(self, tasks: Sequence[str], run: Callable[[Mapping[str, Served]], T]) -> T:
        """Run a request with the present generations of its tasks, each found once.

        A generation whose gates had to leave memory cannot come back once something else lies where
        they were read from. If it is being replaced by that, its successor answers.

        Args:
            tasks: their names.
            run: takes generations by name.
        """
        with pin_thread_settings():
            while True:
                found = {task: self.find(task) for task in tasks}
                try:
                    return run(found)
                except TaskUnavailableError:
                    check_may_wait()
                    for task in found:
                        self._loader.settle(task, wait_s=self._wait_s)
                    if all(map(self._catalogue.is_current, found.values())):
                        raise
