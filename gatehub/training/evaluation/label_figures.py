"""What a model's answers say of it where an image may have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatehub.training.evaluation.figures import accuracy_interval
from gatehub.training.objectives import MultiLabelEvaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """How well one label is found; None where there is nothing to divide by.

    Args:
        label: its name.
        images: how many have it.
        predicted: how many were said to have it.
        precision: share of those said to have it that do.
        recall: share of those that have it that were said to.
        f1: harmonic mean of the two.
        average_precision: mean of the precisions at the images that have it, those with the highest
            scores first; it knows no threshold.
        threshold: the score from which on an image is said to have it.
    """

    label: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelFigures:
    """Figures over a set of images; shares are fractions.

    Args:
        mean_average_precision: mean of the labels that images have.
        accuracy_interval: 95 % of the shares of images whose labels are all right, of as many
            images drawn from these, lie in it.
        micro_precision: over all decisions, of all labels together.
        micro_recall: likewise.
        micro_f1: likewise.
        macro_precision: mean of the labels that images have; 0 of those never predicted.
        macro_recall: likewise.
        macro_f1: likewise.
        labels: in the order of the model's.
    """

    mean_average_precision: float
    accuracy_interval: tuple[float, float]
    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    labels: tuple[LabelFigures, ...]


def measure_labels(measured: MultiLabelEvaluation, labels: Sequence[str]) -> MultiLabelFigures:
    """Return the figures of a model's answers.

    Args:
        measured: from `evaluate`, with the thresholds that count.
        labels: the model's, in the order of its logits.
    """
    decisions, precisions = measured.count(), measured.average_precisions
    each = tuple(
        LabelFigures(
            label=label,
            images=int(decisions.had[i]),
            predicted=int(decisions.said[i]),
            precision=_known(decisions.precision[i]),
            recall=_known(decisions.recall[i]),
            f1=_known(decisions.f1[i]),
            average_precision=_known(precisions[i]),
            threshold=float(measured.thresholds[i]),
        )
        for i, label in enumerate(labels)
    )
    pooled = decisions.pool()
    return MultiLabelFigures(
        mean_average_precision=measured.mean_average_precision,
        accuracy_interval=accuracy_interval(measured.accuracy, measured.images),
        micro_precision=float(np.nan_to_num(pooled.precision[0])),
        micro_recall=float(np.nan_to_num(pooled.recall[0])),
        micro_f1=float(np.nan_to_num(pooled.f1[0])),
        macro_precision=decisions.average(decisions.precision),
        macro_recall=decisions.average(decisions.recall),
        macro_f1=decisions.average(decisions.f1),
        labels=each,
    )


def _known(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
