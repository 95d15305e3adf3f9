"""How errors reach a client: `{"error": sentence, "code": word}` with the status that fits.

`error` is a string, since clients of Hugging Face's and of Triton's servers read it as one.
"""

from __future__ import annotations

from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from gatehub.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    GatehubError,
    ImageTooLargeError,
    InputError,
    RequestError,
    ServerBusyError,
    TaskNotFoundError,
)

# What a client can mend. Any other error is the server's own, and a 500.
_REFUSALS: dict[type[GatehubError], tuple[int, str]] = {
    RequestError: (400, "invalid_request"),
    TaskNotFoundError: (404, "task_not_found"),
    BodyTimeoutError: (408, "body_timeout"),
    BodyTooLargeError: (413, "body_too_large"),
    ImageTooLargeError: (413, "image_too_large"),
    InputError: (422, "invalid_image"),
    ServerBusyError: (503, "server_busy"),
}
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}


def exception_handlers() -> dict[type[Exception], ExceptionHandler]:
    """Return one handler for each class; Starlette looks them up along an exception's MRO."""
    return {
        **{
            kind: partial(_refuse, status=status, code=code)
            for kind, (status, code) in _REFUSALS.items()
        },
        HTTPException: _refuse_route,
        ClientDisconnect: _forget,
        Exception: _fail,
    }


async def _refuse(request: Request, error: Exception, *, status: int, code: str) -> Response:
    headers = {}
    if isinstance(error, ServerBusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, BodyTimeoutError):
        headers["Connection"] = "close"  # the rest of the body would be read as a request
    return _answer(str(error), code, status, headers)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    problem = (
        f"{path} does not take {request.method}."
        if error.status_code == 405
        else f"There is no {path} here."
    )
    return _answer(
        f"{problem} Try GET /health, GET /tasks or POST /tasks/{{task}}.",
        _HTTP_CODES.get(error.status_code, "invalid_request"),
        error.status_code,
        dict(error.headers or {}),
    )


async def _forget(request: Request, error: Exception) -> Response:
    """Answer a client that has gone; the bytes go nowhere, and nothing is worth a log line."""
    return Response(status_code=400)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer an error that nobody foresaw. Starlette raises it again, so uvicorn logs it."""
    return _answer(
        "The server failed to answer; the reason is in its log. Nothing is wrong with the request.",
        "internal_error",
        500,
        {"Connection": "close"},  # uvicorn does so without a word, and a next request would fail
    )


def _answer(
    sentence: str, code: str, status: int, headers: dict[str, str] | None = None
) -> Response:
    return JSONResponse({"error": sentence, "code": code}, status_code=status, headers=headers)
