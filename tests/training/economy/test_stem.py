"""What comes before late gates is computed once, and what is learned behind it stays the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import evaluation_batches, training_batches
from gatehub.training.data import ImageData
from gatehub.training.economy.held import hold_images
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.economy.stem import find_stem, hold_features
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.tiny import LABELS as BIRDS
from tests.tiny import make_backbone, make_trained, random_images, settle_norms, snapshot
from tests.training.tasks import colour_data, light_data
from tests.training.watching import CutOff

PLAIN = Recipe(epochs=3, batch_size=8, gate_rate=0.02, head_rate=0.01, min_crop=1.0, keep="last")
# Of `tiny_backbone` from layer3 on: 16 channels of 4 x 4.
ONE = 4 * 16 * 4 * 4


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
@pytest.mark.parametrize(
    ("architecture", "start", "norm", "recompute"),
    [
        ("resnet18", "layer3", "affine", False),
        ("resnet18", "layer3", "stats", True),
        ("resnetv2_18", "stages.2", "frozen", False),  # a block takes its input twice
        ("test_efficientnet", "blocks.2", "affine", True),
        ("test_convnext", "stages.2", "affine", True),
    ],
)
def test_the_rest_does_with_features_what_the_whole_does_with_images(
    architecture: str, start: str, norm: str, recompute: bool
) -> None:
    overlay = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}}
    if architecture == "resnet18":
        overlay = {}
    model = make_trained(make_backbone(architecture, **overlay), start=start, norm=norm)
    arrange_kernels(model)
    if recompute:
        recompute_blocks(model.net)
    before = snapshot(model)
    random = torch.get_rng_state()
    stem = find_stem(model)
    assert stem is not None
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())
    assert not any(module.training for module in model.modules())
    images = random_images(4, side=model.preprocessing.input_size[1])
    features = stem.compute(images)
    assert stem.count_bytes(4) == features.nbytes
    assert not features.requires_grad
    torch.testing.assert_close(stem.rest(features), model(images))
    gradients = []
    for network, given in ((model, images), (stem.rest, features)):
        network.train()
        nn.functional.cross_entropy(network(given), torch.arange(4) % len(BIRDS)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        network.zero_grad()
        model.eval()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


class Centre(nn.Module):
    """Answers for an image by what else is in its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Parts(nn.Module):
    """A frozen layer, and gated ones behind it, put together by a function."""

    def __init__(self, way: Callable[[Parts, Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way
        self.num_classes = 3
        self.begin = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(1e-9)
        self.centre = Centre()
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.reset_classifier(3)

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.way(self, images).mean((2, 3)))


def run_in_a_row(net: Parts, x: Tensor) -> Tensor:
    return net.body(net.norm(net.begin(x)).relu())


def read_the_images_again(net: Parts, x: Tensor) -> Tensor:
    return net.body(net.begin(x)) + x.mean()


def read_the_stem_again(net: Parts, x: Tensor) -> Tensor:
    y = net.begin(x)
    return net.body(net.norm(y)) + y.exp()


def scale_between(net: Parts, x: Tensor) -> Tensor:
    return net.body(2 * net.begin(x))


def drop_sometimes(net: Parts, x: Tensor) -> Tensor:
    return net.body(net.drop(net.begin(x)))


def mix_images(net: Parts, x: Tensor) -> Tensor:
    return net.body(net.centre(net.begin(x)))


def change_in_place(net: Parts, x: Tensor) -> Tensor:
    y = net.begin(x)
    return net.body(net.drop(y)) + y.add_(1.0).mean()


def run_the_body_first(net: Parts, x: Tensor) -> Tensor:
    return net.begin(net.body(net.begin(x))[:, :3])


def assemble(way: Callable[[Parts, Tensor], Tensor]) -> GatedModel:
    torch.manual_seed(0)
    net = Parts(way)
    settle_norms(net)
    net.pretrained_cfg = {"input_size": (3, 16, 16), "architecture": "parts"}
    return attach_gates(Backbone(net), labels=BIRDS, norm="frozen", start="body")


@pytest.mark.parametrize(
    ("way", "found"),
    [
        (run_in_a_row, True),
        (read_the_images_again, False),
        (read_the_stem_again, False),
        (scale_between, False),
        (drop_sometimes, False),
        (mix_images, False),
        (change_in_place, False),
        (run_the_body_first, False),
    ],
)
def test_a_network_that_cannot_be_divided_has_no_stem(
    way: Callable[[Parts, Tensor], Tensor], found: bool
) -> None:
    model = assemble(way)
    before = snapshot(model)
    assert (find_stem(model) is not None) == found
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())
    assert not any(module.training for module in model.modules())


def test_gates_that_start_at_once_leave_no_stem(tiny_backbone: Backbone) -> None:
    assert find_stem(make_trained(tiny_backbone)) is None


def test_features_are_drawn_in_the_batches_of_images(tiny_backbone: Backbone) -> None:
    """And lie in memory as a stem gives them, or the rest would be slower."""
    data = light_data(12)
    model = attach_gates(tiny_backbone, labels=data.labels, start="layer3")
    arrange_kernels(model)
    stem = find_stem(model)
    assert stem is not None
    held = hold_features(stem, data.train)
    transform = model.preprocessing.transform()
    for read in (
        lambda examples: training_batches(examples, transform, batch_size=5, seed=1, epoch=2),
        lambda examples: evaluation_batches(examples, transform, batch_size=5),
        lambda examples: evaluation_batches(examples.sample(7, seed=1), transform, batch_size=5),
    ):
        batches = list(read(data.train))
        found = list(read(held))
        assert len(found) == len(batches)
        for (features, targets), (images, expected) in zip(found, batches, strict=True):
            assert torch.equal(targets, expected)
            assert features.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(features, stem.compute(images))


def count_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many images go through layer1, by passes."""
    counted: list[int] = []
    run = BasicBlock.forward

    def watch(block: BasicBlock, x: Tensor) -> Tensor:
        if block.conv1.out_channels == 8:
            counted.append(len(x))
        return run(block, x)

    monkeypatch.setattr(BasicBlock, "forward", watch)
    return counted


def train(
    backbone: Backbone, data: ImageData, out: Path, recipe: Recipe = PLAIN, **options: Any
) -> dict[str, Tensor]:
    options = {"start": "layer3", "decoded_bytes": 10**6, "dtype": "float32", **options}
    report = train_adapter(backbone, data, out, task="t", recipe=recipe, **options)
    return dict(report.adapter.tensors)


def assert_learned_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """All in all, not number by number: Adam makes a whole step of a gradient that is rounding."""
    assert found.keys() == expected.keys()
    begun = {name: 1.0 if name.endswith(".gate") else 0.0 for name in expected}
    learned, apart = (
        torch.cat([(tensor - than[name]).flatten() for name, tensor in of.items()]).norm()
        for of, than in ((expected, begun), (found, expected))
    )
    assert apart < 0.03 * learned


@pytest.mark.parametrize(
    ("norm", "changes"),
    [
        ("affine", {}),
        ("stats", {}),
        ("affine", {"precision": "bfloat16"}),
        ("affine", {"gradient_checkpointing": True}),
        ("frozen", {"class_weights": "balanced", "label_smoothing": 0.1}),
    ],
)
def test_an_adapter_is_the_same_whether_the_stem_runs_once_or_in_every_step(
    tiny_backbone: Backbone,
    tmp_path: Path,
    norm: str,
    changes: dict[str, Any],
) -> None:
    recipe = Recipe(**{**{n: getattr(PLAIN, n) for n in Recipe.__slots__}, **changes})
    data = colour_data(32, 12)

    def run(name: str, decoded_bytes: int) -> dict[str, Tensor]:
        return train(
            tiny_backbone, data, tmp_path / name, recipe, norm=norm, decoded_bytes=decoded_bytes
        )

    expected = run("every-step", 0)
    found = run("once", 10**6)
    moved = max((t - 1).abs().max().item() for n, t in expected.items() if n.endswith(".gate"))
    assert moved > 0.05
    if recipe.precision == "float32":
        assert_learned_alike(found, expected)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("every-step", "once")
    ]
    for one, two in zip(*logs, strict=True):
        if recipe.precision == "float32":
            assert two == pytest.approx(one, abs=0.1)
        else:  # the stem was rounded in every step
            assert two["val_loss"] == pytest.approx(one["val_loss"], abs=0.1)


def test_several_labels_an_image_are_learned_from_features(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    data = light_data(32, 16)
    expected = train(tiny_backbone, data, tmp_path / "every-step", decoded_bytes=0)
    found = train(tiny_backbone, data, tmp_path / "once")
    assert_learned_alike(found, expected)


def test_each_image_goes_through_the_stem_once(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe, the rates, all epochs and all measurements read what it gave.

    A few images try the stem, and the finished adapter is measured as a whole.
    """
    data, counted = colour_data(120, 50), count_images(monkeypatch)
    train(tiny_backbone, data, tmp_path / "once")
    assert sum(counted) in range(170 + 50, 170 + 2 * 50 + 20)


def test_images_that_are_drawn_go_through_the_stem_in_each_step(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those to validate on do not, whatever is drawn of the others."""
    data, counted = colour_data(120, 50), count_images(monkeypatch)
    notes: list[str] = []
    recipe = Recipe(epochs=2, batch_size=8, keep="last", min_crop=0.9)
    train(tiny_backbone, data, tmp_path / "out", recipe, note=notes.append)
    steps, probe, rates, val = 2 * 120, 120, 30 * 64, 50
    assert sum(counted) in range(steps + probe + val, steps + probe + rates + 3 * val + 20)
    assert counted.count(val) <= 3  # before the first epoch, and of the finished adapter
    assert notes == [
        "What comes before layer3 is computed once for the validation images, and in every step "
        "for those to train on, which differ from epoch to epoch."
    ]


def test_all_features_are_held_or_none(tiny_backbone: Backbone) -> None:
    data = colour_data(10)
    model = attach_gates(tiny_backbone, labels=data.labels, start="layer3")
    enough = hold_images(model, data.train, PLAIN, limit_bytes=10 * ONE)
    assert enough.train.features is not None
    assert len(enough.train.features) == 10
    assert enough.model is not model
    assert enough.note == (
        "What comes before layer3 is computed once for each image: 0.0 MB for the 10 to train on."
    )
    scarce = hold_images(model, data.train, PLAIN, limit_bytes=10 * ONE - 1)
    assert scarce.train.features is None
    assert scarce.model is model
    assert scarce.stem is not None
    assert scarce.note == (
        "What comes before layer3 is computed once for the validation images, and in every step "
        "for those to train on, which would take 0.0 MB, more than the 0.0 MB of decoded_bytes."
    )
    guided = hold_images(model, data.train, PLAIN, limit_bytes=10**6, guided=True)
    assert (guided.train.features, guided.model) == (None, model)
    assert str(guided.note).endswith(
        "in every step for those to train on, which the guide sees, too."
    )
    whole = hold_images(
        attach_gates(tiny_backbone, labels=data.labels), data.train, PLAIN, limit_bytes=10**6
    )
    assert (whole.train.features, whole.stem, whole.note) == (None, None, None)
    apart = hold_images(assemble(scale_between), data.train, PLAIN, limit_bytes=10**6)
    assert (apart.train.features, apart.stem) == (None, None)
    assert apart.note == "What comes before body cannot be computed apart in this network."


def test_a_run_has_the_same_bytes_again_and_when_it_was_interrupted(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    data = colour_data(32, 12)
    train(tiny_backbone, data, tmp_path / "whole")
    train(tiny_backbone, data, tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_backbone, data, tmp_path / "parts", observer=CutOff(1, in_next=2))
    train(tiny_backbone, data, tmp_path / "parts", resume=True)
    for file in ("gates.safetensors", "training.jsonl"):
        whole = (tmp_path / "whole" / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() == whole
        assert (tmp_path / "parts" / file).read_bytes() == whole
