"""What the steps of a training need to know of a model, whichever method it is trained by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from gatehub.backbone.preprocessing import Preprocessing


class Network(Protocol):
    """A module that answers: (B, C, H, W) float32 → (B, classes) logits."""

    training: bool

    def __call__(self, images: Tensor, /) -> Tensor: ...
    def train(self, mode: bool = True, /) -> Any: ...
    def eval(self) -> Any: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Learner(Network, Protocol):
    """A model that learns one task, such as `GatedModel`.

    What it learns has three groups, each with a learning rate of its own: the gates, or what the
    method trains in their place; normalisation values; and the head. Any of them may be empty.

    Attributes:
        net: the network, with the head as its classifier.
        labels: class names, in the order of the logits.
        preprocessing: how files become tensors.
    """

    net: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def gate_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the gates, or what is trained in their place, by name."""

    def gate_rests(self) -> Mapping[str, float]:
        """Return the value towards which each of them decays, for those that do."""

    def norm_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the learned normalisation values, by name."""

    def head_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the head's parameters, by name."""

    def task_tensors(self) -> Mapping[str, Tensor]:
        """Return everything that a run changes, by name: the live tensors, detached."""
