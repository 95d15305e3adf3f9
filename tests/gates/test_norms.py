from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import EvoNorm2dB0, EvoNorm2dS0, FilterResponseNormTlu2d, ScaledStdConv2d
from torch import nn

from gatehub.backbone import Backbone
from gatehub.backbone.classifier import split_classifier
from gatehub.gates.layout import plan_gates
from gatehub.gates.norms import find_gains, find_norm_tensors, form_gainless
from gatehub.gates.rules import registered_sites
from gatehub.gates.sites import is_vector
from tests.tiny import OneLayer


def names(layer: nn.Module, *, norm: str = "affine") -> set[str]:
    found = find_norm_tensors(OneLayer(layer, 4), norm=norm, start=None, exclude=("fc",))
    return {name.removeprefix("layer.") for name in found}


class Scaled(nn.Module):
    """A layer scale, as every network names it in its own way."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(shape))


@pytest.mark.parametrize(
    ("layer", "affine", "statistics"),
    [
        (nn.BatchNorm2d(4), {"weight", "bias"}, {"running_mean", "running_var"}),
        (nn.BatchNorm2d(4, affine=False), set(), {"running_mean", "running_var"}),
        (timm.layers.BatchNormAct2d(4), {"weight", "bias"}, {"running_mean", "running_var"}),
        (nn.GroupNorm(2, 4), {"weight", "bias"}, set()),
        (timm.layers.LayerNorm2d(4), {"weight", "bias"}, set()),
        (timm.layers.RmsNorm2d(4), {"weight"}, set()),
        (timm.layers.SimpleNorm2d(4), {"weight"}, set()),
        (timm.layers.grn.GlobalResponseNorm(4), {"weight", "bias"}, set()),
        (FilterResponseNormTlu2d(4), {"weight", "bias", "tau"}, set()),
        (EvoNorm2dS0(4, group_size=2), {"weight", "bias", "v"}, set()),
        (EvoNorm2dB0(4), {"weight", "bias", "v"}, {"running_var"}),
        (timm.layers.LayerScale2d(4), {"gamma"}, set()),
        (Scaled(4), {"gamma"}, set()),
        (Scaled(1, 4, 1, 1), {"gamma"}, set()),
        (Scaled(), {"gamma"}, set()),
        (Scaled(2, 4), set(), set()),
        (ScaledStdConv2d(3, 4, 3), {"gain"}, set()),
        (nn.Conv2d(3, 4, 3), set(), set()),
        (nn.Conv2d(1, 4, 1), set(), set()),
        (nn.ConvTranspose2d(1, 4, 1), set(), set()),
        (nn.Conv1d(1, 1, 3), set(), set()),
        (nn.Linear(1, 4), set(), set()),
    ],
    # A set has no order of its own, and parallel runs must agree on a test's name.
    ids=lambda value: str(value) if isinstance(value, nn.Module) else "-".join(sorted(value)),
)
def test_a_layers_vectors_are_the_tasks_own(
    layer: nn.Module, affine: set[str], statistics: set[str]
) -> None:
    assert names(layer, norm="frozen") == set()
    assert names(layer) == affine
    assert names(layer, norm="stats") == affine | statistics


def test_neither_classifier_nor_tokens_are_normalisation_values() -> None:
    model = timm.create_model("vit_tiny_patch16_224", device="meta")
    found = find_norm_tensors(model, norm="affine", start=None, exclude=("head",))
    assert "cls_token" not in found
    assert "norm.weight" in found
    assert find_norm_tensors(model, norm="affine", start="norm", exclude=("head",)) == (
        "norm.weight",
        "norm.bias",
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnext_atto", "stages.0.blocks.0.gamma"),
        ("convnextv2_atto", "stages.0.blocks.0.mlp.grn.weight"),
        ("dm_nfnet_f0", "stages.0.0.skipinit_gain"),
        ("dm_nfnet_f0", "stages.0.0.conv1.gain"),
        ("hgnetv2_b1", "stem.stem1.lab.scale"),
        ("resnetv2_50d_frn", "stem.norm1.tau"),
        ("convformer_s18", "stages.2.blocks.0.res_scale1.scale"),
    ],
)
def test_scales_of_every_family_are_found(name: str, expected: str) -> None:
    model = timm.create_model(name, device="meta")
    heads, _ = split_classifier(model)
    assert expected in find_norm_tensors(model, norm="affine", start=None, exclude=heads)


def test_a_gain_belongs_to_the_task_where_its_site_is_gated() -> None:
    layers = nn.Sequential(ScaledStdConv2d(3, 4, 3), ScaledStdConv2d(4, 4, 3))
    backbone = Backbone(OneLayer(layers, 4))
    layout = plan_gates(backbone.model, exclude=backbone.heads, start="layer.1")
    gains = find_gains(backbone.model, norm="affine", sites=layout.sites)
    assert gains == {"layer.1": "layer.1.gain"}
    assert find_gains(backbone.model, norm="frozen", sites=layout.sites) == {}
    found = find_norm_tensors(backbone.model, norm="affine", start="layer.1", exclude=("fc",))
    assert found == ("layer.1.gain",)


def test_a_kernel_is_its_gain_times_the_kernel_without() -> None:
    torch.manual_seed(0)
    conv = ScaledStdConv2d(6, 8, 3).double()
    nn.init.uniform_(conv.gain, 0.5, 2.0)
    model = OneLayer(conv, 8)
    (kernel,) = form_gainless(model, {"layer": "layer.gain"}).values()
    whole = registered_sites()[ScaledStdConv2d].kernel(conv)
    torch.testing.assert_close(conv.gain * kernel, whole, rtol=1e-12, atol=1e-12)
    assert form_gainless(OneLayer(nn.Conv2d(3, 4, 1), 4), {}) == {}


@pytest.mark.parametrize(
    ("shape", "vector"),
    [((), True), ((1,), True), ((7,), True), ((1, 7, 1, 1), True), ((2, 7), False), ((1, 1), True)],
)
def test_a_vector_has_one_long_dimension_at_most(shape: tuple[int, ...], vector: bool) -> None:
    assert is_vector(shape) is vector
