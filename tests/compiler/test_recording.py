"""Networks whose program would answer otherwise are refused, each with its reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gatehub.compiler.program import Program
from gatehub.compiler.recording import record
from gatehub.errors import ExecutionError
from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import REFUSED, SIDE, Wired, mixes_images, wire
from tests.tiny import changed, snapshot


def record_backbone(merged: MergedBackbone, *, dtype: torch.dtype = torch.float32) -> Program:
    return record(
        lambda labels: merged.model(labels, dtype=dtype),
        input_size=(3, SIDE, SIDE),
        device=merged.device,
        dtype=dtype,
    ).program


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ExecutionError, match=message):
        record_backbone(MergedBackbone(make()))


def wears_out(net: Wired, x: Tensor) -> Tensor:
    value = net.end(net.pointwise(net.begin(x)))
    net.pointwise.weight.mul_(0.5)
    net.pointwise.bias.add_(1)
    return value


def test_a_network_that_writes_into_its_weights_does_not_reach_the_backbones() -> None:
    backbone = wire(wears_out, pointwise=nn.Conv2d(8, 8, 1))
    before = snapshot(backbone.model)
    with pytest.raises(ExecutionError, match="changes tensors of its own while it runs"):
        record_backbone(MergedBackbone(backbone))
    assert changed(before, backbone.model) == set()


def test_images_are_held_apart_in_half_precision_too() -> None:
    with pytest.raises(ExecutionError, match="by what else is in its batch"):
        record_backbone(MergedBackbone(wire(mixes_images)), dtype=torch.bfloat16)
