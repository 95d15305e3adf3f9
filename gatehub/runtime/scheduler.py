"""Which requests run next, together: batches, fairness, deadlines. Nothing here computes or waits.

The scheduler is told the time and never asks for it, starts no thread and takes no lock, so every
rule of it can be tested step by step. `gatehub.runtime.batcher` drives it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gatehub.errors import EngineError, QueueFullError

P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How requests become batches.

    Args:
        max_batch: images that run together at most.
        max_wait_ms: milliseconds that an image may wait for others to join it.
        max_queue: requests of one task that may wait.
        max_waiting: requests of all tasks that may wait.

    Raises:
        EngineError: a value below its minimum.
    """

    max_batch: int = 8
    max_wait_ms: float = 5.0
    max_queue: int = 64
    max_waiting: int = 512

    def __post_init__(self) -> None:
        for name, minimum in (("max_batch", 1), ("max_queue", 1), ("max_waiting", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise EngineError(
                    f"BatchSettings.{name} is {value!r}; expected a whole number of at least "
                    f"{minimum}."
                )
        if not (self.max_wait_ms >= 0 and math.isfinite(self.max_wait_ms)):
            raise EngineError(
                f"BatchSettings.max_wait_ms is {self.max_wait_ms!r}; expected at least 0."
            )


@dataclass(slots=True, kw_only=True, eq=False)
class Request(Generic[P]):
    """One image that waits.

    Args:
        task: name of its task.
        stem: what its task's first layers are known by; requests with the same one can share a
            pass over them.
        payload: whatever the caller wants back.
        arrived: when it came, in seconds.
        deadline: when its answer is of no use any more, in seconds; infinity for never.
    """

    task: str
    stem: Hashable
    payload: P
    arrived: float
    deadline: float = math.inf


@dataclass(slots=True, eq=False)
class _Queue(Generic[P]):
    stem: Hashable
    waiting: deque[Request[P]] = field(default_factory=deque)
    # Images that the task has had, as a place on the clock that all tasks share.
    served: float = 0.0


class Scheduler(Generic[P]):
    """Queues for each task, from which fair batches are taken: by stem first, by task second.

    Fair means start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each task has a clock
    that moves on by the images it was given; the task that is furthest behind goes next; and one
    that was idle starts at the others' time, so it can neither save up nor be starved.

    Args:
        settings: see `BatchSettings`.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._queues: dict[str, _Queue[P]] = {}
        self._now = 0.0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def depths(self) -> dict[str, int]:
        """Return how many requests of each task wait."""
        return {task: len(queue.waiting) for task, queue in self._queues.items()}

    def submit(self, request: Request[P]) -> None:
        """Let a request wait.

        Raises:
            QueueFullError: as many wait as may.
        """
        queue = self._queues.get(request.task)
        depth = len(queue.waiting) if queue else 0
        if depth >= self._settings.max_queue or self._waiting >= self._settings.max_waiting:
            raise QueueFullError(
                f"{depth} requests of task '{request.task}' and {self._waiting} in all wait; at "
                f"most {self._settings.max_queue} and {self._settings.max_waiting} may.",
                hint="Try again later, or send fewer at once.",
            )
        if queue is None:
            queue = self._queues[request.task] = _Queue(stem=request.stem)
        # A task that was replaced may have another stem; what waits for the old one goes with it.
        queue.stem = request.stem
        queue.waiting.append(request)
        self._waiting += 1

    def cancel(self, request: Request[P]) -> bool:
        """Take a request out again; False if it has left already."""
        queue = self._queues.get(request.task)
        if queue is None or request not in queue.waiting:
            return False
        queue.waiting.remove(request)
        self._forget(1)
        return True

    def expire(self, now: float) -> list[Request[P]]:
        """Take out the requests whose deadline has passed."""
        gone = []
        for queue in self._queues.values():
            late = [request for request in queue.waiting if request.deadline <= now]
            for request in late:
                queue.waiting.remove(request)
            gone += late
        self._forget(len(gone))
        return gone

    def take(self, now: float) -> list[Request[P]]:
        """Take the next batch, or nothing if it is better to wait for more.

        A batch is due when it is full, or its oldest request has waited `max_wait_ms`. All its
        requests share a stem, and those of one task stand side by side.

        Args:
            now: seconds, on the clock of `Request.arrived`.
        """
        stems: dict[Hashable, list[_Queue[P]]] = {}
        for queue in self._queues.values():
            if queue.waiting:
                stems.setdefault(queue.stem, []).append(queue)
        due = [queues for queues in stems.values() if self._is_due(queues, now)]
        if not due:
            return []
        # The task that is furthest behind decides which stem runs.
        chosen = min(due, key=lambda queues: min(queue.served for queue in queues))
        batch: list[Request[P]] = []
        for queue in sorted(chosen, key=lambda queue: queue.served):
            batch += self._draw(queue, self._settings.max_batch - len(batch))
        return batch

    def wake_at(self) -> float:
        """Return when a batch is due or a deadline passes, if nothing else arrives."""
        return min(
            (
                min(request.arrived + self._settings.max_wait_ms / 1e3, request.deadline)
                for queue in self._queues.values()
                for request in queue.waiting
            ),
            default=math.inf,
        )

    def _is_due(self, queues: list[_Queue[P]], now: float) -> bool:
        if sum(len(queue.waiting) for queue in queues) >= self._settings.max_batch:
            return True
        oldest = min(queue.waiting[0].arrived for queue in queues)
        return now >= oldest + self._settings.max_wait_ms / 1e3

    def _draw(self, queue: _Queue[P], room: int) -> list[Request[P]]:
        drawn = [queue.waiting.popleft() for _ in range(min(room, len(queue.waiting)))]
        if drawn:
            start = max(queue.served, self._now)
            self._now = start
            queue.served = start + len(drawn)
            self._forget(len(drawn))
        return drawn

    def _forget(self, count: int) -> None:
        """Count requests out, and let go of the queues of tasks that have caught up."""
        self._waiting -= count
        for task in [t for t, q in self._queues.items() if not q.waiting and q.served <= self._now]:
            del self._queues[task]
