"""A model's answers to labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gatehub.training.batches import Batch

# Logits are divided by these where a loss is calibrated.
_TEMPERATURES = torch.logspace(-2, 4, 25, base=2.0)


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


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a model, in evaluation mode; its mode is restored afterwards.

    Args:
        model: (B, C, H, W) float32 → (B, classes) logits.
        batches: from `evaluation_batches`; at least one.
        progress: called with the number of images done.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    answers: list[tuple[Tensor, ...]] = []
    loss, done = 0.0, 0
    with torch.inference_mode():
        for images, targets in batches:
            logits: Tensor = model(images.to(device)).float().cpu()
            predicted, own = logits.argmax(1), logits.gather(1, targets[:, None])
            score = logits.softmax(1).gather(1, predicted[:, None])[:, 0]
            losses = [
                F.cross_entropy(logits / temperature, targets, reduction="none")
                for temperature in _TEMPERATURES
            ]
            ranks = (logits > own).sum(1)
            answers.append((targets, predicted, score, ranks, torch.stack(losses, 1)))
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            done += len(targets)
            if progress is not None:
                progress(done)
    model.train(was_training)
    columns = [torch.cat(column).numpy() for column in zip(*answers, strict=True)]
    found, predictions = columns[:2]
    return Evaluation(
        accuracy=int((predictions == found).sum()) / done,
        loss=loss / done,
        targets=found,
        predicted=predictions,
        scores=columns[2],
        ranks=columns[3],
        losses=columns[4],
    )
