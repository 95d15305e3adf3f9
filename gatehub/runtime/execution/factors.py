"""A task's vectors of channels: what `scale` gates and norm values are to each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.gates.norm_folding import NormMerge, scale_and_shift


class FactorSource(Protocol):
    """One of the vectors that each task has. Sources are equal if they are of the same vector."""

    def read(self, task: TaskVectors) -> Tensor:
        """Return that vector of a task: (channels,), or in the shape in which it is kept."""


class TaskVectors:
    """What vectors are formed from, widened to the backbone's dtype.

    Args:
        merged: the backbone.
        task: gates, all of kind `scale`, and normalisation values.
        plan: of the task's layout.

    Attributes:
        plain: the tensors of the plain model, by name, the task's own where it has them.
        merges: the norms that are merged, by the convolution that takes them in.
    """

    def __init__(self, merged: MergedBackbone, task: GateState, plan: LayoutPlan) -> None:
        self._widen, self._given, self._plan = merged.widen, task.tensors, plan
        norms = {name: self._widen(self._given[name]) for name in plan.norms}
        self.plain: Mapping[str, Tensor] = {**merged.kernels, **norms}
        self.merges: Mapping[str, NormMerge] = merged.merges

    def leaving_gate(self, site: str) -> Tensor | None:
        """Return a: (O,), or None for a layer without a gate."""
        return self._gate(site, "gate_a") if site in self._plan.layout.sites else None

    def entering_gate(self, site: str) -> Tensor | None:
        """Return b: (I/groups,), or None for a layer without a gate."""
        return self._gate(site, "gate_b") if site in self._plan.layout.sites else None

    def gain(self, site: str) -> Tensor | None:
        """Return the task's own gain of a standardised kernel: (O,), or None where it has none."""
        name = self._plan.gains.get(site)
        return None if name is None else self._widen(self._given[name]).reshape(-1)

    def _gate(self, site: str, part: str) -> Tensor:
        return self._widen(self._given[f"{site}.{part}"])


@dataclass(frozen=True, slots=True)
class Plain:
    """A tensor of the plain model, as it is kept."""

    name: str

    def read(self, task: TaskVectors) -> Tensor:
        """Return it."""
        return task.plain[self.name]


@dataclass(frozen=True, slots=True)
class Entering:
    """What multiplies a gated layer's input channels: b, once for each group of channels."""

    site: str
    groups: int

    def read(self, task: TaskVectors) -> Tensor:
        """Return (I,)."""
        gate = task.entering_gate(self.site)
        assert gate is not None
        return gate.repeat(self.groups)


@dataclass(frozen=True, slots=True)
class Leaving:
    """Everything that multiplies a layer's output channels."""

    site: str

    def read(self, task: TaskVectors) -> Tensor:
        """Return (O,)."""
        kernel = task.plain[f"{self.site}.weight"]
        factor = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
        a, b = task.leaving_gate(self.site), task.entering_gate(self.site)
        # Where b is one number, it is the same for every channel.
        for part in (a, b if b is not None and len(b) == 1 else None, task.gain(self.site)):
            factor = factor if part is None else factor * part
        merge = task.merges.get(self.site)
        return factor if merge is None else factor * scale_and_shift(task.plain, merge)[0]


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to a layer's output channels."""

    site: str

    def read(self, task: TaskVectors) -> Tensor:
        """Return (O,)."""
        merge = task.merges.get(self.site)
        if merge is not None:
            return scale_and_shift(task.plain, merge)[1]
        return task.plain[f"{self.site}.bias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormScale:
    """What a batch norm of these tensors multiplies by; cf. arXiv 1502.03167, algorithm 2."""

    weight: str | None
    variance: str
    eps: float

    def read(self, task: TaskVectors) -> Tensor:
        """Return (C,)."""
        scale = torch.rsqrt(task.plain[self.variance] + self.eps)
        return scale if self.weight is None else scale * task.plain[self.weight]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormShift:
    """What a batch norm of these tensors adds to what it has multiplied by `scale`."""

    scale: NormScale
    bias: str | None
    mean: str

    def read(self, task: TaskVectors) -> Tensor:
        """Return (C,)."""
        shift = -task.plain[self.mean] * self.scale.read(task)
        return shift if self.bias is None else shift + task.plain[self.bias]
