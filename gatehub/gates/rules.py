"""How each layer class is gated: one entry of a registry for each, open to users.

A layer's `SiteRule` says what kernel `K(W)` the layer computes with, and which plain layer
computes with a given kernel. The gate multiplies `K(W)`, never the raw weight: a standardised
convolution would undo a gate on its raw weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import (
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import Tensor, nn

from gatehub._arguments import check_fields, checked
from gatehub.errors import SiteError
from gatehub.gates.kinds import GATE_PARTS


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRule:
    """How a layer class is gated.

    Args:
        kernel: returns `K(W)`, the kernel that the layer computes with: (O, I/groups, kH, kW), or
            (O, I) for a layer that works on each position by itself.
        plain: returns a layer that computes with its `weight` as it stands and otherwise does
            what the given layer does; its weight is on the meta device. None where the given
            layer does so itself.
        gain: name of the layer's own parameter that scales output channels within `K(W)`, of a
            shape that broadcasts against the kernel. A task has values of its own for it, as for
            a normalisation's weight. None where there is none.
        gainless: returns `K(W)` with that parameter at 1; needed where there is one.
        inside: says, from the modules around a layer, outermost first, whether the layer is gated
            there. None gates it everywhere.
    """

    kernel: Callable[[nn.Module], Tensor]
    plain: Callable[[nn.Module], nn.Module] | None = None
    gain: str | None = None
    gainless: Callable[[nn.Module], Tensor] | None = None
    inside: Callable[[Sequence[nn.Module]], bool] | None = None

    def __post_init__(self) -> None:
        check_fields(self, SiteError)
        if (self.gain is None) != (self.gainless is None):
            raise SiteError(
                f"A rule has gain={self.gain!r} and gainless={self.gainless!r}; expected both or "
                "neither.",
                hint="Give both where the layer has a parameter that scales its output channels.",
            )
        if self.gain in GATE_PARTS:
            raise SiteError(
                f"A rule names the gain '{self.gain}', which is what an adapter calls the layer's "
                "gate; expected another name.",
                hint="Rename the layer's parameter.",
            )


@checked(SiteError)
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
            f"{layer.__name__} already has a gate rule.", hint="Register each class once."
        )
    _RULES[layer] = rule


def registered_sites() -> Mapping[type[nn.Module], SiteRule]:
    """Return the rules, by layer class."""
    return MappingProxyType(_RULES)


_RULES: dict[type[nn.Module], SiteRule] = {}


def is_in_convolutional_block(around: Sequence[nn.Module]) -> bool:
    """Whether a linear layer works as a 1x1 convolution beside a depthwise one.

    The nearest module around it that convolves over space must be one link of a chain of blocks
    (in an `nn.Sequential` or `nn.ModuleList`) and hold a depthwise convolution directly, as
    ConvNeXt's block does (arXiv 2201.03545, figure 4). Attention blocks that convolve do so in
    modules of their own, so they stay out.

    Args:
        around: the modules around the layer, from the whole network inwards.
    """
    for outer, block in zip(around[-2::-1], around[:0:-1], strict=True):
        if not isinstance(block, _CHAINS) and any(map(_is_spatial, block.modules())):
            return isinstance(outer, _CHAINS) and any(
                _is_spatial(child) and cast(nn.Conv2d, child).groups > 1
                for child in block.children()
            )
    return False


_CHAINS = (nn.Sequential, nn.ModuleList)


def _is_spatial(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


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


def _standardise_gainless(module: nn.Module) -> Tensor:
    """Scaled weight standardisation with every gain at 1."""
    conv = cast(ScaledStdConv2d, module)
    return _normalise_kernel(conv.weight, torch.full_like(conv.gain, conv.scale).view(-1), conv.eps)


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


_AS_IT_IS = SiteRule(kernel=_read_weight)
_STANDARDISED = SiteRule(kernel=_standardise, plain=_plain_conv)
_SCALED = SiteRule(
    kernel=_standardise_scaled, plain=_plain_conv, gain="gain", gainless=_standardise_gainless
)

register_site(nn.Conv2d, _AS_IT_IS)
register_site(Conv2dSame, _AS_IT_IS)
register_site(nn.Linear, SiteRule(kernel=_read_weight, inside=is_in_convolutional_block))
register_site(StdConv2d, _STANDARDISED)
register_site(StdConv2dSame, _STANDARDISED)
register_site(ScaledStdConv2d, _SCALED)
register_site(ScaledStdConv2dSame, _SCALED)
