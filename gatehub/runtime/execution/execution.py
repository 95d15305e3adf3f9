"""Running tasks on one backbone in one dtype: alone, in mixed batches, and all on one image."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gatehub.compiler.kernels import Kernel
from gatehub.compiler.recording import split
from gatehub.compiler.stem import Stem, keeps_images_apart
from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import TaskPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.programs import Recorded, Sizes, leave, size_of
from gatehub.runtime.execution.rows import Share, answer_rows
from gatehub.runtime.execution.shared_pass import SharedPasses
from gatehub.runtime.execution.weights import BackboneWeights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedTask:
    """A task's weights in their final form. Nothing in it ever changes.

    Args:
        weights: every tensor that the network reads; those that the task leaves alone are the
            backbone's own.
        own: names of the task's own.
        labels: number of classes.
        bytes: of the task's own tensors.
    """

    weights: Mapping[str, Tensor | Kernel]
    own: frozenset[str]
    labels: int
    bytes: int


class Execution:
    """A backbone in one dtype: what it runs for any task, and how a task's weights are formed.

    Everything is safe to call from any number of threads, and inference takes no lock. The first
    images of a size cost several passes, since the network is recorded on them.

    Args:
        merged: the backbone.
        dtype: of weights and activations.

    Attributes:
        shared: passes that `scale` tasks share altogether.
    """

    def __init__(self, merged: MergedBackbone, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._merged = merged
        self._sizes = Sizes(merged, dtype)
        self._weights = BackboneWeights(merged, self._sizes, dtype)
        self.shared = SharedPasses(merged, self._sizes, self._weights, dtype)

    def fold(self, task: GateState, plan: TaskPlan) -> FoldedTask:
        """Form a task's weights.

        Args:
            task: gates, normalisation values and head.
            plan: from `plan_task` of the backbone: the proof that the task fits.

        Raises:
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        with torch.inference_mode():
            own = self._merged.fold(task, plan, dtype=self.dtype)
            weights = {name: self._weights.place(tensor, name) for name, tensor in own.items()}
        # Of the bare backbone's own classifier nothing is left: the task has its own.
        weights |= {name: self._weights.bare(name) for name in self._merged.names - plan.own}
        return FoldedTask(
            weights=weights,
            own=plan.own,
            labels=plan.head.labels,
            bytes=sum(tensor.nbytes for tensor in own.values()),
        )

    def count_bytes(self, plan: TaskPlan) -> int:
        """Return how many bytes a task's folded weights have, without forming them."""
        own = sum(math.prod(self._merged.shape(name)) for name in plan.body.own)
        return self.dtype.itemsize * (own + plan.head.numel)

    def stem_key(self, plan: TaskPlan) -> Hashable:
        """Return what tasks have in common that can run together.

        That is which layers they leave alone; and, where they could share a pass of factors, what
        these factors are.
        """
        return self, plan.own, plan.body if plan.body.is_scale else None

    def run(self, task: FoldedTask, images: Tensor) -> Tensor:
        """Answer for one task.

        Args:
            task: from `fold`.
            images: (B, C, H, W) float32, on any device.

        Returns:
            (B, classes) float32, on the CPU.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(size_of(images))
        with torch.inference_mode():
            return leave(at.whole(at.enter(images), task.weights, task.labels))

    def run_rows(self, tasks: Sequence[tuple[FoldedTask, int]], images: Tensor) -> list[Tensor]:
        """Answer for several tasks, each for its own images, with one pass over what they share.

        Args:
            tasks: each with how many of the images are its own, in the images' order.
            images: (B, C, H, W) float32.

        Returns:
            For each task (its images, classes) float32, on the CPU.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(size_of(images))
        stem = self._stem([task for task, _ in tasks], at)
        if stem is None:
            parts = torch.split(images, [count for _, count in tasks])
            return [self.run(task, part) for part, (task, _) in zip(parts, tasks, strict=True)]
        with torch.inference_mode():
            values = stem.stem(at.enter(images), tasks[0][0].weights)
            shares = (
                Share(weights=task.weights, labels=task.labels, count=count)
                for task, count in tasks
            )
            return answer_rows(stem, values, shares)

    def run_all(self, tasks: Sequence[FoldedTask], images: Tensor) -> list[Tensor]:
        """Answer for several tasks, each for all the images, with one pass over what they share.

        Returns:
            For each task (B, classes) float32, on the CPU.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(size_of(images))
        stem = self._stem(tasks, at)
        if stem is None:
            return [self.run(task, images) for task in tasks]
        with torch.inference_mode():
            values = stem.stem(at.enter(images), tasks[0].weights)
            return [
                leave(stem.rest(stem.protect(values), task.weights, task.labels, len(images)))
                for task in tasks
            ]

    def _stem(self, tasks: Sequence[FoldedTask], at: Recorded) -> Stem | None:
        own = frozenset().union(*(task.own for task in tasks))
        return at.memo.get(own, partial(self._split, own, tasks[0], at))

    def _split(self, own: frozenset[str], task: FoldedTask, at: Recorded) -> Stem | None:
        stem = split(at.program, own)
        if stem is None:
            return None

        def run(chosen: list[int]) -> Sequence[Tensor]:
            with torch.inference_mode():
                values: Sequence[Tensor] = stem.stem(at.draw(chosen), task.weights)
            return values

        return stem if keeps_images_apart(run, stem.rows) else None
