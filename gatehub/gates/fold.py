"""Where gates meet weights: pure functions from frozen kernels and gates to plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone, BackboneIdentity, replace_classifier
from gatehub.errors import BackboneMismatchError, SiteError
from gatehub.gates.layout import GateLayout, find_norm_tensors
from gatehub.gates.sites import copy_plain, is_inside

HEAD = "head"


class GateState(Protocol):
    """What folding needs to know of a task; an `Adapter` has it."""

    @property
    def task(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def backbone(self) -> BackboneIdentity: ...
    @property
    def layout(self) -> GateLayout: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...


def fold(backbone: Backbone, adapter: GateState) -> nn.Module:
    """Return a plain timm model with the adapter's gates multiplied into its kernels.

    The backbone stays as it is; tensors that the task leaves alone are shared with it.

    Args:
        backbone: the one that the adapter was trained on.
        adapter: gates, normalisation values and head of a task.

    Returns:
        A frozen model in evaluation mode: (B, 3, H, W) → (B, len(labels)), without a trace of
        gates.

    Raises:
        BackboneMismatchError: the backbone's digest is not the adapter's.
        SiteError: a tensor of the adapter has no place in the backbone.
    """
    check_backbone(backbone, adapter)
    model = copy_plain(backbone.model, exclude=backbone.head_prefix)
    with torch.random.fork_rng(devices=[]):
        replace_classifier(model, len(adapter.labels))
    with torch.no_grad():
        weights = fold_weights(model, adapter, head_prefix=backbone.head_prefix)
    install_tensors(model, weights)
    return model.eval().requires_grad_(False)


def fold_weights(plain: nn.Module, adapter: GateState, *, head_prefix: str) -> dict[str, Tensor]:
    """Return the task's own tensors for a plain model: gated kernels, norm values and head.

    Args:
        plain: a backbone whose sites convolve with their weight as it stands, with a classifier
            of the task's size.
        adapter: gates, normalisation values and head of a task.
        head_prefix: name of the classifier's module in `plain`.

    Returns:
        Tensors by their name in `plain`, with the dtype and device that they replace there.

    Raises:
        SiteError: a tensor of the adapter has no place in the model, has another shape there, or
            is missing.
    """
    present = plain.state_dict(keep_vars=True)
    places = _find_places(plain, present, adapter.layout, head_prefix)
    gate_names = adapter.layout.gate_shapes().keys()
    folded = gate_kernels(present, adapter.layout, adapter.tensors, task=adapter.task)
    for name, tensor in adapter.tensors.items():
        if name in gate_names:
            continue
        place = present[places[name]] if name in places else None
        if place is None or place.shape != tensor.shape:
            found = "no place for it" if place is None else f"shape {tuple(place.shape)} there"
            raise SiteError(
                f"Adapter '{adapter.task}' has '{name}' of shape {tuple(tensor.shape)}, but the "
                f"backbone has {found}.",
                hint="Train the adapter on this backbone.",
            )
        folded[places[name]] = tensor.to(place)
    missing = sorted(places.keys() - adapter.tensors.keys())
    if missing:
        raise SiteError(
            f"Adapter '{adapter.task}' lacks '{missing[0]}' ({len(missing)} such tensors), which "
            f"a task with norm '{adapter.layout.norm}' has on this backbone.",
            hint="Save the adapter again from the trained model.",
        )
    return folded


def gate_kernels(
    kernels: Mapping[str, Tensor], layout: GateLayout, tensors: Mapping[str, Tensor], *, task: str
) -> dict[str, Tensor]:
    """Multiply kernels by their gates: W'[o, i] = M[o, i] K(W)[o, i], arXiv 2602.06245.

    Args:
        kernels: `K(W)` of each site as "SITE.weight", (O, I/groups, kH, kW).
        layout: which gates there are.
        tensors: the learned tensors, "SITE.gate" or "SITE.gate_a" and "SITE.gate_b".
        task: for the error.

    Returns:
        The gated kernels as "SITE.weight", with dtype and device of the kernels.

    Raises:
        SiteError: a site is missing, or its kernel does not fit the gate.
    """
    gated = {}
    for site, gate in layout.sites.items():
        kernel = kernels.get(f"{site}.weight")
        if kernel is None or tuple(kernel.shape[:2]) != gate.shape:
            found = "no such layer" if kernel is None else f"a kernel {tuple(kernel.shape)}"
            raise SiteError(
                f"Task '{task}' has a gate {gate.shape} for '{site}', where the backbone has "
                f"{found}.",
                hint="Train the adapter on this backbone.",
            )
        matrix = gate.kind.matrix({part: tensors[f"{site}.{part}"] for part in gate.parts})
        spread = matrix.reshape(matrix.shape + (1,) * (kernel.ndim - 2))
        gated[f"{site}.weight"] = (spread.to(kernel.device) * kernel).to(kernel.dtype)
    return gated


def check_backbone(backbone: Backbone, adapter: GateState) -> None:
    """Refuse a backbone whose weights are not those that the adapter was trained on.

    Raises:
        BackboneMismatchError: the digests differ.
    """
    if backbone.digest != adapter.backbone.digest:
        raise BackboneMismatchError(
            f"Adapter '{adapter.task}' was trained on {adapter.backbone}, but the backbone at "
            f"hand is {backbone.identity}.",
            hint=f"Use it on {adapter.backbone.name} with exactly those weights.",
        )


def install_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of a model's own parameters and buffers, in place."""
    for name, tensor in tensors.items():
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        if leaf in module._parameters:
            setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
        else:
            setattr(module, leaf, tensor)


def _find_places(
    plain: nn.Module, present: Mapping[str, Tensor], layout: GateLayout, head_prefix: str
) -> dict[str, str]:
    """Return where a task's norm values and head belong: adapter name → name in the model."""
    norms = find_norm_tensors(plain, norm=layout.norm, start=layout.start, exclude=head_prefix)
    head = {
        rename_head(name, head_prefix, HEAD): name
        for name, tensor in present.items()
        if is_inside(name, head_prefix) and tensor.is_floating_point()
    }
    return {name: name for name in norms} | head


def rename_head(name: str, old: str, new: str) -> str:
    """Return a tensor's name with the classifier's prefix exchanged; others stay as they are."""
    return f"{new}{name[len(old) :]}" if name.startswith(f"{old}.") else name
