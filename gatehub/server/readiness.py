"""Whether a server wants requests, for whoever sends them to it."""

from __future__ import annotations

from gatehub.errors import ServerNotReadyError


class Readiness:
    """Ready until it is told to stop. Requests are answered meanwhile; no more should be sent."""

    def __init__(self) -> None:
        self._stopping = False

    def stop(self) -> None:
        """Be ready no more; callable from any thread."""
        self._stopping = True

    def check(self) -> None:
        """Return if the server is ready.

        Raises:
            ServerNotReadyError: it is stopping.
        """
        if self._stopping:
            raise ServerNotReadyError("The server is stopping.", hint="Ask another one.")
