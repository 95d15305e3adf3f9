"""What waits in a batcher: an image, whose answer it becomes, and when each step of it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from torch import Tensor

from gatehub._text import quote
from gatehub.errors import DeadlineError, EngineError
from gatehub.runtime.scheduler import Request
from gatehub.runtime.tasks.served import Answer

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class BatchTimes:
    """When the steps of a request in a batcher were, in seconds of `time.monotonic`.

    Args:
        submitted: it began to wait; None before.
        aside: it was put aside until its task would be in memory; None for never.
        begun: its batch began; None before.
        ended: its batch was computed, whatever became of it; None before.
        images: of the batch.
    """

    submitted: float | None = None
    aside: float | None = None
    begun: float | None = None
    ended: float | None = None
    images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One image on its way.

    Args:
        image: (C, H, W) float32.
        future: gets its answer.
        times: are noted there.
    """

    image: Tensor
    future: Future[Answer] = field(default_factory=Future)
    times: BatchTimes = field(default_factory=BatchTimes)

    def begin(self) -> bool:
        """Whether anybody still waits for the answer; from here on nobody can cancel it."""
        try:
            return self.future.set_running_or_notify_cancel()
        except (InvalidStateError, RuntimeError):  # its caller has given it an end of their own
            return False


def note_begun(batch: Sequence[Request[Job]], now: float) -> None:
    """Note that a batch is being computed."""
    for request in batch:
        request.payload.times.begun, request.payload.times.images = now, len(batch)


def note_ended(batch: Sequence[Request[Job]], now: float) -> None:
    """Note that a batch was computed, or could not be."""
    for request in batch:
        request.payload.times.ended = now


def end(
    request: Request[Job], *, answer: Answer | None = None, error: BaseException | None = None
) -> None:
    """Give a request its answer or its error, unless it has one."""
    future = request.payload.future
    try:
        if answer is not None:
            future.set_result(answer)
        elif isinstance(error, Exception):
            future.set_exception(error)
        else:  # a SystemExit, say, which is for this thread and not for who waits
            future.set_exception(EngineError(f"The request was interrupted by {error!r}."))
    except InvalidStateError:
        pass  # a future is in its caller's hands, too
    except BaseException:  # of a callback; concurrent.futures itself catches Exception only
        _LOG.exception("A callback of a request for task %s failed.", quote(request.task))


def too_late(request: Request[Job], now: float) -> DeadlineError:
    """Say that a request's deadline passed while it waited."""
    waited = now - request.arrived
    return DeadlineError(
        f"A request for task {quote(request.task)} waited {waited:.3g} s, and its deadline passed.",
        hint="Allow it more time, or send fewer at once.",
    )
