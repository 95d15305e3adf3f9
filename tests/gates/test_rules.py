from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from gatehub.errors import SiteError
from gatehub.gates.rules import SiteRule, is_in_convolutional_block
from gatehub.gates.sites import Ungated, find_sites, find_ungated
from tests.tiny import OneLayer


def linear_sites(name: str) -> set[str]:
    model = timm.create_model(name, device="meta")
    sites = find_sites(model, exclude=("head", "head_dist"))
    return {s.name for s in sites if isinstance(model.get_submodule(s.name), nn.Linear)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnext_atto_ols", set()),  # its blocks have 1x1 convolutions instead
        ("test_convnext", {f"stages.0.blocks.0.mlp.fc{n}" for n in (1, 2)}),
        ("mambaout_femto", {f"stages.0.blocks.0.fc{n}" for n in (1, 2)}),
        ("edgenext_xx_small", {f"stages.0.blocks.0.mlp.fc{n}" for n in (1, 2)}),
    ],
)
def test_linear_layers_beside_a_depthwise_convolution_are_sites(
    name: str, expected: set[str]
) -> None:
    found = linear_sites(name)
    assert expected <= found
    assert bool(found) == bool(expected)
    assert not any(".xca." in site for site in found)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "pvt_v2_b0",
        "pit_ti_224",
        "mvitv2_tiny",
        "twins_svt_small",
        "davit_tiny",
        "coat_tiny",
        "xcit_nano_12_p8_224",
        "tiny_vit_5m_224",
        "maxvit_tiny_tf_224",
        "fastvit_t8",
    ],
)
def test_linear_layers_of_attention_are_none(name: str) -> None:
    assert linear_sites(name) == set()


def test_a_pointwise_linear_layer_is_a_site_of_a_one_by_one_kernel() -> None:
    model = timm.create_model("test_convnext", device="meta")
    sites = {site.name: site for site in find_sites(model, exclude=("head.fc",))}
    site = sites["stages.0.blocks.0.mlp.fc1"]
    assert site.kernel_size == (1, 1)
    assert site.is_pointwise
    assert (site.out_channels, site.in_channels) == tuple(
        model.stages[0].blocks[0].mlp.fc1.weight.shape
    )
    assert site.kernel_values == model.stages[0].blocks[0].mlp.fc1.weight.numel()


class Block(nn.Module):
    """A block as a user writes it: depthwise, then linear layers over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Sequential(nn.Linear(channels, channels), nn.GELU())

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.mix(self.spread(features).permute(0, 2, 3, 1))
        return features + mixed.permute(0, 3, 1, 2)


def test_a_block_of_ones_own_is_found_by_its_structure() -> None:
    model = OneLayer(nn.Sequential(Block(3), Block(3)), 3)
    names = [site.name for site in find_sites(model, exclude=("fc",))]
    assert names == ["layer.0.spread", "layer.0.mix.0", "layer.1.spread", "layer.1.mix.0"]
    assert find_ungated(model, exclude=("fc",)) == ()


def test_a_block_that_is_not_one_of_a_chain_is_no_convolutional_block() -> None:
    model = OneLayer(Block(3), 3)
    assert [site.name for site in find_sites(model, exclude=("fc",))] == ["layer.spread"]
    assert find_ungated(model, exclude=("fc",)) == (Ungated(layer="Linear", count=1, values=9),)


@pytest.mark.parametrize("around", [[], [nn.Conv2d(3, 3, 3)]])
def test_the_network_itself_is_no_block(around: list[nn.Module]) -> None:
    assert not is_in_convolutional_block(around)


def test_layers_without_gates_are_counted_by_class() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ConvTranspose2d(4, 4, 2),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Conv3d(1, 1, 3),
        nn.Conv1d(1, 1, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
    )
    model = OneLayer(layers, 4)
    ungated = find_ungated(model, exclude=("fc",))
    assert list(map(str, ungated)) == [
        "2 ConvTranspose2d (208 values)",
        "1 Conv3d (27 values)",
        "1 Conv1d (3 values)",
    ]
    linear = Ungated(layer="Linear", count=1, values=16)
    assert find_ungated(model) == (*ungated[:2], linear, ungated[2])
    assert find_ungated(model, start="layer.3", exclude=("fc",)) == ungated[1:]


@pytest.mark.parametrize("half", [{"gain": "gain"}, {"gainless": lambda module: torch.ones(1)}])
def test_a_gain_needs_its_kernel_without(half: dict[str, object]) -> None:
    with pytest.raises(SiteError, match="expected both or neither"):
        SiteRule(kernel=lambda module: torch.ones(1), **half)


@pytest.mark.parametrize("name", ["gate", "gate_a", "gate_b"])
def test_a_gain_cannot_be_called_as_a_gate_is(name: str) -> None:
    with pytest.raises(SiteError, match=f"gain '{name}', which is what an adapter calls"):
        SiteRule(kernel=lambda m: m.weight, gain=name, gainless=lambda m: m.weight)
