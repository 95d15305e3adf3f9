"""A way to an S3 on which answers get lost, cut and damaged on demand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.hub_server.faults import Fault, Faulty

_HOP_BY_HOP = {b"connection", b"transfer-encoding", b"server", b"date"}


class _Forward:
    """An ASGI application that asks another server and answers what it answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = scope["query_string"].decode()
        target = f"{self._url}{scope['raw_path'].decode()}" + (f"?{query}" if query else "")
        headers = [(k, v) for k, v in scope["headers"] if k != b"expect"]
        async with httpx.AsyncClient(timeout=30, verify=False) as client:
            request = client.build_request(
                scope["method"], target, headers=httpx.Headers(headers), content=body
            )
            answer = await client.send(request, stream=True)
            data = b"".join([chunk async for chunk in answer.aiter_raw()])
            await answer.aclose()
        raw = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": raw})
        await send({"type": "http.response.body", "body": data})


@contextmanager
def stand_before(url: str) -> Iterator[tuple[str, list[Fault]]]:
    """The address of a server that hands on to another one, and its faults; add to them."""
    faults: list[Fault] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        config = uvicorn.Config(
            Faulty(_Forward(url), faults),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", faults
        finally:
            server.should_exit = True
            thread.join()
