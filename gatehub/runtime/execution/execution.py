"""Running tasks on one backbone in one dtype: alone, in mixed batches, and all on one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gatehub.compiler.kernel_forms import KernelForms
from gatehub.compiler.kernels import Weight
from gatehub.compiler.lowering import run_watched
from gatehub.compiler.recording import split
from gatehub.compiler.stem import Stem, keeps_images_apart
from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import TaskPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.programs import Recorded, Size, Sizes, leave, size_of
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
        forms: that the weights are in.
        bytes: of the task's own weights, padding included.
    """

    weights: Mapping[str, Weight]
    own: frozenset[str]
    labels: int
    forms: KernelForms
    bytes: int


class Execution:
    """A backbone in one dtype: what it runs for any task, and how a task's weights are formed.

    Everything is safe to call from any number of threads, and inference takes no lock, but to look
    up a size of images that is not the backbone's own. The first images of a size cost several
    passes, since the network is recorded on them.

    Args:
        merged: the backbone.
        dtype: of weights and activations.

    Attributes:
        shared: passes that `scale` tasks share altogether.
    """

    def __init__(self, merged: MergedBackbone, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._merged = merged
        self._sizes = Sizes(merged, dtype, gone=self._let_go)
        self._weights = BackboneWeights(merged, self._sizes, dtype)
        self.shared = SharedPasses(merged, self._sizes, self._weights, dtype)
        self._told: list[Callable[[Collection[KernelForms]], None]] = []

    def forms(self, batch: int = 1, size: Size | None = None) -> KernelForms:
        """Return the forms of weights for some images.

        Args:
            batch: how many of them.
            size: (C, H, W) of each; None for the backbone's own.

        Raises:
            InputError: the backbone takes no images of that size.
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        at = self._sizes.home() if size is None else self._sizes.at(size)
        return at.forms(batch)

    def when_sizes_go(self, tell: Callable[[Collection[KernelForms]], None]) -> None:
        """Tell the forms that are still wanted whenever an image size had to go for another."""
        self._told.append(tell)

    def fold(self, task: GateState, plan: TaskPlan, forms: KernelForms | None = None) -> FoldedTask:
        """Form a task's weights.

        Args:
            task: gates, normalisation values and head.
            plan: from `plan_task` of the backbone: the proof that the task fits.
            forms: from `forms`; None for one image of the backbone's own size.

        Raises:
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        forms = forms or self.forms()
        with torch.inference_mode():
            formed = {
                name: self._weights.place(tensor, name, forms)
                for name, tensor in self._merged.fold(task, plan, dtype=self.dtype).items()
            }
        # Of the bare backbone's own classifier nothing is left: the task has its own.
        shared = self._weights.bare(self._merged.names - plan.own, forms)
        return FoldedTask(
            weights=shared | formed,
            own=plan.own,
            labels=plan.head.labels,
            forms=forms,
            bytes=sum(weight.nbytes for weight in formed.values()),
        )

    def count_bytes(self, plan: TaskPlan, forms: KernelForms | None = None) -> int:
        """Return how many bytes a task's folded weights have, without forming them."""
        forms, own = forms or self.forms(), 0
        for name in plan.body.own:
            layout = forms.layout(name)
            dense = self.dtype.itemsize * math.prod(self._merged.shape(name))
            own += dense if layout is None else layout.bytes
        return own + self.dtype.itemsize * plan.head.numel

    def stem_key(self, plan: TaskPlan) -> Hashable:
        """Return what tasks have in common that can run together.

        That is which layers they leave alone; and, where they could share a pass of factors, what
        these factors are.
        """
        return self, plan.own, plan.body if plan.body.is_scale else None

    def run(self, task: FoldedTask, images: Tensor, *, exact: bool = False) -> Tensor:
        """Answer for one task.

        Args:
            task: from `fold`, best in the forms for these images.
            images: (B, C, H, W) float32, on any device.
            exact: NaN and infinity, wherever they arise, go the way that they go in the module.

        Returns:
            (B, classes) float32, on the CPU.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(size_of(images))
        run = at.exact() if exact else at.whole
        with torch.inference_mode():
            weights = self._fit(task, at, len(images))
            return leave(run(at.enter(images), weights, task.labels))

    def measure(self, task: FoldedTask, images: Tensor) -> tuple[Tensor, float]:
        """Answer exactly for one task, and say how large its activations become.

        Returns:
            (B, classes) float32, on the CPU; and the largest magnitude behind any convolution,
            infinity if one is not finite.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(size_of(images))
        with torch.inference_mode():
            given = (at.enter(images), task.weights, task.labels)
            answer, largest = run_watched(at.exact(), given)
            return leave(answer), largest

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
            values = stem.stem(at.enter(images), self._stem_weights(stem, at, len(images)))
            shares = (
                Share(weights=self._fit(task, at, count), labels=task.labels, count=count)
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
            batch = len(images)
            values = stem.stem(at.enter(images), self._stem_weights(stem, at, batch))
            return [
                leave(
                    stem.rest(stem.protect(values), self._fit(task, at, batch), task.labels, batch)
                )
                for task in tasks
            ]

    def _fit(self, task: FoldedTask, at: Recorded, batch: int) -> Mapping[str, Weight]:
        """Return the weights for some images.

        Of a task in forms for others, all that it shares is brought into the forms for these; what
        is its own answers the same as it is, but perhaps slowly.
        """
        forms = at.forms(batch)
        if task.forms == forms:
            return task.weights
        shared = task.weights.keys() - task.own
        return {**task.weights, **self._weights.bare(shared, forms)}

    def _let_go(self) -> None:
        in_use = self._sizes.forms_in_use()
        self._weights.keep(in_use)
        for tell in self._told:
            tell(in_use)

    def _stem(self, tasks: Sequence[FoldedTask], at: Recorded) -> Stem | None:
        own = frozenset().union(*(task.own for task in tasks))
        return at.memo.get(own, partial(self._split, own, at))

    def _stem_weights(self, stem: Stem, at: Recorded, batch: int) -> Mapping[str, Weight]:
        """Return what a stem reads, which is the bare backbone's own."""
        forms = at.forms(batch)
        read = partial(self._weights.bare, stem.weights, forms)
        return at.memo.get(("stem weights", stem, forms), read)

    def _split(self, own: frozenset[str], at: Recorded) -> Stem | None:
        stem = split(at.program, own)
        if stem is None:
            return None
        weights = self._stem_weights(stem, at, 2)

        def run(chosen: list[int]) -> Sequence[Tensor]:
            with torch.inference_mode():
                values: Sequence[Tensor] = stem.stem(at.draw(chosen), weights)
            return values

        return stem if keeps_images_apart(run, stem.rows) else None
