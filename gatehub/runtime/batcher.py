"""Threads that take batches from the scheduler and have an engine answer them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gatehub.errors import DeadlineError, EngineError, InputError
from gatehub.runtime.scheduler import BatchSettings, Request, Scheduler
from gatehub.runtime.tasks.served import Answer

if TYPE_CHECKING:
    from typing_extensions import Self

    from gatehub.runtime.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    image: Tensor
    future: Future[Answer]


class Batcher:
    """Answers single images in batches, fairly between tasks.

    Requests that can share a pass run together: those of one task, and those of tasks that leave
    the same layers alone. Use it in a with block, or call `close`.

        with Batcher(engine) as batcher:
            future = batcher.submit("birds", image, timeout_s=0.5)
            answer = future.result()

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        settings: see `BatchSettings`; None for the defaults.
        threads: batches that run at the same time.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        settings: BatchSettings | None = None,
        threads: int = 1,
    ) -> None:
        self._engine = engine
        self._scheduler: Scheduler[_Job] = Scheduler(settings or BatchSettings())
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"gatehub-batch-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: str, image: Tensor, *, timeout_s: float | None = None) -> Future[Answer]:
        """Let an image wait for its answer.

        Args:
            task: name of the task.
            image: (3, H, W) float32, normalised as the task's preprocessing says.
            timeout_s: after which the answer is of no use; None for never.

        Returns:
            A future of an answer with logits (classes,). To cancel it takes the request out of
            its queue, if it still waits there.

        Raises:
            TaskNotFoundError: no task of that name is served.
            InputError: an image of another shape or dtype.
            QueueFullError: as many requests wait as may.
            EngineError: the batcher is closed.
        """
        if image.ndim != 3 or image.dtype != torch.float32:
            raise InputError(
                f"Task '{task}' got an image of shape {tuple(image.shape)} and {image.dtype}; "
                "expected (3, H, W) float32."
            )
        stem = (self._engine.stem(task), image.shape)
        now = time.monotonic()
        job = _Job(image=image, future=Future())
        request = Request(
            task=task,
            stem=stem,
            payload=job,
            arrived=now,
            deadline=math.inf if timeout_s is None else now + timeout_s,
        )
        with self._changed:
            if self._closed:
                raise EngineError("The batcher is closed; it answers no more requests.")
            self._scheduler.submit(request)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._withdraw(future, request))
        return job.future

    def depths(self) -> dict[str, int]:
        """Return how many requests of each task wait."""
        with self._changed:
            return self._scheduler.depths()

    def close(self) -> None:
        """Answer what waits, and end the threads. Nothing is accepted any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _withdraw(self, future: Future[Answer], request: Request[_Job]) -> None:
        if future.cancelled():
            with self._changed:
                self._scheduler.cancel(request)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            # A request that was cancelled after it was taken is left out here.
            going = [r for r in batch if r.payload.future.set_running_or_notify_cancel()]
            if going:
                self._answer(going)

    def _next_batch(self) -> list[Request[_Job]] | None:
        """Wait for a batch; None once the batcher is closed and nothing waits any more."""
        while True:
            with self._changed:
                now = time.monotonic()
                late = self._scheduler.expire(now)
                # Once closed, nothing can join: there is no use in waiting for a batch to fill.
                batch = self._scheduler.take(math.inf if self._closed else now)
                if not late and not batch:
                    if self._closed:
                        return None
                    pause = self._scheduler.wake_at() - now
                    self._changed.wait(None if math.isinf(pause) else max(0.0, pause))
            # Callbacks of a future may call the batcher, so they run without the lock.
            for request in late:
                if request.payload.future.set_running_or_notify_cancel():
                    request.payload.future.set_exception(_late(request, now))
            if batch:
                return batch

    def _answer(self, batch: Sequence[Request[_Job]]) -> None:
        """Give every request of a batch its answer, or the error that it met."""
        images = torch.stack([request.payload.image for request in batch])
        tasks = [request.task for request in batch]
        try:
            if len(set(tasks)) == 1:
                answer = self._engine.run(tasks[0], images)
                answers = [replace(answer, logits=logits) for logits in answer.logits]
            else:
                answers = self._engine.run_mixed(tasks, images)
        except Exception as error:
            if len(set(tasks)) == 1:
                for request in batch:
                    request.payload.future.set_exception(error)
                return
            # One task's trouble is not another's.
            for task in dict.fromkeys(tasks):
                self._answer([request for request in batch if request.task == task])
            return
        for request, answer in zip(batch, answers, strict=True):
            request.payload.future.set_result(answer)


def _late(request: Request[_Job], now: float) -> DeadlineError:
    waited = now - request.arrived
    return DeadlineError(
        f"A request for task '{request.task}' waited {waited:.3g} s, and its deadline passed.",
        hint="Allow it more time, or send fewer at once.",
    )
