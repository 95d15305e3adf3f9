"""What a model's answers say of it, class by class and as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from gatehub.training.objectives import Evaluation

TOP = 5
_CONFIDENCE = 0.95
_RESAMPLES = 10_000
_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """How well one class is told from the others; None where there is nothing to divide by.

    Args:
        label: the class.
        images: how many there are of it.
        predicted: how many were taken for it.
        precision: share of those taken for it that are of it.
        recall: share of those of it that were taken for it.
        f1: harmonic mean of the two.
    """

    label: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """Figures over a set of images; shares are fractions.

    Args:
        accuracy_interval: 95 % of the accuracies of as many images drawn from these lie in it.
        top5_accuracy: share of the images whose class is among the five most likely; None for
            models of five classes or fewer, of which it says nothing.
        calibration_error: by how much scores differ from the share of right answers, see
            `calibration_error`.
        macro_precision: mean of the classes that have images; 0 of those never predicted.
        macro_recall: mean of the classes that have images.
        macro_f1: mean of the classes that have images.
        classes: in the order of the labels.
        confusion: (classes, classes) how many images of the class of a row were taken for the
            class of a column.
    """

    accuracy_interval: tuple[float, float]
    top5_accuracy: float | None
    calibration_error: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: NDArray[np.int64]


def measure_classes(measured: Evaluation, labels: Sequence[str]) -> Figures:
    """Return the figures of a model's answers.

    Args:
        measured: from `evaluate`.
        labels: the model's class names, in the order of its logits.
    """
    every = list(range(len(labels)))
    confusion = confusion_matrix(measured.targets, measured.predicted, labels=every)
    columns = precision_recall_fscore_support(
        measured.targets, measured.predicted, labels=every, zero_division=np.nan
    )
    precision, recall, f1, images = (np.asarray(column).tolist() for column in columns)
    classes = tuple(
        ClassFigures(
            label=label,
            images=int(images[i]),
            predicted=int(confusion[:, i].sum()),
            precision=_known(precision[i]),
            recall=_known(recall[i]),
            f1=_known(f1[i]),
        )
        for i, label in enumerate(labels)
    )
    right = measured.predicted == measured.targets
    return Figures(
        accuracy_interval=accuracy_interval(measured.accuracy, measured.images),
        top5_accuracy=float((measured.ranks < TOP).mean()) if len(labels) > TOP else None,
        calibration_error=calibration_error(measured.scores, right),
        macro_precision=_mean(found.precision for found in classes if found.images),
        macro_recall=_mean(found.recall for found in classes if found.images),
        macro_f1=_mean(found.f1 for found in classes if found.images),
        classes=classes,
        confusion=confusion,
    )


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the bootstrap, Efron 1979; for one input, one answer.

    Of as many images drawn with replacement, the number that is right is binomial, so the images
    themselves need not be drawn. Where all are right, or none is, the interval has no width.
    """
    right = np.random.default_rng(0).binomial(images, accuracy, _RESAMPLES)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(right, (tail, 1 - tail), method="nearest")
    return int(low) / images, int(high) / images


def calibration_error(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over 15 bins of equal width, arXiv 1706.04599 eq. 3.

    Args:
        scores: (N,) the probability of each answer, in [0, 1].
        right: (N,) whether it is right.

    Returns:
        The mean of |accuracy - mean score| over the bins, each weighted with its images.
    """
    bins = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    surplus = np.bincount(bins, right.astype(np.float64) - scores, minlength=_BINS)
    return float(np.abs(surplus).sum() / len(scores))


def _mean(figures: Iterable[float | None]) -> float:
    return float(np.mean([figure or 0.0 for figure in figures]))


def _known(figure: float) -> float | None:
    return None if np.isnan(figure) else figure
