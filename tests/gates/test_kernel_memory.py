"""Kernels lie as they are asked to, and share memory where both orders are one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gatehub.adapter import Adapter
from gatehub.gates.fold import fold
from gatehub.gates.kernel_memory import arrange_kernels, lay_out
from tests.parity import assert_parity
from tests.tiny import make_backbone, make_trained


@pytest.mark.parametrize("target", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("source", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(
    ("shape", "is_one_order"),
    [((8, 4, 3, 3), False), ((8, 4, 1, 1), True), ((8, 1, 3, 3), True), ((1, 1, 1, 1), True)],
)
def test_a_kernel_says_the_order_that_is_asked_for(
    shape: tuple[int, ...],
    is_one_order: bool,
    source: torch.memory_format,
    target: torch.memory_format,
) -> None:
    kernel = torch.randn(shape).contiguous(memory_format=source)
    found = lay_out(kernel, target)
    _, channels, height, width = shape
    strides = {
        torch.channels_last: (height * width * channels, 1, width * channels, channels),
        torch.contiguous_format: (channels * height * width, height * width, width, 1),
    }
    assert found.stride() == strides[target]
    assert torch.equal(found, kernel)
    shares = found.data_ptr() == kernel.data_ptr()
    assert shares == (is_one_order or source == target)


@pytest.mark.parametrize("shape", [(8, 4, 1, 1), (8, 1, 3, 3)])
def test_an_answer_lies_as_its_kernel_says(shape: tuple[int, ...]) -> None:
    kernel = torch.randn(shape)
    groups = 8 // 4 if shape[1] == 4 else 8
    images = torch.randn(2, 8, 5, 5)
    answer = F.conv2d(images, lay_out(kernel), groups=groups)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    assert_parity(answer, F.conv2d(images, kernel, groups=groups))


def test_other_tensors_are_made_contiguous() -> None:
    matrix = torch.randn(3, 4).t()
    assert lay_out(matrix).is_contiguous()
    assert torch.equal(lay_out(matrix), matrix)


NETWORKS = {
    "dense": ("resnet18", {}),
    "depthwise": ("mobilenetv3_small_050", {}),
    "linear": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "standardised": ("nf_regnet_b0", {}),
    "a convolution as head": (
        "resnetv2_50",
        {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64), "stem_chs": 16},
    ),
}


def refuse_planes(layer: torch.nn.Module, given: object, answer: torch.Tensor) -> None:
    assert answer.stride(1) == 1  # channels are what lies beside each other


@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_network_is_arranged_and_what_it_learns_left_alone(architecture: str) -> None:
    name, settings = NETWORKS[architecture]
    backbone = make_backbone(name, **settings)
    model = make_trained(backbone)
    images = torch.randn(2, 3, 64, 64)
    before = model(images)
    folded = fold(backbone, Adapter.from_model(model, task="t"))
    layouts = {n: t.stride() for n, t in model.task_tensors().items()}
    for network in (model, folded):
        arrange_kernels(network)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(refuse_planes)
        assert_parity(network(images), before)
    assert {n: t.stride() for n, t in model.task_tensors().items()} == layouts
    model.check_frozen()
    backbone.check_unchanged()


def test_kernels_on_other_devices_stay_as_they_are() -> None:
    network = torch.nn.Conv2d(3, 4, 3, device="meta").requires_grad_(False)
    arrange_kernels(network)
    assert network.weight.is_contiguous()
