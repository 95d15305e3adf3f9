"""What log lines look like: one line for each event, whatever strangers wrote into it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gatehub._text import printable
from gatehub.server.observing.request_log import LOGGER


class TextFormatter(logging.Formatter):
    """Time, level, logger and message. A traceback follows, its lines indented.

    What cannot be printed is an escape, so that no line begins that is not ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {printable(record.getMessage())}"
        trace = _trace(self, record)
        return line + "".join(f"\n    {printable(part)}" for part in trace.split("\n") if part)


class JsonFormatter(logging.Formatter):
    """One object in one line of ASCII: time, level, logger, and a request's fields or a message."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
        }
        request = getattr(record, "request", None)
        told |= request if isinstance(request, dict) else {"message": record.getMessage()}
        if trace := _trace(self, record):
            told["traceback"] = trace
        return json.dumps(told)


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def start_logging(form: str, stream: TextIO) -> logging.Handler:
    """Write this process's log from now on: each request, and warnings of everything else.

    Args:
        form: "text", "json", or "off" for warnings alone, as text.
        stream: where to.

    Returns:
        What the root logger was given.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_FORMATTERS.get(form, TextFormatter)())
    logging.getLogger().addHandler(handler)
    logging.getLogger(LOGGER).setLevel(logging.WARNING if form == "off" else logging.INFO)
    return handler


@contextmanager
def logging_to(form: str, stream: TextIO) -> Iterator[None]:
    """Do what `start_logging` does, for the length of a with block."""
    requests = logging.getLogger(LOGGER)
    before = requests.level
    handler = start_logging(form, stream)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        requests.setLevel(before)


def _time(record: logging.LogRecord) -> str:
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{second}.{int(record.msecs):03}Z"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""
