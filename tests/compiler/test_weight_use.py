"""Kernels are told from weights that are read in other ways, and matrices from kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import NETWORKS, Wired, wire
from tests.compiler.test_recording import record_backbone


def test_layers_that_are_one_have_one_weight() -> None:
    program = record_backbone(MergedBackbone(NETWORKS["runs_a_layer_twice"]()))
    assert {"body.weight", "body.bias"} <= program.weights
    assert "body.weight" in program.kernels
    program = record_backbone(MergedBackbone(NETWORKS["strides_and_groups_one_kernel"]()))
    assert "wider.weight" in program.weights - program.kernels


def squeezes(net: Wired, x: Tensor) -> Tensor:
    value = net.begin(x)
    squeezed = net.excite(F.relu(net.squeeze(value.mean((2, 3), keepdim=True))))
    grouped = net.grouped(value.amax((2, 3), keepdim=True))
    padded = net.padded(value.amax((2, 3), keepdim=True)).sum((2, 3), keepdim=True)
    return net.end(net.pointwise(value) * squeezed * grouped + padded)


def test_products_are_told_from_convolutions() -> None:
    backbone = wire(
        squeezes,
        squeeze=nn.Conv2d(8, 4, 1),
        excite=nn.Conv2d(4, 8, 1),
        grouped=nn.Conv2d(8, 8, 1, groups=2),
        padded=nn.Conv2d(8, 8, 1, padding=1),
        pointwise=nn.Conv2d(8, 8, 1),
    )
    program = record_backbone(MergedBackbone(backbone))
    assert program.matrices == {"squeeze.weight", "excite.weight"}
    assert program.matrices < program.kernels
