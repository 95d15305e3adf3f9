"""gatehub serve: adapters behind HTTP, on one resident backbone.

gatehub serve birds cars --port 8000
curl --data-binary @robin.jpg http://127.0.0.1:8000/tasks/birds
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    ADAPTER_HELP,
    BackboneOption,
    DeviceOption,
    HubOption,
    WeightsOption,
    find_adapters,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.serving._engine import EnginePlan, say_left_out
from gatehub.cli.serving._options import (
    BodyTimeoutOption,
    DeadlineOption,
    DrainGraceOption,
    DrainTimeoutOption,
    HeaderTimeoutOption,
    KeepGoingOption,
    LogFormat,
    LogFormatOption,
    MaxBatchOption,
    MaxBodyBytesOption,
    MaxBytesInFlightOption,
    MaxConnectionsOption,
    MaxImagesOption,
    MaxPixelsOption,
    MaxRequestsOption,
    MaxResizedPixelsOption,
    MaxWaitOption,
    PathPrefixOption,
    UnixSocketOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from gatehub.errors import GatehubError


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub serve digits --port 8000")(serve)


@reports_errors
def serve(
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER...", help=ADAPTER_HELP)],
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on; the default can be reached from this machine only.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8000,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            help="auto, float32, bfloat16 or float16. auto takes bfloat16 where the processor has "
            "matrix units for it and the adapter's probe agrees.",
        ),
    ] = "auto",
    folded_mb: Annotated[
        int | None,
        typer.Option(
            "--folded-mb",
            min=1,
            help="Megabytes of folded weights to keep, beside the backbone; the least used tasks "
            "are folded again when they are asked for. No limit by default.",
        ),
    ] = None,
    gates_mb: Annotated[
        int | None,
        typer.Option(
            "--gates-mb",
            min=1,
            help="Megabytes of gates to keep; the least used are read again from their folders. "
            "No limit by default.",
        ),
    ] = None,
    unix_socket: UnixSocketOption = None,
    path_prefix: PathPrefixOption = "",
    workers: WorkersOption = 1,
    keep_going: KeepGoingOption = False,
    max_body_bytes: MaxBodyBytesOption = None,
    max_pixels: MaxPixelsOption = None,
    max_resized_pixels: MaxResizedPixelsOption = None,
    max_images: MaxImagesOption = None,
    max_requests: MaxRequestsOption = None,
    max_bytes_in_flight: MaxBytesInFlightOption = None,
    max_connections: MaxConnectionsOption = None,
    deadline: DeadlineOption = None,
    header_timeout: HeaderTimeoutOption = None,
    body_timeout: BodyTimeoutOption = None,
    drain_grace: DrainGraceOption = None,
    drain_timeout: DrainTimeoutOption = None,
    max_batch: MaxBatchOption = None,
    max_wait_ms: MaxWaitOption = None,
    log_format: LogFormatOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Serve adapters of one backbone over HTTP until Ctrl-C."""
    from gatehub.server import ServerSettings, listen, serve, serve_workers
    from gatehub.server.app import check_path_prefix
    from gatehub.server.observing.log_format import logging_to

    limits = {
        "max_body_bytes": max_body_bytes,
        "max_pixels": max_pixels,
        "max_resized_pixels": max_resized_pixels,
        "max_images": max_images,
        "max_requests": max_requests,
        "max_bytes_in_flight": max_bytes_in_flight,
        "max_connections": max_connections,
        "deadline_s": deadline,
        "header_timeout_s": header_timeout,
        "body_timeout_s": body_timeout,
        "drain_grace_s": drain_grace,
        "drain_timeout_s": drain_timeout,
        "max_batch": max_batch,
        "max_wait_ms": max_wait_ms,
    }
    settings = ServerSettings(**{name: v for name, v in limits.items() if v is not None})
    output = Output(format)
    check_path_prefix(path_prefix)
    form = log_format or (LogFormat.off if format is Format.quiet else LogFormat.text)
    # First of all: who cannot have the port should not wait for adapters to learn it.
    with listen(host, port, path=unix_socket) as listener, logging_to(form.value, sys.stderr):
        left_out = partial(_report, output) if keep_going else None
        places, adapter = find_adapters(output, folders, hub, left_out=left_out)
        plan = EnginePlan(
            places=places,
            task=adapter.task,
            backbone=backbone,
            weights=weights,
            device=device,
            dtype=dtype,
            folded_mb=folded_mb,
            gates_mb=gates_mb,
            keep_going=keep_going,
            log_format=form.value,
        )

        def announce(url: str) -> None:
            served = f"{len(places)} tasks in {workers} processes"
            if engine is not None:
                served = f"{len(engine.tasks())} tasks on {engine.backbone.identity}"
            output.note(f"{served}; Ctrl-C stops.")
            output.result({"url": url}, human=f"Serving on {url}", quiet=url)

        engine = None
        if workers > 1:
            serve_workers(
                plan,
                workers=workers,
                listener=listener,
                settings=settings,
                path_prefix=path_prefix,
                on_ready=announce,
                on_note=output.note,
            )
            return
        with output.progress("loading") as advance:
            engine = plan.open(left_out, advance)
        serve(
            engine,
            listener=listener,
            settings=settings,
            path_prefix=path_prefix,
            on_ready=announce,
        )


def _report(output: Output, place: str, error: GatehubError) -> None:
    output.note(say_left_out(place, error))
