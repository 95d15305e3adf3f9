"""Which layers carry gates, and which kernel a gate multiplies there.

A layer class is gated by one entry of the registry: its `SiteRule` says what kernel `K(W)` the
layer convolves with, and which plain layer convolves with a given kernel. The gate multiplies
`K(W)`, never the raw weight: a standardised convolution would undo a gate on its raw weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import (
    CondConv2d,
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import Tensor, nn

from gatehub.backbone import copy_structure
from gatehub.errors import SiteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A layer that can carry a gate.

    Args:
        name: the layer's name in the backbone, such as "layer1.0.conv1".
        out_channels: rows of the gate, O.
        in_channels: columns of the gate: input channels of one group, I/groups.
        kernel_size: (height, width) of the kernel, in pixels.
    """

    name: str
    out_channels: int
    in_channels: int
    kernel_size: tuple[int, int]

    @property
    def is_pointwise(self) -> bool:
        """Whether a full gate would be as large as the kernel itself."""
        return self.kernel_size == (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRule:
    """How a layer class is gated.

    Args:
        kernel: returns `K(W)`, the (O, I/groups, kH, kW) kernel that the layer convolves with.
        plain: returns a layer that convolves with its `weight` as it stands and otherwise does
            what the given layer does; its weight is on the meta device. None where the given
            layer does so itself.
    """

    kernel: Callable[[nn.Module], Tensor]
    plain: Callable[[nn.Module], nn.Module] | None = None


def find_sites(
    model: nn.Module, *, start: str | None = None, exclude: str = ""
) -> tuple[Site, ...]:
    """Return the sites of a backbone, in the order in which the model defines them.

    Args:
        model: a timm model.
        start: name of the first stage to gate, such as "layer3"; None for all.
        exclude: name of the module that holds the classifier, which is never gated.

    Raises:
        SiteError: no stage of that name, or a convolution of a class without a rule.
    """
    sites = []
    for name, module in modules_from(model, start).items():
        if is_inside(name, exclude):
            continue
        if type(module) in _RULES:
            weight = cast(Tensor, module.weight)
            out_channels, in_channels, height, width = weight.shape
            sites.append(
                Site(
                    name=name,
                    out_channels=out_channels,
                    in_channels=in_channels,
                    kernel_size=(height, width),
                )
            )
        elif isinstance(module, nn.Conv2d | CondConv2d):
            raise SiteError(
                f"Layer '{name}' is a {type(module).__name__}, for which there is no rule.",
                hint="Register one with gatehub.gates.sites.register_site, or start behind it.",
            )
    if not sites:
        raise SiteError(
            f"{type(model).__name__} has no convolution to gate"
            + (f" from '{start}' on." if start else "."),
            hint="Choose an earlier stage, or a convolutional backbone.",
        )
    return tuple(sites)


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


def is_inside(name: str, module: str) -> bool:
    """Whether `name` is `module` or lies in it; nothing lies in ""."""
    return bool(module) and (name == module or name.startswith(f"{module}."))


def copy_plain(model: nn.Module, *, exclude: str = "") -> nn.Module:
    """Copy a model so that every site convolves with its `weight` as it stands.

    Tensors are shared with the original, but for the kernels that a layer forms from its weight.

    Args:
        model: a timm model.
        exclude: name of the module that holds the classifier, which stays as it is.
    """
    copied = copy_structure(model)
    for name, module in list(copied.named_modules()):
        rule = _RULES.get(type(module))
        if rule is None or rule.plain is None or is_inside(name, exclude):
            continue
        with torch.no_grad():
            kernel = rule.kernel(module)
        plain = rule.plain(module)
        plain.weight = nn.Parameter(kernel, requires_grad=False)
        plain.train(module.training)
        copied.set_submodule(name, plain)
    return copied


def register_site(layer: type[nn.Module], rule: SiteRule) -> None:
    """Let layers of one class carry gates.

    Args:
        layer: the exact class; subclasses need a rule of their own, since they may form their
            kernel in another way.
        rule: how it is gated.

    Raises:
        SiteError: the class has a rule already.
    """
    if layer in _RULES:
        raise SiteError(
            f"{layer.__name__} has a gate rule already.", hint="Register each class once."
        )
    _RULES[layer] = rule


def registered_sites() -> Mapping[type[nn.Module], SiteRule]:
    """Return the rules, by layer class."""
    return MappingProxyType(_RULES)


_RULES: dict[type[nn.Module], SiteRule] = {}


def _read_weight(module: nn.Module) -> Tensor:
    return cast(nn.Conv2d, module).weight


def _standardise(module: nn.Module) -> Tensor:
    """Weight standardisation, arXiv 1903.10520v2, as timm.layers.std_conv computes it."""
    conv = cast(StdConv2d, module)
    return _normalise_kernel(conv.weight, None, conv.eps)


def _standardise_scaled(module: nn.Module) -> Tensor:
    """Scaled weight standardisation, arXiv 2101.08692, as timm.layers.std_conv computes it."""
    conv = cast(ScaledStdConv2d, module)
    return _normalise_kernel(conv.weight, (conv.gain * conv.scale).view(-1), conv.eps)


def _normalise_kernel(weight: Tensor, scale: Tensor | None, eps: float) -> Tensor:
    flat = weight.reshape(1, weight.shape[0], -1)
    kernel = F.batch_norm(flat, None, None, weight=scale, training=True, momentum=0.0, eps=eps)
    return kernel.reshape_as(weight)


def _plain_conv(module: nn.Module) -> nn.Module:
    conv = cast(nn.Conv2d, module)
    same = getattr(conv, "same_pad", False)
    with torch.device("meta"):
        plain = (Conv2dSame if same else nn.Conv2d)(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
    plain.bias = conv.bias
    return plain


_layer: type[nn.Module]
for _layer in (nn.Conv2d, Conv2dSame):
    register_site(_layer, SiteRule(kernel=_read_weight))
for _layer in (StdConv2d, StdConv2dSame):
    register_site(_layer, SiteRule(kernel=_standardise, plain=_plain_conv))
for _layer in (ScaledStdConv2d, ScaledStdConv2dSame):
    register_site(_layer, SiteRule(kernel=_standardise_scaled, plain=_plain_conv))
