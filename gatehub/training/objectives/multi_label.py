"""Any number of labels for each image: sigmoids, binary cross-entropy, mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from gatehub.training.examples import Examples
from gatehub.training.objectives.decisions import Decisions, count_decisions
from gatehub.training.objectives.objective import TEMPERATURES
from gatehub.training.recipe import Recipe

_MIDDLE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiLabelEvaluation:
    """A model's answers to N images, in their order, and how good they are.

    Args:
        loss: mean binary cross-entropy over images and labels, in nats.
        targets: (N, labels) bool, whether an image has a label.
        logits: (N, labels) float32.
        thresholds: (labels,) float64, the score from which on an image is said to have a label.
        known: (labels,) bool, whether it is known which images have a label; figures are of those
            labels alone.
    """

    loss: float
    targets: NDArray[np.bool_]
    logits: NDArray[np.float32]
    thresholds: NDArray[np.float64]
    known: NDArray[np.bool_]

    @property
    def images(self) -> int:
        """How many images there were."""
        return len(self.targets)

    @property
    def scores(self) -> NDArray[np.float64]:
        """(N, labels) the probability of each label, in [0, 1], as `Problem.score` has it."""
        return torch.from_numpy(self.logits).sigmoid().numpy().astype(np.float64)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(N, labels) whether a score reaches its threshold, and the label is known."""
        return (self.scores >= self.thresholds) & self.known

    def count(self) -> Decisions:
        """Count what was said of each label, and what is so."""
        return count_decisions(self.targets, self.predicted)

    @property
    def accuracy(self) -> float:
        """Share of the images with exactly the labels that are predicted."""
        return float((self.predicted == self.targets).all(1).mean())

    @property
    def recall(self) -> float:
        """Mean over the labels that images have of the share that is found: macro recall."""
        decisions = self.count()
        return decisions.average(decisions.recall)

    @property
    def average_precisions(self) -> NDArray[np.float64]:
        """(labels,) the average precision of each label; NaN where no image has it."""
        # Of the logits: sigmoids of large ones are equal in float32.
        found = [
            average_precision_score(self.targets[:, label], self.logits[:, label])
            if self.targets[:, label].any()
            else np.nan
            for label in range(self.targets.shape[1])
        ]
        return np.asarray(found, np.float64)

    @property
    def mean_average_precision(self) -> float:
        """Mean over the labels that images have; 0 if there are none."""
        found = self.average_precisions
        return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0

    def calibrated_loss(self, *, balanced: bool = False) -> float:
        """Return the mean binary cross-entropy at the temperature at which it is least, in nats.

        Args:
            balanced: changes nothing; all labels count alike.
        """
        logits, targets = (
            torch.from_numpy(each[:, self.known]) for each in (self.logits, self.targets)
        )
        losses = [
            F.binary_cross_entropy_with_logits(logits / temperature, targets.float())
            for temperature in TEMPERATURES
        ]
        return min(float(loss) for loss in losses)

    def decide(self) -> MultiLabelEvaluation:
        """Return the same answers with the thresholds that `choose_threshold` finds for them."""
        scores = self.scores
        thresholds = [
            choose_threshold(scores[:, label], self.targets[:, label])
            for label in range(scores.shape[1])
        ]
        return self.with_thresholds(thresholds)

    def with_thresholds(self, thresholds: Sequence[float]) -> MultiLabelEvaluation:
        """Return the same answers with thresholds that are given, one for each label."""
        return replace(self, thresholds=np.asarray(thresholds, np.float64))

    def to_metrics(self) -> dict[str, float]:
        """Return mAP, F1 over all decisions and as a mean over the labels, accuracy and loss."""
        decisions = self.count()
        return {
            "mean_average_precision": self.mean_average_precision,
            "micro_f1": float(np.nan_to_num(decisions.pool().f1[0])),
            "macro_f1": decisions.average(decisions.f1),
            "accuracy": self.accuracy,
            "loss": self.loss,
        }

    def to_thresholds(self) -> tuple[float, ...]:
        """Return the threshold of each label."""
        return tuple(self.thresholds.tolist())


def choose_threshold(scores: NDArray[np.float64], targets: NDArray[np.bool_]) -> float:
    """Return the threshold with the highest F1; of equals, the one closest to one half.

    Between two scores every threshold decides alike; the middle is taken, or one half if it lies
    between them.

    Args:
        scores: (N,) in [0, 1].
        targets: (N,) whether an image has the label; without any, one half is returned.
    """
    if not targets.any():
        return _MIDDLE
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], targets[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + targets.sum())
    below = np.append(ordered[1:], -1.0)
    best = _MIDDLE, -1.0
    for cut in np.flatnonzero(ordered > below):
        low, high = max(below[cut], 0.0), ordered[cut]
        threshold = _MIDDLE if low < _MIDDLE <= high else (low + high) / 2
        if not below[cut] < threshold <= high:  # there is no number between them
            threshold = high
        closer = abs(threshold - _MIDDLE) < abs(best[0] - _MIDDLE)
        if f1[cut] > best[1] or (f1[cut] == best[1] and closer):
            best = float(threshold), float(f1[cut])
    return best[0]


class MultiLabel:
    """An `Objective`: each image has any number of labels, or none."""

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the mean binary cross-entropy over images and labels.

        Args:
            logits: (B, labels).
            targets: (B, labels) float32, of 0 and 1; what is NaN is not known, and does not count.
            weights: (labels,), what an image with a label counts, against 1 of one without it.
            label_smoothing: see `Recipe`; half of it goes to the other answer.
        """
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        if (known := ~targets.isnan()).any() and not known.all():
            losses = F.binary_cross_entropy_with_logits(
                logits, smooth.nan_to_num(), reduction="none", pos_weight=weights
            )
            return losses[known].mean()
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)

    def weigh(self, recipe: Recipe, examples: Examples, labels: int) -> list[float] | None:
        """Return how many images without a label there are for each with it."""
        if recipe.class_weights == "none":
            return None
        counts, images = examples.count_labels(), len(examples)
        return [
            (images - counts[label]) / counts[label] if 0 < counts[label] < images else 1.0
            for label in range(labels)
        ]

    def compared_by(self, recipe: Recipe) -> str:
        """Epochs are compared by mAP, in which every label counts alike."""
        return "mean_average_precision"

    def centre(self, logits: Tensor) -> Tensor:
        """Return the logits: each one says something of its own."""
        return logits

    def read(self, logits: Tensor, targets: Tensor) -> tuple[Mapping[str, Tensor], float]:
        """Keep all logits, by which images are ordered."""
        return {"logits": logits, "targets": targets}, float(self.loss(logits, targets)) * len(
            targets
        )

    def measure(self, answers: Mapping[str, Tensor], loss: float) -> MultiLabelEvaluation:
        """Judge them with thresholds of one half."""
        return MultiLabelEvaluation(
            loss=loss,
            targets=answers["targets"].numpy() > 0,
            known=~answers["targets"].isnan().any(0).numpy(),
            logits=answers["logits"].numpy(),
            thresholds=np.full(answers["logits"].shape[1], _MIDDLE),
        )


MULTI_LABEL = MultiLabel()
