"""How errors reach a client: `{"error": sentence, "code": word}` with the status that fits.

`error` is a string, since clients of Hugging Face's and of Triton's servers read it as one. A 502
or 503 for a task has one more field, `"task"`, and a 503 says in `Retry-After` when to try again.
Statuses and codes: `gatehub.server.statuses`.
"""

from __future__ import annotations

import logging

import torch
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from gatehub._text import quote, shorten
from gatehub.errors import AmbiguousLengthError, BodyTimeoutError, GatehubError
from gatehub.server.observing.record import CLIENT_GONE, record_of
from gatehub.server.settings import ServerSettings
from gatehub.server.statuses import FAULT, find_status

_LOG = logging.getLogger(__name__)

_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}
_GONE = 499  # as nginx and others write it
_OUT_OF_MEMORY = "The server has too little memory to answer just now."


def exception_handlers(settings: ServerSettings) -> dict[type[Exception], ExceptionHandler]:
    """Return one handler for each class; Starlette looks them up along an exception's MRO."""

    async def answer(request: Request, error: Exception) -> Response:
        return refuse(request, error, retry_after_s=settings.retry_after_s)

    return {
        GatehubError: answer,
        MemoryError: answer,
        torch.OutOfMemoryError: answer,
        HTTPException: _refuse_route,
        ClientDisconnect: _forget,
        Exception: _fail,
    }


def refuse(request: Request, error: Exception, *, retry_after_s: int = 1) -> Response:
    """Return the answer that tells a client of an error; see `gatehub.server.statuses`."""
    status = find_status(error)
    record_of(request.scope).outcome = status.code
    if status.is_fault:
        _LOG.error("A request failed.", exc_info=error)
        return _answer_fault()
    sentence = str(error) if isinstance(error, GatehubError) else _OUT_OF_MEMORY
    headers = {}
    told = {}
    task = request.scope.get("path_params", {}).get("task")
    if status.status >= 500 and task is not None:
        told["task"] = task
        if status.about_task and isinstance(error, GatehubError):
            # It may speak of files alone. The hint is for whoever runs the server.
            sentence = f"Task {quote(task)} cannot be served just now: {error.message}"
    if status.status == 503:
        headers["Retry-After"] = str(getattr(error, "retry_after_s", None) or retry_after_s)
    if isinstance(error, BodyTimeoutError | AmbiguousLengthError):
        headers["Connection"] = "close"  # the rest of the body would be read as a request
    return _answer(sentence, status.code, status.status, headers, **told)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = shorten(request.url.path, 80)
    problem = (
        f"{path} does not take {shorten(request.method, 20)}."
        if error.status_code == 405
        else f"There is no {path} here."
    )
    code = _HTTP_CODES.get(error.status_code, "invalid_request")
    record_of(request.scope).outcome = code
    start = request.app.state.path_prefix
    return _answer(
        f"{problem} Try GET {start}/health, GET {start}/tasks or POST {start}/tasks/{{task}}.",
        code,
        error.status_code,
        dict(error.headers or {}),
    )


async def _forget(request: Request, error: Exception) -> Response:
    """Answer a client that has gone; the bytes go nowhere."""
    record = record_of(request.scope)
    record.outcome, record.status = CLIENT_GONE, _GONE
    return Response(status_code=400)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer an error that nobody foresaw. Starlette raises it again, so uvicorn logs it."""
    record_of(request.scope).outcome = FAULT.code
    return _answer_fault()


def _answer_fault() -> Response:
    return _answer(
        "The server failed to answer; the reason is in its log. Nothing is wrong with the request.",
        FAULT.code,
        FAULT.status,
        {"Connection": "close"},  # uvicorn does so without a word, and a next request would fail
    )


def _answer(
    sentence: str, code: str, status: int, headers: dict[str, str] | None = None, **told: str
) -> Response:
    return JSONResponse(
        {"error": sentence, "code": code, **told}, status_code=status, headers=headers
    )
