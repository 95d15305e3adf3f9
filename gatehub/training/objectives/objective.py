"""The seam between a training run and what it is trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe

# Logits are divided by these where a loss is calibrated.
TEMPERATURES = torch.logspace(-2, 4, 25, base=2.0)


class Measured(Protocol):
    """A model's answers to labelled images, and how good they are."""

    @property
    def images(self) -> int:
        """How many images there were."""

    @property
    def loss(self) -> float:
        """Mean loss, in nats."""

    @property
    def accuracy(self) -> float:
        """Share of the images whose answer is right, with every label that it has."""

    @property
    def recall(self) -> float:
        """Mean over the labels that images have of the share that is found."""

    @property
    def mean_average_precision(self) -> float | None:
        """Mean over the labels of the average precision; None where an image has one label."""

    def calibrated_loss(self, *, balanced: bool = False) -> float:
        """Return the mean loss at the temperature at which it is least, in nats.

        Args:
            balanced: every class counts alike, where an image has one.
        """

    def decide(self) -> Measured:
        """Return the same answers with thresholds that suit them; itself, if it has none."""

    def to_metrics(self) -> dict[str, float]:
        """Return the figures that an adapter keeps."""

    def to_thresholds(self) -> tuple[float, ...] | None:
        """Return the threshold of each label; None where an image has one label."""


M_co = TypeVar("M_co", bound=Measured, covariant=True)


class Objective(Protocol[M_co]):
    """What a task is trained for.

    Logits are (B, labels) float32 throughout; targets are (B,) int64, the class of each image, or
    (B, labels) float32, 1 for each label that it has.
    """

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the mean loss of a batch, in nats.

        Args:
            logits: see the class.
            targets: see the class.
            weights: (labels,) from `weigh`, on the device of the logits.
            label_smoothing: share of the target that is spread over all answers.
        """

    def weigh(self, recipe: Recipe, examples: Examples, labels: int) -> list[float] | None:
        """Return a weight for each label, so that rare ones count; None if the recipe has none."""

    def compared_by(self, recipe: Recipe) -> str:
        """Name the property of `Measured` by which epochs are compared."""

    def centre(self, logits: Tensor) -> Tensor:
        """Return logits without what does not change the answer."""

    def read(self, logits: Tensor, targets: Tensor) -> tuple[Mapping[str, Tensor], float]:
        """Return what is kept of the answers to a batch, and the sum of their losses."""

    def measure(self, answers: Mapping[str, Tensor], loss: float) -> M_co:
        """Judge what was kept of all answers, whose mean loss is given."""
