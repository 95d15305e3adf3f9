"""A task's vectors of channels: what `scale` gates and norm values are to each layer."""

from __future__ import annotations

import torch
from torch import Tensor

from gatehub.gates.fold import GateState
from gatehub.gates.merge import scale_and_shift
from gatehub.gates.merged import LayoutPlan, MergedBackbone


class TaskVectors:
    """A task's vectors, widened to the backbone's dtype."""

    def __init__(self, merged: MergedBackbone, task: GateState, plan: LayoutPlan) -> None:
        self._merged, self._given, self._plan = merged, task.tensors, plan
        norms = {name: merged.widen(self._given[name]) for name in plan.norms}
        self._plain: dict[str, Tensor] = {**merged.kernels, **norms}

    def plain(self, name: str) -> Tensor:
        return self._plain[name]

    def gate(self, site: str, part: str) -> Tensor:
        return self._merged.widen(self._given[f"{site}.{part}"])

    def entering(self, site: str, groups: int) -> Tensor:
        """b, once for each group of channels."""
        return self.gate(site, "gate_b").repeat(groups)

    def leaving(self, site: str) -> Tensor:
        """Everything that multiplies a layer's output channels."""
        factor = torch.ones(len(self._plain[f"{site}.weight"]), dtype=self._merged.dtype)
        factor = factor.to(self._merged.device)
        if site in self._plan.layout.sites:
            factor = factor * self.gate(site, "gate_a")
            if self._plan.layout.sites[site].shape[1] == 1:
                factor = factor * self.gate(site, "gate_b")
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
