"""Each task answers for its own rows of a batch, whatever crosses over to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gatehub.compiler.stem import Stem
from gatehub.runtime.execution.rows import Share, answer_rows


def add_up(
    values: Sequence[Tensor], weights: Mapping[str, Tensor], labels: int, batch: int
) -> Tensor:
    """(batch, labels): one row for each image, two rows for each image, and one for all."""
    single, double, common = values
    pairs = double.add_(1).reshape(batch, 2).sum(1)
    return (single + pairs + common.mul_(2))[:, None] * weights["scale"] + torch.arange(labels)


STEM = Stem(
    stem=lambda *_: (),
    weights=frozenset(),
    rest=add_up,
    rows=(1, 2, 0),
    changed=(False, True, True),
)


def test_tasks_answer_for_the_images_that_are_their_own() -> None:
    single = torch.tensor([1.0, 2.0, 3.0])
    double = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    common = torch.tensor([100.0])
    shares = [
        Share(weights={"scale": torch.tensor(1.0)}, labels=2, count=1),
        Share(weights={"scale": torch.tensor(-1.0)}, labels=1, count=2),
    ]

    one, other = answer_rows(STEM, [single, double, common], shares)

    assert one.tolist() == [[233.0, 234.0]]  # 1 + (11 + 21) + 200, and its second label
    assert other.tolist() == [[-274.0], [-315.0]]  # 2 + 31 + 41 + 200 and 3 + 51 + 61 + 200


def test_answers_leave_as_float32() -> None:
    values = [torch.ones(1), torch.ones(2), torch.ones(1)]
    share = Share(weights={"scale": torch.ones((), dtype=torch.float64)}, labels=1, count=1)
    (answer,) = answer_rows(STEM, [value.double() for value in values], [share])
    assert answer.dtype is torch.float32
