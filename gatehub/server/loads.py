"""Tasks on their way into memory: loaded off the event loop, once for all who wait for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatehub._text import first_line, quote
from gatehub.errors import GatehubError, ServerBusyError, TaskNotFoundError
from gatehub.server.settings import ServerSettings
from gatehub.server.statuses import find_status
from gatehub.server.workers import Workers

if TYPE_CHECKING:
    from gatehub.runtime.engine import Engine, TaskInfo

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a task could not be had.

    Args:
        error: that was met.
        at: when, on the clock.
        generation: of the task that could not come back into memory, None for one that is loaded
            for the first time.
    """

    error: Exception
    at: float
    generation: int | None


class Loads:
    """Finds the tasks of requests, loads those that are only registered, and knows their states.

    A failure is remembered for some seconds, in which nobody tries again: a broken adapter would
    else be read once for each request. Everything happens on the event loop but the loading.

    Args:
        engine: tasks may be loaded, registered, replaced and unloaded meanwhile.
        settings: see `ServerSettings`.
        clock: returns seconds.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._remember_s = settings.failed_load_s
        # Who waits for a task that takes long must leave places for the others' requests.
        self._most_waiting = max(1, settings.max_requests // 2)
        self._retry_after_s = settings.retry_after_s
        self._clock = clock
        self._waiting = 0
        self._running: dict[str, asyncio.Future[TaskInfo]] = {}
        self._failures: dict[str, _Failure] = {}
        self._workers = Workers(settings.load_threads, name="gatehub-load")

    async def find(self, task: str) -> TaskInfo:
        """Return a task that can answer; one that is only registered is loaded first.

        Raises:
            TaskNotFoundError: no task of that name is known.
            ServerBusyError: too many requests wait for tasks already.
            GatehubError: it cannot be loaded, or could not a few seconds ago.
        """
        info = self._engine.loaded(task)
        failure = self._failure(task, info)
        if failure is not None and self._clock() < failure.at + self._remember_s:
            raise failure.error.with_traceback(None)
        if info is not None:
            return info
        if self._waiting >= self._most_waiting:
            raise ServerBusyError(
                f"Task {quote(task)} is being loaded, and {self._waiting} requests wait for it or "
                "for others already.",
                hint=f"Try again in {self._retry_after_s} s.",
                retry_after_s=self._retry_after_s,
            )
        loading = self._running.get(task) or self._begin(task)
        self._waiting += 1
        try:
            # Who gives up must not end it for the others.
            return await asyncio.shield(loading)
        finally:
            self._waiting -= 1

    def note(self, info: TaskInfo, error: Exception | None) -> None:
        """Remember whether a task that was loaded could still answer."""
        if error is None:
            self._failures.pop(info.task, None)
        elif find_status(error).about_task:
            self._remember(info.task, error, info.generation)

    def states(self) -> dict[str, str]:
        """Say of each task that is known whether it can answer, by name.

        It is "ready", "registered" (its first request loads it), "loading", or "unavailable: " and
        why.
        """
        names = self._engine.names()
        self._failures = {t: failure for t, failure in self._failures.items() if t in names}
        states = {}
        for task in names:
            with suppress(TaskNotFoundError):  # unloaded just now
                states[task] = self.state(task)
        return states

    def state(self, task: str) -> str:
        """Say of one task whether it can answer.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        info = self._engine.loaded(task)
        failure = self._failure(task, info)
        if task in self._running:
            return "loading"
        if failure is not None:
            return f"unavailable: {_reason(failure.error)}"
        return "registered" if info is None else "ready"

    @property
    def unavailable(self) -> int:
        """How many tasks could not be had a short time ago."""
        return len(self._failures)

    def close(self) -> None:
        """Let the threads end, without waiting for what they load."""
        self._workers.close()

    def _failure(self, task: str, info: TaskInfo | None) -> _Failure | None:
        """Return why a task could not be had, unless it has been replaced since."""
        failure = self._failures.get(task)
        generation = None if info is None else info.generation
        return failure if failure is not None and failure.generation == generation else None

    def _begin(self, task: str) -> asyncio.Future[TaskInfo]:
        loading = asyncio.wrap_future(self._workers.submit(lambda: self._engine.task(task)))
        self._running[task] = loading
        loading.add_done_callback(lambda done: self._end(task, done))
        return loading

    def _end(self, task: str, loading: asyncio.Future[TaskInfo]) -> None:
        del self._running[task]
        error = None if loading.cancelled() else loading.exception()
        if isinstance(error, Exception) and not isinstance(error, TaskNotFoundError):
            self._remember(task, error, None)

    def _remember(self, task: str, error: Exception, generation: int | None) -> None:
        self._failures[task] = _Failure(error, self._clock(), generation)
        _LOG.warning("Task %s cannot be served: %s", quote(task), _reason(error))


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, GatehubError) else first_line(error)
