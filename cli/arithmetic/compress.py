"""gatehub compress: the same task in fewer bytes.

gatehub compress birds --dtype int8 --out birds-small
gatehub compress birds --data photos/ --max-drop 0.005 --out birds-small
gatehub compress birds --rank 1 --rank 4 --dtype int8 --dtype int4 --data photos/ --out birds-small
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    AdapterArgument,
    BackboneOption,
    ColumnsOption,
    DeviceOption,
    HubOption,
    MeasureOption,
    SkipBadOption,
    WeightsOption,
    WorkersOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.answers._files import check_file

if TYPE_CHECKING:
    from gatehub.adapter.arithmetic import Compression

MAX_DROP = 0.01


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog="Examples: gatehub compress digits --dtype int8 --out small; "
        "gatehub compress digits --data sklearn:digits --out small"
    )(compress)


@reports_errors
def compress(
    folder: AdapterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the adapter goes.")],
    rank: Annotated[
        list[int] | None,
        typer.Option("--rank", min=1, help="Largest rank of M - 1; may be repeated."),
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(
            "--sparsity",
            metavar="SHARE",
            help="Share of the gates that go back to 1, such as 0.9; may be repeated.",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            "--dtype",
            help="Gates as int8, int4 or sign (of how far they moved), sparse (float16 without "
            "those at 1), float16, bfloat16 or float32. With +float16, such as int8+float16, head "
            "and normalisation weights and biases are float16, too; else float32. May be repeated.",
        ),
    ] = None,
    data: MeasureOption = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="SHARE",
            help="With --data: the smallest that loses at most this much accuracy is kept, as a "
            f"fraction. \\[default: {MAX_DROP}, one point]",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            help="With --data: accuracy against bytes. \\[default: DIR.compress.png]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the adapter of another task in DIR.")
    ] = False,
    columns: ColumnsOption = None,
    skip_bad: SkipBadOption = False,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Store an adapter in fewer bytes: gates of a lower rank, fewer of them, coarser ones.

    With --data every combination of the options is measured, and the smallest that loses at most
    --max-drop is kept; without options a few are tried. Without --data one is made as told.
    """
    from gatehub.adapter import Adapter
    from gatehub.cli.arithmetic._choosing import make_one, measure_and_choose
    from gatehub.errors import AdapterError, AdapterExistsError
    from gatehub.training.destination import check_apart, check_path, check_replaceable

    output = Output(format)
    forms = _list_forms(rank or [], sparsity or [], dtype or [], measured=bool(data))
    if not data:
        for option, given in (("--max-drop", max_drop is not None), ("--plot", plot is not None)):
            if given:
                raise typer.BadParameter(f"{option} needs --data, by which accuracy is measured.")
    if max_drop is not None and not 0 <= max_drop < 1:
        raise typer.BadParameter(f"--max-drop is {max_drop:g}; a point is 0.01, and 1 is all.")
    check_path(out)
    picture = plot or out.with_name(f"{out.name}.compress.png")
    if data:
        if picture.parent.is_dir() or plot is not None:
            check_file(picture, ".png")
        for source in data:
            check_apart(picture, source)
            check_apart(out, source)
    place = find_adapter(output, folder, hub)
    adapter = Adapter.load(place)
    if not adapter.layout.sites:
        raise AdapterError(
            f"Adapter '{adapter.task}' has no gates, and gates are what is compressed.",
            hint="It is as small as it gets: normalisation values and the head alone.",
        )
    if out.exists() and os.path.samefile(out, place):
        raise AdapterExistsError(
            f"'{out}' is the adapter that is compressed, and would be lost.",
            hint="Choose another folder.",
        )
    check_replaceable(out, task=adapter.task, force=force)
    loaded = open_backbone(adapter, backbone, weights, device)
    if not data:
        make_one(output, loaded, adapter, place, forms[0], out=out)
    else:
        measure_and_choose(
            output,
            loaded,
            adapter,
            place,
            forms,
            out=out,
            picture=picture,
            max_drop=MAX_DROP if max_drop is None else max_drop,
            sources=data,
            columns=columns,
            skip_bad=skip_bad,
            workers=workers,
        )


def _list_forms(
    ranks: list[int], sparsities: list[float], dtypes: list[str], *, measured: bool
) -> list[Compression]:
    """Return every combination of what is given, or what is tried where nothing is."""
    from gatehub.adapter.arithmetic import Compression

    if not (ranks or sparsities or dtypes):
        if not measured:
            raise typer.BadParameter(
                "give --rank, --sparsity or --dtype; or --data, to try several and choose."
            )
        return [
            *(Compression(dtype=name) for name in ("int8", "int4", "sign")),
            *(Compression(sparsity=share, dtype="int8") for share in (0.5, 0.9)),
            *(Compression(rank=rank, dtype="int8") for rank in (4, 1)),
            Compression(rank=4, dtype="int4"),
        ]
    unchanged = [None]
    forms = [
        Compression(rank=rank, sparsity=share, dtype=name)
        for rank, share, name in product(
            ranks or unchanged, sparsities or unchanged, dtypes or unchanged
        )
    ]
    if len(forms) > 1 and not measured:
        raise typer.BadParameter(
            f"these are {len(forms)} combinations; choosing one of them needs --data."
        )
    return forms
