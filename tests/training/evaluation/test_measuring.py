"""Figures with known answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.training.batches import Batch, evaluation_batches
from gatehub.training.evaluation import evaluate
from gatehub.training.examples import Examples
from tests.training.tasks import colour_data


def batches(examples: Examples, backbone: Backbone) -> Iterator[Batch]:
    return evaluation_batches(examples, backbone.preprocessing.transform(), batch_size=7)


class Strongest(nn.Module):
    """Answers with the strongest channel, which is the colours' class read backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        channel = images.mean((2, 3)).argmax(1)
        return self.scale * nn.functional.one_hot(2 - channel, 3).float()


def test_evaluate_counts(tiny_backbone: Backbone) -> None:
    data, model = colour_data(), Strongest()
    model.train()
    measured = evaluate(model, batches(data.val, tiny_backbone))
    assert measured.accuracy == 1.0
    assert measured.images == 30
    assert measured.loss == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-5)
    assert model.training
    assert measured.scores == pytest.approx([math.exp(2) / (math.exp(2) + 2)] * 30)
    assert not measured.ranks.any()


def test_evaluate_says_what_was_answered(tiny_backbone: Backbone) -> None:
    data = colour_data().val
    swapped = replace(data, targets=tuple((1, 0, 2)[target] for target in data.targets))
    measured = evaluate(Strongest(), batches(swapped, tiny_backbone))
    assert measured.accuracy == pytest.approx(1 / 3)
    assert measured.predicted.tolist() == list(data.targets)
    assert measured.targets.tolist() == list(swapped.targets)
    # One logit is 2 and the others 0: none but the highest is above one's own.
    assert measured.ranks.tolist() == [int(t != 2) for t in data.targets]


def test_recall_is_the_mean_over_classes_that_have_images() -> None:
    logits = torch.eye(4)[torch.tensor([0, 0, 0, 1, 2, 2])]
    targets = torch.tensor([0, 0, 0, 0, 2, 3])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        next(model.parameters()).copy_(torch.eye(4))
    measured = evaluate(model, [(logits, targets)])
    assert measured.recall == pytest.approx((3 / 4 + 1 + 0) / 3)


class Fixed(nn.Module):
    """Gives its logits to whoever comes, in their order."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("sureness", [0.5, 1.0, 8.0])
def test_a_calibrated_loss_does_not_depend_on_how_sure_a_network_is(sureness: float) -> None:
    """Nine of ten answers are right, so log 9 between the logits is just right."""
    targets = torch.tensor([0] * 9 + [1] + [1] * 10)
    answers = torch.tensor([0] * 10 + [1] * 10)
    logits = sureness * math.log(9) * nn.functional.one_hot(answers, 2).float()
    measured = evaluate(Fixed(logits), [(torch.zeros(20, 3, 1, 1), targets)])
    # Of the second class all are right, so the best temperature is a little below that.
    spread = torch.logspace(-1, 1, 2001, base=2)
    losses = [float(nn.functional.cross_entropy(logits / sureness / t, targets)) for t in spread]
    assert measured.calibrated_loss() == pytest.approx(min(losses), rel=0.01)
    assert measured.calibrated_loss() <= measured.loss + 1e-6


def test_classes_count_alike_where_they_should() -> None:
    """Of one class all three are right, of the other none of one."""
    targets, answers = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0])
    logits = nn.functional.one_hot(answers, 2).float()
    measured = evaluate(Fixed(logits), [(torch.zeros(4, 3, 1, 1), targets)])
    sure = min(
        0.75 * math.log1p(math.exp(-1 / t)) + 0.25 * math.log1p(math.exp(1 / t))
        for t in (2 ** (k / 4) for k in range(-8, 17))
    )
    even = min(
        0.5 * math.log1p(math.exp(-1 / t)) + 0.5 * math.log1p(math.exp(1 / t))
        for t in (2 ** (k / 4) for k in range(-8, 17))
    )
    assert measured.calibrated_loss() == pytest.approx(sure)
    assert measured.calibrated_loss(balanced=True) == pytest.approx(even)
