"""Merging is exact where it happens, and happens only where nothing else could notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.compiler.tracing import trace_forward
from gatehub.errors import GateError
from gatehub.gates.fold import fold
from gatehub.gates.norm_folding import find_merges, merge_norms
from tests.parity import FLOAT64, Tolerance, assert_parity
from tests.tiny import changed, make_backbone, make_trained, random_images, settle_norms, snapshot

SIZE = (3, 16, 16)
# A merged kernel is rounded once more than the two layers that it stands for.
MERGED32 = Tolerance(name="merged float32", relative=1e-5)


class Net(nn.Module):
    """A convolution and a batch norm, wired by a function."""

    def __init__(
        self,
        wiring: Callable[[Net, Tensor], Tensor],
        *,
        conv: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.wiring = wiring
        self.conv = conv or nn.Conv2d(3, 4, 3, bias=False)
        self.norm = norm or nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        torch.manual_seed(0)
        settle_norms(self)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.wiring(self, images)


def in_a_row(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images))


def check_merge(net: Net, *, merges: int) -> None:
    images = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    before, tensors = net(images), snapshot(net)
    shared = dict(net.named_parameters())
    merge_norms(net, input_size=SIZE)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in (net.norm, net.other)) == 2 - merges
    assert_parity(net(images), before, MERGED32)
    if not merges:
        assert torch.equal(net(images), before)
    assert all(torch.equal(shared[name], tensors[name]) for name in shared)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, bias=False),
        nn.Conv2d(3, 4, 3, padding=1, stride=2),
        nn.Conv2d(3, 4, (1, 3), padding=(0, 1), padding_mode="reflect"),
        nn.Conv2d(3, 6, 3, groups=3, dilation=2),
        Conv2dSame(3, 4, 3, stride=2, bias=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_behind_a_convolution_is_merged(conv: nn.Conv2d, affine: bool) -> None:
    norm = nn.BatchNorm2d(conv.out_channels, affine=affine, eps=0.01)
    check_merge(Net(in_a_row, conv=conv, norm=norm), merges=1)


def test_a_merged_norm_with_an_activation_leaves_the_activation() -> None:
    net = Net(in_a_row, norm=BatchNormAct2d(4, act_layer=nn.SiLU))
    check_merge(net, merges=1)
    assert [type(layer) for layer in net.norm] == [nn.Identity, nn.SiLU]


def read_twice(net: Net, images: Tensor) -> Tensor:
    features = net.conv(images)
    return net.norm(features) + features


def two_norms(net: Net, images: Tensor) -> Tensor:
    features = net.conv(images)
    return net.norm(features) + net.other(features)


def changed_in_place(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images).relu_())


def through_a_view(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images).transpose(2, 3))


def returned_too(net: Net, images: Tensor) -> Tensor:
    features = net.conv(images)
    net.norm(features)
    return features


def run_twice(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) + net.norm(net.conv(images.flip(3)))


def one_norm_for_two(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.norm(net.conv(images)))


def kernel_read_elsewhere(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) * net.conv.weight.mean()


def statistics_read_elsewhere(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) * net.norm.running_mean.mean()


def norm_first(net: Net, images: Tensor) -> Tensor:
    return net.conv(net.norm(images))


def not_called(net: Net, images: Tensor) -> Tensor:
    return net.conv(images)


@pytest.mark.parametrize(
    "wiring",
    [
        read_twice,
        two_norms,
        changed_in_place,
        through_a_view,
        returned_too,
        run_twice,
        one_norm_for_two,
        kernel_read_elsewhere,
        statistics_read_elsewhere,
        not_called,
    ],
)
def test_a_norm_is_left_where_merging_would_show(wiring: Callable[[Net, Tensor], Tensor]) -> None:
    check_merge(Net(wiring), merges=0)


def test_a_norm_before_the_convolution_is_left() -> None:
    check_merge(Net(norm_first, norm=nn.BatchNorm2d(3)), merges=0)


def test_the_graph_decides_and_not_the_order_of_definition() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_b, self.norm_a = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.conv_a, self.conv_b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm_a(self.conv_b(self.norm_b(self.conv_a(images))))

    merges = find_merges(Crossed().eval(), input_size=SIZE)
    assert [(merge.convolution, merge.norm) for merge in merges] == [
        ("conv_a", "norm_b"),
        ("conv_b", "norm_a"),
    ]


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, track_running_stats=True)], ids=str
)
def test_other_norms_are_left(norm: nn.Module) -> None:
    net = Net(in_a_row, norm=norm.eval())
    assert find_merges(net, input_size=SIZE) == ()


def test_a_class_that_may_do_more_keeps_its_norm() -> None:
    class ShiftedNorm(nn.BatchNorm2d):
        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features) + 1

    assert find_merges(Net(in_a_row, norm=ShiftedNorm(4)), input_size=SIZE) == ()


def test_a_convolution_of_a_class_that_may_do_more_keeps_its_norm() -> None:
    class ScaledConv2d(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return self._conv_forward(images, 2 * self.weight, self.bias)

    assert find_merges(Net(in_a_row, conv=ScaledConv2d(3, 4, 1)), input_size=SIZE) == ()


def test_a_transposed_convolution_keeps_its_norm() -> None:
    net = Net(in_a_row, conv=nn.ConvTranspose2d(3, 4, 2))
    assert find_merges(net, input_size=SIZE) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_a_folded_and_merged_network_answers_as_the_gated_one(
    norm: str, dtype: torch.dtype
) -> None:
    backbone = make_backbone().to(dtype)
    model = make_trained(backbone, norm=norm)
    images = random_images(3, dtype=dtype)
    before = snapshot(backbone)
    with torch.no_grad():
        merged = fold(backbone, Adapter.from_model(model, task="birds"), merge_norm=True)
        tolerance = MERGED32 if dtype == torch.float32 else FLOAT64
        assert_parity(merged(images), model(images), tolerance)
    assert changed(before, backbone) == set()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    assert not any(p.requires_grad for p in merged.parameters())
    assert not any(module.training for module in merged.modules())


def test_norms_are_merged_in_inference_mode_too(tiny_backbone: Backbone) -> None:
    adapter = Adapter.from_model(make_trained(tiny_backbone), task="birds")
    with torch.inference_mode():
        merged = fold(tiny_backbone, adapter, merge_norm=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())


def test_norms_behind_a_concatenation_are_left() -> None:
    backbone = make_backbone("densenet121", growth_rate=8, block_config=(2, 2), num_classes=3)
    model = make_trained(backbone)
    images = random_images(2, 64)
    with torch.no_grad():
        merged = fold(backbone, Adapter.from_model(model, task="birds"), merge_norm=True)
        assert_parity(merged(images), model(images), MERGED32)
    kept = {name for name, module in merged.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert kept == {
        *(f"features.denseblock{b}.denselayer{n}.norm1" for b in (1, 2) for n in (1, 2)),
        "features.transition1.norm",
        "features.norm5",
    }


def test_a_network_that_needs_its_values_to_run_cannot_be_traced() -> None:
    def branch(net: Net, images: Tensor) -> Tensor:
        return net.norm(net.conv(images)) if images.sum() > 0 else images

    with pytest.raises(GateError, match=r"Net cannot be traced on an input of \(3, 16, 16\)"):
        find_merges(Net(branch), input_size=SIZE)


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    def refuse(net: Net, images: Tensor) -> Tensor:
        raise NotImplementedError

    with pytest.raises(GateError, match=r"cannot be traced .*: NotImplementedError"):
        find_merges(Net(refuse), input_size=SIZE)


def test_a_trace_allocates_nothing_and_changes_nothing(tiny_backbone: Backbone) -> None:
    before = snapshot(tiny_backbone)
    training = timm.create_model("test_resnet").train()
    trace = trace_forward(training, (3, 4096, 4096))  # 4 GB of activations, if they were computed
    assert training.training
    assert {t.device.type for op in trace.operations for t in op.outputs} == {"meta"}
    trace_forward(tiny_backbone.model, SIZE)
    assert changed(before, tiny_backbone) == set()


def test_a_trace_names_what_each_operation_reads() -> None:
    net = Net(read_twice)
    trace = trace_forward(net, SIZE)
    (convolution,) = (op for op in trace.operations if op.name == "aten.convolution")
    assert trace.name(convolution.arguments[1]) == "conv.weight"
    assert trace.name(convolution.arguments[0]) is None
    assert trace.readers[id(convolution.outputs[0])] == 2
    net.other.weight = net.norm.weight
    shared = trace_forward(net, SIZE)
    (norm,) = (op for op in shared.operations if "batch_norm" in op.name)
    assert shared.name(norm.arguments[1]) is None
    assert shared.name(norm.arguments[3]) == "norm.running_mean"
    assert find_merges(Net(in_a_row), input_size=SIZE) != ()
