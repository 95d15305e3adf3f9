from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import (
    CondConv2d,
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import nn

from gatehub.backbone import Backbone
from gatehub.errors import SiteError
from gatehub.gates.rules import SiteRule, register_site, registered_sites
from gatehub.gates.sites import Site, copy_plain, find_sites, modules_from
from tests.tiny import OneLayer, random_images

STANDARDISED = [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame]


def test_sites_are_the_convolutions_in_order(tiny_backbone: Backbone) -> None:
    sites = find_sites(tiny_backbone.model, exclude=("fc",))
    assert [site.name for site in sites] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer1.0.downsample.0",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.0.downsample.0",
        "layer3.0.conv1",
        "layer3.0.conv2",
        "layer3.0.downsample.0",
        "layer4.0.conv1",
        "layer4.0.conv2",
        "layer4.0.downsample.0",
    ]
    assert sites[0] == Site(name="conv1", out_channels=64, in_channels=3, kernel_size=(7, 7))
    assert [site.name for site in sites if site.is_pointwise] == [
        f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)
    ]


def test_a_grouped_convolution_has_the_input_channels_of_one_group() -> None:
    layer = nn.Conv2d(6, 8, (3, 1), groups=2)
    (site,) = find_sites(OneLayer(layer, 8), exclude=("fc",))
    assert site == Site(name="layer", out_channels=8, in_channels=3, kernel_size=(3, 1))


def test_a_stage_begins_the_sites_and_everything_behind_it_belongs(tiny_backbone: Backbone) -> None:
    every = find_sites(tiny_backbone.model, exclude=("fc",))
    assert find_sites(tiny_backbone.model, start="layer3", exclude=("fc",)) == every[7:]


def test_a_stage_is_a_whole_name_and_not_its_beginning(tiny_backbone: Backbone) -> None:
    with pytest.raises(SiteError, match="ResNet has no stage 'layer'"):
        find_sites(tiny_backbone.model, start="layer", exclude=("fc",))


@pytest.mark.parametrize("start", ["layer5", ""])
def test_an_unknown_stage_is_refused_with_the_stages_there_are(
    tiny_backbone: Backbone, start: str
) -> None:
    with pytest.raises(SiteError, match=f"has no stage '{start}'") as refusal:
        find_sites(tiny_backbone.model, start=start, exclude=("fc",))
    assert refusal.value.hint is not None
    assert "layer3, layer4" in refusal.value.hint


def test_a_stage_behind_the_last_convolution_is_refused(tiny_backbone: Backbone) -> None:
    with pytest.raises(SiteError, match="ResNet has no convolution to gate from 'fc' on"):
        find_sites(tiny_backbone.model, start="fc", exclude=("fc",))


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(SiteError, match="OneLayer has no convolution to gate"):
        find_sites(OneLayer(nn.Identity(), 3), exclude=("fc",))


def test_a_convolutional_classifier_is_no_site() -> None:
    model = timm.create_model(
        "resnetv2_50", layers=(1, 1, 1, 1), channels=(32, 32, 32, 32), stem_chs=8
    )
    assert isinstance(model.head.fc, nn.Conv2d)
    assert Backbone(model).heads == ("head.fc",)
    names = [site.name for site in find_sites(model, exclude=("head.fc",))]
    assert "stages.3.blocks.0.conv3" in names
    assert "head.fc" not in names


def test_a_subclass_may_form_its_kernel_otherwise_so_it_needs_its_own_rule() -> None:
    class MaskedConv2d(nn.Conv2d):
        pass

    model = OneLayer(nn.Sequential(nn.Conv2d(3, 4, 1), MaskedConv2d(4, 4, 1)), 4)
    with pytest.raises(SiteError, match=r"Layer 'layer.1' is a MaskedConv2d, .* no rule"):
        find_sites(model, exclude=("fc",))


def test_a_convolution_that_is_no_conv2d_by_class_is_refused_too() -> None:
    with pytest.raises(SiteError, match="'layer' is a CondConv2d"):
        find_sites(OneLayer(CondConv2d(3, 4, 1, num_experts=2), 4), exclude=("fc",))


def test_a_layer_without_a_rule_matters_only_where_gates_go() -> None:
    class MaskedConv2d(nn.Conv2d):
        pass

    model = OneLayer(nn.Sequential(MaskedConv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), 4)
    assert [s.name for s in find_sites(model, start="layer.1", exclude=("fc",))] == ["layer.1"]


def test_a_class_is_registered_once() -> None:
    with pytest.raises(SiteError, match="Conv2d already has a gate rule"):
        register_site(nn.Conv2d, SiteRule(kernel=lambda module: module.weight))


def test_a_registered_class_becomes_a_site() -> None:
    class MirroredConv2d(nn.Conv2d):
        pass

    rule = SiteRule(kernel=lambda module: module.weight.flip(3))
    register_site(MirroredConv2d, rule)
    assert registered_sites()[MirroredConv2d] is rule
    (site,) = find_sites(OneLayer(MirroredConv2d(3, 4, 5), 4), exclude=("fc",))
    assert site.kernel_size == (5, 5)


def test_the_rules_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        registered_sites()[nn.Conv2d] = SiteRule(kernel=lambda module: module.weight)


@pytest.mark.parametrize("layer", STANDARDISED)
def test_the_kernel_is_the_standardised_weight(layer: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    conv = layer(6, 8, 3, groups=2).double()
    scaled = layer in (ScaledStdConv2d, ScaledStdConv2dSame)
    if scaled:
        nn.init.uniform_(conv.gain, 0.5, 2.0)
    kernel = registered_sites()[layer].kernel(conv)
    for o in range(8):
        values = conv.weight[o]
        centred = values - values.mean()
        expected = centred / (centred.square().mean() + conv.eps).sqrt()
        if scaled:
            expected = expected * conv.gain[o, 0, 0, 0] / values.numel() ** 0.5
        torch.testing.assert_close(kernel[o], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.Conv2d, Conv2dSame])
def test_the_kernel_of_a_plain_convolution_is_its_weight(layer: type[nn.Conv2d]) -> None:
    conv = layer(3, 4, 3)
    assert registered_sites()[layer].kernel(conv) is conv.weight


@pytest.mark.parametrize("layer", STANDARDISED)
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "dilation": 2, "groups": 2, "bias": False},
        {"kernel_size": 4, "stride": 3, "padding": 1},
        {"kernel_size": 3, "padding": "same"},
    ],
    ids=str,
)
def test_the_plain_layer_answers_as_the_layer_does(
    layer: type[nn.Conv2d], geometry: dict[str, int | str]
) -> None:
    torch.manual_seed(0)
    model = OneLayer(layer(6, 8, **geometry), 8).eval().requires_grad_(False)
    plain = copy_plain(model, exclude=("fc",))
    images = torch.randn(2, 6, 13, 11)
    assert type(plain.layer) in (nn.Conv2d, Conv2dSame)
    assert torch.equal(plain.layer(images), model.layer(images))


def test_a_plain_copy_shares_what_it_does_not_compute(tiny_backbone: Backbone) -> None:
    copied = copy_plain(tiny_backbone.model, exclude=("fc",))
    own, shared = dict(copied.state_dict()), tiny_backbone.model.state_dict()
    assert copied is not tiny_backbone.model
    assert own.keys() == shared.keys()
    assert all(own[name].data_ptr() == shared[name].data_ptr() for name in own)
    assert torch.equal(copied(random_images()), tiny_backbone(random_images()))


def test_a_plain_copy_leaves_its_original_standardised() -> None:
    model = OneLayer(StdConv2d(3, 4, 3), 4).eval()
    weight = model.layer.weight.clone()
    copied = copy_plain(model, exclude=("fc",))
    assert type(model.layer) is StdConv2d
    assert torch.equal(model.layer.weight, weight)
    assert copied.layer.bias is model.layer.bias
    assert not copied.layer.training


def test_a_classifier_is_copied_as_it_is() -> None:
    model = nn.Sequential(StdConv2d(3, 4, 3), StdConv2d(4, 2, 1))
    copied = copy_plain(model, exclude=("1",))
    assert [type(layer) for layer in copied] == [nn.Conv2d, StdConv2d]


def test_modules_from_a_stage_come_in_order(tiny_backbone: Backbone) -> None:
    names = list(modules_from(tiny_backbone.model, "layer4"))
    assert names[0] == "layer4"
    assert names[-1] == "fc"
    assert not any(name.startswith("layer3") for name in names)
    assert len(modules_from(tiny_backbone.model, None)) > len(names)
