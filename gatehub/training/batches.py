"""Examples as batches of tensors, the same for one seed however many workers decode them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gatehub.backbone.images import ImageSource
from gatehub.errors import GatehubError, InputError, TrainingError
from gatehub.training.examples import Examples
from gatehub.training.parallel.team import ALONE, Team

Batch = tuple[Tensor, Tensor]


def training_batches(
    examples: Examples,
    transform: Callable[[ImageSource], Tensor],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int = 0,
    team: Team = ALONE,
) -> Iterator[Batch]:
    """Yield one epoch in random order: images (B, C, H, W) float32, classes (B,) int64.

    Where an image may have any number of labels, (B, labels) float32 of 0 and 1 stand for classes.
    A last batch that is smaller is left out, unless it is the only one. Of each batch, a process of
    a team gets its share. Examples with features give these in place of images.

    Raises:
        GatehubError: an image cannot be decoded any more.
        TrainingError: a worker died.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(examples)).tolist()
    starts = range(0, batch_size * count_batches(examples, batch_size), batch_size)
    shares = [team.share(order[first : first + batch_size]) for first in starts]
    if examples.features is not None:
        return (_gather(examples, share) for share in shares)
    loader = DataLoader(
        _Drawn(examples, transform, seed=(seed, epoch)),
        batch_sampler=shares,
        num_workers=workers,
        collate_fn=_collate,
    )
    return _read(loader)


def evaluation_batches(
    examples: Examples,
    transform: Callable[[ImageSource], Tensor],
    *,
    batch_size: int = 64,
    seed: int | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield all examples in their order: images (B, C, H, W) float32, classes (B,) int64.

    Labels, features and errors are those of `training_batches`. A transform that draws needs a
    seed.
    """
    if examples.features is not None:
        every = range(len(examples))
        return (_gather(examples, every[i : i + batch_size]) for i in every[::batch_size])
    loader = DataLoader(
        _Drawn(examples, transform, seed=None if seed is None else (seed, 0)),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
    )
    return _read(loader)


def count_batches(examples: Examples, batch_size: int) -> int:
    """Return how many batches `training_batches` yields."""
    return max(1, len(examples) // batch_size)


def _gather(examples: Examples, indices: Sequence[int]) -> Batch:
    """Return features as a batch that lies in memory as they do."""
    held = cast(tuple[Tensor, ...], examples.features)
    features = torch.stack([held[index] for index in indices])
    if not held[0].is_contiguous():
        features = features.contiguous(memory_format=torch.channels_last)
    return features, default_collate([examples.target(index) for index in indices])


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why an image gives no tensor. What is raised in a worker would arrive as its traceback."""

    message: str
    hint: str | None


_Item = tuple[Tensor, int | Tensor] | _Failed


def _collate(items: list[_Item]) -> Batch | _Failed:
    for item in items:
        if isinstance(item, _Failed):
            return item
    return cast(Batch, default_collate(items))


def _read(loader: DataLoader[_Item]) -> Iterator[Batch]:
    try:
        for batch in cast(Iterator[Batch | _Failed], loader):
            if isinstance(batch, _Failed):
                raise InputError(batch.message, hint=batch.hint)
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            "A process that decodes images was killed, perhaps for lack of memory.",
            hint="Use fewer workers; 0 decodes in this process.",
        ) from error


class _Drawn(Dataset[_Item]):
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

    def __getitem__(self, index: int) -> _Item:
        if self._seed is not None:
            seed_everything(*self._seed, index)
        try:
            image = self._transform(self._examples.source(index))
        except GatehubError as error:
            return _Failed(error.message, error.hint)
        return image, self._examples.target(index)


def seed_everything(*parts: int) -> None:
    """Seed the generators of Python, NumPy and torch, from which timm's transforms draw."""
    value = int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    # Not torch.manual_seed: before CUDA is up, that formats a stack trace at each call (2 ms).
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
