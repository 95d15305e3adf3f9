"""What is done to a gated or folded model stays there; a backbone that has changed is noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    BackboneChangedError,
    BackboneMismatchError,
    GateError,
    GatehubError,
)
from gatehub.gates.attach import attach_gates
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.tiny import (
    LABELS,
    OneLayer,
    changed,
    make_backbone,
    make_trained,
    random_images,
    settle_norms,
    snapshot,
    take_steps,
)

SIDE = 32


def make_layers(*layers: nn.Module) -> Backbone:
    torch.manual_seed(0)
    model = OneLayer(nn.Sequential(*layers), 8)
    settle_norms(model)
    model.pretrained_cfg = {"input_size": (3, SIDE, SIDE)}
    return Backbone(model)


SETTINGS: dict[str, tuple[Callable[[], Backbone], dict[str, str]]] = {
    "frozen norms": (make_backbone, {"gates": "full", "norm": "frozen"}),
    "a shared stem": (make_backbone, {"norm": "affine", "start": "layer3"}),
    "statistics": (make_backbone, {"gates": "scale", "norm": "stats"}),
    # Kernels that lie alike in either memory format.
    "pointwise": (
        lambda: make_layers(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)),
        {"start": "layer.1"},
    ),
    "standardised": (
        lambda: make_layers(StdConv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()),
        {"norm": "frozen"},
    ),
    "scaled": (
        lambda: make_layers(ScaledStdConv2d(3, 8, 3), nn.ReLU(), ScaledStdConv2d(8, 8, 1)),
        {"start": "layer.2"},
    ),
}


def train_everything(model: nn.Module) -> None:
    for module in model.modules():  # GatedModel keeps its own choice of what learns
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.train()
    for _ in range(2):
        optimiser.zero_grad()
        model(random_images(4)).square().mean().backward()
        optimiser.step()


def pass_in_training(model: nn.Module) -> None:
    for module in model.modules():
        module.training = True
    with torch.no_grad():
        model(random_images(4))


def write_state(model: nn.Module) -> None:
    model.load_state_dict({name: torch.ones_like(t) for name, t in model.state_dict().items()})


def write_data(model: nn.Module) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(1)


def write_arrays(model: nn.Module) -> None:
    for tensor in model.state_dict().values():
        tensor.numpy()[...] = 1


def draw_again(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter)


def reset_layers(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def write_vector(model: nn.Module) -> None:
    with torch.no_grad():
        vector = parameters_to_vector(p for p in model.parameters())
        vector_to_parameters(vector + 1, model.parameters())


def write_found(model: nn.Module) -> None:
    """Write into every tensor that a module holds in any way."""
    with torch.no_grad():
        for module in model.modules():
            for value in list(vars(module).values()):
                held = value.values() if isinstance(value, dict) else [value]
                for tensor in held:
                    if isinstance(tensor, Tensor):
                        tensor.fill_(1)


DEEDS: dict[str, Callable[[nn.Module], object]] = {
    "bfloat16": lambda model: model.bfloat16(),
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to(torch.float64, memory_format=torch.channels_last),
    "empty": lambda model: model.to_empty(device="cpu"),
    "parts": lambda model: [module.double() for module in model.modules()],
    "gradients": lambda model: model.requires_grad_(True),
    "share": lambda model: model.share_memory(),
    "train everything": train_everything,
    "pass in training": pass_in_training,
    "load state": write_state,
    "data": write_data,
    "arrays": write_arrays,
    "draw": draw_again,
    "reset": reset_layers,
    "vector": write_vector,
    "found": write_found,
}


class Known:
    """A backbone, a task on it that an engine serves, and what all of them held and answered."""

    def __init__(self, backbone: Backbone, choice: dict[str, str]) -> None:
        self.backbone = backbone
        self.gated = make_trained(backbone, **choice)
        self.adapter = Adapter.from_model(self.gated, task="birds")
        self.engine = Engine(backbone, dtype="float32")
        self.engine.load("birds", self.adapter)
        self.images = random_images(2)
        self.held = snapshot(backbone)
        self.tensors = {name: tensor.clone() for name, tensor in self.adapter.tensors.items()}
        self.answers = self.ask()

    def ask(self) -> tuple[Tensor, Tensor]:
        folded = fold(self.backbone, self.adapter)
        return self.engine.predict("birds", self.images), folded(self.images)

    def make(self, kind: str) -> nn.Module:
        if kind == "gated":
            return copy.deepcopy(self.gated)
        return fold(self.backbone, self.adapter, merge_norm=kind == "merged")

    def check(self) -> None:
        assert changed(self.held, self.backbone) == set()
        assert {p.dtype for p in self.backbone.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in self.backbone.parameters())
        assert not any(p.is_shared() for p in self.backbone.parameters())
        assert not any(module.training for module in self.backbone.modules())
        for name, tensor in self.adapter.tensors.items():
            assert torch.equal(tensor, self.tensors[name])
        for answer, before in zip(self.ask(), self.answers, strict=True):
            assert torch.equal(answer, before)


@pytest.fixture(scope="module", params=SETTINGS)
def known(request: pytest.FixtureRequest) -> Known:
    make, choice = SETTINGS[request.param]
    return Known(make(), choice)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("kind", ["gated", "folded", "merged"])
def test_nothing_done_to_a_model_reaches_the_backbone_the_adapter_or_the_engine(
    known: Known, kind: str, deed: str
) -> None:
    DEEDS[deed](known.make(kind))
    known.check()


@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_done_to_a_model_as_it_was_attached_reaches_the_backbone(
    known: Known, deed: str
) -> None:
    DEEDS[deed](attach_gates(known.backbone, labels=LABELS, norm="stats"))
    known.check()


@pytest.mark.parametrize("kind", ["gated", "folded", "merged"])
def test_a_model_lies_in_memory_of_its_own(known: Known, kind: str) -> None:
    lent = (*known.backbone.state_dict().values(), *known.adapter.tensors.values())
    addresses = {tensor.untyped_storage().data_ptr() for tensor in lent}
    for name, tensor in known.make(kind).state_dict().items():
        assert tensor.untyped_storage().data_ptr() not in addresses, name


def flip_colours(model: nn.Module) -> None:
    weight = next(model.parameters())
    weight.data.copy_(weight.data.flip(1))


def write_one(model: nn.Module) -> None:
    """One number of the last vector, in an array that shares its memory."""
    [*model.parameters()][-3].detach().numpy().reshape(-1)[-1] += 1


def replace_one(model: nn.Module) -> None:
    name = next(name for name, _ in model.named_parameters())
    module = model.get_submodule(name.rpartition(".")[0])
    module.weight = nn.Parameter(module.weight + 1)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "to and back": lambda model: model.bfloat16().float(),
    "double": lambda model: model.double(),
    "empty": lambda model: model.to_empty(device="cpu"),
    "train everything": train_everything,
    "load state": write_state,
    "data": write_data,
    "arrays": write_arrays,
    "draw": draw_again,
    "colours": flip_colours,
    "one": write_one,
    "replace": replace_one,
    "drop a layer": lambda model: setattr(model, "layer4", nn.Identity()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_backbone_is_noticed_before_it_answers(change: str) -> None:
    known = Known(make_backbone(), {"start": "layer3"})
    CHANGES[change](known.backbone.model)
    for use in (
        lambda: fold(known.backbone, known.adapter),
        lambda: fold(known.backbone, known.adapter, merge_norm=True),
        lambda: attach_gates(known.backbone, labels=LABELS),
        lambda: Engine(known.backbone),
        lambda: known.adapter.with_probe(known.backbone),
    ):
        with pytest.raises(BackboneChangedError, match=r"weights of .* have changed since .*'"):
            use()
    # An engine that was made before has weights of its own, for what it loads later, too.
    assert torch.equal(known.engine.predict("birds", known.images), known.answers[0])
    known.engine.load("again", known.adapter)
    assert torch.equal(known.engine.predict("again", known.images), known.answers[0])
    # Moving it afterwards does not make it sound.
    known.backbone.to("cpu").to(memory_format=torch.channels_last)
    with pytest.raises(BackboneChangedError):
        fold(known.backbone, known.adapter)


def double(module: nn.Module, given: object, answer: Tensor) -> Tensor:
    return answer * 2


REBUILDS: dict[str, Callable[[nn.Module], object]] = {
    "eps": lambda model: setattr(model.bn1, "eps", 0.1),
    "stride": lambda model: setattr(model.conv1, "stride", (1, 1)),
    "padding": lambda model: setattr(model.layer1[0].conv1, "padding_mode", "circular"),
    "dilation": lambda model: setattr(model.layer1[0].conv2, "dilation", (2, 2)),
    "activation": lambda model: setattr(model, "act1", nn.GELU()),
    "drop a layer": lambda model: setattr(model, "maxpool", nn.Identity()),
    "pooling": lambda model: setattr(model.global_pool, "flatten", nn.Identity()),
}
HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "hook": lambda model: model.layer2.register_forward_hook(double),
    "pre-hook": lambda model: model.bn1.register_forward_pre_hook(lambda module, given: None),
    "forward": lambda model: setattr(model.bn1, "forward", lambda values: values),
}


@pytest.mark.parametrize("change", REBUILDS | HOOKS)
def test_a_backbone_that_computes_otherwise_is_noticed_before_it_answers(change: str) -> None:
    known = Known(make_backbone(), {"start": "layer3"})
    (REBUILDS | HOOKS)[change](known.backbone.model)
    for use in (
        lambda: fold(known.backbone, known.adapter),
        lambda: attach_gates(known.backbone, labels=LABELS),
        lambda: Engine(known.backbone),
        lambda: known.adapter.with_probe(known.backbone),
    ):
        with pytest.raises(BackboneChangedError, match=r"network of .* has changed since .* layer"):
            use()
    known.engine.load("again", known.adapter)
    assert torch.equal(known.engine.predict("again", known.images), known.answers[0])


@pytest.mark.parametrize("change", REBUILDS)
def test_a_gated_model_that_computes_otherwise_than_its_backbone_makes_no_adapter(
    change: str,
) -> None:
    model = make_trained(make_backbone())
    for deed in HOOKS.values():  # they may do anything, and most look on
        deed(model.net)
    Adapter.from_model(model, task="birds")
    REBUILDS[change](model.net)
    with pytest.raises(GateError, match=r"network of this gated model has changed since .* layer"):
        Adapter.from_model(model, task="birds")


def test_a_changed_gain_is_noticed_before_an_engine_forms_kernels_without_it() -> None:
    make, choice = SETTINGS["scaled"]
    known = Known(make(), choice)
    engine = Engine(known.backbone, dtype="float32")
    known.backbone.model.layer[2].gain.data.mul_(2)
    with pytest.raises(BackboneChangedError, match=r"'layer.2.gain'"):
        engine.load("birds", known.adapter)


def test_statistics_that_moved_in_a_pass_are_noticed() -> None:
    backbone = make_backbone()
    backbone.model.train()
    backbone(random_images(4))
    with pytest.raises(BackboneChangedError, match=r"'bn1.num_batches_tracked'"):
        attach_gates(backbone, labels=LABELS)


@pytest.mark.parametrize(
    "cast",
    [
        lambda backbone: backbone.double(),
        lambda backbone: backbone.half(),
        lambda backbone: backbone.to(memory_format=torch.channels_last),
        lambda backbone: backbone.requires_grad_(True),
        lambda backbone: backbone.load_state_dict(backbone.state_dict()),
        lambda backbone: backbone.model.reset_classifier(5),
        lambda backbone: backbone.model.train(),
        lambda backbone: backbone.model.set_grad_checkpointing(),
        lambda backbone: backbone.model.layer1.register_forward_hook(double).remove(),
        lambda backbone: backbone(random_images()),
        lambda backbone: backbone.compile(),
    ],
    ids=[
        "double",
        "half",
        "memory format",
        "gradients",
        "same state",
        "classifier",
        "mode",
        "checkpointing",
        "hook and back",
        "pass",
        "compile",
    ],
)
def test_a_backbone_may_be_moved_and_cast_on_purpose(cast: Callable[[Backbone], object]) -> None:
    backbone = make_backbone()
    adapter = Adapter.from_model(make_trained(backbone), task="birds")
    expected = fold(backbone, adapter)(random_images())
    cast(backbone)
    folded = fold(backbone, adapter)
    answer = folded(random_images(dtype=next(folded.parameters()).dtype))
    assert torch.allclose(answer.float(), expected, rtol=0.01, atol=0.01)


SPOILED: dict[str, Callable[[torch.nn.Module], object]] = {
    "rounded": lambda module: module.half().float(),
    "rounded twice": lambda module: module.bfloat16().half().double(),
    "rounded, moved": lambda module: (
        module.bfloat16().to(memory_format=torch.channels_last).float()
    ),
    "emptied": lambda module: module.to_empty(device="cpu"),
}


@pytest.mark.parametrize("deed", SPOILED)
def test_what_a_cast_has_rounded_or_emptied_is_not_what_was_loaded(deed: str) -> None:
    backbone = make_backbone()
    model = make_trained(backbone)
    adapter = Adapter.from_model(model, task="birds")
    SPOILED[deed](backbone)
    for ask in (
        lambda: fold(backbone, adapter),
        lambda: attach_gates(backbone, labels=LABELS),
        lambda: Engine(backbone),
    ):
        with pytest.raises(BackboneChangedError, match="have changed since it was loaded"):
            ask()
    SPOILED[deed](model)
    with pytest.raises(GatehubError, match=r"have changed|NaN"):  # of what is learned
        Adapter.from_model(model, task="birds")


CASTS = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", CASTS, ids=str)
def test_no_adapter_names_weights_that_a_cast_has_rounded(dtype: torch.dtype) -> None:
    backbone = make_backbone()
    adapter = Adapter.from_model(make_trained(backbone), task="birds")
    images = random_images()
    words = rf"cast has rounded the weights of .* to {str(dtype)[6:]}, .* digest of other weights"
    model = make_trained(backbone).to(dtype)
    assert model(images.to(dtype)).isfinite().all()  # it answers
    with pytest.raises(GateError, match=words) as refusal:
        Adapter.from_model(model, task="birds")
    # What was learned is not lost.
    fresh = attach_gates(backbone, labels=LABELS)
    assert "task_tensors() into those of the new one" in str(refusal.value.hint)
    for name, tensor in fresh.task_tensors().items():
        tensor.copy_(model.task_tensors()[name])
    assert Adapter.from_model(fresh, task="birds").backbone.digest == backbone.digest
    backbone.to(dtype)
    assert backbone.rounded_to == dtype
    for use in (
        lambda: attach_gates(backbone, labels=LABELS),
        lambda: adapter.with_probe(backbone),
    ):
        with pytest.raises(GateError, match=words):
            use()
    assert fold(backbone, adapter)(images.to(dtype)).isfinite().all()  # and so does this


@pytest.mark.parametrize("dtype", CASTS, ids=str)
def test_an_adapter_names_the_weights_of_a_backbone_in_half_precision(dtype: torch.dtype) -> None:
    """Made of a model in that dtype, it has a digest of its own, and is itself when widened."""
    wide, half = make_backbone(), Backbone(make_backbone().model.to(dtype))
    assert half.rounded_to is None
    adapter = Adapter.from_model(make_trained(half), task="birds").with_probe(half)
    assert adapter.backbone.digest == half.digest != wide.digest
    with pytest.raises(BackboneMismatchError, match="digest"):
        fold(wide, adapter)
    half.float()
    assert half.rounded_to is None
    again = Adapter.from_model(make_trained(half), task="birds")
    assert again.backbone.digest == half.digest
    fold(half, again)


def test_what_writes_into_frozen_weights_of_a_gated_model_makes_no_adapter() -> None:
    for deed in (train_everything, write_state, write_data, draw_again):
        model = make_trained(make_backbone())
        deed(model)
        with pytest.raises(GateError, match=r"frozen weights .* have changed .* Attach gates to"):
            Adapter.from_model(model, task="birds")
        with pytest.raises(GateError, match="have changed"):
            Adapter.from_model(model.double(), task="birds")


def test_the_state_of_a_task_on_another_backbone_makes_no_adapter() -> None:
    model, other = (make_trained(make_backbone(seed=seed), seed=seed) for seed in (0, 1))
    model.load_state_dict(other.state_dict())
    with pytest.raises(GateError, match="have changed"):
        Adapter.from_model(model, task="birds")


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_a_trained_gated_model_makes_an_adapter(norm: str) -> None:
    backbone = make_backbone()
    model = make_trained(backbone, norm=norm)
    model.requires_grad_(False).requires_grad_(True)
    take_steps(model)
    resumed = attach_gates(backbone, labels=LABELS, norm=norm)
    resumed.load_state_dict(model.state_dict())
    images = random_images()
    for found in (model, resumed, copy.deepcopy(model), model.double().float()):
        folded = fold(backbone, Adapter.from_model(found, task="birds"))
        with torch.no_grad():
            assert torch.equal(folded(images), found(images))


def test_a_gated_model_stops_learning_where_it_is_told_to() -> None:
    model = attach_gates(make_backbone(), labels=LABELS)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())
    model.requires_grad_(True)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learned
