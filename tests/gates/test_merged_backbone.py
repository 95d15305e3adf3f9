"""Tasks folded onto a merged backbone in one pass equal those folded and merged one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.compiler.tracing import named_tensors
from gatehub.errors import BackboneMismatchError, SiteError
from gatehub.gates.fold import fold, install_tensors
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import SiteGate
from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import NETWORKS, forgetful, in_a_row, make_task, wire
from tests.parity import FLOAT32, FLOAT64, Tolerance, assert_parity
from tests.tiny import OneLayer, make_backbone, random_images, snapshot

CHOICES: list[dict[str, object]] = [
    {"gates": gates, "norm": norm, "start": start}
    for gates, norm, start in (
        ("full", "frozen", None),
        ("full", "affine", "body"),
        ("lowrank:2", "stats", None),
        ("scale", "affine", None),
        ("scale", "stats", "body"),
    )
]


def fold_merged(backbone: Backbone, task: Adapter, *, dtype: torch.dtype) -> dict[str, Tensor]:
    merged = MergedBackbone(backbone)
    return merged.fold(task, merged.plan_task(task), dtype=dtype)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize(
    "name", ["in_a_row", "runs_blocks", "standard", "grouped", "two_layers", "tied", "scales_all"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_pass_folds_as_two_do(name: str, choice: dict[str, object], dtype: torch.dtype) -> None:
    backbone = Backbone(NETWORKS[name]().model.to(dtype))
    task = make_task(backbone, "task", **choice)
    merged = MergedBackbone(backbone)
    before = snapshot(backbone)
    plan = merged.plan_task(task)
    folded = merged.fold(task, plan, dtype=dtype)
    expected = fold(backbone, task, merge_norm=True).state_dict()
    assert folded.keys() == plan.own
    assert {name: tuple(folded[name].shape) for name in plan.head.shapes} == plan.head.shapes
    tolerance = FLOAT64 if dtype is torch.float64 else FLOAT32
    for own, tensor in folded.items():
        assert_parity(tensor, expected[own], tolerance)
    for other in merged.names - folded.keys():
        weight = merged.weight(other, dtype=dtype)
        if weight.is_floating_point():
            assert_parity(weight, expected[other], tolerance)
    now = backbone.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype, stored: torch.dtype) -> None:
    backbone = Backbone(wire(in_a_row).model.to(stored))
    task = make_task(backbone, "task", gates="full", norm="stats")
    folded = fold_merged(backbone, task, dtype=dtype)
    exact = Backbone(wire(in_a_row).model.to(stored).double())
    widened = replace(task.config, backbone=exact.identity)
    expected = fold_merged(
        exact, Adapter(config=widened, tensors=task.tensors), dtype=torch.float64
    )
    once = Tolerance(name="rounded once", relative=torch.finfo(dtype).eps)
    for name, tensor in folded.items():
        assert tensor.dtype is dtype
        assert_parity(tensor.double(), expected[name], once)


def test_kernels_lie_as_they_are_read() -> None:
    backbone = NETWORKS["runs_blocks"]()
    task = make_task(backbone, "task", gates="full")
    for dtype in (torch.float32, torch.bfloat16):
        for name, tensor in fold_merged(backbone, task, dtype=dtype).items():
            if tensor.ndim == 4:
                _, channels, height, width = tensor.shape
                strides = (channels * height * width, 1, width * channels, channels)
                assert tensor.stride() == strides, name


def test_a_head_has_the_tasks_number_of_labels() -> None:
    merged = MergedBackbone(NETWORKS["two_layers"]())
    for labels in (2, 9, 2):
        head = merged.plan_head(labels)
        assert head.shapes["fc.3.weight"] == (labels, 6)
        assert head.shapes["fc.1.running_var"] == (6,)
        assert head.numel == (8 + 1) * 6 + 4 * 6 + (6 + 1) * labels
        model = merged.model(labels, dtype=torch.float32)
        assert model(torch.zeros(2, 3, 12, 12)).shape == (2, labels)


def test_models_with_other_heads_share_every_other_tensor() -> None:
    merged = MergedBackbone(wire(in_a_row))
    one, other = (merged.model(labels, dtype=torch.float32) for labels in (2, 3))
    for (name, tensor), (_, its) in zip(named_tensors(one), named_tensors(other), strict=True):
        assert torch.equal(tensor, its) != name.startswith("fc."), name
    again = merged.model(2, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
def test_a_model_says_how_its_kernels_lie(memory_format: torch.memory_format) -> None:
    merged = MergedBackbone(NETWORKS["runs_blocks"]())
    model = merged.model(2, dtype=torch.float32, memory_format=memory_format)
    for tensor in model.parameters():
        if tensor.ndim == 4 and tensor.shape[1] > 1 and tensor.shape[2] > 1:
            assert tensor.is_contiguous(memory_format=memory_format)


def test_a_layout_says_what_its_tasks_have_of_their_own() -> None:
    backbone = wire(in_a_row)
    merged = MergedBackbone(backbone)
    assert {m.norm for m in merged.merges.values()} == {"norm", "norm2"}
    own = {}
    for choice in CHOICES:
        layout = make_task(backbone, "task", **choice).layout
        plan = merged.plan(layout)
        assert merged.plan(layout) is plan
        assert plan.is_scale == (choice["gates"] == "scale")
        own[str(choice["norm"]), choice["start"]] = plan.own
    layers = {f"{layer}.{part}" for layer in ("stem", "body") for part in ("weight", "bias")}
    assert own["frozen", None] == {"stem.weight", "body.weight"}
    assert own["stats", None] == own["affine", None] == layers
    assert own["affine", "body"] == own["stats", "body"] == {"body.weight", "body.bias"}


def test_norms_that_are_read_elsewhere_stay() -> None:
    backbone = NETWORKS["scales_answers"]()
    merged = MergedBackbone(backbone)
    assert merged.merges.keys() == {"stem"}
    assert {"norm2.weight", "norm2.running_var"} <= merged.names
    task = make_task(backbone, "task", norm="stats")
    assert "norm2.running_var" in merged.plan_task(task).own
    # One that only looks for its norm, without an operation on it, keeps it as well.
    looks = wire(lambda net, x: in_a_row(net, x) * net.norm2.eps)
    assert not MergedBackbone(looks).merges
    assert "norm2.weight" in MergedBackbone(looks).names


def test_a_network_that_cannot_be_traced_keeps_its_norms() -> None:
    merged = MergedBackbone(NETWORKS["changes_a_literal"]())
    assert not merged.merges
    assert "norm2.running_mean" in merged.names


def test_a_layer_with_a_vector_of_its_own_keeps_it() -> None:
    model = OneLayer(ScaledStdConv2d(3, 4, 3), 4)
    model.pretrained_cfg = {"input_size": (3, 12, 12)}
    backbone = Backbone(model)
    task = make_task(backbone, "task", gates="scale")
    merged = MergedBackbone(backbone)
    folded = merged.fold(task, merged.plan_task(task), dtype=torch.float32)
    assert_parity(folded["layer.weight"], fold(backbone, task).layer.weight)
    assert merged.plan(task.layout).gains == {"layer": "layer.gain"}


def test_an_attribute_that_is_no_parameter_is_kept() -> None:
    model = MergedBackbone(forgetful()).model(3, dtype=torch.float32)
    assert model.constant.tolist() == [0]
    assert model.constant.device.type == "cpu"


def test_another_backbone_is_refused() -> None:
    task = make_task(wire(in_a_row), "task")
    with pytest.raises(BackboneMismatchError):
        MergedBackbone(wire(in_a_row, seed=1)).plan_task(task)


def test_gates_without_a_place_are_refused() -> None:
    backbone = wire(in_a_row)
    task = make_task(backbone, "task", gates="full")
    merged = MergedBackbone(backbone)
    gate = SiteGate(kind=parse_kind("full"), shape=(8, 9))
    for site, match in (
        ("nowhere", "gate .8, 9. for 'nowhere', where the backbone has no such layer"),
        ("body", r"gate .8, 9. for 'body', where the backbone has a kernel \(8, 8, 3, 3\)"),
    ):
        with pytest.raises(SiteError, match=match):
            merged.plan(replace(task.layout, sites={**task.layout.sites, site: gate}))


def test_tensors_that_are_missing_misshapen_or_too_many_are_refused() -> None:
    backbone = wire(in_a_row)
    task = make_task(backbone, "task", gates="full")
    merged = MergedBackbone(backbone)
    for name, tensor, match in (
        ("body.gate", torch.ones(8, 9), r"has 'body.gate' of shape \(8, 9\), .* takes \(8, 8\)"),
        ("norm.weight", None, r"has 'norm.weight' of shape none, .* takes \(8,\)"),
        ("head.bias", torch.ones(4), r"has 'head.bias' of shape \(4,\), .* takes \(3,\)"),
        ("norm.running_mean", torch.ones(8), "norm 'affine' takes no such tensor"),
    ):
        tensors = {**task.tensors, name: tensor}
        given = {key: value for key, value in tensors.items() if value is not None}
        with pytest.raises(SiteError, match=match):
            merged.plan_task(Adapter(config=task.config, tensors=given))


@pytest.mark.parametrize("name", ["resnet18", "test_nfnet", "test_convnext", "test_efficientnet"])
def test_timms_networks_answer_as_before(name: str) -> None:
    backbone = make_backbone(name)
    task = make_task(backbone, "task", norm="stats")
    merged = MergedBackbone(backbone)
    model = merged.model(len(task.labels), dtype=torch.float32)
    install_tensors(model, merged.fold(task, merged.plan_task(task), dtype=torch.float32))
    images = random_images(2, 32)
    assert_parity(model(images), fold(backbone, task)(images))
