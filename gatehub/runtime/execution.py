"""Running tasks on one backbone in one dtype: alone, in mixed batches, and all on one image."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gatehub.gates.dense import cast_to, lay_out
from gatehub.gates.merged import LayoutPlan, MergedBackbone
from gatehub.runtime.channelwise import OnePass, build_one_pass
from gatehub.runtime.kernels import Kernel, pack
from gatehub.runtime.memo import Memo
from gatehub.runtime.packed import PackedTask
from gatehub.runtime.segments import Stem, keeps_images_apart, split
from gatehub.runtime.sizes import Recorded, Size, Sizes


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


class Execution:
    """A backbone in one dtype: what it runs for any task, and how a task's weights are formed.

    Everything is safe to call from any number of threads, and inference takes no lock. The first
    images of a size cost several passes, since the network is recorded on them.

    Args:
        merged: the backbone.
        dtype: of weights and activations.
    """

    def __init__(self, merged: MergedBackbone, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._merged = merged
        self._sizes = Sizes(merged, dtype)
        self._weights = Memo()

    def fold(self, task: PackedTask) -> FoldedTask:
        """Form a task's weights.

        Raises:
            BackboneMismatchError: it was trained on another backbone.
            SiteError: it does not fit this one.
            ExecutionError: the backbone cannot be recorded; see `record`.
        """
        home = self._sizes.home()
        with torch.inference_mode():
            own = self._merged.fold(task, dtype=self.dtype)
            weights = {name: _place(tensor, name, home) for name, tensor in own.items()}
        # Of the bare backbone's own classifier nothing is left.
        alone = self._merged.names - self._head_places(len(task.labels)) - own.keys()
        weights |= {name: self._base(name) for name in alone}
        return FoldedTask(
            weights=weights,
            own=frozenset(own),
            labels=len(task.labels),
            bytes=sum(tensor.nbytes for tensor in own.values()),
        )

    def count_bytes(self, plan: LayoutPlan, labels: int) -> int:
        """Return how many bytes a task's folded weights have, without forming them."""
        own = sum(math.prod(self._merged.shape(name)) for name in plan.own)
        return self.dtype.itemsize * own + self._head_bytes(labels)

    def count_factor_bytes(self, shared: OnePass, labels: int) -> int:
        """Return how many bytes a task's own part of a shared pass has, without forming it."""
        return self.dtype.itemsize * shared.length + self._head_bytes(labels)

    def stem_key(self, plan: LayoutPlan, labels: int) -> Hashable:
        """Return what tasks have in common that can run together.

        That is which layers they leave alone; and, where they could share a pass of factors, what
        these factors are.
        """
        own = frozenset(plan.own | self._head_places(labels))
        return self, own, plan if plan.is_scale else None

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
        at = self._sizes.at(_size(images))
        with torch.inference_mode():
            return _leave(at.whole(at.enter(images), task.weights, task.labels))

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
        at = self._sizes.at(_size(images))
        stem = self._stem([task for task, _ in tasks], at)
        if stem is None:
            parts = torch.split(images, [count for _, count in tasks])
            return [self.run(task, part) for part, (task, _) in zip(parts, tasks, strict=True)]
        with torch.inference_mode():
            values = stem.stem(at.enter(images), tasks[0][0].weights)
            answers, start = [], 0
            for task, count in tasks:
                taken = stem.take(values, start, start + count)
                answers.append(_leave(stem.rest(taken, task.weights, task.labels, count)))
                start += count
            return answers

    def run_all(self, tasks: Sequence[FoldedTask], images: Tensor) -> list[Tensor]:
        """Answer for several tasks, each for all the images, with one pass over what they share.

        Returns:
            For each task (B, classes) float32, on the CPU.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at = self._sizes.at(_size(images))
        stem = self._stem(tasks, at)
        if stem is None:
            return [self.run(task, images) for task in tasks]
        with torch.inference_mode():
            values = stem.stem(at.enter(images), tasks[0].weights)
            return [
                _leave(stem.rest(stem.protect(values), task.weights, task.labels, len(images)))
                for task in tasks
            ]

    def one_pass(self, plan: LayoutPlan, labels: int, size: Size) -> OnePass | None:
        """Return how tasks of a layout share a pass, or None where they cannot.

        A task's factors are the same for images of every size.

        Raises:
            InputError: the backbone takes no images of that size.
        """
        at, home = self._sizes.at(size), self._sizes.home()
        found = at.memo.get(plan, partial(self._build_one_pass, plan, labels, at))
        if found is None or at is home:
            return found
        usual = home.memo.get(plan, partial(self._build_one_pass, plan, labels, home))
        return found if usual is not None and usual.sources == found.sources else None

    def factors(self, shared: OnePass, task: PackedTask) -> ChannelTask:
        """Form what a task has of its own in a shared pass."""
        with torch.inference_mode():
            factors = shared.factors(self._merged, task, dtype=self.dtype)
            given = task.tensors
            heads = self._merged.heads(len(task.labels))
            head = {
                place: cast_to(self._merged.widen(given[name]), self.dtype)
                for name, (place, _) in heads.items()
            }
        return ChannelTask(
            factors=factors,
            head=head,
            labels=len(task.labels),
            bytes=factors.nbytes + sum(tensor.nbytes for tensor in head.values()),
        )

    def run_channelwise(
        self, shared: OnePass, tasks: Sequence[ChannelTask], rows: Sequence[int], images: Tensor
    ) -> list[Tensor]:
        """Answer for a task of its own for each image, in one pass.

        Args:
            shared: of the tasks' layout.
            tasks: the distinct tasks.
            rows: for each image, the index of its task; equal ones stand side by side.
            images: (B, C, H, W) float32.

        Returns:
            For each task (its images, classes) float32, on the CPU.
        """
        at = self._sizes.at(_size(images))
        weights = at.memo.get(("weights", shared.plan), partial(self._shared_weights, shared))
        with torch.inference_mode():
            table = torch.stack([task.factors for task in tasks])
            factors = table[torch.as_tensor(rows, device=table.device)]
            values = shared.body(at.enter(images), weights, factors)
            answers, start = [], 0
            for index, task in enumerate(tasks):
                count = rows.count(index)
                taken = shared.heads.take(values, start, start + count)
                known = {**weights, **task.head}
                answers.append(_leave(shared.heads.rest(taken, known, task.labels, count)))
                start += count
        return answers

    def _build_one_pass(self, plan: LayoutPlan, labels: int, at: Recorded) -> OnePass | None:
        shared = build_one_pass(at.program, self._merged, plan, heads=self._head_places(labels))
        if shared is None:
            return None
        weights = self._shared_weights(shared)
        generator = torch.Generator().manual_seed(0)
        factors = torch.rand(3, shared.length, generator=generator).to(at.draw([0])) + 0.5

        def run(chosen: list[int]) -> Sequence[Tensor]:
            with torch.inference_mode():
                values: Sequence[Tensor] = shared.body(at.draw(chosen), weights, factors[chosen])
            return values

        return shared if keeps_images_apart(run, shared.heads.rows) else None

    def _shared_weights(self, shared: OnePass) -> Mapping[str, Tensor | Kernel]:
        """Return the weights of a shared pass: kernels without any task's part in them."""
        own = shared.plan.own
        return {
            name: self._raw(name, shared.plan) if name in own else self._base(name)
            for name in shared.weights
        }

    def _head_places(self, labels: int) -> frozenset[str]:
        return frozenset(place for place, _ in self._merged.heads(labels).values())

    def _head_bytes(self, labels: int) -> int:
        shapes = (shape for _, shape in self._merged.heads(labels).values())
        return self.dtype.itemsize * sum(map(math.prod, shapes))

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

    def _base(self, name: str) -> Tensor | Kernel:
        """Return a weight of the bare backbone; every task that leaves it alone reads this one."""

        def form() -> Tensor | Kernel:
            with torch.inference_mode():
                weight = self._merged.weight(name, dtype=self.dtype)
                return _place(weight, name, self._sizes.home())

        return self._weights.get(name, form)

    def _raw(self, name: str, plan: LayoutPlan) -> Tensor | Kernel:
        """Return a kernel without a gate, a norm that is merged, or a gain of the tasks' own."""
        site = name.removesuffix(".weight")

        def form() -> Tensor | Kernel:
            with torch.inference_mode():
                kernel = cast_to(self._merged.kernel(site, plan), self.dtype)
                return _place(kernel, name, self._sizes.home())

        return self._weights.get((name, site in plan.gains), form)


def _place(weight: Tensor, name: str, home: Recorded) -> Tensor | Kernel:
    """Bring a weight into the form in which programs read it."""
    if home.memory_format is not torch.channels_last:
        return lay_out(weight, home.memory_format)
    return pack(weight) if name in home.program.kernels else weight


def _size(images: Tensor) -> Size:
    _, channels, height, width = images.shape
    return channels, height, width


def _leave(answer: Tensor) -> Tensor:
    return answer.float().cpu()
