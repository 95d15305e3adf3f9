"""How much a stranger can make the server hold: bytes of bodies, and the time they may take."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gatehub._text import first_line, quote
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

        A compressed one is inflated; then both are counted.

        Bytes are counted as they arrive, since a chunked body announces no length, and who
        announces many and sends none must not keep others out.

        Raises:
            BodyTooLargeError: it has, or announces, more than `max_body_bytes`.
            BodyTimeoutError: it takes longer than `body_timeout_s`.
            ServerBusyError: the bodies of all requests have more than `max_bytes_in_flight`.
            RequestError: it is empty, and may not be; it is compressed, and cannot be inflated.
        """
        if int(request.headers.get("content-length", 0)) > self._settings.max_body_bytes:
            raise _too_large(self._settings.max_body_bytes)
        body = _Arriving()
        try:
            try:
                await asyncio.wait_for(self._collect(request, body), self._settings.body_timeout_s)
            except asyncio.TimeoutError:
                raise BodyTimeoutError(
                    f"The request body did not arrive within {self._settings.body_timeout_s} s.",
                    hint="Send a smaller image.",
                ) from None
            whole = bytes(body.data)
            body.data.clear()
            coding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
            if whole and coding not in ("", "identity"):
                # In a thread of its own: it may be large, and no place is taken yet.
                whole = await asyncio.to_thread(
                    inflate, whole, coding, most=self._settings.max_body_bytes
                )
                self._count(body, len(whole))
            if not whole and not may_be_empty:
                raise RequestError(
                    "The request body is empty.",
                    hint="Send the bytes of one image, as in: curl --data-binary @photo.jpg URL",
                )
            yield whole
        finally:
            self._held -= body.counted

    async def _collect(self, request: Request, body: _Arriving) -> None:
        async for chunk in request.stream():
            body.data += chunk
            self._count(body, len(chunk))
            if body.counted > self._settings.max_body_bytes:
                raise _too_large(self._settings.max_body_bytes)

    def _count(self, body: _Arriving, more: int) -> None:
        body.counted += more
        self._held += more
        if self._held > self._settings.max_bytes_in_flight:
            raise ServerBusyError(
                "The server is full: the bodies of all requests together have more than "
                f"{self._settings.max_bytes_in_flight:,} bytes.",
                hint=f"Try again in {self._settings.retry_after_s} s.",
                retry_after_s=self._settings.retry_after_s,
            )


def inflate(body: bytes, coding: str, *, most: int) -> bytes:
    """Return a body as it was before it was compressed; nothing beyond the limit is made.

    Args:
        body: as sent.
        coding: the Content-Encoding, "gzip" or "deflate"; that one in zlib's form, or without.
        most: bytes that it may have.

    Raises:
        RequestError: another coding, or a body that is not whole, or more than that.
        BodyTooLargeError: it has more than `most` bytes.
    """
    if coding not in ("gzip", "deflate"):
        raise RequestError(
            f"Content-Encoding is {quote(coding, 40)}; expected gzip or deflate.",
            hint="Or send the body as it is.",
        )
    is_zlib = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    inflating = zlib.decompressobj(31 if coding == "gzip" else 15 if is_zlib else -15)
    try:
        whole = inflating.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestError(
            f"The request body is not valid {coding} ({first_line(error)})."
        ) from None
    if len(whole) > most:
        raise _too_large(most)
    if not inflating.eof or inflating.unused_data:
        problem = "goes on after its end" if inflating.eof else "ends before its end"
        raise RequestError(f"The request body is not valid {coding}: it {problem}.")
    return whole


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The request body is larger than {most:,} bytes.",
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
