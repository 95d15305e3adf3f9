"""One line of a log for each request."""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import Scope

from gatehub._text import shorten
from gatehub.server.observing.record import STAGES, RequestRecord

LOGGER = "gatehub.server.requests"

_LOG = logging.getLogger(LOGGER)
_PATH_CHARACTERS = 100
_TASK_CHARACTERS = 96


class RequestLog:
    """Writes a request at level INFO: as one message, and as fields (`record.request`).

    Requests that succeed and have nothing to do with a task, such as a probe's, have level DEBUG.
    """

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """Nothing is written before a request has ended."""

    def end(self, record: RequestRecord) -> None:
        """Write a request."""
        asks = record.asked is not None or record.status >= 400
        level = logging.INFO if asks else logging.DEBUG
        if _LOG.isEnabledFor(level):
            fields = describe(record)
            _LOG.log(level, "%s", format_fields(fields), extra={"request": fields})


def describe(record: RequestRecord) -> dict[str, Any]:
    """Return what there is to say of a request: short, and of plain types.

    A path is told only where no route fits it, since it says no more than the route and the task;
    a query never is.
    """
    fields: dict[str, Any] = {"request_id": record.request_id, "method": shorten(record.method, 20)}
    if record.route:
        fields["route"] = record.route
    else:
        fields["path"] = shorten(record.path, _PATH_CHARACTERS)
    if record.asked is not None:
        fields["task"] = shorten(record.asked, _TASK_CHARACTERS)
    fields |= {"status": record.status, "outcome": record.outcome}
    if record.digest:
        fields |= {"digest": record.digest, "generation": record.generation}
    if record.images:
        fields["batch"] = record.images
    times = {name: record.seconds(name) for name in STAGES}
    times["total"] = record.ended - record.began
    fields["ms"] = {n: round(1000 * s, 3) for n, s in times.items() if s is not None}
    if record.trace_id:
        fields["trace_id"] = record.trace_id
    return fields


def format_fields(fields: dict[str, Any]) -> str:
    """Return fields as `key=value` in one line; values with other characters are quoted."""
    flat = dict(fields)
    times = flat.pop("ms", {})
    flat |= {f"{name}_ms": value for name, value in times.items()}
    return " ".join(f"{name}={_quote(value)}" for name, value in flat.items())


def _quote(value: object) -> str:
    text = str(value)
    if text and all(c.isalnum() or c in "._:/{}-" for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
