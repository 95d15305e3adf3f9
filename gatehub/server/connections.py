"""Connections of clients that are slow, many, or not what they should be.

uvicorn has no limit on the time in which a request's headers arrive, and drops an over-long body
for as long as it comes. Its parser is h11, which knows nothing of time.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gatehub.errors import ServerError
from gatehub.server.settings import ServerSettings

# For what a client still sends when it has been answered already: if the connection were closed at
# once, the system would reset it, and the answer could be lost.
_LINGER_S = 5.0
# What is relied on, which uvicorn does not document: methods that it calls, and what it keeps.
_METHODS = (
    *("connection_made", "data_received", "connection_lost", "pause_writing", "resume_writing"),
    *("handle_events", "on_response_complete", "send_400_response"),
)
_KEPT = ("connections", "transport", "conn", "cycle", "loop")
_TRIED = "0.30 to 0.54"
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


class Connection(H11Protocol):
    """One client's connection, with an end to everything that it may take time for.

    Args:
        settings: see `ServerSettings`.
        given: what uvicorn passes.
    """

    def __init__(self, *given: Any, settings: ServerSettings, **more: Any) -> None:
        super().__init__(*given, **more)
        check_uvicorn(self)
        self._settings = settings
        self._timer: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._stalled: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(
                503,
                "server_busy",
                f"The server has {self._settings.max_connections} connections already.",
            )
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect("")
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", "This is not a request of HTTP/1.1.")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(
                self._settings.body_timeout_s, self.transport.abort
            )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _watch(self) -> None:
        """Set a time for what has to come next; bytes that come meanwhile do not prolong it."""
        answered = self.cycle is not None and self.cycle.response_complete
        if self._refused:
            self._expect("rest")
        elif self.transport.is_closing():
            self._expect("")
        elif self.conn.their_state is h11.IDLE:
            fresh = self.cycle is None
            self._expect("headers" if fresh or self.conn.trailing_data[0] else "")
        else:
            rest = answered and self.conn.their_state is h11.SEND_BODY
            self._expect("rest" if rest else "")

    def _expect(self, what: str) -> None:
        """Wait for headers, for the rest of a body, or for nothing, from now on."""
        if what == self._awaited:
            return
        self._awaited = what
        if self._timer is not None:
            self._timer.cancel()
        times = {"headers": float(self._settings.header_timeout_s), "rest": _LINGER_S}
        self._timer = self.loop.call_later(times[what], self._give_up) if what else None

    def _give_up(self) -> None:
        begun = bool(self.conn.trailing_data[0])
        if self._awaited == "headers" and begun and not self.transport.is_closing():
            seconds = self._settings.header_timeout_s
            self._refuse(
                408, "header_timeout", f"The request's headers did not arrive within {seconds} s."
            )
        else:  # to who has said nothing there is nothing to say, and who was answered knows
            self.transport.close()

    def _refuse(self, status: int, code: str, sentence: str) -> None:
        """Answer what never became a request, and close once the client has."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": sentence, "code": code}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            if status == 503:
                headers.append((b"retry-after", str(self._settings.retry_after_s).encode()))
            for event in (
                h11.Response(status_code=status, headers=headers, reason=_REASONS[status]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if len(self.connections) > 2 * self._settings.max_connections:
            self.transport.close()
            return
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._watch()


def check_uvicorn(made: object | None = None) -> None:
    """Refuse a uvicorn that would leave clients without limits, and not say so.

    Args:
        made: a connection, to look at what it keeps; None to look at the class.

    Raises:
        ServerError: it lacks what `Connection` stands on.
    """
    where, names = (H11Protocol, _METHODS) if made is None else (made, _KEPT)
    missing = [name for name in names if not hasattr(where, name)]
    if missing:
        raise ServerError(
            f"uvicorn {uvicorn.__version__} has no H11Protocol.{missing[0]}, by which connections "
            f"are limited; gatehub was tried with {_TRIED}.",
            hint="Install one of these: pip install 'uvicorn>=0.30,<=0.54'.",
        )
