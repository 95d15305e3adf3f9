"""The server's routes, over an engine that somebody else owns.

    GET  /health         {"status": "ok", "tasks": how many, "backbone": name}
    GET  /health/live    {"status": "live"} as long as the process answers
    GET  /health/ready   {"status": "ready"}, or a 503 once it is to get no more requests
    GET  /metrics        figures for Prometheus
    GET  /tasks          [{"task", "state", "labels", "digest", "generation", "backbone", …}]
    POST /tasks/{task}   an encoded image → [{"label", "score"}], best first
    …    /v2/…           the Open Inference Protocol (`gatehub.server.inference_protocol.routes`)

A task's state is "ready", "registered" (its first request loads it, and it has no other fields
before), "loading" or "unavailable: " and why.

`POST /tasks/{task}` takes the image as the raw body, of any content type, or as JSON
`{"inputs": base64, "parameters": {…}}`. Options: `top_k` (default 5) and `function_to_apply`
(`softmax`, the default, `sigmoid` or `none`). A multi-label task has one more field in `/tasks`,
`"problem": {"type": "multi-label", "thresholds": […]}`; its default function is `sigmoid`, and
without a `top_k` it answers with every label that reaches its threshold, or `[]`. The headers
`X-Gatehub-Digest` and `X-Gatehub-Generation` name the adapter that answered; every answer has the
request's `X-Request-Id`. Errors: `gatehub.server.refusals`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gatehub._text import quote
from gatehub.errors import ServerError
from gatehub.server.classification import ClassificationRequest, parse_request
from gatehub.server.handling import Handling, name_adapter
from gatehub.server.inference_protocol.routes import InferenceProtocol
from gatehub.server.lifecycle import Lifecycle
from gatehub.server.limits import OneLength
from gatehub.server.observing.metrics import Figures, Metrics, render_metrics
from gatehub.server.observing.observer import Observer, Sink
from gatehub.server.observing.request_log import RequestLog
from gatehub.server.observing.tracing import Tracing, open_tracing
from gatehub.server.refusals import exception_handlers
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from gatehub.runtime.engine import Engine, TaskInfo

Gather = Callable[[Figures], Awaitable[Figures]]


def create_app(
    engine: Engine,
    *,
    settings: ServerSettings | None = None,
    path_prefix: str = "",
    tracer_provider: TracerProvider | None = None,
    gather: Gather | None = None,
) -> Starlette:
    """Build the ASGI application that serves an engine's tasks.

    Args:
        engine: tasks may be loaded, replaced and unloaded while the application runs.
        settings: limits; None for the defaults.
        path_prefix: what every route begins with, such as "/vision", for a proxy that passes paths
            on as they are.
        tracer_provider: of OpenTelemetry, for a span of each request; None to send them where the
            environment says, if it does (`gatehub.server.observing.tracing`).
        gather: adds the figures of other processes that serve the same to those of this one.

    Raises:
        ServerError: a prefix that is no path, or variables that OpenTelemetry refuses.
    """
    settings = settings or ServerSettings()
    prefix = check_path_prefix(path_prefix)
    handling = Handling(engine, settings, Lifecycle())
    tracing = open_tracing(tracer_provider)
    endpoints = _Endpoints(handling, tracing, gather)
    protocol = InferenceProtocol(handling)
    sinks: list[Sink] = [endpoints.metrics, protocol.statistics, RequestLog()]
    if tracing is not None:
        sinks.insert(0, tracing)  # the log tells of the trace
    routes = [
        Route(f"{prefix}/health", endpoints.get_health, methods=["GET"]),
        Route(f"{prefix}/health/live", endpoints.get_live, methods=["GET"]),
        Route(f"{prefix}/health/ready", endpoints.get_ready, methods=["GET"]),
        Route(f"{prefix}/metrics", endpoints.get_metrics, methods=["GET"]),
        Route(f"{prefix}/tasks", endpoints.get_tasks, methods=["GET"]),
        Route(prefix + "/tasks/{task}", endpoints.post_image, methods=["POST"]),
        *protocol.routes(prefix),
    ]
    app = _Application(
        observer=Observer(sinks, {route.endpoint: route.path for route in routes}),
        routes=routes,
        middleware=[Middleware(OneLength)],
        exception_handlers=exception_handlers(settings),
        lifespan=endpoints.lifespan,
    )
    app.state.lifecycle = handling.lifecycle
    app.state.path_prefix = prefix
    app.state.metrics = endpoints.metrics
    # A redirect would name the Host that the client claims, and lose the body on the way.
    app.router.redirect_slashes = False
    return app


def check_path_prefix(prefix: str) -> str:
    """Return a prefix of paths without a slash at its end, "" for none.

    Raises:
        ServerError: it does not begin with a slash, or holds what no path should.
    """
    if not isinstance(prefix, str) or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", prefix):
        raise ServerError(
            f"The path prefix is {quote(prefix)}; expected a path of letters, digits, '.', '_', "
            "'~' and '-', such as /vision.",
        )
    return prefix.rstrip("/")


class _Application(Starlette):
    """Starlette's application, observed from outside of what turns errors into answers.

    Args:
        observer: sees every request.
        starlette: for Starlette.
    """

    def __init__(self, *, observer: Observer, **starlette: Any) -> None:
        super().__init__(**starlette)
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._observer.observe(super().__call__, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Endpoints:
    """One method for each route, over the same engine, settings and threads."""

    def __init__(self, handling: Handling, tracing: Tracing | None, gather: Gather | None) -> None:
        self._handling = handling
        self._engine = handling.engine
        self._gather = gather
        self._tracing = tracing
        self.metrics = Metrics(handling.engine, handling.find_facts)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._handling.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def get_health(self, request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "tasks": len(self._engine.tasks()),
                "backbone": self._engine.backbone.identity.name,
            }
        )

    async def get_live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def get_ready(self, request: Request) -> Response:
        self._handling.lifecycle.check_ready()
        return JSONResponse({"status": "ready"})

    async def get_metrics(self, request: Request) -> Response:
        accepted = request.headers.get("accept", "")
        figures = await asyncio.to_thread(self.metrics.figures)
        if self._gather is not None:
            figures = await self._gather(figures)
        body, media_type = await asyncio.to_thread(render_metrics, figures, accepted)
        return Response(body, headers={"Content-Type": media_type})

    async def get_tasks(self, request: Request) -> Response:
        states = self._handling.answering.loads.states()
        # Thousands of tasks have millions of labels.
        return await self._handling.answering.render(lambda: _list(states, self._engine.tasks()))

    async def post_image(self, request: Request) -> Response:
        def parse(body: bytes) -> ClassificationRequest:
            return parse_request(
                body,
                content_type=request.headers.get("content-type", ""),
                query=request.query_params,
            )

        scores, info = await self._handling.ask(request, parse)
        return JSONResponse(scores, headers=name_adapter(info))


def _list(states: Mapping[str, str], served: Sequence[TaskInfo]) -> Response:
    infos = {info.task: info for info in served}
    return JSONResponse(
        [
            {"task": task, "state": state, **(_describe(infos[task]) if task in infos else {})}
            for task, state in states.items()
        ]
    )


def _describe(info: TaskInfo) -> dict[str, Any]:
    told: dict[str, Any] = {f.name: getattr(info, f.name) for f in fields(info)}
    del told["problem"]
    return told | {"preprocessing": asdict(info.preprocessing), **info.problem.to_json()}
