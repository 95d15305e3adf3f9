"""How much a stranger can make the server hold: bytes of a body, and the time it may take."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from gatehub.errors import BodyTimeoutError, BodyTooLargeError, RequestError
from gatehub.server.settings import ServerSettings


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """Read a request's body, and stop at the first byte over the limit.

    Bytes are counted as they arrive, since a chunked body announces no length.

    Raises:
        BodyTooLargeError: it has, or announces, more than `max_body_bytes`.
        BodyTimeoutError: it takes longer than `body_timeout_s`.
        RequestError: it is empty.
    """
    too_large = BodyTooLargeError(
        f"The request body is larger than {settings.max_body_bytes:,} bytes.",
        hint="Scale the image down, or send it as JPEG.",
    )
    if int(request.headers.get("content-length", 0)) > settings.max_body_bytes:
        raise too_large

    async def collect() -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > settings.max_body_bytes:
                raise too_large
        return bytes(body)

    try:
        body = await asyncio.wait_for(collect(), settings.body_timeout_s)
    except asyncio.TimeoutError:
        raise BodyTimeoutError(
            f"The request body did not arrive within {settings.body_timeout_s} s.",
            hint="Send a smaller image.",
        ) from None
    if not body:
        raise RequestError(
            "The request body is empty.",
            hint="Send the bytes of one image, as in: curl --data-binary @photo.jpg URL",
        )
    return body
