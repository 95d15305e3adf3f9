"""Passes that `scale` tasks share altogether, whatever the image size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gatehub.compiler.kernel_forms import KernelForms
from gatehub.compiler.kernels import Weight
from gatehub.compiler.stem import keeps_images_apart
from gatehub.gates.fold import GateState
from gatehub.gates.kernel_memory import cast_to
from gatehub.gates.layout_plan import TaskPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.channelwise import OnePass, build_one_pass
from gatehub.runtime.execution.programs import Recorded, Size, Sizes, size_of
from gatehub.runtime.execution.rows import Share, answer_rows
from gatehub.runtime.execution.weights import BackboneWeights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelTask:
    """What a task has of its own in a pass that it shares with others.

    Args:
        factors: (V,).
        head: its head's tensors, by name in the model.
        labels: number of classes.
        bytes: of all of them.
    """

    factors: Tensor
    head: Mapping[str, Tensor]
    labels: int
    bytes: int


class SharedPasses:
    """Finds, feeds and runs the passes that tasks share.

    Args:
        merged: the backbone.
        sizes: what is recorded of it.
        weights: of the bare backbone.
        dtype: of weights and activations.
    """

    def __init__(
        self,
        merged: MergedBackbone,
        sizes: Sizes,
        weights: BackboneWeights,
        dtype: torch.dtype,
    ) -> None:
        self._merged, self._sizes, self._weights, self._dtype = merged, sizes, weights, dtype

    def find(self, plan: TaskPlan, size: Size) -> OnePass | None:
        """Return how a task shares a pass with others of its layout, or None where it cannot.

        A task's factors are the same for images of every size.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at, home = self._sizes.at(size), self._sizes.home()
        found = at.memo.get(plan.body, partial(self._build, plan, at))
        if found is None or at is home:
            return found
        usual = home.memo.get(plan.body, partial(self._build, plan, home))
        return found if usual is not None and usual.sources == found.sources else None

    def factors(self, shared: OnePass, task: GateState, plan: TaskPlan) -> ChannelTask:
        """Form what a task has of its own in a shared pass.

        Args:
            shared: of the task's layout.
            task: gates, normalisation values and head.
            plan: of the task.
        """
        with torch.inference_mode():
            factors = shared.factors(self._merged, task, dtype=self._dtype)
            given = task.tensors
            head = {
                place: cast_to(self._merged.widen(given[name]), self._dtype)
                for name, place in plan.places.items()
            }
        return ChannelTask(
            factors=factors,
            head=head,
            labels=plan.head.labels,
            bytes=factors.nbytes + sum(tensor.nbytes for tensor in head.values()),
        )

    def count_bytes(self, shared: OnePass, plan: TaskPlan) -> int:
        """Return how many bytes a task's own part of a pass has, without forming it."""
        return self._dtype.itemsize * (shared.length + plan.head.numel)

    def run(
        self, shared: OnePass, tasks: Sequence[tuple[ChannelTask, int]], images: Tensor
    ) -> list[Tensor]:
        """Answer for several tasks, each for its own images, in one pass.

        Args:
            shared: of the tasks' layout.
            tasks: each with how many of the images are its own, in the images' order.
            images: (B, C, H, W) float32.

        Returns:
            For each task (its images, classes) float32, on the CPU.
        """
        at = self._sizes.at(size_of(images))
        forms = at.forms(len(images))
        weights = at.memo.get(
            ("weights", shared.plan, forms), partial(self._read_weights, shared, forms)
        )
        counts = [count for _, count in tasks]
        with torch.inference_mode():
            table = torch.stack([task.factors for task, _ in tasks])
            rows = torch.repeat_interleave(torch.tensor(counts)).to(table.device)
            values = shared.body(at.enter(images), weights, table[rows])
            shares = (
                Share(weights={**weights, **task.head}, labels=task.labels, count=count)
                for task, count in tasks
            )
            return answer_rows(shared.heads, values, shares)

    def _build(self, plan: TaskPlan, at: Recorded) -> OnePass | None:
        shared = build_one_pass(at.program, self._merged, plan.body, heads=plan.head.shapes.keys())
        if shared is None:
            return None
        weights = self._read_weights(shared, at.forms(2))
        generator = torch.Generator().manual_seed(0)
        factors = torch.rand(3, shared.length, generator=generator).to(at.draw([0])) + 0.5

        def run(chosen: list[int]) -> Sequence[Tensor]:
            with torch.inference_mode():
                values: Sequence[Tensor] = shared.body(at.draw(chosen), weights, factors[chosen])
            return values

        return shared if keeps_images_apart(run, shared.heads.rows) else None

    def _read_weights(self, shared: OnePass, forms: KernelForms) -> Mapping[str, Weight]:
        """Return the weights of a shared pass: kernels without any task's part in them."""
        own = shared.weights & shared.plan.own
        raw = {name: self._weights.raw(name, shared.plan, forms) for name in own}
        return raw | self._weights.bare(shared.weights - own, forms)
