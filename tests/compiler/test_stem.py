"""What crosses from one part of a program to the other belongs to its image, and stays whole."""

from __future__ import annotations

import pytest
import torch

from gatehub.compiler.recording import split
from gatehub.compiler.stem import keeps_images_apart
from tests.compiler.test_partition import make_execution


def test_values_without_rows_are_copied_before_they_are_changed() -> None:
    execution, task = make_execution("changes_a_position")
    stem = execution._stem([task], execution._sizes.home())
    assert stem is not None
    # `place` is multiplied in place by a norm's weight, which here is no task's own.
    program = execution._sizes.home().program
    stem = split(program, {*task.own, "norm2.weight"})
    assert stem is not None
    assert sorted(zip(stem.rows, stem.changed, strict=True)) == [(0, True), (1, False)]
    values = [torch.ones(2, 3) if rows else torch.ones(3) for rows in stem.rows]
    place = stem.rows.index(0)
    for copied in (stem.take(values, 0, 1), stem.protect(values)):
        copied[place].zero_()
        assert values[place].sum() == 3
        assert copied[1 - place].data_ptr() == values[1 - place].data_ptr()


def test_what_belongs_to_images_is_taken_by_its_rows() -> None:
    execution, task = make_execution("doubles_the_batch_side_by_side")
    stem = execution._stem([task], execution._sizes.home())
    assert stem is not None
    assert stem.rows == (2,)
    values = [torch.arange(8)]
    assert stem.take(values, 1, 3)[0].tolist() == [2, 3, 4, 5]


IMAGES = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])


@pytest.mark.parametrize(
    ("values", "rows", "apart"),
    [
        (lambda x: [x * 2], [1], True),
        (lambda x: [x.repeat_interleave(2, 0)], [2], True),
        (lambda x: [torch.ones(3), x], [0, 1], True),
        (lambda x: [torch.cat([x, -x])], [2], False),
        (lambda x: [x.flip(0)], [1], False),
        (lambda x: [x - x.mean(0)], [1], False),
        (lambda x: [x.mean(0)], [0], False),
        (lambda x: [x * 2, x.sum()], [1, 0], False),
    ],
)
def test_rows_of_one_image_must_not_change_with_another(
    values: object, rows: list[int], apart: bool
) -> None:
    assert keeps_images_apart(lambda chosen: values(IMAGES[chosen]), rows) == apart
