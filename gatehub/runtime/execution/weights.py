"""The bare backbone's weights in one dtype, in the form in which programs read them."""

from __future__ import annotations

import torch
from torch import Tensor

from gatehub.compiler.kernels import Kernel, pack
from gatehub.gates.kernel_memory import cast_to, lay_out
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.memo import Memo
from gatehub.runtime.execution.programs import Sizes


class BackboneWeights:
    """What tasks share by reference; each weight is formed when it is first needed.

    Args:
        merged: the backbone.
        sizes: what is recorded of it.
        dtype: of the weights.
    """

    def __init__(self, merged: MergedBackbone, sizes: Sizes, dtype: torch.dtype) -> None:
        self._merged, self._sizes, self._dtype = merged, sizes, dtype
        self._formed = Memo()

    def place(self, weight: Tensor, name: str) -> Tensor | Kernel:
        """Bring a weight, a task's or the backbone's, into the form in which programs read it."""
        home = self._sizes.home()
        if home.memory_format is not torch.channels_last:
            return lay_out(weight, home.memory_format)
        if name not in home.program.kernels:
            return weight
        return pack(weight, is_matrix=name in home.program.matrices)

    def bare(self, name: str) -> Tensor | Kernel:
        """Return a weight that every task reads which leaves it alone."""

        def form() -> Tensor | Kernel:
            with torch.inference_mode():
                return self.place(self._merged.weight(name, dtype=self._dtype), name)

        return self._formed.get(name, form)

    def raw(self, name: str, plan: LayoutPlan) -> Tensor | Kernel:
        """Return a kernel without a gate, a norm that is merged, or a gain of the tasks' own."""
        site = name.removesuffix(".weight")

        def form() -> Tensor | Kernel:
            with torch.inference_mode():
                return self.place(cast_to(self._merged.kernel(site, plan), self._dtype), name)

        return self._formed.get((name, site in plan.gains), form)
