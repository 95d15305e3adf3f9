"""How much a stranger can make the server hold: bytes of a body, and requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from gatehub.errors import BodyTimeoutError, BodyTooLargeError, RequestError, ServerBusyError
from gatehub.server.settings import ServerSettings

T = TypeVar("T")


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


class WorkQueue:
    """Worker threads, and a bounded line in front of them.

    `threads` jobs run at once, off the event loop; `max_waiting` more requests may have a
    place. The next one is refused at once, before its body is read, so memory stays bounded.
    All counting happens on the event loop, hence without a lock.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._places = settings.threads + settings.max_waiting
        self._retry_after_s = settings.retry_after_s
        self._taken = 0
        self._free_threads = asyncio.Semaphore(settings.threads)
        self._executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="gatehub-worker")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            ServerBusyError: all places are taken.
        """
        if self._taken >= self._places:
            raise ServerBusyError(
                f"The server is full: {self._taken} requests are being answered or wait.",
                hint=f"Try again in {self._retry_after_s} s.",
                retry_after_s=self._retry_after_s,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, request: Request, job: Callable[[], T]) -> T:
        """Run `job` in a worker thread, first come, first served.

        Raises:
            ClientDisconnect: nobody waits for the answer any more, so no thread is spent on it.
        """
        async with self._free_threads:
            if await request.is_disconnected():
                raise ClientDisconnect
            return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def close(self) -> None:
        """Let the threads end, without waiting for a job that outlived the drain."""
        self._executor.shutdown(wait=False)
