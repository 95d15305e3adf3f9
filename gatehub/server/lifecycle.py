"""A server's end: first it wants no more requests, and at last it answers none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gatehub.errors import ServerNotReadyError

T = TypeVar("T")


class Lifecycle:
    """Ready until it is told to stop; requests are answered until it is told to end."""

    def __init__(self) -> None:
        self._stopping = False
        self._end: asyncio.Future[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether no more requests should be sent."""
        return self._stopping

    def stop(self) -> None:
        """Be ready no more; callable from any thread, and from a signal's handler."""
        self._stopping = True

    def check_ready(self) -> None:
        """Return if the server is ready.

        Raises:
            ServerNotReadyError: it is stopping.
        """
        if self._stopping:
            raise ServerNotReadyError("The server is stopping.", hint="Ask another one.")

    def end(self) -> None:
        """Refuse what has not been answered by now; on the event loop."""
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    async def until_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Work for a request, and stop once the server ends.

        Raises:
            ServerNotReadyError: it ended before.
        """
        if self._end is None or self._end.get_loop() is not asyncio.get_running_loop():
            self._end = asyncio.get_running_loop().create_future()
        working = asyncio.ensure_future(work)
        both: set[asyncio.Future[Any]] = {working, self._end}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
        finally:
            working.cancel()
        raise ServerNotReadyError(
            "The server stopped before it could answer.", hint="Ask another one."
        )
