"""What is known of one request, from its first byte to its answer's last."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from starlette.datastructures import Headers

from gatehub.runtime.jobs import BatchTimes

# What log lines, headers and other systems take as it is.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_KEY = "gatehub.record"

OK = "ok"
CLIENT_GONE = "client_gone"
UNKNOWN = "unknown"

# The stages of a request, in their order: loading its task, waiting (for a thread that decodes,
# and for its batch), decoding, computing, ranking.
STAGES = ("load", "queue", "decode", "inference", "rank")


class Stage(NamedTuple):
    """A part of a request's time.

    Args:
        name: one of `STAGES`.
        began: seconds of `time.monotonic`.
        ended: likewise.
    """

    name: str
    began: float
    ended: float


@dataclass(slots=True, kw_only=True, eq=False)
class RequestRecord:
    """One request.

    Args:
        request_id: the client's X-Request-Id, if it is sound, or else a new one.
        method: of HTTP.
        began: seconds of `time.monotonic`.
        ended: likewise; the time at which it began, until it has ended.
        route: the path's pattern, such as "/tasks/{task}"; "" if there is none.
        path: as it was asked for.
        asked: the task in the path, whether there is one of that name or not; None without.
        task: it, if it is known.
        digest: of the adapter that answered, or "".
        generation: likewise, or 0.
        status: of HTTP; 499 for a client that did not wait; 0 if there was no answer.
        outcome: "ok", the code of a refusal, "client_gone" or "unknown".
        stages: parts of its time, as far as it came.
        images: of its batch, of several the largest.
        asked_images: its own.
        trace_id: 32 hexadecimal digits, or "" if it is not traced.
    """

    request_id: str
    method: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    route: str = ""
    path: str = ""
    asked: str | None = None
    task: str | None = None
    digest: str = ""
    generation: int = 0
    status: int = 0
    outcome: str = ""
    stages: list[Stage] = field(default_factory=list)
    images: int = 0
    asked_images: int = 0
    trace_id: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long the block takes, whatever becomes of it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages.append(Stage(name, began, time.monotonic()))

    def note_batches(self, steps: Sequence[BatchTimes]) -> None:
        """Note how long a request's images waited for their batches, and how long those took.

        Of several images, the first that began and the last that ended count.
        """
        known = [times for times in steps if times.submitted is not None]
        self.asked_images = len(known)
        if not known:
            return
        submitted = min(times.submitted for times in known if times.submitted is not None)
        aside = [times.aside for times in known if times.aside is not None]
        begun = [times.begun for times in known if times.begun is not None]
        ended = [times.ended for times in known if times.ended is not None]
        last = max(ended) if len(ended) == len(known) else time.monotonic()
        if aside:  # what it waited for then is mostly its task
            self.stages.append(Stage("queue", submitted, min(aside)))
            self.stages.append(Stage("load", min(aside), max(min(aside), last)))
        else:
            began = min(begun) if begun else time.monotonic()
            self.stages.append(Stage("queue", submitted, began))
            if begun:
                self.stages.append(Stage("inference", began, last))
        if aside or begun:
            self.images = max(times.images for times in known)

    def seconds(self, name: str) -> float | None:
        """Return how long a stage took, altogether; None if it was not reached."""
        found = [stage.ended - stage.began for stage in self.stages if stage.name == name]
        return sum(found) if found else None


def begin_record(scope: MutableMapping[str, Any]) -> RequestRecord:
    """Begin the record of a request, for all who handle it."""
    asked = Headers(scope=scope).getlist("x-request-id")
    known = len(asked) == 1 and _REQUEST_ID.fullmatch(asked[0])
    record = RequestRecord(
        request_id=asked[0] if known else uuid.uuid4().hex,
        method=scope["method"],
        path=scope["path"],
    )
    scope[_KEY] = record
    return record


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """Return a request's record; one that nobody looks at, where none was begun."""
    found = scope.get(_KEY)
    return found if isinstance(found, RequestRecord) else RequestRecord(request_id="")
