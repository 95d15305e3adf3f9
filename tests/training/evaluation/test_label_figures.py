"""Figures of yes-or-no decisions: scikit-learn's of each label, and right for a single one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import precision_recall_fscore_support

from gatehub.training.evaluation.label_figures import measure_labels
from gatehub.training.objectives import MultiLabelEvaluation


def answered(targets: np.ndarray, predicted: np.ndarray) -> MultiLabelEvaluation:
    return MultiLabelEvaluation(
        loss=0.0,
        targets=targets,
        logits=np.where(predicted, 1.0, -1.0).astype(np.float32),
        thresholds=np.full(targets.shape[1], 0.5),
        known=np.ones(targets.shape[1], bool),
    )


TABLES = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@given(tables=TABLES)
def test_each_label_has_the_figures_of_its_own_column(
    tables: tuple[np.ndarray, np.ndarray],
) -> None:
    targets, predicted = tables
    labels = "abcd"[: targets.shape[1]]
    figures = measure_labels(answered(targets, predicted), labels)
    for index, found in enumerate(figures.labels):
        # Of one column scikit-learn answers for "no" and "yes", unless it is told which.
        expected = precision_recall_fscore_support(
            targets[:, index], predicted[:, index], labels=[True], zero_division=np.nan
        )
        for share, figure in zip((found.precision, found.recall, found.f1), expected, strict=False):
            assert (np.nan if share is None else share) == pytest.approx(figure[0], nan_ok=True)
    pooled = precision_recall_fscore_support(
        targets.ravel(), predicted.ravel(), labels=[True], zero_division=0
    )
    assert figures.micro_f1 == pytest.approx(pooled[2][0])
    assert figures.micro_precision == pytest.approx(pooled[0][0])


def test_a_single_label_by_hand() -> None:
    """One found, one missed, and eight that are rightly said not to have it."""
    targets = np.array([True, True] + [False] * 8)[:, None]
    predicted = np.array([True] + [False] * 9)[:, None]
    measured = answered(targets, predicted)
    [red] = measure_labels(measured, ["red"]).labels
    assert (red.precision, red.recall, red.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert measured.recall == 0.5
    assert measured.to_metrics()["micro_f1"] == pytest.approx(2 / 3)
    assert measured.to_metrics()["macro_f1"] == pytest.approx(2 / 3)


def test_means_are_of_the_labels_that_images_have() -> None:
    targets = np.array([[True, False], [True, False]])
    predicted = np.array([[True, True], [False, False]])
    figures = measure_labels(answered(targets, predicted), "ab")
    assert (figures.macro_precision, figures.macro_recall) == (1.0, 0.5)
    assert figures.labels[1].recall is None
    assert figures.micro_precision == 0.5
