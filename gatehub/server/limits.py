"""How much a stranger can make the server hold: bytes of bodies, and the time they may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gatehub.errors import (
    AmbiguousLengthError,
    BodyTimeoutError,
    BodyTooLargeError,
    RequestError,
    ServerBusyError,
)
from gatehub.server.refusals import refuse
from gatehub.server.settings import ServerSettings


@dataclass(slots=True)
class _Arriving:
    """A body, and how many bytes of it are counted."""

    data: bytearray = field(default_factory=bytearray)
    counted: int = 0


class Bodies:
    """Reads requests' bodies, and keeps count of all that are held at the same time.

    Args:
        settings: see `ServerSettings`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of all requests that are being read, wait, or are answered."""
        return self._held

    @asynccontextmanager
    async def read(self, request: Request, *, may_be_empty: bool = False) -> AsyncIterator[bytes]:
        """Read a request's body, stop at the first byte over a limit, and hold it in the block.

        Bytes are counted as they arrive, since a chunked body announces no length, and who
        announces many and sends none must not keep others out.

        Raises:
            BodyTooLargeError: it has, or announces, more than `max_body_bytes`.
            BodyTimeoutError: it takes longer than `body_timeout_s`.
            ServerBusyError: the bodies of all requests have more than `max_bytes_in_flight`.
            RequestError: it is empty, and may not be.
        """
        if int(request.headers.get("content-length", 0)) > self._settings.max_body_bytes:
            raise self._too_large()
        body = _Arriving()
        try:
            try:
                await asyncio.wait_for(self._collect(request, body), self._settings.body_timeout_s)
            except asyncio.TimeoutError:
                raise BodyTimeoutError(
                    f"The request body did not arrive within {self._settings.body_timeout_s} s.",
                    hint="Send a smaller image.",
                ) from None
            if not body.data and not may_be_empty:
                raise RequestError(
                    "The request body is empty.",
                    hint="Send the bytes of one image, as in: curl --data-binary @photo.jpg URL",
                )
            whole = bytes(body.data)
            body.data.clear()
            yield whole
        finally:
            self._held -= body.counted

    async def _collect(self, request: Request, body: _Arriving) -> None:
        async for chunk in request.stream():
            body.data += chunk
            body.counted += len(chunk)
            self._held += len(chunk)
            if body.counted > self._settings.max_body_bytes:
                raise self._too_large()
            if self._held > self._settings.max_bytes_in_flight:
                raise ServerBusyError(
                    "The server is full: the bodies of all requests together have more than "
                    f"{self._settings.max_bytes_in_flight:,} bytes.",
                    hint=f"Try again in {self._settings.retry_after_s} s.",
                    retry_after_s=self._settings.retry_after_s,
                )

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"The request body is larger than {self._settings.max_body_bytes:,} bytes.",
            hint="Scale the image down, or send it as JPEG.",
        )


class OneLength:
    """Refuses requests that say in two ways how long they are.

    Servers and proxies disagree on which of the two holds, and whoever is in between can hide a
    second request in the difference (RFC 9112, section 6.3).

    Args:
        app: gets all other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name.lower() for name, _ in scope.get("headers", ())}
        if {b"content-length", b"transfer-encoding"} <= names:
            error = AmbiguousLengthError(
                "The request has both Content-Length and Transfer-Encoding.",
                hint="Send one of them.",
            )
            await refuse(Request(scope), error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
