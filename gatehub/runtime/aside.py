"""Requests that would hold up others, answered in threads of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from gatehub._text import quote
from gatehub.errors import QueueFullError
from gatehub.runtime.jobs import Job, end, too_late
from gatehub.runtime.scheduler import Request

_THREADS = 2


class Aside:
    """Has requests of tasks that are to be read again answered apart from all others.

    Each task is read in one thread at a time, however many ask for it.

    Args:
        answer: gives requests of one task their answers, however long that takes.
        most: requests of one task that may wait here.
    """

    def __init__(self, answer: Callable[[Sequence[Request[Job]]], None], *, most: int) -> None:
        self._answer = answer
        self._most = most
        self._changed = threading.Condition()
        self._waiting: dict[str, list[Request[Job]]] = {}
        self._due: deque[str] = deque()  # tasks that wait for a thread
        self._busy: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def put(self, requests: Sequence[Request[Job]]) -> None:
        """Take requests of one task; those beyond the bound are refused."""
        task, now = requests[0].task, time.monotonic()
        with self._changed:
            waiting = self._waiting.setdefault(task, [])
            room = max(0, self._most - len(waiting))
            for request in requests[:room]:
                request.payload.times.aside = now
            waiting += requests[:room]
            if waiting and task not in self._busy and task not in self._due:
                self._due.append(task)
                if len(self._threads) < min(_THREADS, len(self._due) + len(self._busy)):
                    self._start()
                self._changed.notify()
        for request in requests[room:]:
            end(request, error=_full(task, self._most))

    def depths(self) -> dict[str, int]:
        """Return how many requests of each task wait here."""
        with self._changed:
            return {task: len(requests) for task, requests in self._waiting.items()}

    def close(self, *, wait: bool) -> None:
        """Answer what waits here, and let the threads end.

        Args:
            wait: whether to wait for them; one of them never does.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        if wait and threading.current_thread() not in threads:
            for thread in threads:
                thread.join()

    def _start(self) -> None:
        name = f"gatehub-aside-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            with self._changed:
                requests = self._waiting.pop(task)
            now = time.monotonic()
            late = [request for request in requests if request.deadline <= now]
            going = [request for request in requests if request.deadline > now]
            try:
                for request in late:
                    end(request, error=too_late(request, now))
                for stem in dict.fromkeys(request.stem for request in going):
                    self._answer([request for request in going if request.stem == stem])
            except BaseException as error:  # as in the batcher, no thread ends because of one
                for request in going:
                    end(request, error=error)
            del requests, late, going
            with self._changed:
                self._busy.discard(task)
                if self._waiting.get(task):
                    self._due.append(task)
                    self._changed.notify()

    def _next_task(self) -> str | None:
        with self._changed:
            while not self._due:
                if self._closed:
                    self._threads.remove(threading.current_thread())
                    return None
                self._changed.wait()
            task = self._due.popleft()
            self._busy.add(task)
            return task


def _full(task: str, most: int) -> QueueFullError:
    return QueueFullError(
        f"Task {quote(task)} is being read again, and {most} requests wait for it already.",
        hint="Try again later.",
    )
