"""Every way into a gated model finds its gates: blocks computed again, parts, copies, compilers."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from timm.layers import ScaledStdConv2d, set_reentrant_ckpt, use_reentrant_ckpt
from timm.models.densenet import DenseNet
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DataParallel
from torch.utils.checkpoint import checkpoint

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import BackboneChangedError, BackboneError, GateError
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import fold
from tests.parity import Tolerance, assert_parity
from tests.threads import call_at_once
from tests.tiny import (
    LABELS,
    OneLayer,
    disturb,
    make_backbone,
    make_trained,
    random_images,
    settle_norms,
)

AGAIN = Tolerance(name="sums in another order", relative=1e-5)
SIDE = 64


def make_densenet() -> Backbone:
    """Its layers read the answers of all before them, and compute their joining again."""
    torch.manual_seed(0)
    model = DenseNet(growth_rate=4, block_config=(2, 2), num_classes=4)
    settle_norms(model)
    return Backbone(model)


FAMILIES: dict[str, Callable[[], Backbone]] = {
    "resnet": make_backbone,
    "convnext": lambda: make_backbone("test_convnext", num_classes=4),
    "efficientnet": lambda: make_backbone("test_efficientnet", num_classes=4),
    "byobnet": lambda: make_backbone("test_byobnet", num_classes=4),
    "nfnet": lambda: make_backbone("test_nfnet", num_classes=4),
    "densenet": make_densenet,
}


@pytest.fixture(params=[False, True], ids=["plain", "reentrant"])
def reentrant(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = use_reentrant_ckpt()
    set_reentrant_ckpt(request.param)
    yield request.param
    set_reentrant_ckpt(before)


def find_gradients(model: GatedModel, images: Tensor, *, train: bool) -> dict[str, Tensor]:
    model.train(train)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = None
    nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in learned.values())
    return {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}


def check_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("train", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("family", FAMILIES)
def test_timms_gradient_checkpointing_leaves_gradients_as_they_are(
    family: str, when: str, train: bool, reentrant: bool
) -> None:
    backbone = FAMILIES[family]()
    images = random_images(3, SIDE)
    expected = find_gradients(make_trained(backbone, norm="stats"), images, train=train)
    if when == "before":
        backbone.model.set_grad_checkpointing()
    model = make_trained(backbone, norm="stats")
    if when == "after":
        model.net.set_grad_checkpointing()
    check_gradients(find_gradients(model, images, train=train), expected)


def compute_again(module: nn.Module, *, reentrant: bool) -> None:
    module.forward = partial(checkpoint, module.forward, use_reentrant=reentrant)


@pytest.mark.parametrize("place", ["layer1", "layer2.0", "layer3.0.conv2", "layer4.0.downsample"])
@pytest.mark.parametrize("gates", ["full", "lowrank:2", "scale"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_any_block_can_be_computed_again(
    place: str, gates: str, when: str, reentrant: bool
) -> None:
    images = random_images(3)
    expected = find_gradients(make_trained(make_backbone(), gates=gates), images, train=True)
    backbone = make_backbone()
    if when == "before":  # a bound method is copied with the module that it is bound to
        compute_again(backbone.model.get_submodule(place), reentrant=reentrant)
    model = make_trained(backbone, gates=gates)
    if when == "after":
        compute_again(model.net.get_submodule(place), reentrant=reentrant)
    check_gradients(find_gradients(model, images, train=True), expected)


def test_a_reentrant_block_behind_what_learns_is_computed_again() -> None:
    """Given images that require gradients, by every way into the network."""
    images = random_images(3)
    for start, enter in ((None, ENTRIES["net"]), ("layer3", ENTRIES["model"])):
        model = make_trained(make_backbone(), start=start)
        expected = find_gradients(model, images, train=True)
        compute_again(model.net.get_submodule(start or "conv1"), reentrant=True)
        model.zero_grad()
        enter(model, images.clone().requires_grad_()).backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        check_gradients(found, expected)


def run_by_hand(model: GatedModel, images: Tensor) -> Tensor:
    for layer in list(model.net.children())[:-1]:
        images = layer(images)
    return model.net.fc(images)


def sum_losses(logits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3)


ENTRIES: dict[str, Callable[[GatedModel, Tensor], Tensor]] = {
    "model": lambda model, images: sum_losses(model(images)),
    "net": lambda model, images: sum_losses(model.net(images)),
    "features": lambda model, images: sum_losses(
        model.net.forward_head(model.net.forward_features(images))
    ),
    "layers": lambda model, images: sum_losses(run_by_hand(model, images)),
}
BLIND = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
LOST = r"use_reentrant=True, and nothing .* needs a gradient"


@BLIND
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("start", "place"),
    [(None, "conv1"), (None, "bn1"), ("layer3", "layer3"), ("layer4", "layer4")],
)
def test_a_block_whose_parameters_would_get_no_gradient_is_refused(
    start: str | None, place: str, entry: str
) -> None:
    """Before the first thing that learns, torch does not compute a reentrant block again."""
    model = make_trained(make_backbone(), start=start)
    images = random_images(3)
    if place == "bn1":  # a block with a norm that learns, and no gate
        model.net.bn1 = nn.Sequential(model.net.bn1)
    compute_again(model.net.get_submodule(place), reentrant=True)
    for train in (False, True):
        model.train(train)
        if place == "bn1":
            model.net.bn1.requires_grad_(True)
            model.net.conv1.requires_grad_(False)
        with torch.no_grad():  # nobody asks for gradients
            expected = ENTRIES[entry](model, images)
        for _ in range(2):
            with pytest.raises(GateError, match=LOST):
                ENTRIES[entry](model, images)
        with torch.no_grad():
            assert torch.equal(ENTRIES[entry](model, images), expected)
        model.requires_grad_(False)
        assert torch.equal(ENTRIES[entry](model, images), expected)
        model.requires_grad_(True)


@BLIND
@pytest.mark.parametrize("entry", ["model", "net"])
def test_a_whole_network_that_would_get_no_gradient_is_refused(entry: str) -> None:
    model = make_trained(make_backbone())
    compute_again(model.net, reentrant=True)
    with pytest.raises(GateError, match=LOST):
        ENTRIES[entry](model, random_images(3))


@BLIND
def test_a_block_checkpointed_by_hand_is_refused() -> None:
    model = make_trained(make_backbone(), start="layer3")
    stem = nn.Sequential(*list(model.net.children())[:6])
    images = random_images(3)

    def answer() -> Tensor:
        x = checkpoint(model.net.layer3, stem(images), use_reentrant=True)
        return model.net.forward_head(model.net.layer4(x))

    with torch.no_grad():
        assert torch.equal(answer(), model(images))
    with pytest.raises(GateError, match=LOST):
        answer()
    # Within a block that is computed again, too; there while gradients flow back.
    outer = checkpoint(
        lambda x: model.net.forward_head(
            model.net.layer4(checkpoint(model.net.layer3, x.detach(), use_reentrant=True))
        ),
        stem(images).requires_grad_(),
        use_reentrant=True,
    )
    with pytest.raises(GateError, match=LOST):
        outer.sum().backward()


@BLIND
def test_features_without_gradients_leave_the_next_pass_alone() -> None:
    images = random_images(3)
    model = make_trained(make_backbone())
    expected = find_gradients(model, images, train=True)
    model.net.layer4.forward = partial(checkpoint, model.net.layer4.forward, use_reentrant=True)
    for entry in ENTRIES.values():
        with torch.no_grad():
            model.net.forward_features(images)
        model.zero_grad()
        entry(model, images).backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        check_gradients(found, expected)


@BLIND
def test_a_thread_that_asks_for_no_gradients_disturbs_none_that_does() -> None:
    model = make_trained(make_backbone(), start="layer3")
    images = random_images(3)
    compute_again(model.net.layer3, reentrant=True)
    both = threading.Barrier(2)

    def meet(module: nn.Module, given: object) -> None:
        both.wait(60)

    model.net.layer4.register_forward_pre_hook(meet)

    def ask() -> Tensor:
        with torch.no_grad():
            return model(images)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        with pytest.raises(GateError, match=LOST):
            model(images)
        assert answer.result().isfinite().all()


def test_gains_of_scaled_convolutions_are_computed_again(reentrant: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(ScaledStdConv2d(3, 8, 3), nn.ReLU(), ScaledStdConv2d(8, 8, 3))
    backbone = Backbone(OneLayer(layers, 8))
    images = random_images(3)
    expected = find_gradients(make_trained(backbone), images, train=True)
    model = make_trained(backbone)
    compute_again(model.net.layer[2], reentrant=reentrant)
    check_gradients(find_gradients(model, images, train=True), expected)


def wrap_in_closure(module: nn.Module) -> None:
    inner = module.forward
    module.forward = lambda *given: checkpoint(inner, *given, use_reentrant=False)


def wrap_in_default(module: nn.Module) -> None:
    module.forward = lambda given, inner=module: type(inner).forward(inner, given)


def wrap_in_global(module: nn.Module) -> None:
    global _inner
    _inner = module.forward
    module.forward = lambda given: _inner(given)


def wrap_in_partial(module: nn.Module) -> None:
    inner = module.forward
    module.forward = partial(lambda call, given: call[0](given) if call else inner(given), ())


def hook_the_original(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, given, answer: answer + 0 * module.forward(*given))


@pytest.mark.parametrize(
    "wrap",
    [wrap_in_closure, wrap_in_default, wrap_in_global, wrap_in_partial, hook_the_original],
)
def test_a_function_that_would_run_the_backbones_block_in_a_copy_is_refused(
    wrap: Callable[[nn.Module], None],
) -> None:
    backbone = make_backbone()
    adapter = Adapter.from_model(make_trained(backbone), task="birds")
    wrap(backbone.model.layer2[0])
    for use in (lambda: attach_gates(backbone, labels=LABELS), lambda: fold(backbone, adapter)):
        with pytest.raises(BackboneChangedError, match=r"layer 'layer2.0' has (forward|other)"):
            use()
    with pytest.raises(BackboneError, match=r"Layer 'layer2.0' holds a function .* the original"):
        Backbone(backbone.model)


def test_a_function_of_a_layers_own_is_copied_with_it() -> None:
    backbone = make_backbone()
    backbone.model.layer2[0].register_forward_hook(lambda module, given, answer: answer * 2)
    backbone = Backbone(backbone.model)
    compute_again(backbone.model.layer1, reentrant=False)
    model = make_trained(backbone)
    folded = fold(backbone, Adapter.from_model(model, task="birds"))
    images = random_images()
    with torch.no_grad():
        assert torch.equal(model(images), folded(images))


ENTRANCES: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "forward": lambda net, images: net(images),
    "forward_features": lambda net, images: net.forward_features(images),
    "forward_head": lambda net, images: net.forward_head(net.forward_features(images)),
    "pre_logits": lambda net, images: net.forward_head(
        net.forward_features(images), pre_logits=True
    ),
    "forward_intermediates": lambda net, images: net.forward_intermediates(images),
    "intermediates only": lambda net, images: net.forward_intermediates(
        images, intermediates_only=True
    ),
}


def flatten(answer: object) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    return [tensor for part in answer for tensor in flatten(part)]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_entrance_of_the_network_finds_its_gates(family: str, entrance: str) -> None:
    backbone = FAMILIES[family]()
    model = make_trained(backbone, norm="stats")
    folded = fold(backbone, Adapter.from_model(model, task="birds"))
    images = random_images(2, SIDE)
    if "intermediates" in entrance and not hasattr(folded, "forward_intermediates"):
        pytest.skip(f"timm's {family} has no forward_intermediates")
    with torch.no_grad():
        found, expected = (flatten(ENTRANCES[entrance](net, images)) for net in (model.net, folded))
    assert len(found) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_layers_called_by_themselves_and_hooks_find_their_gates(tiny_backbone: Backbone) -> None:
    model = make_trained(tiny_backbone)
    folded = fold(tiny_backbone, Adapter.from_model(model, task="birds"))
    heard: dict[str, list[Tensor]] = {"gated": [], "folded": []}
    for kind, net in (("gated", model.net), ("folded", folded)):
        for name, module in net.named_modules():
            if name in folded.state_dict() or not name or "gated_weight" in name:
                continue
            module.register_forward_hook(
                lambda module, given, answer, kind=kind: heard[kind].append(answer.detach())
            )
    images = random_images()
    model(images), folded(images)
    assert len(heard["gated"]) == len(heard["folded"]) > 20
    assert all(torch.equal(a, b) for a, b in zip(heard["gated"], heard["folded"], strict=True))
    for site in model.layout.sites:
        gated, plain = (net.get_submodule(site) for net in (model.net, folded))
        values = torch.randn(2, plain.in_channels, 8, 8)
        assert torch.equal(gated(values), plain(values))
        assert torch.equal(gated.weight, plain.weight)


def reload(model: GatedModel) -> GatedModel:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def restate(model: GatedModel) -> GatedModel:
    fresh = attach_gates(make_backbone(), labels=LABELS, norm="stats")
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    return fresh


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        reload,
        restate,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: DataParallel(copy.deepcopy(model)).module,
    ],
    ids=["deepcopy", "torch.save", "state", "pickle", "parallel"],
)
def test_a_copy_has_gates_of_its_own(duplicate: Callable[[GatedModel], GatedModel]) -> None:
    model = make_trained(make_backbone(), norm="stats")
    images = random_images(3)
    before = model(images).detach()
    twin = duplicate(model)
    assert torch.equal(twin(images), before)
    check_gradients(
        find_gradients(twin, images, train=True),
        find_gradients(copy.deepcopy(model), images, train=True),
    )
    disturb(twin)
    assert not torch.allclose(twin(images), before, rtol=0.01)
    assert torch.equal(model(images), before)


def test_a_replica_computes_with_the_tensors_it_is_given() -> None:
    """As DataParallel makes it: without parameters, with tensors in their place."""
    model = make_trained(make_backbone())
    replicas = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in replicas.items():
        for name, child in module._modules.items():
            setattr(replica, name, replicas[child])
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else parameter * 1)
    images = random_images(3)
    replicas[model](images).sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    answer = model(images)
    answer.sum().backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert torch.equal(replicas[model](images), answer)
    check_gradients(found, expected)


def test_a_compiled_model_has_its_gates() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(ScaledStdConv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    model = make_trained(Backbone(OneLayer(layers, 8)), norm="stats")
    images = random_images(3)
    expected = find_gradients(model, images, train=False)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    answer = compiled(images)
    assert_parity(answer.detach(), model(images).detach(), AGAIN)
    model.zero_grad()
    nn.functional.cross_entropy(answer, torch.arange(3)).backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    check_gradients(found, expected)
    disturb(model)
    with torch.no_grad():
        assert_parity(compiled(images), model(images), AGAIN)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "translate",
    [
        lambda model, images: torch.jit.trace(model, images),
        lambda model, images: torch.export.export(model, (images,)).module(),
        lambda model, images: torch.fx.symbolic_trace(model),
    ],
    ids=["jit", "export", "fx"],
)
def test_a_translated_model_has_its_gates(
    translate: Callable[[nn.Module, Tensor], nn.Module],
) -> None:
    model = make_trained(make_backbone())
    images = random_images(3)
    with torch.no_grad():
        assert_parity(translate(model, images)(images), model(images), AGAIN)


def test_a_call_with_other_tensors_computes_with_them(tiny_backbone: Backbone) -> None:
    model, other = (make_trained(tiny_backbone, seed=seed) for seed in (1, 2))
    images = random_images(3)
    state = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        assert torch.equal(functional_call(model, state, (images,)), other(images))


def test_a_gated_model_answers_many_threads(tiny_backbone: Backbone) -> None:
    model = make_trained(tiny_backbone)
    images = random_images(3)
    with torch.no_grad():
        expected = model(images)

    def ask() -> Tensor:
        with torch.no_grad():
            return model(images)

    answers = call_at_once(ask)
    assert all(torch.equal(answer, expected) for answer in answers)


def test_a_gated_weight_cannot_be_set(tiny_backbone: Backbone) -> None:
    model = make_trained(tiny_backbone)
    for value in (nn.Parameter(torch.zeros(8, 8, 3, 3)), torch.zeros(8, 8, 3, 3), None):
        with pytest.raises(GateError, match="frozen kernel times its gate; it cannot be set"):
            model.net.layer1[0].conv1.weight = value
