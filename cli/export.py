"""gatehub export: an adapter folded into one ONNX file.

gatehub export birds --out birds.onnx
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    AdapterArgument,
    BackboneOption,
    HubOption,
    WeightsOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output, format_bytes


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub export digits --out digits.onnx")(export)


@reports_errors
def export(
    folder: AdapterArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .onnx file to write.")],
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset, 18 to 24.")] = None,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Fold an adapter into a plain ONNX model, checked against ONNX Runtime."""
    from gatehub.adapter import Adapter
    from gatehub.export.onnx import check_settings, export_onnx

    output = Output(format)
    options = {} if opset is None else {"opset": opset}
    check_settings(out, **options)
    adapter = Adapter.load(find_adapter(output, folder, hub))
    loaded = open_backbone(adapter, backbone, weights, "cpu")
    output.note(f"Exporting '{adapter.task}' on {adapter.backbone.name}; this takes seconds.")
    report = export_onnx(loaded, adapter, out, **options)
    output.result(
        {"path": str(report.path), "max_abs_diff": report.max_abs_diff, "opset": report.opset},
        human=f"{report.path}: {format_bytes(report.bytes)}, opset {report.opset}, largest "
        f"difference to PyTorch {report.max_abs_diff:.2g}.",
        quiet=str(report.path),
    )
