"""gatehub merge: what several adapters have learned, in one.

gatehub merge birds-north birds-south --out birds
gatehub merge birds cars --weights 0.7,0.3 --task both --out both
gatehub merge birds noise --weights 1,-0.5 --out birds-clean
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._inspection import count_kinds
from gatehub.cli._options import (
    ADAPTER_HELP,
    BackboneOption,
    DeviceOption,
    HubOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output, format_bytes


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: gatehub merge birds-north birds-south --out birds")(merge)


def _parse_weights(text: str) -> list[float]:
    """Read numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' is no list of numbers such as 0.7,0.3, one for each adapter."
        ) from error


@reports_errors
def merge(
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER...", help=ADAPTER_HELP)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the adapter goes.")],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W,W,...",
            help="How much of each adapter, such as 0.7,0.3; below 0 takes a task away. "
            "\\[default: equal ones that sum to 1]",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Its name. \\[default: theirs, with - between]")
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Gates are stored so; see gatehub compress.")
    ] = "float16",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the adapter of another task in DIR.")
    ] = False,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    backbone_weights: Annotated[
        Path | None,
        typer.Option(
            "--backbone-weights", help="Safetensors file with the weights of a timm name."
        ),
    ] = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Make one adapter of several of the same backbone: M = 1 + Σ w (M_k - 1).

    Normalisation values are added in the same way. Heads are averaged, row by row of each label: of
    the same labels that is a mean head, of different ones a head over all of them. Figures are not
    carried over; gatehub eval measures it.
    """
    from gatehub.adapter import Adapter
    from gatehub.adapter.arithmetic import merge_adapters
    from gatehub.adapter.gate_map import draw_gates
    from gatehub.errors import AdapterExistsError
    from gatehub.training.destination import check_replaceable

    output = Output(format)
    shares = None if weights is None else _parse_weights(weights)
    places = [find_adapter(output, folder, hub) for folder in folders]
    for place in places:
        if out.exists() and os.path.samefile(out, place):
            raise AdapterExistsError(
                f"'{out}' is one of the adapters that are merged, and would be lost.",
                hint="Choose another folder.",
            )
    adapters = [Adapter.load(place) for place in places]
    loaded = open_backbone(adapters[0], backbone, backbone_weights, device)
    merged = merge_adapters(loaded, adapters, weights=shares, task=task)
    check_replaceable(out, task=merged.task, force=force)
    picture = {}
    if merged.layout.sites:
        drawn = draw_gates(merged.layout, merged.tensors, title=f"Gates of {merged.task}")
        picture["gates.png"] = drawn
    out.parent.mkdir(parents=True, exist_ok=True)
    merged.with_probe(loaded, dtype=dtype).save(out, dtype=dtype, attachments=picture)
    size = (out / "gates.safetensors").stat().st_size
    if len({adapter.labels for adapter in adapters}) > 1:
        output.note(
            f"Their labels differ: the head has all {len(merged.labels)}, and its rows were not "
            "trained beside each other."
        )
    names = "labels" if merged.problem.is_multi_label else "classes"
    output.note(f"It has not been measured; gatehub eval {out} --data SRC does that.")
    output.result(
        {
            "task": merged.task,
            "labels": list(merged.labels),
            "path": str(out),
            "bytes": size,
            "sites": count_kinds(merged.layout),
            "merged": merged.config.training["merged_from"],
            "weights": merged.config.training["merge_weights"],
        },
        human=f"{out}: {merged.task}, {len(merged.labels)} {names}, {format_bytes(size)}.",
        quiet=str(out),
    )
