"""The server's routes, over an engine that somebody else owns.

    GET  /health         {"status": "ok", "tasks": how many, "backbone": name}
    GET  /tasks          [{"task", "labels", "digest", "generation", "backbone", "preprocessing"}]
    POST /tasks/{task}   an encoded image → [{"label", "score"}], best first

`POST /tasks/{task}` takes the image as the raw body, of any content type, or as JSON
`{"inputs": base64, "parameters": {…}}`. Options: `top_k` (default 5) and `function_to_apply`
(`softmax`, the default, `sigmoid` or `none`). A multi-label task has one more field in `/tasks`,
`"problem": {"type": "multi-label", "thresholds": […]}`; its default function is `sigmoid`, and
without a `top_k` it answers with every label that reaches its threshold, or `[]`. The headers
`X-Gatehub-Digest` and `X-Gatehub-Generation` name the adapter that answered. Errors:
`gatehub.server.refusals`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatehub.server.classification import Score, classify, parse_request
from gatehub.server.limits import WorkQueue, read_body
from gatehub.server.refusals import exception_handlers
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from gatehub.runtime.engine import Answer, Engine, TaskInfo


def create_app(engine: Engine, *, settings: ServerSettings | None = None) -> Starlette:
    """Build the ASGI application that serves an engine's tasks.

    Args:
        engine: tasks may be loaded, replaced and unloaded while the application runs.
        settings: limits; None for the defaults.
    """
    endpoints = _Endpoints(engine, settings or ServerSettings())
    app = Starlette(
        routes=[
            Route("/health", endpoints.get_health, methods=["GET"]),
            Route("/tasks", endpoints.get_tasks, methods=["GET"]),
            Route("/tasks/{task}", endpoints.post_image, methods=["POST"]),
        ],
        exception_handlers=exception_handlers(),
        lifespan=endpoints.lifespan,
    )
    # A redirect would name the Host that the client claims, and lose the body on the way.
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    """One method for each route, over the same engine, settings and queue."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._queue = WorkQueue(settings)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._queue.close()

    async def get_health(self, request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "tasks": len(self._engine.tasks()),
                "backbone": self._engine.backbone.identity.name,
            }
        )

    async def get_tasks(self, request: Request) -> Response:
        return JSONResponse([_describe(info) for info in self._engine.tasks()])

    async def post_image(self, request: Request) -> Response:
        task = request.path_params["task"]
        self._engine.task(task)  # an unknown task is refused before its image is read
        with self._queue.place():
            body = await read_body(request, self._settings)

            def job() -> tuple[list[Score], Answer]:
                asked = parse_request(
                    body,
                    content_type=request.headers.get("content-type", ""),
                    query=request.query_params,
                )
                return classify(self._engine, task, asked, max_pixels=self._settings.max_pixels)

            scores, answer = await self._queue.run(request, job)
        return JSONResponse(
            scores,
            headers={
                "X-Gatehub-Digest": answer.task.digest,
                "X-Gatehub-Generation": str(answer.task.generation),
            },
        )


def _describe(info: TaskInfo) -> dict[str, Any]:
    told = {name: value for name, value in asdict(info).items() if name != "problem"}
    return told | info.problem.to_json()
