"""A projected convolution as feed-forward nodes over fixed sub-functions (arXiv 2602.06245).

    y_o = b_o + Σ_i M[o, i] s_oi(x_i)        s_oi(x_i) = K(W)[o, i] * x_i

A node of a feed-forward layer weighs its inputs and adds them. So does an output channel: its
inputs are what the frozen kernels make of the input channels, its weights are the gates.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from gatehub._arguments import checked
from gatehub.errors import SiteError
from gatehub.gates.layout import SiteGate
from gatehub.gates.rules import registered_sites


class FeedForwardNodes(nn.Module):
    """The output channels of a gated layer, each as a node; from `view_as_nodes`.

    Args:
        apply: computes every sub-function on its own.
        gate: the form of M.
        parts: its learned tensors, by the last part of their name.
        bias: (O,) or None.
    """

    def __init__(
        self,
        apply: nn.Module,
        gate: SiteGate,
        parts: Mapping[str, Tensor],
        bias: Tensor | None,
    ) -> None:
        super().__init__()
        self.bias: Tensor | None
        self._apply_all = apply
        self._gate = gate
        self.parts = nn.ParameterDict(
            {name: nn.Parameter(part.detach().clone()) for name, part in parts.items()}
        )
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def matrix(self) -> Tensor:
        """M: (O, I/groups), differentiable."""
        return self._gate.kind.matrix(dict(self.parts.items()))

    def sub_functions(self, x: Tensor) -> Tensor:
        """Return every s_oi(x_i), which no gate changes.

        Args:
            x: (B, I, H, W), or (…, I) for a linear layer.

        Returns:
            (B, O, I/groups, H', W'), or (…, O, I).
        """
        return cast(Tensor, self._apply_all(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return Σ_i M[o, i] s_oi(x_i) + b_o."""
        return self.combine(self.sub_functions(x), self.matrix)

    def combine(self, inputs: Tensor, matrix: Tensor) -> Tensor:
        """Return what the nodes make of their inputs with weights of one's own.

        Args:
            inputs: from `sub_functions`.
            matrix: (O, I/groups).
        """
        if isinstance(self._apply_all, _EveryProduct):
            y = (inputs * matrix).sum(-1)
            return y if self.bias is None else y + self.bias
        y = torch.einsum("oi,boihw->bohw", matrix, inputs)
        return y if self.bias is None else y + self.bias[:, None, None]


@checked(SiteError)
def view_as_nodes(
    layer: nn.Module, gate: SiteGate, parts: Mapping[str, Tensor]
) -> FeedForwardNodes:
    """Return a gated layer as feed-forward nodes, equal to it up to rounding.

    It takes I/groups times the memory of the layer's output, and serves to show what it is.

    Args:
        layer: a layer that can be gated, as it is in the backbone; it stays as it is.
        gate: the form of its gate.
        parts: the learned tensors, by the last part of their name.

    Raises:
        SiteError: no layer of this class can be gated, or the gate has another shape.
    """
    rule = registered_sites().get(type(layer))
    if rule is None:
        raise SiteError(f"A {type(layer).__name__} cannot be gated, so it is no sum of gates.")
    with torch.no_grad():
        kernel = rule.kernel(layer).detach()
    if tuple(kernel.shape[:2]) != gate.shape:
        raise SiteError(
            f"A gate {gate.shape} is given for a layer with a kernel {tuple(kernel.shape)}."
        )
    bias = cast("Tensor | None", layer.bias)
    if kernel.ndim == 2:
        return FeedForwardNodes(_EveryProduct(kernel), gate, parts, bias)
    plain = cast(nn.Conv2d, copy.deepcopy(layer) if rule.plain is None else rule.plain(layer))
    return FeedForwardNodes(_EveryConvolution(plain, kernel), gate, parts, bias)


class _EveryConvolution(nn.Module):
    """Each kernel on its own input channel: one convolution with a group for each channel."""

    def __init__(self, plain: nn.Conv2d, kernel: Tensor) -> None:
        super().__init__()
        outs, ins = kernel.shape[:2]
        self._groups = plain.groups
        grouped = kernel.reshape(self._groups, outs // self._groups, *kernel.shape[1:])
        channels = ins * self._groups
        alone = copy.deepcopy(plain)
        alone.weight = nn.Parameter(
            grouped.transpose(1, 2).reshape(-1, 1, *kernel.shape[2:]), requires_grad=False
        )
        alone.bias = None
        alone.groups, alone.out_channels = channels, len(alone.weight)
        self.alone = alone

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.alone(x)
        size = y.shape[-2:]
        per_input = y.reshape(len(y), self._groups, x.shape[1] // self._groups, -1, *size)
        return per_input.transpose(2, 3).reshape(len(y), -1, x.shape[1] // self._groups, *size)


class _EveryProduct(nn.Module):
    """Each weight of a linear layer times its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x[..., None, :] * cast(Tensor, self.weight)
