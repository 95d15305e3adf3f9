"""One request's way to its answer: a place, a worker that prepares the image, a batch, a rank."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch import Tensor

from gatehub._text import quote
from gatehub.errors import DeadlineError, GatehubError, ServerBusyError
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.jobs import BatchTimes
from gatehub.runtime.scheduler import BatchSettings
from gatehub.server.loads import Loads
from gatehub.server.observing.record import RequestRecord, Stage
from gatehub.server.settings import ServerSettings
from gatehub.server.workers import Workers

if TYPE_CHECKING:
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.runtime.engine import Answer, Engine, TaskInfo

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Asked(Protocol[R_co]):
    """A request of any protocol, whose body has been read. Worker threads call its methods."""

    def images(self, preprocessing: Preprocessing, settings: ServerSettings) -> Iterator[Tensor]:
        """Make what the engine takes, as a task wants it: each (3, H, W) float32, normalised.

        Raises:
            RequestError: the task does not take such a request.
            InputError: an image cannot be used.
        """

    def present(self, answers: Sequence[Answer]) -> R_co:
        """Make what the client gets.

        Args:
            answers: one for each image, all of the same adapter, logits (classes,) float32.

        Raises:
            NonFiniteAnswerError: a logit is NaN or infinite.
        """


class Answering:
    """Answers requests in batches, and never computes on the event loop.

    Every request that is given a place ends with an answer or an error, at its deadline if nothing
    else ends it before. The counting happens on the event loop, hence without a lock.

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        settings: see `ServerSettings`.

    Attributes:
        loads: the tasks' states.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.loads = Loads(engine, settings)
        self._settings = settings
        self._taken = 0
        self._workers = Workers(settings.threads, name="gatehub-worker")
        self._batcher = Batcher(
            engine,
            settings=BatchSettings(
                max_batch=settings.max_batch,
                max_wait_ms=settings.max_wait_ms,
                max_queue=settings.max_requests,
                max_waiting=settings.max_requests,
            ),
            threads=settings.batch_threads,
            announced=True,
        )

    def check_room(self, task: str) -> None:
        """Refuse a request for which there is no place now.

        Raises:
            ServerBusyError: all places are taken.
        """
        if self._taken >= self._settings.max_requests:
            raise ServerBusyError(
                f"The server is full: {self._taken} requests are being answered or wait, and "
                f"one for task {quote(task)} found no place.",
                hint=f"Try again in {self._settings.retry_after_s} s.",
                retry_after_s=self._settings.retry_after_s,
            )

    async def answer(
        self, task: str, parse: Callable[[], Asked[T]], record: RequestRecord
    ) -> tuple[T, TaskInfo]:
        """Answer one request by its deadline.

        Cancel it where nobody waits for the answer any more; what has not begun then never does.

        Args:
            task: name of the task.
            parse: reads the request; called in a worker thread.
            record: gets the times of its stages.

        Returns:
            What the request makes of the answers, and the task that computed all of them.

        Raises:
            ServerBusyError: all places are taken.
            DeadlineError: it would come too late.
            GatehubError: the request, an image or the task cannot be used.
        """
        with self._place(task):
            return await self._by_deadline(task, self._answer(task, parse, record))

    async def find(self, task: str) -> TaskInfo:
        """Return a task; one that is only registered is loaded first, by the deadline.

        Raises:
            DeadlineError: it would come too late.
            GatehubError: there is none, or it cannot be loaded.
        """
        return await self._by_deadline(task, self.loads.find(task))

    async def _by_deadline(self, task: str, work: Coroutine[Any, Any, T]) -> T:
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working}, timeout=self._settings.deadline_s)
            if working.done():
                return working.result()
        finally:
            working.cancel()
        raise DeadlineError(
            f"A request for task {quote(task)} was not answered within "
            f"{self._settings.deadline_s} s.",
            hint="Try again later, or send fewer at once.",
        )

    @contextmanager
    def _place(self, task: str) -> Iterator[None]:
        """Hold a place for one request."""
        self.check_room(task)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def _answer(
        self, task: str, parse: Callable[[], Asked[T]], record: RequestRecord
    ) -> tuple[T, TaskInfo]:
        with record.stage("load"):
            info = await self.loads.find(task)
        while True:
            preprocessing, times = info.preprocessing, list[BatchTimes]()
            with self._batcher.announce(task, preprocessing.input_size):
                asked, futures = await self._prepare(task, parse, preprocessing, record, times)
            try:
                answers = await _wait_all(futures)
            except GatehubError as error:
                self.loads.note(info, error)
                raise
            finally:
                record.note_batches(times)
            self.loads.note(info, None)
            info = max((answer.task for answer in answers), key=lambda task: task.generation)
            # Else the task was swapped in between: for one that wants its images otherwise, or one
            # that has answered for some of the images only.
            if all(
                answer.task.generation == info.generation
                and answer.task.preprocessing == preprocessing
                for answer in answers
            ):
                break
        with record.stage("rank"):
            return await _wait(self._workers.submit(lambda: asked.present(answers))), info

    @property
    def taken(self) -> int:
        """How many requests have a place."""
        return self._taken

    @property
    def queued(self) -> int:
        """How many requests wait for their batch."""
        return sum(self._batcher.depths().values())

    async def render(self, make: Callable[[], T]) -> T:
        """Have a worker make something that may be large."""
        return await _wait(self._workers.submit(make))

    async def _prepare(
        self,
        task: str,
        parse: Callable[[], Asked[T]],
        preprocessing: Preprocessing,
        record: RequestRecord,
        times: list[BatchTimes],
    ) -> tuple[Asked[T], list[Future[Answer]]]:
        """Have a worker decode a request's images and hand them to the batcher."""
        given_up = threading.Event()

        def prepare_and_submit() -> tuple[Asked[T], list[Future[Answer]]]:
            record.stages.append(Stage("queue", handed_over, time.monotonic()))
            images = []
            with record.stage("decode"):
                asked = parse()
                for image in asked.images(preprocessing, self._settings):
                    images.append(image)
                    if given_up.is_set():
                        return asked, []
            times.extend(BatchTimes() for _ in images)
            futures: list[Future[Answer]] = []
            try:
                for image, noted in zip(images, times, strict=True):
                    futures.append(self._batcher.submit(task, image, times=noted))
            except BaseException:
                _cancel(futures)
                raise
            return asked, futures

        handed_over = time.monotonic()
        job = self._workers.submit(prepare_and_submit)
        try:
            return await _wait(job)
        except asyncio.CancelledError:
            given_up.set()
            # The worker may be about to submit them; then they are taken out of the queue again.
            job.add_done_callback(_withdraw)
            raise

    def close(self) -> None:
        """Let the threads end, without waiting for what they have begun."""
        self.loads.close()
        self._workers.close()
        threading.Thread(target=self._batcher.close, name="gatehub-close", daemon=True).start()


def _withdraw(job: Future[tuple[Asked[Any], list[Future[Answer]]]]) -> None:
    if not job.cancelled() and job.exception() is None:
        _cancel(job.result()[1])


def _cancel(futures: Sequence[Future[Answer]]) -> None:
    for future in futures:
        future.cancel()


async def _wait(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


async def _wait_all(futures: Sequence[Future[T]]) -> list[T]:
    """Return all results; after a first error nobody waits for the others."""
    try:
        return await asyncio.gather(*map(asyncio.wrap_future, futures))
    finally:
        for future in futures:
            future.cancel()
