from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from gatehub.backbone import Backbone
from gatehub.backbone.structure import copy_structure, find_storages, own_memory, own_tensor
from gatehub.errors import BackboneError
from tests.tiny import OneLayer, make_backbone, random_images

COMPUTED: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "pruned": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        r"pruned, .*torch.nn.utils.prune.remove\(layer, 'weight'\)",
    ),
    "pruned twice": (
        lambda layer: [prune.random_structured(layer, "weight", 0.5, dim=d) for d in (0, 1)],
        r"pruned",
    ),
    "bias pruned": (
        lambda layer: prune.random_unstructured(layer, "bias", 2),
        r"its bias is recomputed .*prune.remove\(layer, 'bias'\)",
    ),
    "weight norm": (
        nn.utils.weight_norm,
        r"under weight_norm, .*torch.nn.utils.remove_weight_norm\(layer, 'weight'\)",
    ),
    "spectral norm": (
        nn.utils.spectral_norm,
        r"under spectral_norm, .*torch.nn.utils.remove_spectral_norm\(layer, 'weight'\)",
    ),
}
REMEDIES: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda layer: prune.remove(layer, "weight"),
    "pruned twice": lambda layer: prune.remove(layer, "weight"),
    "bias pruned": lambda layer: prune.remove(layer, "bias"),
    "weight norm": lambda layer: nn.utils.remove_weight_norm(layer, "weight"),
    "spectral norm": lambda layer: nn.utils.remove_spectral_norm(layer, "weight"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("place", ["layer1.0.conv1", "fc"])
@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed_before_every_pass_are_refused(name: str, place: str) -> None:
    model = make_backbone().model
    layer = model.get_submodule(place)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))
    form, message = COMPUTED[name]
    form(layer)
    with pytest.raises(BackboneError, match=f"Layer '{place}' .*{message}"):
        Backbone(model)
    REMEDIES[name](layer)
    with torch.no_grad():
        assert torch.equal(Backbone(model)(random_images()), model(random_images()))


def test_a_parametrized_classifier_is_replaced_like_any_other() -> None:
    model = OneLayer(nn.Conv2d(3, 8, 3), 8)
    parametrizations.weight_norm(model.fc)
    assert Backbone(model).heads == ("fc",)


@pytest.mark.parametrize("what", ["lock", "computed tensor", "generator"])
def test_what_cannot_be_copied_is_named(what: str) -> None:
    model = OneLayer(nn.Conv2d(3, 8, 3), 8)
    model.layer.cache = {
        "lock": lambda: threading.Lock(),
        "computed tensor": lambda: model.layer.weight * 2,
        "generator": lambda: (number for number in (1, 2)),
    }[what]()
    with pytest.raises(BackboneError, match=r"OneLayer cannot be copied: .*outside of them"):
        Backbone(model)


def test_a_copy_shares_tensors_until_it_has_memory_of_its_own() -> None:
    model = make_backbone().model
    lent = find_storages((*model.parameters(), *model.buffers()))
    copied = copy_structure(model)
    assert find_storages((*copied.parameters(), *copied.buffers())) == lent
    own_memory(copied, lenders=(*model.parameters(), *model.buffers()))
    held = (*copied.parameters(), *copied.buffers())
    assert find_storages(held).isdisjoint(lent)
    with torch.no_grad():
        assert torch.equal(copied(random_images()), model(random_images()))


def test_memory_that_is_nobody_elses_is_kept() -> None:
    model = make_backbone().model
    own_memory(model, lenders=[torch.zeros(3)])
    held = find_storages(model.parameters())
    own_memory(model, lenders=[])
    assert find_storages(model.parameters()) == held


def test_what_is_tied_stays_tied_and_what_learns_learns() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    model = nn.Sequential(first, second, first)
    own_memory(model, lenders=[*model.parameters()])
    assert model[0] is model[2]
    assert model[0].weight is model[1].weight
    assert model[0].weight.requires_grad
    assert not model[1].bias.requires_grad


def test_a_part_of_lent_memory_is_copied_as_it_lies() -> None:
    lender = torch.randn(2, 8, 8, 3)
    part = lender.permute(0, 3, 1, 2)
    copied = own_tensor(part, find_storages([lender]))
    assert torch.equal(copied, part)
    assert copied.stride() == part.stride()
    assert copied.untyped_storage().data_ptr() != lender.untyped_storage().data_ptr()
    assert own_tensor(part, set()) is part


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_of_a_broken_run_are_refused(value: float) -> None:
    model = make_backbone().model
    model.get_parameter("layer2.0.conv1.weight").data[0, 0, 1, 1] = value
    with pytest.raises(BackboneError, match=r"'layer2\.0\.conv1\.weight' .* holds NaN or infinity"):
        Backbone(model)
