"""Activations that oneDNN computes while it holds a convolution's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# torch's name → oneDNN's, and the scalars where none are given.
_KNOWN: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "gelu": ("gelu", ()),
    "hardsigmoid": ("hardsigmoid", ()),
    "hardswish": ("hardswish", ()),
    "hardtanh": ("hardtanh", (-1.0, 1.0)),
    "leaky_relu": ("leaky_relu", (0.01,)),
    "relu": ("relu", ()),
    "relu6": ("hardtanh", (0.0, 6.0)),
    "sigmoid": ("sigmoid", ()),
    "silu": ("swish", ()),
    "tanh": ("tanh", ()),
}


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

    def __call__(self, value: Tensor) -> Tensor:
        """Apply it, as torch does."""
        return self.operator(value, *self.arguments, **dict(self.keywords))


def read_activation(
    operator: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Activation | None:
    """Return an activation that oneDNN knows, or None.

    Args:
        operator: of torch.
        arguments: behind the value that it is applied to.
        keywords: likewise.
    """
    if getattr(operator, "namespace", "aten") != "aten":
        return None
    known = _KNOWN.get(getattr(operator, "__name__", "").split(".")[0].removesuffix("_"))
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
