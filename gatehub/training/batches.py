"""Examples as batches of tensors, the same for one seed however many workers decode them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gatehub.backbone.images import ImageSource
from gatehub.training.data import Examples

Batch = tuple[Tensor, Tensor]


def training_batches(
    examples: Examples,
    transform: Callable[[ImageSource], Tensor],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield one epoch in random order: images (B, C, H, W) float32, classes (B,) int64.

    A last batch that is smaller is left out, unless it is the only one.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))
    dataset = _Drawn(examples, transform, seed=(seed, epoch))
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order.tolist(),
        drop_last=len(examples) >= batch_size,
        num_workers=workers,
    )
    yield from cast(Iterator[Batch], loader)


def evaluation_batches(
    examples: Examples,
    transform: Callable[[ImageSource], Tensor],
    *,
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield all examples in their order: images (B, C, H, W) float32, classes (B,) int64."""
    dataset = _Drawn(examples, transform, seed=None)
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    yield from cast(Iterator[Batch], loader)


def count_batches(examples: Examples, batch_size: int) -> int:
    """Return how many batches `training_batches` yields."""
    return max(1, len(examples) // batch_size)


class _Drawn(Dataset[tuple[Tensor, int]]):
    """Examples as tensors; with a seed, whatever the transform draws depends on it alone."""

    def __init__(
        self,
        examples: Examples,
        transform: Callable[[ImageSource], Tensor],
        *,
        seed: tuple[int, int] | None,
    ) -> None:
        self._examples = examples
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self._seed is not None:
            seed_everything(*self._seed, index)
        return self._transform(self._examples.sources[index]), self._examples.targets[index]


def seed_everything(*parts: int) -> None:
    """Seed the generators of Python, NumPy and torch, from which timm's transforms draw."""
    value = int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    # Not torch.manual_seed: before CUDA is up, that formats a stack trace at each call (2 ms).
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
