"""Activations that oneDNN computes while it holds a convolution's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

# torch's operators → oneDNN's name, and the scalars where none are given.
_KNOWN: Mapping[object, tuple[str, tuple[float, ...]]] = {
    packet.default: (name, scalars)
    for packets, name, scalars in (
        ((_aten.gelu, _aten.gelu_), "gelu", ()),
        ((_aten.hardsigmoid, _aten.hardsigmoid_), "hardsigmoid", ()),
        ((_aten.hardswish, _aten.hardswish_), "hardswish", ()),
        ((_aten.hardtanh, _aten.hardtanh_), "hardtanh", (-1.0, 1.0)),
        ((_aten.leaky_relu, _aten.leaky_relu_), "leaky_relu", (0.01,)),
        ((_aten.relu, _aten.relu_), "relu", ()),
        ((_aten.relu6, _aten.relu6_), "hardtanh", (0.0, 6.0)),
        ((_aten.sigmoid, _aten.sigmoid_), "sigmoid", ()),
        ((_aten.silu, _aten.silu_), "swish", ()),
        ((_aten.tanh, _aten.tanh_), "tanh", ()),
    )
    for packet in packets
}


# Those that oneDNN computes by comparing, which NaN never passes.
_LOSE_NAN = frozenset({"hardsigmoid", "hardtanh", "relu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An activation, as torch and as oneDNN know it.

    Args:
        operator: torch's; it may change what it is given.
        arguments: of the operator, behind the value.
        keywords: of the operator.
        name: oneDNN's.
        scalars: such as a slope, or both ends of a range.
        algorithm: of several that compute it, which one.
    """

    operator: Callable[..., Tensor]
    arguments: tuple[float, ...]
    keywords: tuple[tuple[str, str], ...]
    name: str
    scalars: tuple[float, ...]
    algorithm: str

    @property
    def keeps_nan(self) -> bool:
        """Whether oneDNN answers NaN to NaN, as torch does."""
        return self.name not in _LOSE_NAN

    def __call__(self, value: Tensor) -> Tensor:
        """Apply it, as torch does."""
        return self.operator(value, *self.arguments, **dict(self.keywords))


def read_activation(
    operator: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Activation | None:
    """Return an activation that oneDNN knows, or None.

    Args:
        operator: what a graph calls.
        arguments: behind the value that it is applied to.
        keywords: likewise.
    """
    known = _KNOWN.get(operator)
    if known is None or not all(isinstance(argument, int | float) for argument in arguments):
        return None
    name, usual = known
    algorithm = str(keywords.get("approximate", "none")) if name == "gelu" else ""
    if keywords.keys() - ({"approximate"} if name == "gelu" else set()):
        return None
    return Activation(
        operator=operator,
        arguments=tuple(arguments),
        keywords=tuple(keywords.items()),
        name=name,
        scalars=tuple(map(float, arguments)) or usual,
        algorithm=algorithm,
    )
