from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.layers import (
    Conv2dSame,
    GroupNormAct,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.structure import copy_structure
from gatehub.errors import BackboneMismatchError, SiteError
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from gatehub.gates.kinds import GATE_PARTS
from gatehub.gates.layout import SiteGate
from gatehub.gates.rules import SiteRule, register_site
from tests.parity import Tolerance, assert_parity
from tests.tiny import (
    LABELS,
    OneLayer,
    changed,
    make_backbone,
    make_trained,
    random_images,
    snapshot,
    take_steps,
)


def adapt(model: GatedModel, task: str = "birds") -> Adapter:
    return Adapter.from_model(model, task=task)


def with_tensors(adapter: Adapter, tensors: Mapping[str, Tensor]) -> Adapter:
    return replace(adapter, tensors={**adapter.tensors, **tensors})


def with_sites(adapter: Adapter, sites: Mapping[str, SiteGate]) -> Adapter:
    layout = replace(adapter.layout, sites=sites)
    return replace(adapter, config=replace(adapter.config, layout=layout))


def make_matrix(model: GatedModel, site: str) -> Tensor:
    """M: (O, I/groups), one value after the other, from the learned tensors."""
    gates = model.gate_parameters()
    if f"{site}.gate" in gates:
        return gates[f"{site}.gate"].detach().clone()
    a, b = gates[f"{site}.gate_a"].detach(), gates[f"{site}.gate_b"].detach()
    matrix = torch.empty(len(a), len(b), dtype=a.dtype)
    for o in range(len(a)):
        for i in range(len(b)):
            matrix[o, i] = a[o] * b[i] if a.ndim == 1 else 1 + (a[o] * b[i]).sum()
    return matrix


def make_kernel(conv: nn.Conv2d) -> Tensor:
    """K(W): (O, I/groups, kH, kW), by the formulas of the two standardisation papers."""
    if not hasattr(conv, "eps"):
        return conv.weight
    rows = conv.weight.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    kernel = centred / (centred.square().mean(1, keepdim=True) + conv.eps).sqrt()
    if hasattr(conv, "gain"):
        kernel = kernel * conv.gain.flatten(1) / rows.shape[1] ** 0.5
    return kernel.view_as(conv.weight)


def pad_by_hand(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Zeros around the images, for "same" as many as give ceil(side / stride) positions."""
    pads = []
    for axis in (1, 0):  # F.pad begins with the last dimension
        if isinstance(conv, Conv2dSame) or getattr(conv, "same_pad", False):
            side, stride = images.shape[2 + axis], conv.stride[axis]
            reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
            pads += [total // 2, total - total // 2]
        else:
            pads += [conv.padding[axis]] * 2
    mode = getattr(conv, "padding_mode", "zeros")
    return F.pad(images, pads, mode="constant" if mode == "zeros" else mode)


def project_by_hand(conv: nn.Conv2d, matrix: Tensor, images: Tensor) -> Tensor:
    """y_o = sum over i of M[o, i] (K(W)[o, i] * x_i), one input channel after the other."""
    kernel, padded = make_kernel(conv), pad_by_hand(conv, images)
    channels = conv.in_channels // conv.groups
    rows = []
    for o in range(conv.out_channels):
        first = o // (conv.out_channels // conv.groups) * channels
        row = 0 if conv.bias is None else conv.bias[o]
        for i in range(channels):
            response = F.conv2d(
                padded[:, first + i : first + i + 1],
                kernel[o : o + 1, i : i + 1],
                stride=conv.stride,
                dilation=conv.dilation,
            )
            row = row + matrix[o, i] * response
        rows.append(row)
    return torch.cat(rows, 1)


def check_layer(conv: nn.Conv2d, gates: str, images: Tensor) -> None:
    """Hold the gated and the folded layer against the sum by hand."""
    reference = copy_structure(conv)
    backbone = Backbone(OneLayer(conv, conv.out_channels))
    backbone.to(images.dtype)
    model = make_trained(backbone, gates=gates)
    matrix = make_matrix(model, "layer")
    assert (matrix - 1).abs().max() > 0.01
    if hasattr(conv, "gain"):
        reference.gain = model.norm_parameters()["layer.gain"]
        assert (reference.gain - conv.gain).abs().max() > 0.01
    with torch.no_grad():
        expected = model.net.fc(project_by_hand(reference, matrix, images).mean((2, 3)))
        assert_parity(model(images), expected)
        assert_parity(fold(backbone, adapt(model))(images), expected)


@pytest.mark.parametrize("gates", ["full", "lowrank:2", "scale"])
@pytest.mark.parametrize("geometry", [{}, {"groups": 2}, {"groups": 6}], ids=str)
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d, Conv2dSame, StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame],
)
def test_each_layer_class_equals_the_sum_by_hand(
    layer: type[nn.Conv2d], geometry: dict[str, int], gates: str
) -> None:
    torch.manual_seed(0)
    conv = layer(6, 12, 3, stride=2, bias=True, **geometry)
    if hasattr(conv, "gain"):
        nn.init.uniform_(conv.gain, 0.5, 2.0)
    images = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    check_layer(conv.double(), gates, images)


PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    groups = draw(st.sampled_from([1, 2, 3]))
    layer = draw(st.sampled_from([nn.Conv2d, Conv2dSame, StdConv2d, ScaledStdConv2d]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    # The other classes do not take it, or take it and pad with zeros all the same.
    more = {"padding_mode": draw(st.sampled_from(PADDING_MODES))} if layer is nn.Conv2d else {}
    conv = layer(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        **more,
    )
    # A filter of one value has no deviation to divide by, and timm refuses it.
    assume(conv.weight[0].numel() > 1 or not hasattr(conv, "eps"))
    return conv


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    conv=convolutions(),
    gates=st.sampled_from(["auto", "full", "lowrank:1", "lowrank:3", "scale"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_geometry_equals_the_sum_by_hand(
    conv: nn.Conv2d, gates: str, dtype: torch.dtype
) -> None:
    check_layer(conv.to(dtype), gates, torch.randn(2, conv.in_channels, 7, 6).to(dtype))


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    conv=convolutions(),
    gates=st.sampled_from(["auto", "full", "lowrank:1", "lowrank:3", "scale"]),
    norm=st.sampled_from(["frozen", "affine"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
)
def test_any_geometry_folds_to_the_very_numbers_of_the_gated_layer(
    conv: nn.Conv2d, gates: str, norm: str, dtype: torch.dtype
) -> None:
    backbone = Backbone(OneLayer(conv, conv.out_channels).to(dtype))
    model = make_trained(backbone, gates=gates, norm=norm)
    images = torch.randn(2, conv.in_channels, 7, 6).to(dtype)
    with torch.no_grad():
        assert torch.equal(fold(backbone, adapt(model))(images), model(images))


@pytest.mark.parametrize("layer", [StdConv2d, ScaledStdConv2d])
def test_a_gate_on_the_raw_weight_would_be_undone(layer: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    conv = layer(3, 8, 3).double()
    model = make_trained(backbone := Backbone(OneLayer(conv, 8).double()), gates="scale")
    matrix = make_matrix(model, "layer")
    images = random_images(dtype=torch.float64)
    raw = copy_structure(backbone.model)
    raw.layer.weight = nn.Parameter(conv.weight * matrix[:, :, None, None])
    gated = fold(backbone, adapt(model)).layer(images)
    assert (gated - raw.layer(images)).abs().max() > 0.1 * gated.abs().max()
    # Scaling whole filters, which a gate surely must do, would even have no effect at all.
    raw.layer.weight = nn.Parameter(2 * conv.weight)
    assert_parity(
        raw.layer(images), backbone.model.layer(images), Tolerance(name="undone", relative=1e-4)
    )


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gates", ["auto", "scale"])
def test_a_folded_network_answers_as_the_gated_one(
    norm: str, dtype: torch.dtype, gates: str
) -> None:
    backbone = make_backbone().to(dtype)
    model = make_trained(backbone, gates=gates, norm=norm)
    images = random_images(3, dtype=dtype)
    with torch.no_grad():
        expected = model(images)
        assert_parity(fold(backbone, adapt(model))(images), expected)
        assert (expected - make_trained(backbone, norm=norm, seed=9)(images)).abs().max() > 0.01


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_a_folded_network_answers_as_the_trained_one(tiny_backbone: Backbone, norm: str) -> None:
    model = make_trained(tiny_backbone, norm=norm)
    take_steps(model, steps=3)
    images = random_images(3)
    with torch.no_grad():
        assert_parity(fold(tiny_backbone, adapt(model))(images), model(images))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mobilenetv3_small_050", {}),
        ("tf_mobilenetv3_small_minimal_100", {}),
        ("nf_regnet_b0", {}),
        (
            "resnetv2_50",  # with standardised convolutions and groups, as BiT has them
            {
                "layers": (1, 1, 1, 1),
                "channels": (128, 128, 128, 128),
                "stem_chs": 32,
                "conv_layer": StdConv2d,
                "norm_layer": GroupNormAct,
            },
        ),
        ("convnext_atto", {}),
        ("convnextv2_atto", {}),
        ("mambaout_femto", {}),
        ("nfnet_l0", {}),
        ("resnetv2_50d_evos", {}),
        ("shvit_s1", {}),  # a BatchNorm in its classifier
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
def test_whole_families_of_networks_fold(name: str, arguments: dict[str, object]) -> None:
    backbone = make_backbone(name, num_classes=7, **arguments)
    model = make_trained(backbone, norm="stats")
    images = random_images(1, 64)
    with torch.no_grad():
        assert_parity(fold(backbone, adapt(model))(images), model(images))


@pytest.mark.parametrize("share", ["layer", "weight"])
def test_what_stands_in_two_places_is_gated_once_in_each(share: str) -> None:
    """CoaT runs one convolution in several blocks; tied weights lie in layers of their own."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 3, 3, padding=1)
    second = first if share == "layer" else nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    backbone = Backbone(OneLayer(nn.Sequential(first, nn.ReLU(), second), 3))
    model = make_trained(backbone)
    assert len(model.layout.sites) == (1 if share == "layer" else 2)
    images = random_images()
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(model(images), expected)
        assert_parity(fold(backbone, adapt(model))(images), expected)


def test_a_folded_model_has_no_trace_of_gates(tiny_backbone: Backbone) -> None:
    folded = fold(tiny_backbone, adapt(make_trained(tiny_backbone, norm="stats")))
    plain = timm.create_model(
        "resnet18", layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), num_classes=len(LABELS)
    )
    assert [(n, type(m)) for n, m in folded.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    assert {n: (t.shape, t.dtype) for n, t in folded.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in plain.state_dict().items()
    }
    plain.load_state_dict(folded.state_dict())
    images = random_images()
    assert torch.equal(plain.eval()(images), folded(images))


@pytest.mark.parametrize("norm", ["frozen", "affine"])
def test_gains_that_are_the_tasks_own_are_folded(norm: str) -> None:
    layers = nn.Sequential(ScaledStdConv2d(3, 8, 3), ScaledStdConv2d(8, 8, 3))
    torch.manual_seed(0)
    backbone = Backbone(OneLayer(layers, 8).double())
    model = make_trained(backbone, gates="lowrank:2", norm=norm, start="layer.1")
    adapter = adapt(model)
    assert ("layer.1.gain" in adapter.tensors) == (norm == "affine")
    images = random_images(dtype=torch.float64)
    with torch.no_grad():
        folded = fold(backbone, adapter)
        assert_parity(folded(images), model(images))
    assert not any("gain" in name for name, _ in folded.named_parameters())
    if norm == "affine":
        with pytest.raises(
            SiteError, match=r"has 'layer.1.gain' of shape \(8,\), but .*\(8, 1, 1, 1"
        ):
            fold(backbone, with_tensors(adapter, {"layer.1.gain": torch.ones(8)}))


def test_gates_of_a_float64_backbone_keep_its_precision() -> None:
    backbone = Backbone(OneLayer(nn.Conv2d(3, 8, 1), 8).double())
    adapter = adapt(make_trained(backbone, gates="lowrank:3"))
    single = replace(adapter, tensors={n: t.float() for n, t in adapter.tensors.items()})
    a, b = (single.tensors[f"layer.gate_{part}"].double() for part in "ab")
    expected = (1 + a @ b.T)[:, :, None, None] * backbone.model.layer.weight
    assert torch.equal(fold(backbone, single).layer.weight, expected)


def test_a_folded_standardised_layer_is_a_plain_convolution() -> None:
    backbone = Backbone(OneLayer(ScaledStdConv2dSame(3, 8, 3, stride=2), 8))
    folded = fold(backbone, adapt(make_trained(backbone)))
    assert type(folded.layer) is Conv2dSame
    assert {name for name, _ in folded.named_parameters()} == {
        "layer.weight",
        "layer.bias",
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize("layer", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame])
def test_a_standardised_model_does_not_take_folded_weights(layer: type[nn.Conv2d]) -> None:
    backbone = Backbone(OneLayer(layer(3, 8, 3), 8))
    folded, other = (fold(backbone, adapt(make_trained(backbone, seed=s))) for s in (1, 2))
    with pytest.raises(RuntimeError, match=rf"layer\.weight_is_not_for_{layer.__name__}"):
        OneLayer(layer(3, 8, 3), 8).load_state_dict(folded.state_dict())
    other.load_state_dict(copy.deepcopy(folded).state_dict())
    assert torch.equal(other(random_images()), folded(random_images()))


def test_a_folded_model_is_frozen_and_evaluates(tiny_backbone: Backbone) -> None:
    folded = fold(tiny_backbone, adapt(make_trained(tiny_backbone)))
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not GATE_PARTS & {name.rpartition(".")[2] for name, _ in folded.named_parameters()}


def test_folding_changes_neither_backbone_nor_adapter(tiny_backbone: Backbone) -> None:
    before = snapshot(tiny_backbone)
    model = make_trained(tiny_backbone, norm="stats")
    take_steps(model)
    adapter = adapt(model)
    tensors = {name: tensor.clone() for name, tensor in adapter.tensors.items()}
    folded = fold(tiny_backbone, adapter)
    folded(random_images())
    assert changed(before, tiny_backbone) == set()
    assert all(torch.equal(tensors[name], adapter.tensors[name]) for name in tensors)
    assert all(p.grad is None for p in tiny_backbone.parameters())


def test_folding_twice_gives_the_same(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone, norm="stats"))
    first, second = (fold(tiny_backbone, adapter) for _ in range(2))
    assert changed(snapshot(first), second) == set()


def test_folding_leaves_the_callers_random_numbers_alone(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone))
    state = torch.get_rng_state()
    fold(tiny_backbone, adapter)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_adapter_is_a_copy_of_the_model_it_came_from(tiny_backbone: Backbone) -> None:
    model = make_trained(tiny_backbone, norm="stats")
    adapter = adapt(model)
    images = random_images()
    before = fold(tiny_backbone, adapter)(images)
    take_steps(model)
    assert torch.equal(fold(tiny_backbone, adapter)(images), before)


def test_what_is_tied_stays_tied_in_a_folded_model() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1)
    twin = nn.Conv2d(3, 3, 3, padding=1)
    twin.bias = layer.bias
    backbone = Backbone(OneLayer(nn.Sequential(layer, nn.ReLU(), twin), 3))
    body = fold(backbone, adapt(make_trained(backbone))).double().get_submodule("layer")
    assert body[0].bias is body[2].bias


@pytest.mark.parametrize(
    "name",
    [
        "repvgg_a0",
        "mobileone_s0",
        "fastvit_t8",
        "repvit_m0_9",
        "ghostnetv3_050",
        "repghostnet_050",
        "levit_conv_128s",
    ],
)
@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
def test_a_folded_network_can_be_reparameterised(name: str) -> None:
    """timm's re-parameterisation reads `.weight` of every branch: it must find gated kernels."""
    backbone = make_backbone(name, num_classes=5)
    model = make_trained(backbone, norm="stats")
    folded = fold(backbone, adapt(model))
    images = random_images(1, 64 if name.startswith(("repvgg", "mobileone", "repghost")) else 224)
    with torch.no_grad():
        reparameterised = reparameterize_model(folded)
        assert len(list(reparameterised.modules())) < len(list(folded.modules()))
        assert_parity(reparameterised(images), model(images))


def test_a_class_of_ones_own_works_end_to_end() -> None:
    class SquaredConv2d(nn.Conv2d):
        """Convolves with the square of its weight."""

        def forward(self, images: Tensor) -> Tensor:
            return self._conv_forward(images, self.weight.square(), self.bias)

    def plain(module: SquaredConv2d) -> nn.Module:
        made = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, device="meta")
        made.bias = module.bias
        return made

    rule = SiteRule(kernel=lambda module: module.weight.square(), plain=plain)
    register_site(SquaredConv2d, rule)
    torch.manual_seed(0)
    layer = SquaredConv2d(3, 8, 3)
    squared, bias = layer.weight.detach().square(), layer.bias.detach().clone()
    backbone = Backbone(OneLayer(layer, 8))
    model = make_trained(backbone)
    images = random_images()
    matrix = make_matrix(model, "layer")[:, :, None, None]
    folded = fold(backbone, adapt(model))
    take_steps(make_trained(backbone))
    with torch.no_grad():
        expected = model.net.fc(F.conv2d(images, matrix * squared, bias).mean((2, 3)))
        assert_parity(model(images), expected)
        assert_parity(folded(images), expected)
    assert type(folded.layer) is nn.Conv2d
    assert type(backbone.model.layer) is SquaredConv2d


def test_another_backbone_is_refused_with_both_names_and_digests(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone))
    other = Backbone(make_backbone(seed=1).model, tag="a1_in1k")
    expected = (
        f"Adapter 'birds' was trained on resnet18 .digest {tiny_backbone.digest[:12]}….*"
        f"backbone at hand is resnet18.a1_in1k .digest {other.digest[:12]}…"
    )
    with pytest.raises(BackboneMismatchError, match=expected):
        fold(other, adapter)


def test_one_changed_weight_makes_another_backbone(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone))
    model = make_backbone().model
    fold(Backbone(model), adapter)
    model.layer4[0].conv1.weight.view(-1)[0] += 1e-6
    with pytest.raises(BackboneMismatchError):
        fold(Backbone(model), adapter)


def wanting(adapter: Adapter, *size: int) -> Adapter:
    """The same adapter, for images of this height and width."""
    preprocessing = replace(adapter.preprocessing, input_size=(3, *size))
    return replace(adapter, config=replace(adapter.config, preprocessing=preprocessing))


def test_images_of_very_many_more_pixels_than_the_backbones_are_refused(
    tiny_backbone: Backbone,
) -> None:
    adapter = adapt(make_trained(tiny_backbone))
    fold(tiny_backbone, wanting(adapter, 64, 256))
    expected = (
        "Adapter 'birds' takes images of 64 x 257 pixels; tasks of resnet18, which takes 32 x 32, "
        "may have up to 16,384 pixels. Train it on images of at most 128 x 128 pixels."
    )
    with pytest.raises(BackboneMismatchError, match=expected):
        fold(tiny_backbone, wanting(adapter, 64, 257))


def test_a_gate_of_another_shape_does_not_fit(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone, gates="full"))
    gate = adapter.layout.sites["layer2.0.conv1"]
    sites = {**adapter.layout.sites, "layer2.0.conv1": replace(gate, shape=(16, 9))}
    broken = with_sites(adapter, sites)
    expected = r"'birds' has a gate \(16, 9\) for 'layer2.0.conv1', .* a kernel \(16, 8, 3, 3\)"
    with pytest.raises(SiteError, match=expected):
        fold(tiny_backbone, broken)


def test_a_gate_for_a_layer_that_is_not_there_does_not_fit(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone, gates="full"))
    sites = {"layer9.conv1": adapter.layout.sites["conv1"]}
    broken = with_sites(adapter, sites)
    with pytest.raises(SiteError, match=r"'layer9.conv1', where the backbone has no such layer"):
        fold(tiny_backbone, broken)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("bn1.weight", (9,), r"'bn1.weight' of shape \(9,\), .* shape \(64,\) there"),
        ("head.weight", (3, 9), r"'head.weight' of shape \(3, 9\), .* shape \(3, 32\) there"),
        ("head.scale", (3,), "'head.scale' of shape .* no place for it"),
        ("layer9.bn1.weight", (8,), "'layer9.bn1.weight' of shape .* no place for it"),
        # A task has gates, norm values and a head: weights, it has none.
        ("conv1.weight", (64, 3, 7, 7), "'conv1.weight' of shape .* no place for it"),
        ("bn1.running_mean", (64,), "'bn1.running_mean' of shape .* no place for it"),
        ("fc.weight", (3, 32), "'fc.weight' of shape .* no place for it"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    tiny_backbone: Backbone, name: str, shape: tuple[int, ...], message: str
) -> None:
    adapter = adapt(make_trained(tiny_backbone, norm="affine"))
    with pytest.raises(SiteError, match=message):
        fold(tiny_backbone, with_tensors(adapter, {name: torch.zeros(shape)}))


@pytest.mark.parametrize("name", ["head.weight", "head.bias", "layer4.0.bn2.bias"])
def test_a_tensor_that_is_missing_is_refused(tiny_backbone: Backbone, name: str) -> None:
    adapter = adapt(make_trained(tiny_backbone))
    left = {key: tensor for key, tensor in adapter.tensors.items() if key != name}
    with pytest.raises(SiteError, match=f"'birds' lacks '{name}'"):
        fold(tiny_backbone, replace(adapter, tensors=left))


def test_norm_values_before_the_stage_have_no_place(tiny_backbone: Backbone) -> None:
    adapter = adapt(make_trained(tiny_backbone, start="layer3"))
    with pytest.raises(SiteError, match=r"'bn1.weight' .* no place for it"):
        fold(tiny_backbone, with_tensors(adapter, {"bn1.weight": torch.zeros(64)}))


def test_a_norm_beside_the_classifier_keeps_its_name() -> None:
    """ConvNeXt has `head.norm` beside its classifier `head.fc`, and an adapter's head is "head"."""
    backbone = make_backbone("convnext_atto", num_classes=4)
    assert backbone.heads == ("head.fc",)
    model = make_trained(backbone)
    names = {name for name in adapt(model).tensors if name.startswith("head.")}
    assert names == {"head.norm.weight", "head.norm.bias", "head.weight", "head.bias"}
    assert torch.equal(
        fold(backbone, adapt(model)).head.norm.weight, model.net.head.norm.weight.detach()
    )


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, {}),
        ("efficientformer_l1", {"embed_dims": (8, 8, 16, 32), "depths": (1, 1, 1, 2)}, {}),
        (
            "repvit_m0_9",
            {"embed_dim": (8, 8, 16, 16), "depth": (1, 1, 1, 1)},
            {"distillation": False},
        ),
    ],
)
def test_timms_own_network_takes_the_folded_weights(
    name: str, size: dict[str, object], arguments: dict[str, bool]
) -> None:
    backbone = make_backbone(name, num_classes=10, **size)
    adapter = adapt(make_trained(backbone, norm="stats"))
    folded = fold(backbone, adapter)
    theirs = timm.create_model(name, num_classes=len(adapter.labels), **size, **arguments)
    theirs.load_state_dict(folded.state_dict())
    images = random_images(1, backbone.preprocessing.input_size[1])
    with torch.no_grad():
        assert torch.equal(theirs.eval()(images), folded(images))
