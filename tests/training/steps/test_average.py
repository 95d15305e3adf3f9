"""The mean over steps is the formula's, stays apart from what is trained, and goes on."""

from __future__ import annotations

import math

import pytest
import torch

from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.training.steps.average import Average


def _fill(model: GatedModel, value: float) -> None:
    with torch.no_grad():
        for tensor in model.task_tensors().values():
            tensor.fill_(value)


def _values(model: GatedModel) -> set[float]:
    return {float(v) for t in model.task_tensors().values() for v in t.unique()}


@pytest.fixture
def model(tiny_backbone: Backbone) -> GatedModel:
    return attach_gates(tiny_backbone, labels=["cat", "dog"], norm="stats")


def test_later_steps_count_more(model: GatedModel) -> None:
    _fill(model, 0.0)
    average = Average(model, model.task_tensors(), steps=4)
    for value in (1.0, 3.0):
        _fill(model, value)
        average.update()
    # 0, 1 and 3, of which each step keeps three quarters of what was there
    expected = 0.75 * (0.75 * 0 + 0.25 * 1) + 0.25 * 3
    for tensor in average.tensors.values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, expected))
    assert _values(model) == {3.0}


@pytest.mark.parametrize("steps", [0, 0.5, 1])
def test_of_one_step_it_is_the_last(model: GatedModel, steps: float) -> None:
    _fill(model, math.pi)
    average = Average(model, model.task_tensors(), steps=steps)
    _fill(model, 1e-3)
    average.update()
    for name, tensor in model.task_tensors().items():
        assert torch.equal(average.tensors[name], tensor)


def test_what_is_trained_comes_back(model: GatedModel) -> None:
    _fill(model, 1.0)
    average = Average(model, model.task_tensors(), steps=4)
    _fill(model, 2.0)
    with average.in_place():
        assert _values(model) == {1.0}
    assert _values(model) == {2.0}
