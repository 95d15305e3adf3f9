"""Running tasks on one backbone in one dtype: alone, in mixed batches, and all on one image."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from gatehub.gates.merged import LayoutPlan, MergedBackbone, cast_to
from gatehub.runtime.channelwise import OnePass, build_one_pass
from gatehub.runtime.heap import return_free_memory
from gatehub.runtime.kernels import Kernel, pack
from gatehub.runtime.packed import PackedTask
from gatehub.runtime.program import Program, record
from gatehub.runtime.segments import Run, Stem, compile_whole, split

T = TypeVar("T")

Size = tuple[int, int, int]


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

    Everything is safe to call from any number of threads, and inference takes no lock.

    Args:
        merged: the backbone.
        dtype: of weights and activations.
    """

    def __init__(self, merged: MergedBackbone, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._merged = merged
        self._memo: dict[object, Any] = {}
        self._recording = threading.RLock()

    def fold(self, task: PackedTask) -> FoldedTask:
        """Form a task's weights.

        Raises:
            BackboneMismatchError: it was trained on another backbone.
            SiteError: it does not fit this one.
        """
        program = self._program(task.preprocessing.input_size)
        with torch.inference_mode():
            own = self._merged.fold(task, dtype=self.dtype)
        weights: dict[str, Tensor | Kernel] = {
            name: self._base(name, program) for name in program.weights - own.keys()
        }
        for name in program.weights & own.keys():
            weights[name] = pack(own[name]) if name in program.kernels else own[name]
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
        """Return what tasks have in common that leave the same layers alone."""
        return id(self), frozenset(plan.own | self._head_places(labels)), plan.is_scale

    def run(self, task: FoldedTask, images: Tensor) -> Tensor:
        """Answer for one task.

        Args:
            task: from `fold`.
            images: (B, C, H, W) float32, on any device.

        Returns:
            (B, classes) float32, on the CPU.
        """
        size = _size(images)
        whole: Run = self._once(("whole", size), lambda: compile_whole(self._program(size)))
        with torch.inference_mode():
            answer = whole(self._enter(images, size), task.weights, task.labels)
            return _leave(answer)

    def run_rows(self, tasks: Sequence[tuple[FoldedTask, int]], images: Tensor) -> list[Tensor]:
        """Answer for several tasks, each for its own images, with one pass over what they share.

        Args:
            tasks: each with how many of the images are its own, in the images' order.
            images: (B, C, H, W) float32.

        Returns:
            For each task (its images, classes) float32, on the CPU.
        """
        size = _size(images)
        stem = self._stem([task for task, _ in tasks], size)
        with torch.inference_mode():
            given = self._enter(images, size)
            if stem is None:
                parts = torch.split(given, [count for _, count in tasks])
                whole = self._once(("whole", size), lambda: compile_whole(self._program(size)))
                return [
                    _leave(whole(part, task.weights, task.labels))
                    for part, (task, _) in zip(parts, tasks, strict=True)
                ]
            values = stem.stem(given, tasks[0][0].weights, 0)
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
        """
        size = _size(images)
        stem = self._stem(tasks, size)
        if stem is None:
            return [self.run(task, images) for task in tasks]
        with torch.inference_mode():
            values = stem.stem(self._enter(images, size), tasks[0].weights, 0)
            return [
                _leave(stem.rest(stem.protect(values), task.weights, task.labels, len(images)))
                for task in tasks
            ]

    def one_pass(self, plan: LayoutPlan, labels: int, size: Size) -> OnePass | None:
        """Return how tasks of a layout share a pass, or None where they cannot."""
        heads = self._head_places(labels)
        build = partial(build_one_pass, self._program(size), self._merged, plan, heads=heads)
        found: OnePass | None = self._once(("one pass", size, id(plan), heads), build)
        return found

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
        size = _size(images)
        with torch.inference_mode():
            table = torch.stack([task.factors for task in tasks])
            factors = table[torch.as_tensor(rows, device=table.device)]
            weights = self._shared_weights(shared, size)
            values = shared.body(self._enter(images, size), weights, 0, factors)
            answers, start = [], 0
            for index, task in enumerate(tasks):
                count = rows.count(index)
                taken = shared.heads.take(values, start, start + count)
                known = {**weights, **task.head}
                answers.append(_leave(shared.heads.rest(taken, known, task.labels, count)))
                start += count
        return answers

    def _shared_weights(self, shared: OnePass, size: Size) -> Mapping[str, Tensor | Kernel]:
        """Return the weights of a shared pass: kernels without any task's part in them."""

        def form() -> dict[str, Tensor | Kernel]:
            program, own = self._program(size), shared.plan.own
            weights = {name: self._base(name, program) for name in shared.weights - own}
            for name in shared.weights & own:
                kernel = self._merged.kernel(name.removesuffix(".weight"), shared.plan)
                dense = cast_to(kernel, self.dtype)
                weights[name] = pack(dense) if name in program.kernels else dense
            return weights

        found: Mapping[str, Tensor | Kernel] = self._once(("shared", id(shared)), form)
        return found

    def _head_places(self, labels: int) -> frozenset[str]:
        return frozenset(place for place, _ in self._merged.heads(labels).values())

    def _head_bytes(self, labels: int) -> int:
        shapes = (shape for _, shape in self._merged.heads(labels).values())
        return self.dtype.itemsize * sum(map(math.prod, shapes))

    def _stem(self, tasks: Sequence[FoldedTask], size: Size) -> Stem | None:
        own = frozenset().union(*(task.own for task in tasks))
        build = partial(split, self._program(size), own)
        found: Stem | None = self._once(("stem", size, own), build)
        return found

    def _program(self, size: Size) -> Program:
        def make() -> Program:
            program = record(
                lambda labels: self._merged.model(labels, dtype=self.dtype),
                input_size=size,
                device=self._merged.device,
                dtype=self.dtype,
            )
            return_free_memory()
            return program

        program: Program = self._once(("program", size), make)
        return program

    def _base(self, name: str, program: Program) -> Tensor | Kernel:
        """Return a weight of the bare backbone; every task that leaves it alone reads this one."""

        def form() -> Tensor | Kernel:
            with torch.inference_mode():
                weight = self._merged.weight(name, dtype=self.dtype)
            return pack(weight) if name in program.kernels else weight

        base: Tensor | Kernel = self._once(("base", name), form)
        return base

    def _once(self, key: object, make: Callable[[], T]) -> T:
        """Make something that depends on its key alone, once."""
        try:
            return self._memo[key]  # type: ignore[no-any-return]
        except KeyError:
            pass
        with self._recording:
            if key not in self._memo:
                self._memo[key] = make()
            return self._memo[key]  # type: ignore[no-any-return]

    def _enter(self, images: Tensor, size: Size) -> Tensor:
        """Bring images to where and how the network computes."""
        given = images.to(device=self._merged.device, dtype=self.dtype)
        given = given.contiguous(memory_format=torch.channels_last)
        if self._program(size).changes_images and given is images:
            return given.clone(memory_format=torch.preserve_format)
        return given


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


def _size(images: Tensor) -> Size:
    _, channels, height, width = images.shape
    return channels, height, width


def _leave(answer: Tensor) -> Tensor:
    return answer.float().cpu()
