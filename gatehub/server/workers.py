"""Threads for what would hold up the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """A fixed number of threads that take jobs in the order in which they come.

    They are daemons: a job that never ends, such as a read from a drive that is gone, does not keep
    the process from ending. `concurrent.futures` has none of that kind.

    Args:
        threads: how many.
        name: of the threads.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have a thread do a job; one that is cancelled before its turn is left out."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(run)
        return future

    def close(self) -> None:
        """Let the threads end once the jobs before are done, without waiting for them."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or it would keep what it holds until the next one comes
