"""The epoch that is kept: good and not lucky, and never below the start."""

from __future__ import annotations

import pytest

from gatehub.training.checkpoint import EpochRecord
from gatehub.training.kept_epoch import choose_epoch
from gatehub.training.recipe import Recipe


def record(
    epoch: int, accuracy: float, calibrated: float = 0.5, *, loss: float = 0.5, recall: float = 0.0
) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        train_loss=1.0,
        val_loss=loss,
        val_calibrated_loss=calibrated,
        val_accuracy=accuracy,
        val_recall=recall,
    )


def run(*results: tuple[float, float]) -> list[EpochRecord]:
    return [record(epoch, *result) for epoch, result in enumerate(results)]


@pytest.mark.parametrize(
    ("results", "kept"),
    [
        ([(0.8, 0.5)], 0),
        ([(0.8, 0.5), (0.79, 0.1)], 0),  # below the start
        ([(0.8, 0.5), (0.8, 0.6)], 0),
        ([(0.8, 0.5), (0.8, 0.5)], 0),
        ([(0.8, 0.5), (0.8, 0.4)], 0),  # as often right: nothing was gained
        ([(0.8, 0.5), (0.82, 0.4)], 0),  # two images of a hundred
        ([(0.8, 0.5), (0.83, 0.4)], 1),
        ([(0.8, 0.5), (0.82, 0.3), (0.83, 0.6)], 2),
        ([(0.8, 0.5), (0.8, 0.3), (0.85, 0.4), (0.95, 0.41)], 2),  # the highest may be luck
        ([(0.85, 0.310), (0.84, 0.377), (0.88, 0.315)], 2),  # right more often, if not surer
        ([(0.5, 0.9), (0.7, 0.6), (0.8, 0.5), (0.8, 0.7)], 2),
    ],
)
def test_the_least_calibrated_loss_of_those_above_the_start(
    results: list[tuple[float, float]], kept: int
) -> None:
    assert choose_epoch(run(*results), images=100) == kept


def test_who_was_not_chosen_as_the_last_is_not_chosen_later() -> None:
    """Only the choice's values are in memory."""
    history = run((0.7, 0.9), (0.6, 0.1), (0.8, 0.7), (0.7, 0.8), (0.75, 0.65), (0.72, 0.66))
    before = 0
    for end in range(1, len(history) + 1):
        now = choose_epoch(history[:end], images=100)
        assert now in (before, end - 1)
        before = now


def test_best_and_last_are_just_that() -> None:
    history = run((0.5, 0.9), (0.95, 0.5), (0.93, 0.4))
    assert choose_epoch(history, images=100, keep="best") == 1
    assert choose_epoch(run((0.5, 0.1), (0.1, 9.0)), images=100, keep="last") == 1
    equal = [record(0, 0.8, loss=0.5), record(1, 0.8, loss=0.6), record(2, 0.8, loss=0.4)]
    assert [choose_epoch(equal[:end], images=100, keep="best") for end in (1, 2, 3)] == [0, 0, 2]


def test_where_classes_count_alike_recall_decides() -> None:
    history = [
        record(epoch, accuracy, recall=recall)
        for epoch, (accuracy, recall) in enumerate([(0.9, 0.5), (0.8, 0.7), (0.7, 0.6)])
    ]
    assert choose_epoch(history, images=100, keep="best", by=Recipe().compared_by) == 0
    balanced = Recipe(class_weights="balanced").compared_by
    assert choose_epoch(history, images=100, keep="best", by=balanced) == 1
