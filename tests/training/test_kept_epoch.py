"""The epoch that is kept: long trained, not by luck, and never below the start."""

from __future__ import annotations

import pytest

from gatehub.training.checkpoint import EpochRecord
from gatehub.training.kept_epoch import choose_epoch, find_best_epoch
from gatehub.training.recipe import Recipe


def record(epoch: int, accuracy: float, loss: float = 0.5, recall: float = 0.0) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, train_loss=1.0, val_loss=loss, val_accuracy=accuracy, val_recall=recall
    )


def run(*accuracies: float) -> list[EpochRecord]:
    return [record(epoch, accuracy) for epoch, accuracy in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ((0.80,), 0),
        ((0.80, 0.79), 0),
        ((0.80, 0.80), 1),
        ((0.50, 0.95, 0.90), 1),  # by more than one standard error of 0.95, 0.022
        ((0.50, 0.95, 0.93), 2),  # by less
        ((0.50, 0.95, 0.93, 0.92), 2),
        ((0.94, 0.95, 0.93), 1),  # but below the start
        ((0.50, 1.00, 0.99), 1),  # of what is always right there is no error
    ],
)
def test_the_last_that_is_measurably_below_no_other(
    accuracies: tuple[float, ...], kept: int
) -> None:
    assert choose_epoch(run(*accuracies), images=100) == kept


def test_more_images_measure_more() -> None:
    history = run(0.50, 0.95, 0.93)
    assert choose_epoch(history, images=100) == 2
    assert choose_epoch(history, images=1000) == 1


def test_who_was_not_chosen_as_the_last_is_not_chosen_later() -> None:
    """Only the choice's values are in memory."""
    history = run(0.7, 0.6, 0.8, 0.72, 0.85, 0.79, 0.82, 0.60, 0.83, 0.9, 0.88, 0.5)
    before = 0
    for end in range(1, len(history) + 1):
        now = choose_epoch(history[:end], images=100)
        assert now in (before, end - 1)
        before = now


def test_best_and_last_are_just_that() -> None:
    history = run(0.5, 0.95, 0.93)
    assert choose_epoch(history, images=1, keep="best") == 1
    assert choose_epoch(run(0.5, 0.1), images=100, keep="last") == 1
    assert find_best_epoch([record(0, 0.8, 0.5), record(1, 0.8, 0.6)]) == 0
    assert find_best_epoch([record(0, 0.8, 0.5), record(1, 0.8, 0.4)]) == 1


def test_where_classes_count_alike_recall_decides() -> None:
    history = [record(0, 0.9, 0.5, 0.5), record(1, 0.8, 0.6, 0.7), record(2, 0.7, 0.5, 0.7)]
    assert find_best_epoch(history, by=Recipe().compared_by) == 0
    assert find_best_epoch(history, by=Recipe(class_weights="balanced").compared_by) == 2
