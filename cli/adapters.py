"""gatehub inspect, verify and card: what an adapter holds, whether it is sound, what is told of it.

gatehub inspect birds
gatehub inspect birds --plot gates.png
gatehub inspect --backbone efficientnet_b0
gatehub verify birds
gatehub verify birds.onnx
gatehub card birds
gatehub card birds --license apache-2.0 --dataset acme/bird-photos --write
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gatehub._file_kinds import ONNX, describe_file
from gatehub.cli._errors import reports_errors
from gatehub.cli._inspection import show_adapter, show_backbone
from gatehub.cli._options import (
    ADAPTER_HELP,
    BACKBONE_HELP,
    FolderArgument,
    HubOption,
    find_adapter,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.answers._files import check_file


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        epilog="Examples: gatehub inspect digits; gatehub inspect digits --plot; "
        "gatehub inspect --backbone resnet18.a1_in1k"
    )(inspect)
    app.command(epilog="Example: gatehub verify digits")(verify)
    app.command(epilog="Example: gatehub card digits --license apache-2.0 --write")(card)


@reports_errors
def inspect(
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help=ADAPTER_HELP)] = None,
    picture: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.png",
            help="With --plot: the picture. \\[default: TASK.gates.png]",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        bool,
        typer.Option("--plot", help="Draw how far each layer's gates moved from 1, and list it."),
    ] = False,
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
    from gatehub._disk import write_whole
    from gatehub.adapter import Adapter
    from gatehub.adapter.gate_map import draw_gates
    from gatehub.errors import AdapterError

    output = Output(format)
    if (folder is None) == (backbone is None):
        raise typer.BadParameter("give either an adapter's FOLDER or --backbone NAME.")
    if plot and folder is None:
        raise typer.BadParameter("--plot draws the gates of an adapter; give its FOLDER.")
    if picture is not None and not plot:
        raise typer.BadParameter(f"'{picture}' is one argument too many; a picture needs --plot.")
    if picture is not None:
        check_file(picture, ".png")
    if folder is not None:
        place = find_adapter(output, folder, hub)
        adapter = Adapter.load(place)
        if plot:
            picture = picture or Path(f"{adapter.task}.gates.png")
            check_file(picture, ".png")
            if not adapter.layout.sites:
                raise AdapterError(f"Adapter '{adapter.task}' has no gates that could be drawn.")
            drawn = draw_gates(adapter.layout, adapter.tensors, title=f"Gates of {adapter.task}")
            write_whole(picture, drawn)
        show_adapter(output, adapter, place, picture=picture)
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
    say; or is wrong, and the error names what was edited. Of a changed file it says which parts
    could not be compared, so that only the answers to the probe speak for them. Its digests are
    checksums, not a signature.
    """
    output = Output(format)
    value: dict[str, object] = {"path": path, "sound": True}
    if _is_model(path):
        from gatehub.export import verify_onnx

        report = verify_onnx(Path(path))
        value["state"] = report.state.value
        for sentence in report.uncompared:
            output.note(sentence)
        found = (
            f"its answers differ by at most {report.max_abs_diff:.2g} from those it promises "
            f"({report.state.value})"
        )
    else:
        from gatehub.adapter.files import verify_adapter

        config = verify_adapter(find_adapter(output, path, hub))
        found = f"task '{config.task}', {len(config.tensors)} tensors as declared"
    output.result(value, human=f"{path} is sound: {found}.", quiet=path)


@reports_errors
def card(
    folder: FolderArgument,
    license: Annotated[
        str | None, typer.Option("--license", help="In the Hub's spelling, such as apache-2.0.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", metavar="ORG/NAME", help="The data set's name on the Hub; may be repeated."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Replace the card, edits made by hand included.")
    ] = False,
    format: FormatOption = Format.human,
) -> None:
    """Show an adapter's card (README.md) and check it; exit with 0 or 1."""
    from gatehub.adapter.card_check import check_card, write_card

    if (license or dataset) and not write:
        raise typer.BadParameter("--license and --dataset need --write.")
    output = Output(format)
    if write:
        write_card(folder, license=license, datasets=dataset or [])
    report = check_card(folder)
    output.result(
        {
            "path": str(folder / "README.md"),
            "valid": not report.problems,
            "problems": list(report.problems),
            "advice": list(report.advice),
            "metadata": report.metadata,
        },
        human=report.text,
        quiet="\n".join(report.problems),
    )
    for sentence in (*report.problems, *report.advice):
        output.note(sentence)
    if report.problems:
        output.note("--write replaces the card, edits made by hand included.")
        raise typer.Exit(1)


def _is_model(path: str) -> bool:
    """Whether an exported file was named; what else is there is said where an adapter is read."""
    try:
        return describe_file(Path(path)) == ONNX
    except (OSError, ValueError):
        return path.endswith(".onnx") or os.path.isfile(path)
