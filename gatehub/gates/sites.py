"""Which layers of a backbone carry gates, which do not, and the backbone with plain layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from gatehub.backbone.classifier import is_inside
from gatehub.backbone.structure import copy_structure
from gatehub.errors import SiteError
from gatehub.gates.rules import SiteRule, registered_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A layer that can carry a gate.

    Args:
        name: the layer's name in the backbone, such as "layer1.0.conv1".
        out_channels: rows of the gate, O.
        in_channels: columns of the gate: input channels of one group, I/groups.
        kernel_size: (height, width) of the kernel, in pixels; (1, 1) for a linear layer.
    """

    name: str
    out_channels: int
    in_channels: int
    kernel_size: tuple[int, int]

    @property
    def is_pointwise(self) -> bool:
        """Whether a full gate would be as large as the kernel itself."""
        return self.kernel_size == (1, 1)

    @property
    def kernel_values(self) -> int:
        """How many values the kernel has."""
        return self.out_channels * self.in_channels * self.kernel_size[0] * self.kernel_size[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ungated:
    """Layers of one class that hold kernels and carry no gates.

    Args:
        layer: the class's name.
        count: how many such layers.
        values: numbers in their kernels.
    """

    layer: str
    count: int
    values: int

    def __str__(self) -> str:
        return f"{self.count} {self.layer} ({self.values:,} values)"


def find_sites(
    model: nn.Module, *, start: str | None = None, exclude: Sequence[str] = ()
) -> tuple[Site, ...]:
    """Return the sites of a backbone, in the order in which the model defines them.

    Args:
        model: a timm model, on any device.
        start: name of the first stage to gate, such as "layer3"; None for all.
        exclude: names of the modules that hold the classifier, which is never gated.

    Raises:
        SiteError: no stage of that name, a convolution of a class without a rule, or a site whose
            weight is parametrized.
    """
    sites = []
    for name, module, rule in _walk(model, start, exclude):
        if rule is not None and is_parametrized(module, "weight"):
            raise SiteError(
                f"The weight of layer '{name}' is parametrized, so it is recomputed whenever it "
                "is read; a gate multiplies a weight that stands still.",
                hint="Make it permanent first: torch.nn.utils.parametrize."
                "remove_parametrizations(layer, 'weight').",
            )
        if rule is not None and rule.plain is None and not _holds(module, "weight"):
            raise SiteError(
                f"Layer '{name}' is a {type(module).__name__} without a parameter or buffer "
                "'weight'.",
                hint="Give its rule a plain layer, which has one.",
            )
        if rule is not None:
            shape = cast(Tensor, module.weight).shape
            sites.append(
                Site(
                    name=name,
                    out_channels=shape[0],
                    in_channels=shape[1],
                    kernel_size=(shape[2], shape[3]) if len(shape) == 4 else (1, 1),
                )
            )
        elif isinstance(module, nn.Conv2d | CondConv2d):
            raise SiteError(
                f"Layer '{name}' is a {type(module).__name__}, for which there is no rule.",
                hint="Register one with gatehub.register_site, or choose a start after it.",
            )
    if not sites:
        raise SiteError(
            f"{type(model).__name__} has no convolution to gate"
            + (f" from '{start}' on." if start else "."),
            hint="Choose an earlier stage, or a convolutional backbone.",
        )
    return tuple(sites)


def find_ungated(
    model: nn.Module, *, start: str | None = None, exclude: Sequence[str] = ()
) -> tuple[Ungated, ...]:
    """Return the layers that hold a kernel and are left as they are, by class, largest first.

    These are linear layers outside convolutional blocks (attention), transposed convolutions, and
    convolutions over one or three dimensions. The arguments are those of `find_sites`.
    """
    found: dict[str, Ungated] = {}
    for _, module, rule in _walk(model, start, exclude):
        weight = module._parameters.get("weight")
        if rule is not None or weight is None:
            continue
        if isinstance(module, _ConvNd) or not is_vector(weight.shape):
            layer = type(module).__name__
            before = found.get(layer, Ungated(layer=layer, count=0, values=0))
            found[layer] = Ungated(
                layer=layer, count=before.count + 1, values=before.values + weight.numel()
            )
    return tuple(sorted(found.values(), key=lambda ungated: -ungated.values))


def modules_from(model: nn.Module, start: str | None) -> Mapping[str, nn.Module]:
    """Return the modules from stage `start` on, by name, in the order of their definition.

    Raises:
        SiteError: no module of that name.
    """
    modules = dict(model.named_modules())
    if start is None:
        return modules
    if start not in modules or not start:
        stages = ", ".join(name for name, _ in model.named_children())
        raise SiteError(
            f"{type(model).__name__} has no stage '{start}'.", hint=f"Its stages are: {stages}."
        )
    names = list(modules)
    return {name: modules[name] for name in names[names.index(start) :]}


def is_vector(shape: Sequence[int]) -> bool:
    """Whether at most one dimension is longer than 1: one value, or one for each channel."""
    return sum(size > 1 for size in shape) <= 1


def copy_plain(model: nn.Module, *, exclude: Sequence[str] = ()) -> nn.Module:
    """Copy a model so that every site computes with its `weight` as it stands.

    Tensors are shared with the original, but for the kernels that a layer forms from its weight.

    Args:
        model: a timm model.
        exclude: names of the modules that hold the classifier, which stays as it is.
    """
    copied = copy_structure(model)
    for name, module, rule in list(_walk(copied, None, exclude)):
        if rule is None or rule.plain is None:
            continue
        with torch.no_grad():
            kernel = rule.kernel(module)
        plain = rule.plain(module)
        plain.weight = nn.Parameter(kernel, requires_grad=False)
        plain.train(module.training)
        copied.set_submodule(name, plain)
    return copied


def mark_plain(copied: nn.Module, model: nn.Module) -> None:
    """Let strict loading tell a plain layer's weight from that of the layer it replaced.

    Args:
        copied: from `copy_plain`; changed in place.
        model: what it was copied from.
    """
    plain = dict(copied.named_modules())
    rules = registered_sites()
    for name, module in model.named_modules():
        rule = rules.get(type(module))
        if rule is None or rule.plain is None or type(plain.get(name, module)) is type(module):
            continue
        mark = f"weight_is_not_for_{type(module).__name__}"
        plain[name].register_buffer(mark, torch.empty(0))


def _holds(module: nn.Module, part: str) -> bool:
    return isinstance(module._parameters.get(part, module._buffers.get(part)), Tensor)


def _walk(
    model: nn.Module, start: str | None, exclude: Sequence[str]
) -> Iterator[tuple[str, nn.Module, SiteRule | None]]:
    """Go through the modules outside the classifier, each with the rule that gates it there."""
    rules = registered_sites()
    every = dict(model.named_modules())
    for name, module in modules_from(model, start).items():
        if is_inside(name, exclude):
            continue
        rule = rules.get(type_before_parametrizations(module))
        if rule is not None and rule.inside is not None:
            parts = name.split(".") if name else []
            around = [every[".".join(parts[:depth])] for depth in range(len(parts))]
            rule = rule if rule.inside(around) else None
        yield name, module, rule
