"""Which requests run next, together: batches, fairness, deadlines. Nothing here computes or waits.

The scheduler is told the time and never asks for it, starts no thread and takes no lock, so every
rule of it can be tested step by step. `gatehub.runtime.batcher` drives it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gatehub.errors import EngineError, QueueFullError

P = TypeVar("P")

_LONGEST_WAIT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How requests become batches.

    Args:
        max_batch: most images that run together.
        max_wait_ms: milliseconds that an image may wait for others to join it, at most a minute.
            Where requests are announced, it waits for those on their way, and for no others.
        max_queue: most requests of one task that may wait.
        max_waiting: most requests of all tasks that may wait.

    Raises:
        EngineError: a value out of its range.
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
        wait = self.max_wait_ms
        if type(wait) not in (int, float) or not 0 <= wait <= _LONGEST_WAIT_MS:
            raise EngineError(
                f"BatchSettings.max_wait_ms is {wait!r:.100}; expected 0 to {_LONGEST_WAIT_MS:,}."
            )


@dataclass(slots=True, kw_only=True, eq=False)
class Request(Generic[P]):
    """One image that waits.

    Args:
        task: name of its task.
        stem: what its first layers, and its image's form, are known by; requests with the same
            one can share a pass over them.
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
    """What waits for one task, by stem: images have several sizes, and tasks are replaced."""

    waiting: dict[Hashable, deque[Request[P]]] = field(default_factory=dict)
    # Images that the task has had, as a place on the clock that all tasks share.
    served: float = 0.0

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def remove(self, request: Request[P]) -> bool:
        """Take a request out; False if it is not there."""
        line = self.waiting.get(request.stem, deque())
        if request not in line:
            return False
        line.remove(request)
        self.tidy(request.stem)
        return True

    def tidy(self, stem: Hashable) -> None:
        """Let go of the line of a stem for which nothing waits."""
        if not self.waiting[stem]:
            del self.waiting[stem]


class Scheduler(Generic[P]):
    """Queues for each task, from which fair batches are taken: by stem first, by task second.

    Fair means start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each task has a clock
    that moves on by the images it was given; the task that is furthest behind goes next; and one
    that was idle starts at the others' time, so it can neither save up nor be starved.

    Args:
        settings: see `BatchSettings`.
        announced: whether `announce` tells of every request while it is on its way.
    """

    def __init__(self, settings: BatchSettings, *, announced: bool = False) -> None:
        self._settings = settings
        self._announced = announced
        self._coming: Counter[Hashable] = Counter()
        self._queues: dict[str, _Queue[P]] = {}
        self._now = 0.0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def depths(self) -> dict[str, int]:
        """Return how many requests of each task wait."""
        return {task: len(queue) for task, queue in self._queues.items()}

    def announce(self, stem: Hashable) -> None:
        """Say that a request of a stem is on its way."""
        self._coming[stem] += 1

    def arrive(self, stem: Hashable) -> None:
        """Take an announcement back: the request waits here, or will not come."""
        self._coming[stem] -= 1
        if not self._coming[stem]:
            del self._coming[stem]

    def submit(self, request: Request[P]) -> None:
        """Let a request wait.

        Raises:
            QueueFullError: the queue is full.
        """
        queue = self._queues.get(request.task)
        depth = 0 if queue is None else len(queue)
        if depth >= self._settings.max_queue or self._waiting >= self._settings.max_waiting:
            raise QueueFullError(
                f"The queue is full: {depth} requests wait for task '{request.task}' (at most "
                f"{self._settings.max_queue}), {self._waiting} for all tasks (at most "
                f"{self._settings.max_waiting}).",
                hint="Try again later, or send fewer at once.",
            )
        if queue is None:
            queue = self._queues[request.task] = _Queue()
        queue.waiting.setdefault(request.stem, deque()).append(request)
        self._waiting += 1

    def cancel(self, request: Request[P]) -> bool:
        """Take a request out again; False if it has left already."""
        queue = self._queues.get(request.task)
        if queue is None or not queue.remove(request):
            return False
        self._forget(1)
        return True

    def expire(self, now: float) -> list[Request[P]]:
        """Take out the requests whose deadline has passed."""
        gone = [request for request in self._requests() if request.deadline <= now]
        for request in gone:
            self._queues[request.task].remove(request)
        self._forget(len(gone))
        return gone

    def take(self, now: float) -> list[Request[P]]:
        """Take the next batch, or nothing if it is better to wait for more.

        A batch is due when it is full, when its oldest request has waited `max_wait_ms`, or when
        nobody who could join it is on the way. All its requests share a stem, and those of one
        task stand side by side.

        Args:
            now: seconds, on the clock of `Request.arrived`.
        """
        stems: dict[Hashable, list[_Queue[P]]] = {}
        for queue in self._queues.values():
            for stem in queue.waiting:
                stems.setdefault(stem, []).append(queue)
        due = {stem: queues for stem, queues in stems.items() if self._is_due(stem, queues, now)}
        if not due:
            return []
        # The task that is furthest behind decides which stem runs, and then who waits longest.
        chosen = min(
            due,
            key=lambda stem: min((q.served, q.waiting[stem][0].arrived) for q in due[stem]),
        )
        batch: list[Request[P]] = []
        for queue in sorted(due[chosen], key=lambda queue: queue.served):
            batch += self._draw(queue, chosen, self._settings.max_batch - len(batch))
        return batch

    def wake_at(self) -> float:
        """Return when a batch is due or a deadline passes, if nothing else arrives."""
        return min(
            (
                min(request.arrived + self._settings.max_wait_ms / 1e3, request.deadline)
                for request in self._requests()
            ),
            default=math.inf,
        )

    def _requests(self) -> Iterator[Request[P]]:
        for queue in self._queues.values():
            for line in queue.waiting.values():
                yield from line

    def _is_due(self, stem: Hashable, queues: list[_Queue[P]], now: float) -> bool:
        lines = [queue.waiting[stem] for queue in queues]
        if sum(map(len, lines)) >= self._settings.max_batch:
            return True
        if self._announced and stem not in self._coming:
            return True
        oldest = min(line[0].arrived for line in lines)
        return now >= oldest + self._settings.max_wait_ms / 1e3

    def _draw(self, queue: _Queue[P], stem: Hashable, room: int) -> list[Request[P]]:
        line = queue.waiting[stem]
        drawn = [line.popleft() for _ in range(min(room, len(line)))]
        queue.tidy(stem)
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
