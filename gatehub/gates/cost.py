"""What a task costs on a backbone, for each kind of gate, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gatehub.backbone.classifier import is_inside
from gatehub.gates.layout import GateLayout, plan_gates
from gatehub.gates.norms import find_norm_tensors
from gatehub.gates.policy import AUTO, AUTO_RANK
from gatehub.gates.sites import Site, Ungated, find_sites, find_ungated

POLICIES = (AUTO, "full", f"lowrank:{AUTO_RANK}", "scale")
_GATE_BYTES, _VALUE_BYTES = 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSize:
    """What the gates of one policy, and a task's normalisation values, come to.

    Args:
        layout: the gates.
        gate_values: numbers in the gates.
        norm_values: numbers in the task's normalisation values.
    """

    layout: GateLayout
    gate_values: int
    norm_values: int

    @property
    def values(self) -> int:
        """Numbers that a task adds to its head."""
        return self.gate_values + self.norm_values

    @property
    def bytes(self) -> int:
        """Their bytes in an adapter file: gates as float16, normalisation values as float32."""
        return _GATE_BYTES * self.gate_values + _VALUE_BYTES * self.norm_values


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSize:
    """A backbone and what a task costs on it, its head apart.

    Args:
        values: parameters without the classifier.
        classifier_values: parameters of the classifier it was published with.
        sites: the layers that carry gates.
        ungated: the layers that hold kernels and carry none.
        tasks: what a task costs, by policy.
    """

    values: int
    classifier_values: int
    sites: tuple[Site, ...]
    ungated: tuple[Ungated, ...]
    tasks: dict[str, TaskSize]

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of the whole network as float32, classifier included."""
        return _VALUE_BYTES * (self.values + self.classifier_values)


def measure_backbone(
    model: nn.Module, *, heads: tuple[str, ...], norm: str = "affine", start: str | None = None
) -> BackboneSize:
    """Count what gates and normalisation values of a task come to, for each kind of gate.

    Args:
        model: a timm model; the meta device is enough.
        heads: names of the modules that hold the classifier.
        norm: see `attach_gates`.
        start: see `attach_gates`.

    Raises:
        SiteError: no such stage, or a layer that cannot be gated.
        GateError: no such normalisation mode.
    """
    layouts = {
        policy: plan_gates(model, exclude=heads, gates=policy, norm=norm, start=start)
        for policy in POLICIES
    }
    state = model.state_dict(keep_vars=True)
    norms = find_norm_tensors(model, norm=norm, start=start, exclude=heads)
    norm_values = sum(state[name].numel() for name in norms)
    values = {name: p.numel() for name, p in model.named_parameters()}
    classifier = sum(count for name, count in values.items() if is_inside(name, heads))
    return BackboneSize(
        values=sum(values.values()) - classifier,
        classifier_values=classifier,
        sites=find_sites(model, start=start, exclude=heads),
        ungated=find_ungated(model, start=start, exclude=heads),
        tasks={
            policy: TaskSize(
                layout=layout,
                gate_values=sum(gate.kind.count(*gate.shape) for gate in layout.sites.values()),
                norm_values=norm_values,
            )
            for policy, layout in layouts.items()
        },
    )
