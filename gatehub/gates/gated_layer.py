"""A layer whose weight is its frozen kernel times a gate, from wherever it is read."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gatehub.errors import GateError
from gatehub.gates.fold import gate_kernel
from gatehub.gates.layout import SiteGate


class GatedWeight(nn.Module):
    """A frozen kernel, and what a task multiplies it by.

    Its parameters are `kernel`, frozen; `gate`, or `gate_a` and `gate_b`; and `gain`, where the
    task has one of its own.

    Args:
        kernel: `K(W)`, (O, I/groups, kH, kW) or (O, I), frozen.
        gate: the site's; it begins at M = 1.
        gain: of a shape that broadcasts against the kernel, or None.
    """

    def __init__(self, kernel: nn.Parameter, gate: SiteGate, *, gain: Tensor | None) -> None:
        super().__init__()
        self.site = gate
        self.kernel = kernel
        for part, tensor in gate.kind.initialise(*gate.shape, like=kernel).items():
            self.register_parameter(part, nn.Parameter(tensor))
        self.register_parameter("gain", None if gain is None else nn.Parameter(gain))

    def forward(self) -> Tensor:
        """Return the gated kernel: a new one at each call, with its history."""
        parts = {part: cast(Tensor, getattr(self, part)) for part in self.site.parts}
        gain = cast(Tensor | None, self.gain)
        kind = self.kernel.device.type
        known = isinstance(kind, str)  # while torch.fx traces a model it stands for one
        if known and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Half precision would round what a gate has learned, which is close to 1, away.
            with torch.autocast(kind, enabled=False):
                return gate_kernel(self.kernel, self.site, parts, gain=gain)
        return gate_kernel(self.kernel, self.site, parts, gain=gain)


class GatedLayer:
    """Mixed into a layer's class: `weight` is computed whenever it is read.

    So every way to the layer finds the gated weight, a second pass over it too (gradient
    checkpointing computes a block again while gradients flow back).
    """

    _layer: ClassVar[type[nn.Module]]
    _held: ClassVar[str]

    @property
    def weight(self) -> Tensor:
        return cast(Tensor, getattr(self, self._held)())

    def __setattr__(self, name: str, value: object) -> None:
        if name == "weight":
            raise GateError(
                "The weight of a gated layer is its frozen kernel times its gate; it cannot be "
                "set.",
                hint="Change its gate; see GatedModel.gate_parameters.",
            )
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the class of the layer, since the mixed one has no name to find."""
        mixed: object = type(self)
        key = self._layer, self._held
        if mixed is not _MIXED.get(key):  # somebody has derived another class from it
            return super().__reduce_ex__(protocol)  # type: ignore[return-value]
        return _make_empty, key, self.__dict__


def gate_layer(layer: nn.Module, gate: SiteGate, *, gain: Tensor | None) -> None:
    """Let a layer compute with its weight times a gate from now on, in place.

    Args:
        layer: one that computes with its `weight` as it stands; the weight is frozen.
        gate: the site's.
        gain: the task's own gain, or None; see `GatedWeight`.
    """
    held = "gated_weight"
    while hasattr(layer, held):  # a layer may have anything of its own
        held += "_"
    registry = layer._parameters if "weight" in layer._parameters else layer._buffers
    kernel = nn.Parameter(cast(Tensor, registry.pop("weight")).detach(), requires_grad=False)
    layer.__class__ = _mix(type(layer), held)
    layer.add_module(held, GatedWeight(kernel, gate, gain=gain))


def place_of(layer: nn.Module, part: str) -> str:
    """Return the name in a gated layer of what it holds, such as "gate" or "gain"."""
    return f"{cast(GatedLayer, layer)._held}.{part}"


_MIXED: dict[tuple[type[nn.Module], str], type[nn.Module]] = {}


def _mix(layer: type[nn.Module], held: str) -> type[nn.Module]:
    """Return the gated class of a layer's class; the same at every call, as pickling needs it."""
    if (layer, held) not in _MIXED:
        names = {"_layer": layer, "_held": held}
        mixed = type(f"Gated{layer.__name__}", (GatedLayer, layer), names)
        _MIXED.setdefault((layer, held), mixed)
    return _MIXED[layer, held]


def _make_empty(layer: type[nn.Module], held: str) -> nn.Module:
    mixed = _mix(layer, held)
    return mixed.__new__(mixed)
