"""A gated model made as like a fine-tuned network as its values allow, without an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel
from gatehub.gates.heads import find_head_places, name_head
from gatehub.gates.norms import (
    STATISTICS,
    find_gains,
    find_norm_tensors,
    form_gainless,
    has_statistic,
)
from gatehub.gates.rules import registered_sites
from gatehub.training.distillation.least_squares import fit_gate, measure_misfit


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How near least squares came.

    Args:
        explained: the share of the squared change of all gated kernels that gates have; 1 where
            nothing changed.
        left: names of changed tensors that no value of an adapter stands for, such as biases of
            convolutions and layers without gates.
    """

    explained: float
    left: tuple[str, ...]


@torch.no_grad()
def project(model: GatedModel, backbone: Backbone, network: nn.Module) -> Fit:
    """Give a gated model the values that are nearest to a fine-tuned network, in place.

    Gates by least squares; gains, normalisation values and head as they are there. What running
    statistics have become is in the normalisation's weight and bias, where the task has these.

    Args:
        model: from `attach_gates`, with the network's labels.
        backbone: what it was attached to.
        network: of the same architecture.
    """
    layout, tensors = model.layout, model.task_tensors()
    theirs = network.state_dict()
    gains = find_gains(backbone.model, norm=layout.norm, sites=layout.sites)
    frozen, wanted = (_form_kernels(net, model, gains) for net in (backbone.model, network))
    before = after = 0.0
    for site, gate in layout.sites.items():
        parts = fit_gate(frozen[site], wanted[site], gate)
        for part, tensor in parts.items():
            tensors[f"{site}.{part}"].copy_(tensor)
        changed, missed = measure_misfit(frozen[site], wanted[site], gate.kind.matrix(parts))
        before, after = before + changed, after + missed
    gates = layout.gate_shapes().keys()
    norms = find_norm_tensors(
        backbone.model, norm=layout.norm, start=layout.start, exclude=backbone.heads
    )
    head = find_head_places(theirs, backbone.heads)
    places = name_head(head, backbone.heads, taken={*norms, *gates})
    for name in tensors.keys() - gates:
        tensors[name].copy_(theirs[places.get(name, name)])
    for name in batch_norms(model, network):
        express(model, name, *line_of(network.get_submodule(name)))
    return Fit(
        explained=1.0 if before == 0 else 1 - after / before,
        left=tuple(_find_left(model, backbone, theirs, places)),
    )


def batch_norms(model: GatedModel, network: nn.Module) -> list[str]:
    """Return the layers with running statistics whose weight and bias are the task's own."""
    own = model.task_tensors()
    return [
        name
        for name, module in network.named_modules()
        if all(has_statistic(module, part) for part in STATISTICS)
        and all(f"{name}.{part}" in own for part in ("weight", "bias"))
    ]


@torch.no_grad()
def express(model: GatedModel, name: str, slope: Tensor, offset: Tensor) -> None:
    """Let a layer with running statistics compute slope · x + offset, (C,), in place.

    Its statistics stay: y = weight (x - mean) / √(var + eps) + bias.
    """
    module, own = model.net.get_submodule(name), model.task_tensors()
    mean, var = (cast(Tensor, getattr(module, part)).double() for part in STATISTICS)
    weight = slope.double() * (var + cast(float, module.eps)).sqrt()
    own[f"{name}.weight"].copy_(weight)
    own[f"{name}.bias"].copy_(offset.double() + slope.double() * mean)


def line_of(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a layer computes in evaluation mode, as slope and offset, (C,) float64."""
    weight, bias, mean, var = (
        cast(Tensor, getattr(module, part)).detach().double()
        for part in ("weight", "bias", *STATISTICS)
    )
    slope = weight / (var + cast(float, module.eps)).sqrt()
    return slope, bias - slope * mean


def _form_kernels(net: nn.Module, model: GatedModel, gains: Mapping[str, str]) -> dict[str, Tensor]:
    """Return `K(W)` of each gated site; without the gain where the task has its own."""
    gainless, rules = form_gainless(net, gains), registered_sites()
    found = {}
    for site in model.layout.sites:
        layer = net.get_submodule(site)
        kernel = gainless.get(f"{site}.weight")
        found[site] = rules[type(layer)].kernel(layer) if kernel is None else kernel
    return found


def _find_left(
    model: GatedModel,
    backbone: Backbone,
    theirs: Mapping[str, Tensor],
    places: Mapping[str, str],
) -> list[str]:
    """Return changed tensors that neither a gate nor a value of the adapter stands for."""
    own = model.task_tensors().keys()
    stood_for = {f"{site}.weight" for site in model.layout.sites} | {*own} | {*places.values()}
    expressed = set(batch_norms(model, backbone.model))
    before = backbone.model.state_dict()
    return [
        name
        for name, tensor in theirs.items()
        if name not in stood_for
        and name in before
        and tensor.is_floating_point()
        and not (name.rpartition(".")[0] in expressed and name.endswith(STATISTICS))
        and not torch.equal(tensor, before[name].to(tensor))
    ]
