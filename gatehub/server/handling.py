"""What every route does that asks a task, whatever the protocol: one order, one set of limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from gatehub.server.answering import Answering, Asked
from gatehub.server.lifecycle import Lifecycle
from gatehub.server.limits import Bodies
from gatehub.server.observing.metrics import ServerFacts
from gatehub.server.observing.record import record_of
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from gatehub.runtime.engine import Engine, TaskInfo

T = TypeVar("T")


class Handling:
    """Takes requests through their steps, for the routes of all protocols.

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        settings: see `ServerSettings`.
        lifecycle: of the application.

    Attributes:
        engine: as given, and so are the others.
        settings: likewise.
        lifecycle: likewise.
        bodies: reads all bodies.
    """

    def __init__(self, engine: Engine, settings: ServerSettings, lifecycle: Lifecycle) -> None:
        self.engine = engine
        self.settings = settings
        self.lifecycle = lifecycle
        self.bodies = Bodies(settings)
        self._started: Answering | None = None

    @property
    def answering(self) -> Answering:
        """Answers requests. It has threads, which belong to the process that serves."""
        if self._started is None:
            self._started = Answering(self.engine, self.settings)
        return self._started

    def find_facts(self) -> ServerFacts:
        """Return how the server stands."""
        return ServerFacts(
            queued=self.answering.queued,
            in_flight=self.answering.taken,
            body_bytes=self.bodies.held,
            unavailable=self.answering.loads.unavailable,
            ready=not self.lifecycle.stopping,
        )

    async def ask(self, request: Request, parse: Callable[[bytes], Asked[T]]) -> tuple[T, TaskInfo]:
        """Read a request for the task in its path, answer it and note who did.

        Args:
            request: whose path has a parameter "task".
            parse: makes sense of its body; called in a worker thread.

        Returns:
            What the request makes of the answers, and the task that computed them.

        Raises:
            GatehubError: there is no such task, no room or no time; the request cannot be
                understood; the server ends.
            ClientDisconnect: nobody waits any more.
        """
        return await self.lifecycle.until_end(self._ask(request, parse))

    async def _ask(
        self, request: Request, parse: Callable[[bytes], Asked[T]]
    ) -> tuple[T, TaskInfo]:
        task, record = request.path_params["task"], record_of(request.scope)
        self.engine.loaded(task)  # an unknown task is refused before its image is read
        record.task = task
        self.answering.check_room(task)  # and so is one for which there is no place
        async with self.bodies.read(request) as body:
            answered, info = await _unless_gone(
                request, self.answering.answer(task, lambda: parse(body), record)
            )
        record.digest, record.generation = info.digest, info.generation
        return answered, info

    def close(self) -> None:
        """Let the threads end."""
        if self._started is not None:
            self._started.close()
            self._started = None


def name_adapter(info: TaskInfo) -> dict[str, str]:
    """Return the headers that name the adapter that answered."""
    return {"X-Gatehub-Digest": info.digest, "X-Gatehub-Generation": str(info.generation)}


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Work for a client, and stop once it has closed its connection.

    Args:
        request: whose body has been read.
        work: is cancelled if nobody waits for it any more.

    Raises:
        ClientDisconnect: it has gone.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _leave(request: Request) -> None:
    """Return once the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
