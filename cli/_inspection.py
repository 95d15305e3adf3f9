"""What `gatehub inspect` shows of an adapter, and of a backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub.cli._output import Output, format_bytes, format_percent, make_table

if TYPE_CHECKING:
    from rich.table import Table

    from gatehub.adapter import Adapter
    from gatehub.adapter.gate_map import Moved
    from gatehub.gates.layout import GateLayout


def show_adapter(output: Output, adapter: Adapter, folder: Path, *, picture: Path | None) -> None:
    """Show what an adapter is: task, backbone, gates, figures and sizes.

    Args:
        output: where to.
        adapter: as it was loaded.
        folder: from where.
        picture: of the gates, if one was drawn; the distance of each layer's is shown, too.
    """
    from gatehub.adapter import ADAPTER_FILES
    from gatehub.adapter.gate_map import measure_sites

    config = adapter.config
    moved = measure_sites(config.layout, adapter.tensors)
    gate_count = sum(adapter.tensors[name].numel() for name in config.layout.gate_shapes())
    count = sum(tensor.numel() for tensor in adapter.tensors.values())
    files = (folder / name for name in ADAPTER_FILES)
    size = sum(path.stat().st_size for path in files if path.is_file())
    kinds = count_kinds(config.layout)
    value = {
        "task": config.task,
        "labels": list(config.labels),
        **config.problem.to_json(),
        "backbone": config.backbone.name,
        "backbone_source": config.backbone.source,
        "backbone_digest": config.backbone.digest,
        "digest": adapter.digest,
        "gates": config.layout.policy,
        "start": config.layout.start,
        "norm": config.layout.norm,
        "shifts": len(config.layout.shift_names()),
        "sites": kinds,
        "moved": {site: asdict(found) for site, found in moved.items()},
        **({} if picture is None else {"picture": str(picture)}),
        "gate_parameters": gate_count,
        "parameters": count,
        "bytes": size,
        "metrics": dict(config.metrics),
        "training": dict(config.training),
    }
    shown = ", ".join(config.labels[:12]) + (" …" if len(config.labels) > 12 else "")
    rows = [
        ("task", config.task),
        (
            "labels, any number an image" if config.problem.is_multi_label else "classes",
            f"{len(config.labels)}: {shown}",
        ),
        ("backbone", f"{config.backbone} from {config.backbone.source}"),
        ("gates", _describe_gates(config.layout.policy, kinds, gate_count)),
        ("start", config.layout.start or "the first layer"),
        ("norm", config.layout.norm),
        *([("shift", f"of {shifts} layers")] if (shifts := value["shifts"]) else []),
        ("numbers", f"{count:,} with normalisation values and head"),
        ("size", format_bytes(size)),
        *((name, f"{figure:.4g}") for name, figure in config.metrics.items()),
    ]
    human: list[str | Table] = [make_table(("", ""), rows, left=2)]
    if picture is not None:
        human += [
            "",
            _tabulate_moved(config.layout, moved),
            "",
            f"{picture}: each channel of them.",
        ]
    output.result(value, human=human, quiet=config.task if picture is None else str(picture))


def _tabulate_moved(layout: GateLayout, moved: Mapping[str, Moved]) -> Table:
    return make_table(
        ("layer", "gates", "distance from 1", "of the channel that moved most"),
        [
            (site, str(layout.sites[site].kind), f"{found.distance:.3g}", f"{found.largest:.3g}")
            for site, found in moved.items()
        ],
        left=2,
    )


def show_backbone(output: Output, name: str, *, norm: str, start: str | None) -> None:
    """Show a backbone's sites, and what a task costs on it with each kind of gate."""
    from gatehub.backbone import build_structure
    from gatehub.backbone.classifier import split_classifier
    from gatehub.gates.cost import measure_backbone

    model = build_structure(name)
    heads, _ = split_classifier(model)
    size = measure_backbone(model, heads=heads, norm=norm, start=start)
    layers = Counter(type(model.get_submodule(site.name)).__name__ for site in size.sites)
    value = {
        "backbone": name,
        "parameters": size.values,
        "classifier_parameters": size.classifier_values,
        "checkpoint_bytes": size.checkpoint_bytes,
        "norm": norm,
        "start": start,
        "sites": {
            site.name: {
                "layer": type(model.get_submodule(site.name)).__name__,
                "shape": [site.out_channels, site.in_channels, *site.kernel_size],
                "auto": str(size.tasks["auto"].layout.sites[site.name].kind),
            }
            for site in size.sites
        },
        "ungated": {u.layer: {"layers": u.count, "parameters": u.values} for u in size.ungated},
        "gates": {
            policy: {
                "sites": count_kinds(task.layout),
                "gate_parameters": task.gate_values,
                "norm_parameters": task.norm_values,
                "parameters": task.values,
                "bytes": task.bytes,
            }
            for policy, task in size.tasks.items()
        },
    }
    rows = [
        (
            policy,
            _list_kinds(count_kinds(task.layout)),
            f"{task.gate_values:,}",
            f"{task.norm_values:,}",
            format_percent(task.values / size.values),
            format_bytes(task.bytes),
            format_percent(task.bytes / size.checkpoint_bytes),
        )
        for policy, task in size.tasks.items()
    ]
    columns = (
        *("gates", "sites", "gate values", "norm values"),
        *("of backbone", "bytes", "of checkpoint"),
    )
    left = ", ".join(map(str, size.ungated)) or "none"
    output.note(
        f"{name}: {size.values:,} parameters and a classifier of {size.classifier_values:,}; "
        f"{format_bytes(size.checkpoint_bytes)} as a float32 checkpoint.\n"
        f"Gated: {', '.join(f'{count} {layer}' for layer, count in layers.items())}. "
        f"Left without gates: {left}.\n"
        "A task adds its head to these; gates are stored as float16, norm values as float32."
    )
    output.result(value, human=make_table(columns, rows, left=2), quiet=str(len(size.sites)))


def count_kinds(layout: GateLayout) -> dict[str, int]:
    """Return how many sites have a gate of each kind."""
    return dict(Counter(str(gate.kind) for gate in layout.sites.values()))


def _list_kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _describe_gates(policy: str, kinds: dict[str, int], count: int) -> str:
    return f"{policy}: {_list_kinds(kinds)}; {count:,} numbers" if kinds else policy
