"""The bare backbone's weights in one dtype, in the form in which programs read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

import torch
from torch import Tensor

from gatehub.compiler.kernel_forms import KernelForms
from gatehub.compiler.kernels import Weight
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

    def keep(self, in_use: Collection[KernelForms]) -> None:
        """Let go of kernels in orders that no image size wants any more."""
        wanted = {kernel for forms in in_use for kernel in forms.layouts}
        self._formed.keep(lambda key: key[1] is None or key[:2] in wanted)

    def place(self, weight: Tensor, name: str, forms: KernelForms) -> Weight:
        """Bring a weight, a task's or the backbone's, into the form in which programs read it."""
        home = self._sizes.home()
        if home.memory_format is not torch.channels_last:
            return lay_out(weight, home.memory_format)
        return forms.form(weight, name)

    def bare(self, names: Iterable[str], forms: KernelForms) -> dict[str, Weight]:
        """Return weights that every task reads which leaves them alone."""

        def form(name: str) -> Weight:
            with torch.inference_mode():
                weight = self._merged.weight(name, dtype=self._dtype)
                return self.place(weight, name, forms)

        return {
            name: self._formed.get((name, forms.layout(name)), partial(form, name))
            for name in names
        }

    def raw(self, name: str, plan: LayoutPlan, forms: KernelForms) -> Weight:
        """Return a kernel without a gate, a norm that is merged, or a gain of the tasks' own."""
        site = name.removesuffix(".weight")

        def form() -> Weight:
            with torch.inference_mode():
                kernel = cast_to(self._merged.kernel(site, plan), self._dtype)
                return self.place(kernel, name, forms)

        return self._formed.get((name, forms.layout(name), site in plan.gains), form)
