"""Figures with known answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.errors import DataError, LabelMismatchError
from gatehub.training.baselines import linear_probe
from gatehub.training.batches import Batch, evaluation_batches
from gatehub.training.data import Examples
from gatehub.training.evaluation import choose_examples, evaluate
from tests.training.tasks import LABELS, colour_data


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

    swapped = choose_examples(data, ("green", "blue", "red"), "val")
    assert evaluate(model, batches(swapped, tiny_backbone)).accuracy == pytest.approx(1 / 3)


def test_choose_examples_indexes_into_the_models_labels() -> None:
    data = colour_data(train=6, val=3)
    labels = ("red", "white", "blue", "green")
    everything = choose_examples(data, labels, "all")
    assert [labels[t] for t in everything.targets] == [*LABELS, *LABELS, *LABELS]
    assert len(choose_examples(data, labels, "train")) == 6


def test_the_test_split_is_what_was_kept_apart() -> None:
    data = colour_data(train=6, val=3)
    with pytest.raises(DataError, match="colours has no test images"):
        choose_examples(data, LABELS, "test")
    tested = replace(data, test=data.val)
    assert choose_examples(tested, LABELS, "test").names == data.val.names
    assert len(choose_examples(tested, LABELS, "all")) == 12


def test_labels_are_compared_in_one_spelling() -> None:
    data = replace(colour_data(), labels=("b\u00e9", "green", "red"))
    assert set(choose_examples(data, ("red", "be\u0301", "green"), "val").targets) == {0, 1, 2}


def test_a_class_that_the_model_lacks_is_named() -> None:
    with pytest.raises(LabelMismatchError, match="has the class 'red', which the adapter lacks"):
        choose_examples(colour_data(), ("blue", "green"), "val")


def test_linear_probe_learns_what_is_linear(tiny_backbone: Backbone) -> None:
    assert linear_probe(tiny_backbone, colour_data(train=96)) > 0.8
