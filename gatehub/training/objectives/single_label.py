"""One label for each image: softmax, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gatehub.training.examples import Examples
from gatehub.training.objectives.objective import TEMPERATURES
from gatehub.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """A model's answers to N images, in their order, and how good they are.

    Args:
        accuracy: share of the images whose highest logit is their class.
        loss: mean cross-entropy, in nats.
        targets: (N,) int64, the class of each image.
        predicted: (N,) int64, the class of its highest logit.
        scores: (N,) float32, the probability of that class, in [0, 1].
        ranks: (N,) int64, how many classes have a higher logit than its own.
        losses: (N, T) float32, the cross-entropy in nats at each of T temperatures.
    """

    accuracy: float
    loss: float
    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]
    losses: NDArray[np.float32]

    def calibrated_loss(self, *, balanced: bool = False) -> float:
        """Return the mean cross-entropy at the temperature at which it is least, in nats.

        A network that is trained on becomes too sure of its answers, and its loss rises while they
        become better. One temperature for all logits takes that out (arXiv 1706.04599).

        Args:
            balanced: every class counts alike, however many images it has.
        """
        counts = np.bincount(self.targets)
        shares = 1 / counts[self.targets] if balanced else np.ones(self.images)
        return float((shares @ self.losses / shares.sum()).min())

    @property
    def recall(self) -> float:
        """Mean over the classes that have images of the share that is found: macro recall."""
        right = np.bincount(self.targets, weights=self.predicted == self.targets)
        counts = np.bincount(self.targets)
        return float((right[counts > 0] / counts[counts > 0]).mean())

    @property
    def images(self) -> int:
        """How many images there were."""
        return len(self.targets)

    @property
    def mean_average_precision(self) -> None:
        """None: the answer is one class, not an order of images."""
        return None

    def decide(self) -> Evaluation:
        """Return itself: the class with the highest logit is the answer."""
        return self

    def to_metrics(self) -> dict[str, float]:
        """Return accuracy and loss."""
        return {"accuracy": self.accuracy, "loss": self.loss}

    def to_thresholds(self) -> None:
        """None: there are none."""
        return None


class SingleLabel:
    """An `Objective`: each image has one class."""

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the mean cross-entropy of a batch.

        Args:
            logits: (B, classes).
            targets: (B,) int64.
            weights: (classes,), what an image of each class counts. They are not normalised within
                the batch, whose mixture of classes is chance.
            label_smoothing: see `Recipe`.
        """
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
        return losses.mean() if weights is None else (losses * weights[targets]).mean()

    def weigh(self, recipe: Recipe, examples: Examples, labels: int) -> list[float] | None:
        """See `Recipe.weigh_classes`."""
        return recipe.weigh_classes(cast("tuple[int, ...]", examples.targets), labels)

    def compared_by(self, recipe: Recipe) -> str:
        """See `Recipe.compared_by`."""
        return recipe.compared_by

    def centre(self, logits: Tensor) -> Tensor:
        """Return logits without what softmax ignores: their mean over the classes."""
        return logits - logits.mean(1, keepdim=True)

    def read(self, logits: Tensor, targets: Tensor) -> tuple[Mapping[str, Tensor], float]:
        """Keep a few numbers of each image: there may be many classes."""
        predicted, own = logits.argmax(1), logits.gather(1, targets[:, None])
        losses = [
            F.cross_entropy(logits / temperature, targets, reduction="none")
            for temperature in TEMPERATURES
        ]
        answers = {
            "targets": targets,
            "predicted": predicted,
            "scores": logits.softmax(1).gather(1, predicted[:, None])[:, 0],
            "ranks": (logits > own).sum(1),
            "losses": torch.stack(losses, 1),
        }
        return answers, float(F.cross_entropy(logits, targets, reduction="sum"))

    def measure(self, answers: Mapping[str, Tensor], loss: float) -> Evaluation:
        """Count the right ones."""
        found = {name: tensor.numpy() for name, tensor in answers.items()}
        right = int((found["predicted"] == found["targets"]).sum())
        return Evaluation(accuracy=right / len(found["targets"]), loss=loss, **found)


SINGLE_LABEL = SingleLabel()
