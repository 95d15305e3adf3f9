"""Gradient checkpointing: fewer activations are kept, and the same is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import TrainingError
from gatehub.gates.attach import attach_gates
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.preflight import check_settings, check_structure
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.training.tasks import colour_data

RECIPE = Recipe(epochs=2, batch_size=16, keep="last")


def count_kept(model: nn.Module) -> int:
    """How many numbers a forward pass keeps for the way back."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(4, 3, 32, 32))
    return sum(sizes)


def test_less_is_kept(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=["a", "b"])
    before = count_kept(model)
    recompute_blocks(model.net)
    assert count_kept(model) < 0.75 * before


@pytest.mark.parametrize("start", [None, "layer3"])
def test_the_same_is_learned(tiny_backbone: Backbone, tmp_path: Path, start: str | None) -> None:
    def learn(again: bool) -> Adapter:
        return train_adapter(
            tiny_backbone,
            colour_data(),
            tmp_path / str(again),
            task="t",
            start=start,
            recipe=replace(RECIPE, gradient_checkpointing=again),
        ).adapter

    plain, frugal = learn(False), learn(True)
    assert frugal.config.training["gradient_checkpointing"] is True
    for name, tensor in plain.tensors.items():
        assert torch.equal(frugal.tensors[name], tensor), name


def test_networks_without_it_are_refused() -> None:
    with pytest.raises(TrainingError, match="timm offers no gradient checkpointing for Conv2d"):
        recompute_blocks(nn.Conv2d(3, 4, 1))
    with pytest.raises(TrainingError, match="no gradient checkpointing for InceptionV4"):
        check_structure(
            "inception_v4", gates="auto", norm="affine", start=None, gradient_checkpointing=True
        )


def test_statistics_that_would_follow_a_batch_twice_are_refused() -> None:
    with pytest.raises(TrainingError, match="would count each batch twice"):
        check_settings(
            task="t",
            gates="auto",
            norm="stats",
            start=None,
            dtype="float16",
            batch_size=8,
            gradient_checkpointing=True,
        )
