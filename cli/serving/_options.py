"""Limits of `gatehub serve`, each with the server's own default."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

_LIMITS = "Limits"


class LogFormat(str, Enum):
    """How a server writes its log."""

    text = "text"
    json = "json"
    off = "off"


def _limit(name: str, help: str, *, min: int = 1) -> Any:
    return typer.Option(name, min=min, help=help, rich_help_panel=_LIMITS, show_default=False)


MaxBodyBytesOption = Annotated[
    int | None, _limit("--max-body-bytes", "Of a request's body, as sent. \\[default: 20,000,000]")
]
MaxPixelsOption = Annotated[
    int | None,
    _limit("--max-pixels", "Of an image, checked before it is decoded. \\[default: 50,000,000]"),
]
MaxResizedPixelsOption = Annotated[
    int | None,
    _limit("--max-resized-pixels", "Of a resized image, before cropping. \\[default: 50,000,000]"),
]
MaxRequestsOption = Annotated[
    int | None,
    _limit("--max-requests", "Requests answered or waiting at the same time. \\[default: 128]"),
]
MaxBytesInFlightOption = Annotated[
    int | None,
    _limit("--max-bytes-in-flight", "Of the bodies of all requests. \\[default: 256,000,000]"),
]
MaxConnectionsOption = Annotated[
    int | None, _limit("--max-connections", "Open connections. \\[default: 512]")
]
DeadlineOption = Annotated[
    int | None,
    _limit("--deadline", "Seconds from a request's last byte to its answer. \\[default: 30]"),
]
HeaderTimeoutOption = Annotated[
    int | None,
    _limit("--header-timeout", "Seconds for a request's headers to arrive. \\[default: 10]"),
]
BodyTimeoutOption = Annotated[
    int | None, _limit("--body-timeout", "Seconds for a request's body to arrive. \\[default: 60]")
]
DrainGraceOption = Annotated[
    int | None,
    _limit(
        "--drain-grace",
        "Seconds that requests are accepted after a signal to stop, while GET /health/ready says "
        "503. \\[default: 0]",
        min=0,
    ),
]
DrainTimeoutOption = Annotated[
    int | None,
    _limit("--drain-timeout", "Seconds for the last requests to be answered. \\[default: 30]"),
]
MaxImagesOption = Annotated[
    int | None,
    _limit("--max-images", "Images of one request, of those that take several. \\[default: 64]"),
]
MaxBatchOption = Annotated[
    int | None, _limit("--max-batch", "Most images computed together. \\[default: 8]")
]
MaxWaitOption = Annotated[
    int | None,
    _limit(
        "--max-wait-ms",
        "Milliseconds that an image waits for those being decoded. \\[default: 5]",
        min=0,
    ),
]
KeepGoingOption = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="Serve the adapters that are sound, and report the others, which otherwise keep the "
        "server from starting.",
    ),
]
PathPrefixOption = Annotated[
    str,
    typer.Option(
        "--path-prefix",
        help="What all paths begin with, such as /vision, for a proxy that passes them on whole.",
    ),
]
UnixSocketOption = Annotated[
    Path | None,
    typer.Option(
        "--unix-socket",
        metavar="PATH",
        help="Listen on a Unix socket that is made there, instead of on a port.",
    ),
]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help="A line on stderr for each request that has to do with a task: text; json, an object "
        "in a line; off, for warnings alone. \\[default: text; off with --format quiet]",
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that serve, each with a backbone, tasks and limits of its own; torch's "
        "threads are divided among them.",
    ),
]
