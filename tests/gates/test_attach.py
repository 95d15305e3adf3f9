from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import remove_parametrizations

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    AlreadyGatedError,
    GateError,
    GateKindError,
    SiteError,
    UngatedLayerWarning,
)
from gatehub.gates import rules
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.parity import assert_parity
from tests.tiny import (
    LABELS,
    OneLayer,
    changed,
    disturb,
    make_backbone,
    make_trained,
    random_images,
    snapshot,
    take_steps,
)

NORM_PARTS = {
    "frozen": (),
    "affine": ("weight", "bias"),
    "stats": ("weight", "bias", "running_mean", "running_var"),
}


def answer_with_the_backbones_classifier(backbone: Backbone, **choices: str) -> GatedModel:
    (place,) = backbone.heads
    classes = backbone.model.get_submodule(place).weight.shape[0]
    model = attach_gates(backbone, labels=[f"class {n}" for n in range(classes)], **choices)
    head = model.net.get_submodule(place)
    head.load_state_dict(backbone.model.get_submodule(place).state_dict())
    return model


@pytest.mark.parametrize("gates", ["auto", "full", "lowrank:2", "scale"])
@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_at_first_it_computes_exactly_what_the_backbone_computes(
    tiny_backbone: Backbone, gates: str, norm: str
) -> None:
    model = answer_with_the_backbones_classifier(tiny_backbone, gates=gates, norm=norm)
    images = random_images(3)
    assert torch.equal(model(images), tiny_backbone(images))


def test_at_first_it_computes_what_a_standardised_backbone_computes() -> None:
    layer = nn.Sequential(ScaledStdConv2dSame(3, 8, 3, stride=2), nn.ReLU())
    nn.init.uniform_(layer[0].gain, 0.5, 2.0)
    backbone = Backbone(OneLayer(layer, 8))
    images = random_images(3)
    model = answer_with_the_backbones_classifier(backbone, gates="full", norm="frozen")
    assert torch.equal(model(images), backbone(images))
    # The task's own gains are a factor beside the kernel, which rounds once more.
    model = answer_with_the_backbones_classifier(backbone, gates="full", norm="affine")
    assert_parity(model(images), backbone(images))


def test_only_the_tasks_parameters_require_gradients(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS)
    learned = {id(p) for p in model.parameters() if p.requires_grad}
    parts = model.gate_parameters() | model.norm_parameters() | model.head_parameters()
    assert learned == {id(parameter) for parameter in parts.values()}
    assert model.head_parameters().keys() == {"head.weight", "head.bias"}
    assert not any(p.requires_grad for p in tiny_backbone.parameters())


@pytest.mark.parametrize("norm", NORM_PARTS)
def test_training_moves_what_the_mode_says_and_nothing_else(
    tiny_backbone: Backbone, norm: str
) -> None:
    before = snapshot(tiny_backbone)
    model = attach_gates(tiny_backbone, labels=LABELS, gates="full", norm=norm)
    start = snapshot(model.net)
    # Gradient descent moves a value only where its gradient is not 0, which takes a live ReLU.
    take_steps(model, steps=3)
    norms = [n for n, m in model.net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    expected = {name.replace(".gate", ".gated_weight.gate") for name in model.gate_parameters()}
    expected |= {"fc.weight", "fc.bias"}
    expected |= {f"{name}.{part}" for name in norms for part in NORM_PARTS[norm]}
    if norm == "stats":
        expected |= {f"{name}.num_batches_tracked" for name in norms}
    assert changed(start, model.net) == expected
    assert changed(before, tiny_backbone) == set()
    assert all(p.grad is None for p in tiny_backbone.parameters())


@pytest.mark.parametrize("norm", NORM_PARTS)
def test_the_task_owns_gates_norm_values_of_its_mode_and_head(
    tiny_backbone: Backbone, norm: str
) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm=norm)
    norms = [n for n, m in model.net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    values = {f"{name}.{part}" for name in norms for part in NORM_PARTS[norm]}
    assert model.task_tensors().keys() == {
        *model.gate_parameters(),
        *values,
        "head.weight",
        "head.bias",
    }
    assert model.norm_parameters().keys() == {n for n in values if "running" not in n}


@pytest.mark.parametrize("norm", NORM_PARTS)
def test_nothing_lies_in_the_backbones_memory(tiny_backbone: Backbone, norm: str) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm=norm)
    theirs = {t.untyped_storage().data_ptr() for t in tiny_backbone.state_dict().values()}
    for name, tensor in model.state_dict().items():
        assert tensor.untyped_storage().data_ptr() not in theirs, name


@pytest.mark.parametrize("norm", NORM_PARTS)
def test_batch_statistics_are_used_only_where_they_are_learned(
    tiny_backbone: Backbone, norm: str
) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm=norm).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert model.training
    assert {module.training for module in norms} == {norm == "stats"}
    model.eval()
    assert not any(module.training for module in model.modules())


def test_two_tasks_on_one_backbone_are_independent(tiny_backbone: Backbone) -> None:
    images = random_images()
    idle = attach_gates(tiny_backbone, labels=LABELS, norm="stats")
    before, answers = snapshot(idle), idle(images)
    busy = attach_gates(tiny_backbone, labels=("yes", "no"), gates="scale", norm="stats")
    take_steps(busy)
    assert changed(before, idle) == set()
    assert torch.equal(idle(images), answers)


def test_task_tensors_are_the_live_ones_detached(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS)
    tensors = model.task_tensors()
    take_steps(model)
    now = model.task_tensors()
    assert all(not tensor.requires_grad for tensor in tensors.values())
    assert all(torch.equal(tensors[name], now[name]) for name in now)


def test_gates_and_norms_begin_at_the_stage(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm="stats", start="layer3")
    owners = {name.partition(".")[0] for name in model.task_tensors()}
    assert owners == {"layer3", "layer4", "head"}
    model.train()
    modes = {
        name.partition(".")[0]: module.training
        for name, module in model.net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    assert modes == {"bn1": False, "layer1": False, "layer2": False, "layer3": True, "layer4": True}


def test_a_shared_stem_stays_as_it_is_through_training(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm="stats", start="layer3")
    start = snapshot(model.net)
    take_steps(model)
    moved = {name.partition(".")[0] for name in changed(start, model.net)}
    assert moved == {"layer3", "layer4", "fc"}


def test_every_learned_tensor_has_a_gradient_within_two_steps(tiny_backbone: Backbone) -> None:
    for gates in ("full", "lowrank:2", "scale"):
        model = attach_gates(tiny_backbone, labels=LABELS, gates=gates)
        take_steps(model, steps=2)
        for name, parameter in model.gate_parameters().items():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_a_seed_repeats_a_start(tiny_backbone: Backbone) -> None:
    starts = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        starts.append(attach_gates(tiny_backbone, labels=LABELS, gates="lowrank:2"))
    first, second, other = (model.task_tensors() for model in starts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_gates_have_dtype_of_the_backbone() -> None:
    backbone = make_backbone()
    backbone.double()
    model = attach_gates(backbone, labels=LABELS)
    assert {t.dtype for t in model.task_tensors().values()} == {torch.float64}
    assert model(random_images(dtype=torch.float64)).dtype == torch.float64


def test_a_backbone_of_several_dtypes_keeps_them() -> None:
    model = make_backbone().model
    model.layer4.double()
    backbone = Backbone(model)
    before = snapshot(backbone)
    attach_gates(backbone, labels=LABELS)
    assert {n: t.dtype for n, t in backbone.state_dict().items()} == {
        n: t.dtype for n, t in before.items()
    }


def test_a_head_with_statistics_of_its_own_learns_them() -> None:
    class NormHead(OneLayer):
        def reset_classifier(self, classes: int) -> None:
            self.fc = nn.Sequential(
                nn.BatchNorm1d(self.channels), nn.Linear(self.channels, classes)
            )

    backbone = Backbone(NormHead(nn.Conv2d(3, 8, 3), 8))
    assert backbone.heads == ("fc",)
    model = attach_gates(backbone, labels=LABELS, norm="frozen")
    before = model.task_tensors()["head.0.running_mean"].clone()
    take_steps(model)
    tensors = model.task_tensors()
    assert not torch.equal(tensors["head.0.running_mean"], before)
    assert all(tensor.is_floating_point() for tensor in tensors.values())


def test_gates_on_gates_are_refused(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS)
    with pytest.raises(AlreadyGatedError, match=r"already has gates.*Attach to the backbone"):
        attach_gates(model, labels=LABELS)


@pytest.mark.parametrize("gates", ["full", "scale"])
def test_gates_on_the_network_of_a_gated_model_are_refused(gates: str) -> None:
    backbone = make_backbone()
    gated = attach_gates(backbone, labels=LABELS, gates=gates)
    with pytest.raises(AlreadyGatedError, match="already has gates"):
        attach_gates(Backbone(gated.net), labels=LABELS, gates="full")


@pytest.mark.parametrize("model", ["resnet18", None, nn.Conv2d(3, 3, 1)], ids=["str", "None", "nn"])
def test_only_a_backbone_takes_gates(model: object) -> None:
    with pytest.raises(GateError, match=r"as backbone; expected Backbone\. Use load_backbone"):
        attach_gates(model, labels=LABELS)


@pytest.mark.parametrize("labels", [[], "crow", ["crow", ""], ["crow", 3], [b"crow"]])
def test_labels_are_named(tiny_backbone: Backbone, labels: object) -> None:
    with pytest.raises(GateError, match=r"expected (class names, at least one|Sequence|str)"):
        attach_gates(tiny_backbone, labels=labels)


def test_labels_are_distinct(tiny_backbone: Backbone) -> None:
    with pytest.raises(GateError, match="labels holds 'jay' more than once"):
        attach_gates(tiny_backbone, labels=["jay", "crow", "jay"])


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"gates": "lora"}, GateKindError, "'lora' is not a gate kind"),
        ({"norm": "batch"}, GateError, "mode is 'batch'; expected one of frozen, affine, stats"),
        ({"start": "layer9"}, SiteError, "has no stage 'layer9'"),
    ],
)
def test_other_choices_are_refused(
    tiny_backbone: Backbone, choice: dict[str, str], error: type[GateError], message: str
) -> None:
    with pytest.raises(error, match=message):
        attach_gates(tiny_backbone, labels=LABELS, **choice)


def test_a_convolutional_classifier_is_learned_and_never_gated() -> None:
    model = timm.create_model(
        "resnetv2_50", layers=(1, 1, 1, 1), channels=(32, 32, 32, 32), stem_chs=8, num_classes=5
    )
    gated = attach_gates(Backbone(model), labels=LABELS)
    head = {n: tuple(t.shape) for n, t in gated.task_tensors().items() if n.startswith("head.")}
    assert head == {"head.weight": (3, 32, 1, 1), "head.bias": (3,)}
    assert not any(name.startswith("head") for name in gated.layout.sites)


def test_a_disturbed_model_answers_differently(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, norm="stats")
    images = random_images()
    before = model(images)
    head = {name: p.detach().clone() for name, p in model.head_parameters().items()}
    disturb(model)
    with torch.no_grad():
        for name, parameter in model.head_parameters().items():
            parameter.copy_(head[name])
    assert not torch.allclose(model(images), before, rtol=0.01)


def test_both_classifiers_of_a_distilled_network_learn_the_task() -> None:
    backbone = make_backbone("efficientformerv2_s0", num_classes=6)
    assert backbone.heads == ("head", "head_dist")
    model = make_trained(backbone)
    assert model.head_parameters().keys() == {
        f"head.{head}.{part}" for head in backbone.heads for part in ("weight", "bias")
    }
    images = random_images(1, 224)
    with torch.no_grad():
        both = model(images)
        assert_parity(fold(backbone, Adapter.from_model(model, task="birds"))(images), both)
        model.net.head_dist.weight.zero_()
        assert (model(images) - both).abs().max() > 0.01 * both.abs().max()


def test_a_second_classifier_that_a_task_leaves_out_leaves_nothing_behind() -> None:
    backbone = make_backbone("repvit_m0_9", num_classes=6, distillation=True)
    assert backbone.heads == ("head.head", "head.head_dist")
    model = make_trained(backbone)
    assert not any("head_dist" in name for name in model.task_tensors())
    assert {"head.bn.weight", "head.l.weight"} <= model.head_parameters().keys()
    stripped = make_backbone("repvit_m0_9", num_classes=0)
    assert make_trained(stripped).task_tensors().keys() == model.task_tensors().keys()


def test_layers_that_stay_without_gates_are_named_once_for_each_class() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2), nn.Conv3d(1, 1, 3))
    backbone = Backbone(OneLayer(layers, 4))
    expected = "keeps layers without gates: 1 ConvTranspose2d .64 values., 1 Conv3d .27 values."
    with pytest.warns(UngatedLayerWarning, match=expected):
        attach_gates(backbone, labels=LABELS)


def test_layers_before_the_first_stage_are_not_named() -> None:
    layers = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(4, 4, 1))
    attach_gates(Backbone(OneLayer(layers, 4)), labels=LABELS, start="layer.1")


@pytest.mark.parametrize("norm", ["frozen", "affine"])
def test_gains_of_a_network_without_norms_are_learned_beside_the_gates(norm: str) -> None:
    layers = nn.Sequential(ScaledStdConv2dSame(3, 8, 3), ScaledStdConv2dSame(8, 8, 3))
    backbone = Backbone(OneLayer(layers, 8))
    before = snapshot(backbone)
    model = attach_gates(backbone, labels=LABELS, norm=norm, start="layer.1")
    learns = norm == "affine"
    assert model.norm_parameters().keys() == ({"layer.1.gain"} if learns else set())
    start = snapshot(model.net)
    take_steps(model)
    place = {"layer.1.gated_weight.gain"} if learns else set()
    assert {name for name in changed(start, model.net) if name.endswith("gain")} == place
    assert changed(before, backbone) == set()
    assert not hasattr(model.net.layer[0], "gain")


class OwnGate(nn.Module):
    """A block with a parameter called as a gate of ours is, as timm's selective attention has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.rand(8, 1, 1) + 0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images) * getattr(self, self.name)


class GatedConv2d(nn.Conv2d):
    """A convolution with a gate of its own, which is no gate of a task."""

    def __init__(self, name: str) -> None:
        super().__init__(3, 8, 3)
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.rand(8, 1, 1) + 0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * getattr(self, self.name)


@pytest.mark.parametrize("gates", ["full", "lowrank:2", "scale"])
@pytest.mark.parametrize("name", ["gate", "gate_a", "gate_b", "gated_weight", "kernel"])
@pytest.mark.parametrize("layer", [OwnGate, GatedConv2d])
def test_a_backbone_may_have_a_parameter_called_gate(
    layer: type[nn.Module], name: str, gates: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rules._RULES, GatedConv2d, rules.SiteRule(kernel=lambda m: m.weight))
    torch.manual_seed(0)
    backbone = Backbone(OneLayer(layer(name), 8))
    model = make_trained(backbone, gates=gates)
    images = random_images()
    loaded = Adapter.load(
        Adapter.from_model(model, task="birds").save(tmp_path / "birds", dtype="float32")
    )
    engine = Engine(backbone, dtype="float32")
    engine.load("birds", loaded)
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(fold(backbone, loaded)(images), expected)
    assert_parity(engine.predict("birds", images), expected)


def test_a_folded_model_is_a_backbone_like_any_other(tiny_backbone: Backbone) -> None:
    folded = fold(tiny_backbone, Adapter.from_model(make_trained(tiny_backbone), task="birds"))
    again = attach_gates(Backbone(folded), labels=LABELS)
    assert again.layout.sites.keys() == make_trained(tiny_backbone).layout.sites.keys()


@pytest.mark.parametrize("wrap", [lambda net: net, nn.Sequential, lambda net: net.layer1])
def test_gates_are_known_wherever_they_stand(wrap: Callable[[nn.Module], nn.Module]) -> None:
    gated = attach_gates(make_backbone(), labels=LABELS)
    with pytest.raises(AlreadyGatedError, match="already has gates"):
        attach_gates(wrap(gated.net), labels=LABELS)


@pytest.mark.parametrize("start", [None, "layer.1"])
@pytest.mark.parametrize(
    "norm",
    [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal],
)
def test_a_site_with_a_parametrized_weight_is_refused_and_one_before_the_start_is_left(
    norm: Callable[[nn.Module], object], start: str | None
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(OneLayer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), 8))
    norm(backbone.model.layer[0])
    backbone = Backbone(backbone.model)
    if start is None:
        message = r"'layer.0' is parametrized, .*remove_parametrizations\(layer, 'weight'\)"
        with pytest.raises(SiteError, match=message):
            attach_gates(backbone, labels=LABELS)
        remove_parametrizations(backbone.model.layer[0], "weight")
        attach_gates(Backbone(backbone.model), labels=LABELS)
        return
    model = make_trained(backbone, start=start, norm="affine")
    take_steps(model)
    folded = fold(backbone, Adapter.from_model(model, task="birds"))
    with torch.no_grad():
        assert torch.equal(folded(random_images()), model(random_images()))


def test_a_kernel_may_be_a_buffer() -> None:
    layer = nn.Conv2d(3, 8, 3)
    weight = layer.weight.detach().clone()
    del layer.weight
    layer.register_buffer("weight", weight)
    backbone = Backbone(OneLayer(layer, 8))
    model = make_trained(backbone)
    folded = fold(backbone, Adapter.from_model(model, task="birds"))
    with torch.no_grad():
        assert torch.equal(folded(random_images()), model(random_images()))


def test_a_layer_without_a_weight_to_gate_is_refused() -> None:
    layer = nn.Conv2d(3, 8, 3)
    weight = layer.weight.detach().clone()
    del layer.weight
    layer.weight = weight
    with pytest.raises(SiteError, match=r"'layer' is a Conv2d without a parameter or buffer 'wei"):
        attach_gates(Backbone(OneLayer(layer, 8)), labels=LABELS)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: torch.device("meta"),
        lambda: torch.inference_mode(),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: default_dtype(torch.float64),
    ],
    ids=["device", "inference", "autocast", "dtype"],
)
def test_the_hosts_torch_settings_change_no_model(
    setting: Callable[[], AbstractContextManager[object]],
) -> None:
    backbone = make_backbone()
    adapter = Adapter.from_model(make_trained(backbone, norm="stats"), task="birds")
    expected = fold(backbone, adapter).state_dict()
    torch.manual_seed(0)
    start = attach_gates(backbone, labels=LABELS, gates="lowrank:2").state_dict()
    with setting():
        folded = fold(backbone, adapter)
        torch.manual_seed(0)
        model = attach_gates(backbone, labels=LABELS, gates="lowrank:2")
    for found, known in ((folded.state_dict(), expected), (model.state_dict(), start)):
        assert all(torch.equal(found[name], tensor) for name, tensor in known.items())
    take_steps(model)
    train = folded.requires_grad_(True)
    train(random_images()).sum().backward()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
