"""Where gates meet weights: pure functions from frozen kernels and gates to plain weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gatehub._arguments import checked
from gatehub.backbone import Backbone, BackboneIdentity
from gatehub.backbone.classifier import replace_classifier
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.structure import own_memory
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import BackboneMismatchError, GateError, SiteError
from gatehub.gates.heads import find_head_places, name_head
from gatehub.gates.layout import GateLayout, SiteGate, find_own_values
from gatehub.gates.norm_folding import merge_norms
from gatehub.gates.norms import find_gains, form_gainless
from gatehub.gates.sites import copy_plain, mark_plain


@runtime_checkable
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
    def preprocessing(self) -> Preprocessing: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...


@checked(GateError)
def fold(backbone: Backbone, adapter: GateState, *, merge_norm: bool = False) -> nn.Module:
    """Return a plain timm model with the adapter's gates multiplied into its kernels.

    The model has memory of its own, as much as the whole network takes, and nothing done to it
    reaches the backbone or the adapter. An `Engine` keeps many tasks in memory, each at the cost
    of its own layers only.

    Its `state_dict` loads into `timm.create_model(NAME, num_classes=len(adapter.labels))`, with two
    exceptions, both below: standardised layers, and merged norms. RepViT, whose head for
    distillation timm drops with a new classifier, needs `distillation=False` there as well.

    Layers that form their kernel from their weight, such as timm's `StdConv2d`, become plain ones,
    since no weight of theirs stands for a gated kernel. Each has an empty buffer such as
    `weight_is_not_for_StdConv2d`, so that timm's own model refuses the `state_dict`; another
    folded model takes it.

    Args:
        backbone: the one that the adapter was trained on.
        adapter: gates, normalisation values and head of a task.
        merge_norm: multiply batch norms into the convolutions that they follow, too, wherever
            that is exact. The model has no such layers any more, so timm's
            `reparameterize_model`, which reads them, is for models folded without.

    Returns:
        A frozen model in evaluation mode: (B, 3, H, W) → (B, len(labels)), without a trace of
        gates.

    Raises:
        BackboneMismatchError: the backbone's digest is not the adapter's.
        BackboneChangedError: the backbone has changed since it was loaded.
        SiteError: a tensor of the adapter has no place in the backbone.
        GateError: norms are to be merged, and the model does not run on the meta device.
    """
    check_backbone(backbone, adapter)
    backbone.check_unchanged()
    theirs, given = backbone.model, adapter.tensors.values()
    with pin_settings(), torch.no_grad():
        model = copy_plain(theirs, exclude=backbone.heads)
        with torch.random.fork_rng(devices=[]):
            replace_classifier(model, len(adapter.labels))
        install_tensors(model, fold_weights(backbone, model, adapter))
        if merge_norm:
            merge_norms(model, input_size=backbone.preprocessing.input_size)
        mark_plain(model, theirs)
        own_memory(model, lenders=(*theirs.parameters(), *theirs.buffers(), *given))
    return model.eval().requires_grad_(False)


def fold_weights(backbone: Backbone, plain: nn.Module, adapter: GateState) -> dict[str, Tensor]:
    """Return the task's own tensors for a plain model: gated kernels, norm values and head.

    Args:
        backbone: the one that the adapter was trained on.
        plain: that backbone with sites that compute with their weight as it stands, and with a
            classifier of the task's size.
        adapter: gates, normalisation values and head of a task.

    Returns:
        Tensors by their name in `plain`, with the dtype and device that they replace there.

    Raises:
        SiteError: a tensor of the adapter has no place in the model, has another shape there, or
            is missing.
    """
    layout, tensors = adapter.layout, adapter.tensors
    gains = find_gains(backbone.model, norm=layout.norm, sites=layout.sites)
    present = plain.state_dict(keep_vars=True)
    places = _find_places(backbone, present, layout)
    own = {name: present[place] for name, place in places.items()}
    own |= {name: backbone.model.get_parameter(name) for name in gains.values()}
    for name, place in own.items():
        if name not in tensors:
            raise SiteError(
                f"Adapter '{adapter.task}' lacks '{name}', which a task with norm "
                f"'{layout.norm}' has on this backbone.",
                hint="Train the adapter again, or save it from the trained model.",
            )
        if place.shape != tensors[name].shape:
            raise _misfit(adapter, name, f"shape {tuple(place.shape)} there")
    kernels = present | form_gainless(backbone.model, gains)
    folded = gate_kernels(kernels, layout, tensors, gains=gains, task=adapter.task)
    for name in tensors.keys() - layout.gate_shapes().keys() - own.keys():
        raise _misfit(adapter, name, "no place for it")
    return folded | {place: tensors[name].to(present[place]) for name, place in places.items()}


def gate_kernels(
    kernels: Mapping[str, Tensor],
    layout: GateLayout,
    tensors: Mapping[str, Tensor],
    *,
    gains: Mapping[str, str],
    task: str,
) -> dict[str, Tensor]:
    """Multiply kernels by their gates: W'[o, i] = M[o, i] K(W)[o, i], arXiv 2602.06245.

    Args:
        kernels: `K(W)` of each site as "SITE.weight", (O, I/groups, kH, kW) or (O, I); without
            the gain where the task has its own.
        layout: which gates there are.
        tensors: the learned tensors, "SITE.gate" or "SITE.gate_a" and "SITE.gate_b", and gains.
        gains: from `find_gains`.
        task: for the error.

    Returns:
        The gated kernels as "SITE.weight", with dtype and device of the kernels.

    Raises:
        SiteError: a site is missing, or its kernel does not fit the gate.
    """
    gated = {}
    for site, gate in layout.sites.items():
        kernel = find_kernel(kernels, site, gate, subject=f"Task '{task}'")
        parts = {part: tensors[f"{site}.{part}"] for part in gate.parts}
        gain = tensors[gains[site]] if site in gains else None
        gated[f"{site}.weight"] = gate_kernel(kernel, gate, parts, gain=gain)
    return gated


def gate_kernel(
    kernel: Tensor, gate: SiteGate, parts: Mapping[str, Tensor], *, gain: Tensor | None
) -> Tensor:
    """Multiply one kernel by its gate; see `gate_kernels`.

    Args:
        kernel: `K(W)`, (O, I/groups, kH, kW) or (O, I); without the gain where one is given.
        gate: the site's.
        parts: its learned tensors, by the last part of their name.
        gain: the task's own gain, of a shape that broadcasts against the kernel, or None.
    """
    return (_spread(gate, parts, kernel=kernel, gain=gain) * kernel).to(kernel.dtype)


def find_kernel(
    kernels: Mapping[str, Tensor], site: str, gate: SiteGate, *, subject: str
) -> Tensor:
    """Return the kernel that a gate is for.

    Args:
        kernels: `K(W)` of each site as "SITE.weight".
        site: name of the layer.
        gate: its gate.
        subject: whose gate it is, for the error.

    Raises:
        SiteError: the layer is missing, or its kernel does not fit the gate.
    """
    kernel = kernels.get(f"{site}.weight")
    if kernel is None or tuple(kernel.shape[:2]) != gate.shape:
        found = "no such layer" if kernel is None else f"a kernel {tuple(kernel.shape)}"
        raise SiteError(
            f"{subject} has a gate {gate.shape} for '{site}', where the backbone has {found}.",
            hint="Train the adapter on this backbone.",
        )
    return kernel


def spread_gate(
    site: str,
    layout: GateLayout,
    tensors: Mapping[str, Tensor],
    *,
    kernel: Tensor,
    gains: Mapping[str, str],
) -> Tensor:
    """Return what a site's kernel is multiplied by: its gate, and the task's gain where it has one.

    Args:
        site: name of the layer.
        layout: which gates there are.
        tensors: the learned tensors.
        kernel: (O, I/groups, kH, kW) or (O, I); its device and, where it is wider than that of
            the gates, its dtype are those of the answer, so half-precision kernels are rounded
            once, at the end.
        gains: from `find_gains`.

    Returns:
        (O, I/groups, 1, 1) or (O, I).
    """
    gate = layout.sites[site]
    parts = {part: tensors[f"{site}.{part}"] for part in gate.parts}
    gain = tensors[gains[site]] if site in gains else None
    return _spread(gate, parts, kernel=kernel, gain=gain)


def _spread(
    gate: SiteGate, parts: Mapping[str, Tensor], *, kernel: Tensor, gain: Tensor | None
) -> Tensor:
    matrix = gate.kind.matrix({part: _widen(tensor, kernel) for part, tensor in parts.items()})
    spread = matrix.reshape(matrix.shape + (1,) * (kernel.ndim - 2))
    return spread if gain is None else spread * _widen(gain, kernel)


def _widen(tensor: Tensor, kernel: Tensor) -> Tensor:
    return tensor.to(device=kernel.device, dtype=torch.promote_types(tensor.dtype, kernel.dtype))


def check_backbone(backbone: Backbone, adapter: GateState) -> None:
    """Refuse a backbone that the adapter was not trained on, or that its images are too large for.

    Raises:
        BackboneMismatchError: the digests differ, or the adapter's images are larger than the
            `max_task_pixels` of the backbone's preprocessing: to load it would take minutes.
    """
    if backbone.digest != adapter.backbone.digest:
        raise BackboneMismatchError(
            f"Adapter '{adapter.task}' was trained on {adapter.backbone}, but the backbone at "
            f"hand is {backbone.identity}.",
            hint=f"Use it on {adapter.backbone.name} with exactly those weights.",
        )
    _, height, width = adapter.preprocessing.input_size
    _, own_height, own_width = backbone.preprocessing.input_size
    limit = backbone.preprocessing.max_task_pixels
    if height * width > limit:
        raise BackboneMismatchError(
            f"Adapter '{adapter.task}' takes images of {height} x {width} pixels; tasks of "
            f"{backbone.identity.name}, which takes {own_height} x {own_width}, may have up to "
            f"{limit:,} pixels.",
            hint=f"Train it on images of at most {math.isqrt(limit)} x {math.isqrt(limit)} pixels.",
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
    backbone: Backbone, present: Mapping[str, Tensor], layout: GateLayout
) -> dict[str, str]:
    """Return where norm values and head belong: name in an adapter → name in the plain model."""
    norms = find_own_values(backbone.model, layout, exclude=backbone.heads)
    taken = {*norms, *layout.gate_shapes()}
    head = name_head(find_head_places(present, backbone.heads), backbone.heads, taken=taken)
    return {name: name for name in norms if name in present} | head


def _misfit(adapter: GateState, name: str, found: str) -> SiteError:
    return SiteError(
        f"Adapter '{adapter.task}' has '{name}' of shape {tuple(adapter.tensors[name].shape)}, "
        f"but the backbone has {found}.",
        hint="Train the adapter on this backbone.",
    )
