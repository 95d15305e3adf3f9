"""Threads that take batches from the scheduler and have an engine answer them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.errors import EngineError
from gatehub.runtime.aside import Aside
from gatehub.runtime.inputs import MAX_VALUES, check_image
from gatehub.runtime.jobs import BatchTimes, Job, end, note_begun, note_ended, too_late
from gatehub.runtime.scheduler import BatchSettings, Request, Scheduler
from gatehub.runtime.tasks.haste import NotAtOnceError, at_once
from gatehub.runtime.tasks.served import Answer

if TYPE_CHECKING:
    from typing_extensions import Self

    from gatehub.runtime.engine import Engine

# A condition waits for no longer than a platform's timer can say; then it looks again.
_LONGEST_S = 3600.0
_FOREVER_S = 1e9  # thirty years


class Batcher:
    """Answers single images in batches, fairly between tasks.

    Requests that can share a pass run together: those of one task, and those of tasks that leave
    the same layers alone. Every request that is accepted ends with an answer or an error. Use it in
    a with block, or call `close`.

        with Batcher(engine) as batcher:
            future = batcher.submit("birds", image, timeout_s=0.5)
            answer = future.result()

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        settings: see `BatchSettings`; None for the defaults.
        threads: batches that run at the same time.
        announced: whether every request is announced (`announce`) before it is submitted. Then no
            batch waits for requests of which nobody has told.

    Raises:
        EngineError: fewer than one thread.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        settings: BatchSettings | None = None,
        threads: int = 1,
        announced: bool = False,
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise EngineError(f"threads is {threads!r}; expected a whole number of at least 1.")
        self._engine = engine
        self._max_batch = (settings or BatchSettings()).max_batch
        self._scheduler: Scheduler[Job] = Scheduler(
            settings or BatchSettings(), announced=announced
        )
        self._aside = Aside(
            partial(self._answer, patient=True), most=(settings or BatchSettings()).max_queue
        )
        self._changed = threading.Condition()
        self._closed = False
        self._process = os.getpid()
        self._threads = [self._start(number) for number in range(threads)]

    @contextmanager
    def announce(self, task: str, size: Sequence[int]) -> Iterator[None]:
        """Tell of a request while its image is being prepared, so that others wait for it.

        Submit it within the block, or leave the block without.

        Args:
            task: name of the task.
            size: (C, H, W) of the image, on the CPU.

        Raises:
            TaskNotFoundError: no task of that name is served.
        """
        stem = (self._engine.stem(task), torch.Size(size), torch.device("cpu"))
        with self._changed:
            self._scheduler.announce(stem)
        try:
            yield
        finally:
            with self._changed:
                self._scheduler.arrive(stem)
                self._changed.notify()

    def submit(
        self,
        task: str,
        image: Tensor,
        *,
        timeout_s: float | None = None,
        times: BatchTimes | None = None,
    ) -> Future[Answer]:
        """Let an image wait for its answer.

        Args:
            task: name of the task. One that is only registered is loaded with its batch.
            image: (3, H, W) float32, normalised as the task's preprocessing says.
            timeout_s: after which the answer is of no use; None for never.
            times: where to note when its steps were.

        Returns:
            A future of an answer with logits (classes,). Cancelling it takes the request out of
            its queue, if it still waits there. Its callbacks run in the thread that answers: one
            that waits for another answer holds that thread up.

        Raises:
            TaskNotFoundError: no task of that name is served.
            InputError: an image of another shape, dtype or kind, or values that are not finite.
            QueueFullError: the queue is full.
            EngineError: the batcher is closed or another process's, or the time is not a number of
                seconds.
        """
        if timeout_s is not None and (type(timeout_s) not in (int, float) or not timeout_s >= 0):
            raise EngineError(
                f"timeout_s is {timeout_s!r:.100}; expected 0 or more seconds, or None."
            )
        timeout_s = None if timeout_s is None or timeout_s > _FOREVER_S else timeout_s
        if os.getpid() != self._process:
            raise EngineError(
                "This batcher's threads are in the process that made it; a fork has none.",
                hint="Make the engine and the batcher in the process that asks.",
            )
        channels = self._engine.backbone.preprocessing.input_size[0]
        check_image(image, channels=channels, subject=f"Task {quote(task)}")
        now = time.monotonic()
        job = Job(image=image, times=times or BatchTimes())
        job.times.submitted = now
        request = Request(
            task=task,
            stem=(self._engine.stem(task), image.shape, image.device),
            payload=job,
            arrived=now,
            deadline=math.inf if timeout_s is None else now + timeout_s,
        )
        with self._changed:
            if self._closed:
                raise EngineError("The batcher is closed and takes no more requests.")
            self._replace_dead_threads()
            self._scheduler.submit(request)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._withdraw(future, request))
        return job.future

    def depths(self) -> dict[str, int]:
        """Return how many requests of each task wait."""
        with self._changed:
            depths = Counter(self._scheduler.depths())
        return dict(depths + Counter(self._aside.depths()))

    def close(self) -> None:
        """Answer what waits, and end the threads. Nothing is accepted any more.

        A callback of a future may call it, too; then it does not wait for the threads, of which the
        callback's is one.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join()
            self._aside.close(wait=True)
        else:
            self._aside.close(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _withdraw(self, future: Future[Answer], request: Request[Job]) -> None:
        if future.cancelled():
            with self._changed:
                self._scheduler.cancel(request)

    def _start(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=f"gatehub-batch-{number}", daemon=True)
        thread.start()
        return thread

    def _replace_dead_threads(self) -> None:
        """Let others take the place of threads that ended, whatever ended them."""
        self._threads = [
            thread if thread.is_alive() else self._start(number)
            for number, thread in enumerate(self._threads)
        ]

    def _work(self) -> None:
        taken: list[Request[Job]] | None = []
        while taken is not None:
            taken = []
            # Anybody's code runs in here, a backbone's too, and no thread may end because of it.
            try:
                taken = self._next_batch()
                if taken:
                    self._answer(taken)
            except BaseException as error:
                for request in taken or ():
                    end(request, error=error)

    def _next_batch(self) -> list[Request[Job]] | None:
        """Wait for requests to answer; None once the batcher is closed and nothing waits any more.

        A request that was cancelled after it was taken is left out.
        """
        with self._changed:
            while True:
                now = time.monotonic()
                late = self._scheduler.expire(now)
                # Once closed, nothing can join: there is no use in waiting for a batch to fill.
                batch = self._scheduler.take(math.inf if self._closed else now)
                if late or batch:
                    break
                if self._closed:
                    return None
                pause = self._scheduler.wake_at() - now
                self._changed.wait(None if math.isinf(pause) else min(max(0.0, pause), _LONGEST_S))
        going = [request for request in batch if request.payload.begin()]
        # Callbacks of a future may call the batcher, so they run without the lock.
        for request in late:
            if request.payload.begin():
                end(request, error=too_late(request, now))
        return going

    def _answer(self, batch: Sequence[Request[Job]], *, patient: bool = False) -> None:
        """Give every request of a batch its answer, or the error that it met.

        Args:
            batch: of one stem, or of one task.
            patient: whether to wait for tasks that are not in memory; if not, their requests are
                put aside, since others wait for this thread.
        """
        values = batch[0].payload.image.numel()
        largest = min(self._max_batch, max(1, MAX_VALUES // max(1, values)))
        if len(batch) > largest:
            self._answer(batch[:largest], patient=patient)
            self._answer(batch[largest:], patient=patient)
            return
        tasks = [request.task for request in batch]
        alone = len(set(tasks)) == 1
        note_begun(batch, time.monotonic())
        try:
            images = torch.stack([request.payload.image for request in batch])
            with nullcontext() if patient else at_once():
                if alone:
                    answer = self._engine.run(tasks[0], images)
                    answers = [replace(answer, logits=logits) for logits in answer.logits]
                else:
                    answers = self._engine.run_mixed(tasks, images)
        except NotAtOnceError:
            for task in [] if alone else dict.fromkeys(tasks):
                self._answer([request for request in batch if request.task == task])
            if alone:
                self._aside.put(batch)
            return
        except Exception as error:
            note_ended(batch, time.monotonic())
            # One task's trouble is not another's.
            for task in [] if alone else dict.fromkeys(tasks):
                self._answer([request for request in batch if request.task == task])
            for request in batch if alone else ():
                end(request, error=error)
            return
        note_ended(batch, time.monotonic())
        for request, answer in zip(batch, answers, strict=True):
            end(request, answer=answer)
