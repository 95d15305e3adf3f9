"""What a step's loss has beside the task's: nothing, unless somebody asks for more."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor


class AddedLoss(Protocol):
    """A term of the loss that depends on how the network computes a batch."""

    def watching(self, step: int) -> AbstractContextManager[object]:
        """Return what the network's pass of a step runs in; steps count from 0 over all epochs."""

    def loss(self, images: Tensor) -> Tensor:
        """Return the term for that pass, a scalar; images are those that the network was given."""


class _Nothing:
    def watching(self, step: int) -> AbstractContextManager[object]:
        return nullcontext()

    def loss(self, images: Tensor) -> Tensor:
        return torch.zeros((), device=images.device)


NOTHING: AddedLoss = _Nothing()
