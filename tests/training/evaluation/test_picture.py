"""The picture of a confusion matrix: legible for a few classes, bounded for many, any label."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gatehub.training.evaluation.picture import draw_confusion


def open_picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_what_is_right_is_dark() -> None:
    drawn = draw_confusion(np.array([[9, 0], [0, 9]]), ["a", "b"], title="t")
    assert drawn == draw_confusion(np.array([[9, 0], [0, 9]]), ["a", "b"], title="t")
    assert drawn != draw_confusion(np.array([[9, 1], [0, 9]]), ["a", "b"], title="t")
    right = np.asarray(open_picture(drawn).convert("L"))
    wrong = np.asarray(
        open_picture(draw_confusion(np.array([[0, 9], [9, 0]]), ["a", "b"], title="t")).convert("L")
    )
    middle = right.shape[0] // 3, right.shape[1] // 2 - 60
    assert right[middle] < 100 < wrong[middle]


@pytest.mark.parametrize(
    "label", ["$5", "$x_{$", "a\\b$", "\u68a8", "[red]", "x" * 4000, "\u10d0", "_^"]
)
def test_any_label_can_be_drawn(label: str) -> None:
    picture = open_picture(draw_confusion(np.eye(2, dtype=int), [label, "b"], title=label[:50]))
    assert max(picture.size) < 1500


@pytest.mark.parametrize("classes", [1, 31, 101, 400])
def test_the_picture_has_a_size_for_any_number_of_classes(classes: int) -> None:
    labels = [str(number) for number in range(classes)]
    picture = open_picture(draw_confusion(np.zeros((classes, classes), int), labels, title="t"))
    assert 900 < max(picture.size) <= 14 * 160
