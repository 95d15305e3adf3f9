"""Which of a backbone's values a task has of its own beside its gates and its head.

Normalisation values, and shifts: the bias of a gated layer, y = (M * K(W)) x + b + s. Meta-Transfer
Learning (CVPR 2019, arXiv 1812.02391, equation 5) trains a scale for each pair of channels, as a
gate does, and a shift of the bias. Here b + s is what is learned and stored, so folding a shift is
putting it in the place of the layer's bias: exact, and nothing that computes has to know of it.

A batch norm that reads a layer's output, and nothing else does, takes its mean away and with it any
shift; what the norm adds then, its own bias, is a shift already (norm "affine"). Layers before such
a norm get none. Nor do those without a bias, which is where designers have left it out for the sake
of a norm that follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gatehub.backbone.classifier import is_inside
from gatehub.compiler.tracing import trace_forward
from gatehub.errors import GateError
from gatehub.gates.norm_folding import BATCH_NORMS
from gatehub.gates.rules import registered_sites
from gatehub.gates.sites import is_vector, modules_from

NORMS = ("frozen", "affine", "stats")
STATISTICS = ("running_mean", "running_var")


def find_norm_tensors(
    model: nn.Module, *, norm: str, start: str | None, exclude: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of the normalisation values that are the task's own.

    Found by what they are, since a list of classes would silently pass over the next one: "affine"
    is every learned vector that no layer multiplies with its input as a kernel or adds as a
    kernel's bias. Those are the weight and bias of BatchNorm, GroupNorm, LayerNorm, RMSNorm and
    response norms, FilterResponseNorm's threshold, EvoNorm's v, layer scales (ConvNeXt's gamma),
    the gains of networks without normalisation, and learned activations.

    Args:
        model: a timm model, on any device.
        norm: "frozen" for none, "affine", or "stats" for running mean and variance too.
        start: name of the first stage that counts, or None.
        exclude: names of the modules that hold the classifier.
    """
    if norm == "frozen":
        return ()
    names = []
    for name, module in modules_from(model, start).items():
        # What the network itself holds are tokens and mixtures of answers, and no layer's values.
        if not name or is_inside(name, exclude):
            continue
        rule = registered_sites().get(type(module))
        if rule is not None:
            names += [f"{name}.{rule.gain}"] if rule.gain else []
        elif not isinstance(module, nn.Linear | _ConvNd | CondConv2d):
            for part, parameter in module._parameters.items():
                if parameter is not None and is_vector(parameter.shape):
                    names.append(f"{name}.{part}")
        if norm == "stats":
            names += [f"{name}.{part}" for part in STATISTICS if has_statistic(module, part)]
    return tuple(names)


def find_shifts(
    model: nn.Module, sites: Collection[str], *, input_size: tuple[int, int, int]
) -> frozenset[str]:
    """Return the gated layers for which a shift adds something, from what really runs.

    Args:
        model: a timm model, on any device.
        sites: names of the gated layers.
        input_size: (channels, height, width) of an image.

    Raises:
        GateError: there is no such layer, or the model does not run on the meta device.
    """
    try:
        trace = trace_forward(model, input_size)
    except GateError as error:
        raise GateError(error.message, hint="Leave shift (--shift) out.") from error
    normed = [id(o.arguments[0]) for o in trace.operations if o.name in BATCH_NORMS]
    shifted = set()
    for operation in trace.operations:
        absorbed = operation.name == "aten.convolution" and (
            0 < normed.count(out := id(operation.outputs[0])) == trace.readers[out]
        )
        for tensor in operation.inputs if not absorbed else ():
            layer, _, part = (trace.name(tensor) or "").rpartition(".")
            if part == "bias" and layer in sites:
                shifted.add(layer)
    if not shifted:
        raise GateError(
            f"A shift adds nothing to the {len(sites)} gated layers of {type(model).__name__}: "
            "each of them has no bias, or is followed by a batch norm, which takes it away.",
            hint="Leave shift (--shift) out; norm 'affine' trains the norms' biases, which shift.",
        )
    return frozenset(shifted)


def find_gains(model: nn.Module, *, norm: str, sites: Iterable[str]) -> dict[str, str]:
    """Return the gains within `K(W)` that are a task's own: tensor name by site.

    Args:
        model: a timm model.
        norm: see `find_norm_tensors`.
        sites: names of the gated layers.
    """
    if norm == "frozen":
        return {}
    rules = registered_sites()
    present = {site: rules.get(type(module)) for site, module in model.named_modules()}
    return {
        site: f"{site}.{rule.gain}"
        for site in sites
        if (rule := present.get(site)) is not None and rule.gain is not None
    }


def form_gainless(model: nn.Module, gains: Mapping[str, str]) -> dict[str, Tensor]:
    """Return `K(W)` with gains of 1, as "SITE.weight".

    Args:
        model: a timm model.
        gains: from `find_gains`.
    """
    kernels = {}
    for site in gains:
        module = model.get_submodule(site)
        gainless = registered_sites()[type(module)].gainless
        if gainless is not None:
            with torch.no_grad():
                kernels[f"{site}.weight"] = gainless(module)
    return kernels


def has_statistic(module: nn.Module, part: str) -> bool:
    """Whether a module keeps a running statistic of that name."""
    return isinstance(module._buffers.get(part), Tensor)
