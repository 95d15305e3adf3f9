"""Faults on demand: what a network, a proxy or a busy hub does to a request now and then."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOREVER = 1_000_000


@dataclass
class Fault:
    """What happens to the next requests that match.

    Attributes:
        method: of the request; "" for any.
        path: a regular expression that is searched in the path.
        times: how many requests it happens to.
        skip: how many matching ones it lets pass first.
        status: answer with this instead of asking the hub.
        headers: of that answer.
        lose: let the hub do it, and drop the connection without an answer.
        drop: drop the connection before the hub sees the request.
        cut: send this many bytes of the body, and drop the connection.
        flip: turn the lowest bit of this byte of the body over.
        slow_s: wait so long before each piece of the body.
        hit: set as soon as it has happened.
        meanwhile: called before the request reaches the hub.
    """

    path: str
    method: str = ""
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    lose: bool = False
    drop: bool = False
    cut: int | None = None
    flip: int | None = None
    slow_s: float = 0
    hit: threading.Event = field(default_factory=threading.Event)
    meanwhile: Callable[[], object] | None = None


class Faulty:
    """An ASGI application that hands requests on to another one, but for the faults.

    Args:
        app: what answers.
        faults: those to come; who tests adds to it.
    """

    def __init__(self, app: ASGIApp, faults: list[Fault]) -> None:
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._take(scope) if scope["type"] == "http" else None
        if fault is None:
            await self.app(scope, receive, send)
            return
        if fault.meanwhile is not None:
            await asyncio.get_running_loop().run_in_executor(None, fault.meanwhile)
        if fault.drop:
            _transport(send).abort()
        elif fault.status is not None:
            await _read_all(receive)
            await _answer(send, fault.status, fault.headers)
        elif fault.lose:
            await self.app(scope, receive, _swallow)
            _transport(send).abort()
        else:
            await self.app(scope, receive, _spoil(fault, send))
        fault.hit.set()

    def _take(self, scope: Scope) -> Fault | None:
        for fault in self.faults:
            if fault.method in ("", scope["method"]) and re.search(fault.path, scope["path"]):
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return None


def _transport(send: Send) -> asyncio.Transport:
    """The connection, which uvicorn's bound method knows and ASGI does not name."""
    transport: asyncio.Transport = send.__self__.transport  # type: ignore[attr-defined]
    return transport


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _answer(send: Send, status: int, headers: dict[str, str]) -> None:
    body = json.dumps({"error": headers.get("X-Error-Message", f"fault {status}")}).encode()
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}
    raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _swallow(message: Message) -> None:
    """Take an answer that will never be sent."""


def _spoil(fault: Fault, send: Send) -> Callable[[Message], Awaitable[Any]]:
    sent = 0

    async def spoil(message: Message) -> None:
        nonlocal sent
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        if fault.flip is not None and sent <= fault.flip < sent + len(body):
            place = fault.flip - sent
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        if fault.cut is not None and sent + len(body) > fault.cut:
            await send({**message, "body": body[: max(0, fault.cut - sent)], "more_body": True})
            await asyncio.sleep(0.05)  # or else the bytes are dropped with the connection
            _transport(send).abort()
            return
        sent += len(body)
        if fault.slow_s:
            await asyncio.sleep(fault.slow_s)
        await send({**message, "body": body})

    return spoil
