"""A task's vectors of channels: what `scale` gates and norm values are to each layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.gates.norm_folding import scale_and_shift


@dataclass(frozen=True, slots=True)
class FactorSource:
    """Which of a task's vectors is meant.

    Args:
        vector: name of a method of `TaskVectors`.
        arguments: its arguments.
    """

    vector: str
    arguments: tuple[str | int | float | None, ...]

    def read(self, vectors: TaskVectors) -> Tensor:
        """Return that vector of a task: (channels,), or in the shape in which it is kept."""
        found: Tensor = getattr(vectors, self.vector)(*self.arguments)
        return found


class TaskVectors:
    """A task's vectors, widened to the backbone's dtype.

    Args:
        merged: the backbone.
        task: gates, all of kind `scale`, and normalisation values.
        plan: of the task's layout.
    """

    def __init__(self, merged: MergedBackbone, task: GateState, plan: LayoutPlan) -> None:
        self._merged, self._given, self._plan = merged, task.tensors, plan
        norms = {name: merged.widen(self._given[name]) for name in plan.norms}
        self._plain: dict[str, Tensor] = {**merged.kernels, **norms}

    def plain(self, name: str) -> Tensor:
        """A tensor of the plain model, the task's own where it has one."""
        return self._plain[name]

    def entering(self, site: str, groups: int) -> Tensor:
        """What multiplies a layer's input channels: b, once for each group of channels."""
        return self._gate(site, "gate_b").repeat(groups)

    def leaving(self, site: str) -> Tensor:
        """Everything that multiplies a layer's output channels."""
        kernel = self._plain[f"{site}.weight"]
        factor = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
        gate = self._plan.layout.sites.get(site)
        if gate is not None:
            factor = factor * self._gate(site, "gate_a")
            if gate.shape[1] == 1:  # b is one number, and the same for every channel
                factor = factor * self._gate(site, "gate_b")
        if site in self._plan.gains:
            gain = self._given[self._plan.gains[site]]
            factor = factor * self._merged.widen(gain).reshape(-1)
        if site in self._merged.merges:
            factor = factor * scale_and_shift(self._plain, self._merged.merges[site])[0]
        return factor

    def shift(self, site: str) -> Tensor:
        """What is added to a layer's output channels."""
        if site in self._merged.merges:
            return scale_and_shift(self._plain, self._merged.merges[site])[1]
        return self._plain[f"{site}.bias"]

    def norm_scale(self, weight: str | None, variance: str, eps: float) -> Tensor:
        """What a batch norm with these tensors multiplies by; cf. arXiv 1502.03167, algorithm 2."""
        scale = torch.rsqrt(self._plain[variance] + eps)
        return scale if weight is None else scale * self._plain[weight]

    def norm_shift(
        self, weight: str | None, bias: str | None, mean: str, variance: str, eps: float
    ) -> Tensor:
        """What a batch norm with these tensors then adds."""
        shift = -self._plain[mean] * self.norm_scale(weight, variance, eps)
        return shift if bias is None else shift + self._plain[bias]

    def _gate(self, site: str, part: str) -> Tensor:
        return self._merged.widen(self._given[f"{site}.{part}"])
