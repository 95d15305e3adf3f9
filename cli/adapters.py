"""gatehub inspect and verify: what an adapter's folder holds, and whether it is sound.

gatehub inspect birds
gatehub verify birds
gatehub verify birds.onnx
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import FolderArgument
from gatehub.cli._output import (
    Format,
    FormatOption,
    Output,
    format_bytes,
    make_table,
)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub inspect digits")(inspect)
    app.command(epilog="Example: gatehub verify digits")(verify)


@reports_errors
def inspect(folder: FolderArgument, format: FormatOption = Format.human) -> None:
    """Show what an adapter is: task, backbone, gates, figures and sizes."""
    from gatehub.adapter import Adapter

    output = Output(format)
    adapter = Adapter.load(folder)
    config = adapter.config
    kinds: dict[str, int] = {}
    for gate in config.layout.sites.values():
        kinds[str(gate.kind)] = kinds.get(str(gate.kind), 0) + 1
    gate_count = sum(adapter.tensors[name].numel() for name in config.layout.gate_shapes())
    count = sum(tensor.numel() for tensor in adapter.tensors.values())
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    value = {
        "task": config.task,
        "labels": list(config.labels),
        "backbone": config.backbone.name,
        "backbone_source": config.backbone.source,
        "backbone_digest": config.backbone.digest,
        "digest": adapter.digest,
        "gates": config.layout.policy,
        "start": config.layout.start,
        "norm": config.layout.norm,
        "sites": kinds,
        "gate_parameters": gate_count,
        "parameters": count,
        "bytes": size,
        "metrics": dict(config.metrics),
        "training": dict(config.training),
    }
    sites = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    shown = ", ".join(config.labels[:12]) + (" …" if len(config.labels) > 12 else "")
    rows = [
        ("task", config.task),
        ("classes", f"{len(config.labels)}: {shown}"),
        ("backbone", f"{config.backbone} from {config.backbone.source}"),
        ("gates", f"{config.layout.policy}: {sites}; {gate_count:,} numbers"),
        ("start", config.layout.start or "the first layer"),
        ("norm", config.layout.norm),
        ("numbers", f"{count:,} with normalisation values and head"),
        ("size", format_bytes(size)),
        *((name, f"{figure:.4g}") for name, figure in config.metrics.items()),
    ]
    output.result(value, human=make_table(("", ""), rows, left=2), quiet=config.task)


@reports_errors
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="An adapter's folder, or a FILE.onnx.")
    ],
    format: FormatOption = Format.human,
) -> None:
    """Check every byte of an adapter, or the answers of an exported file; exit with 0 or 1."""
    output = Output(format)
    if path.suffix == ".onnx":
        from gatehub.export import verify_onnx

        report = verify_onnx(path)
        found = f"its answers differ by at most {report.max_abs_diff:.2g} from those it promises"
    else:
        from gatehub.adapter.files import verify_adapter

        config = verify_adapter(path)
        found = f"task '{config.task}', {len(config.tensors)} tensors as declared"
    output.result(
        {"path": str(path), "sound": True}, human=f"{path} is sound: {found}.", quiet=str(path)
    )
