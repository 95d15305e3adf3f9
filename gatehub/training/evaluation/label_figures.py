"""What a model's answers say of it where an image may have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

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
    targets, predicted = measured.targets, measured.predicted
    precisions = measured.average_precisions
    columns = precision_recall_fscore_support(
        targets, predicted, average=None, zero_division=np.nan
    )
    each = tuple(
        LabelFigures(
            label=label,
            images=int(targets[:, i].sum()),
            predicted=int(predicted[:, i].sum()),
            precision=_known(columns[0][i]),
            recall=_known(columns[1][i]),
            f1=_known(columns[2][i]),
            average_precision=_known(precisions[i]),
            threshold=float(measured.thresholds[i]),
        )
        for i, label in enumerate(labels)
    )
    seen = targets.any(0)
    whole = precision_recall_fscore_support(targets, predicted, average="micro", zero_division=0)
    means = (
        precision_recall_fscore_support(
            targets[:, seen], predicted[:, seen], average="macro", zero_division=0
        )
        if seen.any()
        else (0.0, 0.0, 0.0)
    )
    return MultiLabelFigures(
        mean_average_precision=measured.mean_average_precision,
        accuracy_interval=accuracy_interval(measured.accuracy, measured.images),
        micro_precision=float(whole[0]),
        micro_recall=float(whole[1]),
        micro_f1=float(whole[2]),
        macro_precision=float(means[0]),
        macro_recall=float(means[1]),
        macro_f1=float(means[2]),
        labels=each,
    )


def _known(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
