"""Looks at every request that reaches the application, whatever answers it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatehub.server.observing.record import OK, UNKNOWN, RequestRecord, begin_record


class Sink(Protocol):
    """What is told of requests: metrics, a log, traces."""

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """A request has come."""

    def end(self, record: RequestRecord) -> None:
        """It has been answered."""


class Observer:
    """Gives each request a record and an identity, and tells of it when it has ended.

    It stands outside of what turns errors into answers, so that it sees those too.

    Args:
        sinks: what is told, in this order.
        routes: the path's pattern of each endpoint.
    """

    def __init__(self, sinks: Sequence[Sink], routes: Mapping[object, str]) -> None:
        self._sinks = sinks
        self._routes = routes

    async def observe(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have an application answer a request, and add X-Request-Id to its answer."""
        record = begin_record(scope)
        for sink in self._sinks:
            sink.begin(record, scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = record.status or message["status"]
                identity = (b"x-request-id", record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), identity]}
            await send(message)

        try:
            await app(scope, receive, send_with_id)
        finally:
            record.ended = time.monotonic()
            record.route = self._routes.get(scope.get("endpoint"), "")
            record.asked = scope.get("path_params", {}).get("task")
            if not record.outcome:
                record.outcome = OK if 0 < record.status < 400 else UNKNOWN
            for sink in self._sinks:
                sink.end(record)
