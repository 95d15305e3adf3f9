"""gatehub serve: adapters behind HTTP, on one resident backbone.

gatehub serve birds cars --port 8000
curl --data-binary @robin.jpg http://127.0.0.1:8000/tasks/birds
"""

from __future__ import annotations

from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    ADAPTER_HELP,
    BackboneOption,
    DeviceOption,
    HubOption,
    WeightsOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output


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
        str, typer.Option("--host", help="Address to listen on; the default stays on this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")
    ] = 8000,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Serve adapters of one backbone over HTTP until Ctrl-C."""
    from gatehub.adapter import Adapter
    from gatehub.errors import AdapterError
    from gatehub.runtime.engine import Engine
    from gatehub.server import serve

    output = Output(format)
    adapters: dict[str, Adapter] = {}
    for folder in folders:
        adapter = Adapter.load(find_adapter(output, folder, hub))
        if adapter.task in adapters:
            raise AdapterError(
                f"Two of the folders hold a task named '{adapter.task}'; '{folder}' is the second.",
                hint="Serve one of them, or train it under another name.",
            )
        adapters[adapter.task] = adapter
    engine = Engine(open_backbone(next(iter(adapters.values())), backbone, weights, device))
    with output.progress("loading") as advance:
        for done, (task, adapter) in enumerate(adapters.items(), start=1):
            engine.load(task, adapter)
            advance(done, len(adapters))

    def announce(url: str) -> None:
        output.note(f"{len(adapters)} tasks on {engine.backbone.identity}; Ctrl-C stops.")
        output.result({"url": url}, human=f"Serving on {url}", quiet=url)

    serve(engine, host=host, port=port, on_ready=announce)
