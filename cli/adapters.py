"""gatehub inspect and verify: what an adapter or a backbone holds, and whether it is sound.

gatehub inspect birds
gatehub inspect --backbone efficientnet_b0
gatehub verify birds
gatehub verify birds.onnx
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gatehub._file_kinds import ONNX, describe_file
from gatehub.cli._errors import reports_errors
from gatehub.cli._inspection import show_adapter, show_backbone
from gatehub.cli._options import ADAPTER_HELP, BACKBONE_HELP, HubOption, find_adapter
from gatehub.cli._output import Format, FormatOption, Output


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        epilog="Examples: gatehub inspect digits; gatehub inspect --backbone resnet18.a1_in1k"
    )(inspect)
    app.command(epilog="Example: gatehub verify digits")(verify)


@reports_errors
def inspect(
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help=ADAPTER_HELP)] = None,
    hub: HubOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help=f"What a task costs on a backbone instead: {BACKBONE_HELP}"
        ),
    ] = None,
    norm: Annotated[
        str, typer.Option("--norm", help="With --backbone: frozen, affine, stats.")
    ] = "affine",
    start: Annotated[
        str | None, typer.Option("--start", help="With --backbone: first gated stage.")
    ] = None,
    format: FormatOption = Format.human,
) -> None:
    """Show what an adapter is, or what gates of each kind would cost on a backbone."""
    output = Output(format)
    if (folder is None) == (backbone is None):
        raise typer.BadParameter("give either an adapter's FOLDER or --backbone NAME.")
    if folder is not None:
        show_adapter(output, find_adapter(output, folder, hub))
    elif backbone is not None:
        show_backbone(output, backbone, norm=norm, start=start)


@reports_errors
def verify(
    path: Annotated[str, typer.Argument(metavar="PATH", help=f"An exported file. {ADAPTER_HELP}")],
    hub: HubOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Check every byte of an adapter, or an exported file and its answers; exit with 0 or 1.

    An exported file is "as exported"; or has the "same answers, file changed", by an optimiser
    say; or is wrong, and the error names what was edited. Its digests are checksums, not a
    signature.
    """
    output = Output(format)
    value: dict[str, object] = {"path": path, "sound": True}
    if _is_model(path):
        from gatehub.export import verify_onnx

        report = verify_onnx(Path(path))
        value["state"] = report.state.value
        found = (
            f"its answers differ by at most {report.max_abs_diff:.2g} from those it promises "
            f"({report.state.value})"
        )
    else:
        from gatehub.adapter.files import verify_adapter

        config = verify_adapter(find_adapter(output, path, hub))
        found = f"task '{config.task}', {len(config.tensors)} tensors as declared"
    output.result(value, human=f"{path} is sound: {found}.", quiet=path)


def _is_model(path: str) -> bool:
    """Whether an exported file was named; what else is there is said where an adapter is read."""
    try:
        return describe_file(Path(path)) == ONNX
    except (OSError, ValueError):
        return path.endswith(".onnx") or os.path.isfile(path)
