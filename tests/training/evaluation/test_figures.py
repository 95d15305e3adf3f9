"""Figures with known answers, and what cannot be divided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.training.evaluation import Evaluation
from gatehub.training.evaluation.figures import (
    accuracy_interval,
    calibration_error,
    measure_classes,
)


def answered(
    targets: list[int], predicted: list[int], ranks: list[int] | None = None
) -> Evaluation:
    right = np.equal(targets, predicted)
    return Evaluation(
        accuracy=float(right.mean()),
        loss=0.0,
        targets=np.array(targets),
        predicted=np.array(predicted),
        scores=np.full(len(targets), 0.5, np.float32),
        ranks=np.array([0] * len(targets) if ranks is None else ranks),
        losses=np.zeros((len(targets), 1), np.float32),
    )


def test_each_class_by_hand() -> None:
    figures = measure_classes(answered([0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 3, 1]), "abcde")
    a, b, c, d, e = figures.classes
    assert (a.label, a.images, a.predicted) == ("a", 3, 2)
    assert (a.precision, a.recall) == (1.0, pytest.approx(2 / 3))
    assert a.f1 == pytest.approx(0.8)
    assert (b.precision, b.recall) == (pytest.approx(1 / 3), 0.5)
    assert (d.images, d.precision, d.recall, d.f1) == (1, 0.0, 0.0, 0.0)
    for absent in (c, e):
        assert (absent.images, absent.predicted) == (0, 0)
        assert (absent.precision, absent.recall, absent.f1) == (None, None, None)
    assert figures.confusion.tolist() == [
        *([2, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0])
    ]
    assert figures.macro_recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert figures.top5_accuracy is None


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    figures = measure_classes(answered([0, 1], [0, 0]), "ab")
    assert figures.classes[1].precision is None
    assert (figures.classes[1].recall, figures.classes[1].f1) == (0.0, 0.0)
    assert figures.macro_precision == pytest.approx(0.25)


def test_a_single_image_of_a_single_class() -> None:
    figures = measure_classes(answered([2], [2]), "abc")
    assert (figures.macro_f1, figures.accuracy_interval) == (1.0, (1.0, 1.0))


def test_top_five_counts_ranks() -> None:
    figures = measure_classes(answered([0, 1, 2, 3], [0, 0, 0, 0], [0, 4, 5, 6]), "abcdefg")
    assert figures.top5_accuracy == 0.5


def test_the_interval_is_that_of_the_binomial() -> None:
    # 97.5 % of the binomial of 1000 trials at 0.9 lie at or below 918, 2.5 % at or below 881.
    low, high = accuracy_interval(0.9, 1000)
    assert low == pytest.approx(0.881, abs=0.002)
    assert high == pytest.approx(0.918, abs=0.002)
    assert accuracy_interval(0.9, 1000) == (low, high)
    assert accuracy_interval(0.0, 7) == (0.0, 0.0)


def test_a_known_calibration_error() -> None:
    scores = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55], np.float32)
    right = np.array([True, True, True, False, True, True])
    # |3 - 3.8| and |2 - 1.1|, of 6 images.
    assert calibration_error(scores, right) == pytest.approx((0.8 + 0.9) / 6, abs=1e-6)
    # The last bin has both ends: |1 - 1.95|, of 2 images.
    certain = np.array([1.0, 0.95], np.float32)
    assert calibration_error(certain, np.array([False, True])) == pytest.approx(0.475, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_a_calibration_error_is_a_share(answers: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in answers], np.float32)
    right = np.array([known for _, known in answers])
    error = calibration_error(scores, right)
    assert math.isfinite(error)
    assert -1e-6 <= error <= 1 + 1e-6
    assert error >= abs(right.mean() - scores.mean(dtype=np.float64)) - 1e-6
