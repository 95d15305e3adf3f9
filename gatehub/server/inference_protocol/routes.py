"""The protocol's routes, beside the server's own and over the same steps.

    GET  /v2                                       metadata of the server
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models/{model}[/versions/1]           metadata of a task
    GET  …/ready, …/config, …/stats                below it; /v2/models/stats for all
    POST /v2/models/{task}[/versions/1]/infer      see `gatehub.server.inference_protocol.inference`
    POST /v2/repository/index                      tasks and their states

Loading, unloading, shared memory, traces and the log are refused by a sentence (403): what a server
serves and how is for whoever runs it. Metadata load a task that is only registered, since clients
ask for them before they ask for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatehub._text import quote
from gatehub.errors import ForbiddenError, RequestError, TaskNotFoundError, TaskUnavailableError
from gatehub.server.handling import Handling, name_adapter
from gatehub.server.inference_protocol.inference import (
    VERSION,
    InferenceRequest,
    parse_inference,
)
from gatehub.server.inference_protocol.models import (
    configure_model,
    describe_model,
    describe_server,
    index_models,
    is_ready,
)
from gatehub.server.inference_protocol.statistics import Statistics
from gatehub.server.inference_protocol.tensors import HEADER

if TYPE_CHECKING:
    from gatehub.runtime.engine import TaskInfo


class InferenceProtocol:
    """One method for each route.

    Args:
        handling: takes requests through their steps.

    Attributes:
        statistics: are to be told of requests.
    """

    def __init__(self, handling: Handling) -> None:
        self._handling = handling
        self.statistics = Statistics()

    def routes(self, prefix: str) -> list[Route]:
        """Return all routes, below a prefix."""
        memories = [f"/{kind}sharedmemory" for kind in ("system", "cuda")]
        gets = [
            ("", self.get_server),
            ("/health/live", self.get_live),
            ("/health/ready", self.get_ready),
            ("/models/stats", self.get_all_statistics),
            *_versioned("/models/{model}", self.get_model),
            *_versioned("/models/{model}", self.get_model_ready, "/ready"),
            *_versioned("/models/{model}", self.get_config, "/config"),
            *_versioned("/models/{model}", self.get_statistics, "/stats"),
            *((f"{memory}/status", self.get_regions) for memory in memories),
            *((f"{memory}/region/{{region}}/status", self.get_regions) for memory in memories),
        ]
        posts = [
            # The parameter is called "task" where a request is one of that task, for log and
            # metrics, and not one about it.
            *_versioned("/models/{task}", self.infer, "/infer"),
            ("/repository/index", self.post_index),
            ("/repository/models/{model}/load", self.refuse_change),
            ("/repository/models/{model}/unload", self.refuse_change),
            *((f"{memory}/unregister", self.unregister) for memory in memories),
            *((f"{memory}/region/{{region}}/unregister", self.unregister) for memory in memories),
            *((f"{memory}/region/{{region}}/register", self.refuse_region) for memory in memories),
        ]
        settings = ("/trace/setting", "/models/{model}/trace/setting", "/logging")
        both = [(path, self.refuse_setting) for path in settings]
        return [
            Route(f"{prefix}/v2{path}", endpoint, methods=methods)
            for methods, found in ((["GET"], gets), (["POST"], posts), (["GET", "POST"], both))
            for path, endpoint in found
        ]

    async def get_server(self, request: Request) -> Response:
        return JSONResponse(describe_server())

    async def get_live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def get_ready(self, request: Request) -> Response:
        self._handling.lifecycle.check_ready()
        return JSONResponse({"ready": True})

    async def get_model(self, request: Request) -> Response:
        return JSONResponse(describe_model(await self._find(request)))

    async def get_model_ready(self, request: Request) -> Response:
        task = _check_version(request)
        state = self._handling.answering.loads.state(task)
        if not is_ready(state):
            raise TaskUnavailableError(f"Task {quote(task)} is {state}.")
        return JSONResponse({"name": task, "ready": True})

    async def get_config(self, request: Request) -> Response:
        info = await self._find(request)
        most = self._handling.settings.most_images
        return await self._handling.answering.render(
            lambda: JSONResponse(configure_model(info, most=most))
        )

    async def get_statistics(self, request: Request) -> Response:
        task = _check_version(request)
        self._handling.engine.loaded(task)  # it is known
        return JSONResponse(self.statistics.report([task], self._handling.engine.names()))

    async def get_all_statistics(self, request: Request) -> Response:
        names = self._handling.engine.names()
        return JSONResponse(self.statistics.report(names, names))

    async def get_regions(self, request: Request) -> Response:
        return JSONResponse([])

    async def unregister(self, request: Request) -> Response:
        """Do nothing: many clients begin by unregistering what they might have left."""
        return JSONResponse({})

    async def post_index(self, request: Request) -> Response:
        async with self._handling.bodies.read(request, may_be_empty=True) as body:
            ready = _read_ready(body)
        states = self._handling.answering.loads.states()
        return await self._handling.answering.render(
            lambda: JSONResponse(index_models(states, ready=ready))
        )

    async def infer(self, request: Request) -> Response:
        _check_version(request)

        def parse(body: bytes) -> InferenceRequest:
            return parse_inference(
                body,
                lengths=request.headers.getlist(HEADER),
                settings=self._handling.settings,
                accepted=request.headers.get("accept-encoding", ""),
            )

        reply, info = await self._handling.ask(request, parse)
        return Response(reply.body, headers=reply.headers | name_adapter(info))

    async def refuse_change(self, request: Request) -> Response:
        raise ForbiddenError(
            "This server loads and unloads no tasks over HTTP.",
            hint="Name the tasks where it starts, as in: gatehub serve birds cars",
        )

    async def refuse_region(self, request: Request) -> Response:
        raise ForbiddenError(
            "This server has no shared memory with its clients.",
            hint="Send tensors in the body of the request, as JSON or as binary data.",
        )

    async def refuse_setting(self, request: Request) -> Response:
        raise ForbiddenError(
            "This server neither tells nor changes settings of its log and traces over HTTP.",
            hint="See --log-format, and OTEL_EXPORTER_OTLP_ENDPOINT, where it starts.",
        )

    async def _find(self, request: Request) -> TaskInfo:
        task = _check_version(request)
        return await self._handling.lifecycle.until_end(self._handling.answering.find(task))


_Found = list[tuple[str, Callable[[Request], Awaitable[Response]]]]


def _versioned(
    path: str, endpoint: Callable[[Request], Awaitable[Response]], below: str = ""
) -> _Found:
    """Return both paths of what is about a task; the last one names the route in log and traces."""
    return [(f"{path}/versions/{{version}}{below}", endpoint), (f"{path}{below}", endpoint)]


def _check_version(request: Request) -> str:
    """Return the task in a request's path.

    Raises:
        TaskNotFoundError: of a version that there is none of.
    """
    parameters = request.path_params
    task: str = parameters.get("task") or parameters["model"]
    version = parameters.get("version", VERSION)
    if version != VERSION:
        raise TaskNotFoundError(
            f"Task {quote(task)} has no version {quote(version, 40)}; each task has version "
            f"{VERSION} alone.",
            hint="X-Gatehub-Digest names the adapter that answered.",
        )
    return task


def _read_ready(body: bytes) -> bool:
    """Return whether an index is to have nothing but tasks that are ready."""
    try:
        content = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or type(content.get("ready", False)) is not bool:
        raise RequestError('The body is neither empty nor JSON such as {"ready": true}.')
    return bool(content.get("ready", False))
