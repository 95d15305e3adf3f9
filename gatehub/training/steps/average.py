"""A running mean of a task's values over the steps: what a run is measured by, and what it keeps.

Single steps are noise: on a few hundred images the accuracy of one epoch's values jumps by more
than training gains, so the best epoch would be the luckiest one. The mean of the last steps is as
good as the best of them (Polyak averaging; its use in deep networks: arXiv 1803.05407).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from gatehub.training.methods.learner import Learner


class Average:
    """The exponential moving average of what a run changes in a model.

    Each step moves it by 1 / `steps` of the way to the model's values.

    Args:
        model: it is read at each `update`.
        start: the average before the first step, by `Learner.task_tensors`; it is copied.
        steps: over about how many of the last steps the average goes; from 1 down it is the last
            step's values.
    """

    def __init__(self, model: Learner, start: Mapping[str, Tensor], *, steps: float) -> None:
        self._model = model
        self._live = model.task_tensors()
        self.tensors = {name: start[name].to(t, copy=True) for name, t in self._live.items()}
        self._share = 1 / max(1.0, steps)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's values after a step."""
        for name, value in self._live.items():
            self.tensors[name].lerp_(value, self._share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average's values for a while."""
        trained = {name: tensor.clone() for name, tensor in self._live.items()}
        put_tensors(self._model, self.tensors)
        try:
            yield
        finally:
            put_tensors(self._model, trained)


@torch.no_grad()
def put_tensors(model: Learner, values: Mapping[str, Tensor]) -> None:
    """Give a model values by the names of `Learner.task_tensors`."""
    for name, tensor in model.task_tensors().items():
        tensor.copy_(values[name])
