"""A training run with a guide: what it learns, what it remembers, what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gatehub.adapter.folder import INFO_FILE
from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import DivergenceError, GuidanceError, ResumeError
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.training.checkpoint import work_folder
from gatehub.training.guidance import CKA
from gatehub.training.guidance.steering import Guide, Steering, _Converted
from gatehub.training.methods.train_network import train_network
from gatehub.training.parallel.team import Team
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport
from gatehub.training.train import train_adapter
from tests.tiny import make_backbone
from tests.training.guidance.networks import hooks_left
from tests.training.tasks import colour_data
from tests.training.watching import CutOff

RECIPE = Recipe(epochs=3, batch_size=16, seed=5, keep="last", gate_rate=0.05)


@pytest.fixture(scope="module")
def network() -> Backbone:
    """A guide of another width, size and normalisation."""
    guide = make_backbone(
        layers=(1, 1, 1, 1),
        channels=(12, 8, 8, 20),
        num_classes=7,
        pretrained_cfg_overlay={
            "input_size": (3, 24, 24),
            "crop_pct": 1.0,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4),
        },
        seed=3,
    )
    return guide


def run(backbone: Backbone, out: Path, **options: Any) -> TrainReport:
    options = {"recipe": RECIPE, "task": "colours", "gates": "full", **options}
    return train_adapter(backbone, colour_data(), out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def attach(backbone: Backbone, tensors: Mapping[str, Tensor] | None = None) -> GatedModel:
    model = attach_gates(backbone, labels=["a", "b", "c"], gates="full")
    for name, tensor in model.task_tensors().items():
        if tensors is not None:
            tensor.copy_(tensors[name])
    return model


def test_what_is_learned_comes_to_lie_as_the_guide_does(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms: list[float] = []
    find = Steering.loss

    def note(self: Steering, images: Tensor) -> Tensor:
        found = find(self, images)
        if len(images) == RECIPE.batch_size:
            terms.append(found.item())
        return found

    monkeypatch.setattr(Steering, "loss", note)
    recipe = replace(RECIPE, epochs=6)
    run(tiny_backbone, tmp_path / "a", recipe=recipe, guide=Guide(network=network, weight=100))
    assert len(terms) == 18
    assert sum(terms[-3:]) < 0.9 * sum(terms[:3])


def test_an_adapter_remembers_its_guide(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path
) -> None:
    drawn = Backbone(network.model, source="seed:3")
    guide = Guide(network=drawn, weight=0.5, steps=2)
    training = run(tiny_backbone, tmp_path / "a", guide=guide).adapter.config.training

    told = {name: value for name, value in training.items() if name.startswith("guide")}
    assert told == {
        "guide": "resnet18",
        "guide_digest": drawn.digest,
        "guide_untrained": True,
        "guide_weight": 0.5,
        "guide_steps": 2,
    }
    assert "--guide resnet18 --guide-weight 0.5 --guide-steps 2" in (
        tmp_path / "a" / "README.md"
    ).read_text("utf-8")
    alone = run(tiny_backbone, tmp_path / "b").adapter.config.training
    assert not any(name.startswith("guide") for name in alone)


def test_an_interrupted_run_ends_as_one_that_was_not(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path
) -> None:
    """The guide's last step lies behind the interruption."""
    guide = Guide(network=network, steps=5)
    whole = run(tiny_backbone, tmp_path / "whole", guide=guide)
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, guide=guide, observer=CutOff(1, in_next=1))
    for others, sentence in (
        ({"guide": None}, r"has guide = 'resnet18', but none given is asked for now"),
        ({"guide": replace(guide, weight=2)}, r"has guide_weight = 1\.0, but 2\.0 is asked for"),
        ({"guide": replace(guide, steps=6)}, r"has guide_steps = 5, but 6 is asked for now"),
        ({"guide": replace(guide, network=make_backbone())}, r"has guide_digest = "),
    ):
        with pytest.raises(ResumeError, match=sentence):
            run(tiny_backbone, out, resume=True, **others)
    run(tiny_backbone, out, guide=guide, resume=True)
    assert contents(out) == contents(whole.folder)

    begun = tmp_path / "begun"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, begun, observer=CutOff(1))
    with pytest.raises(ResumeError, match="has guide = none given, but 'resnet18' is asked for"):
        run(tiny_backbone, begun, guide=guide, resume=True)


def test_a_guide_of_the_first_steps_leaves_the_others_alone(
    tiny_backbone: Backbone, network: Backbone
) -> None:
    model, images = attach(tiny_backbone), torch.randn(8, 3, 32, 32)
    steering = Steering(Guide(network=network, steps=2), model)
    before = hooks_left(model, network)  # a gated model has its own
    terms = []
    for step in range(4):
        with steering.watching(step):
            looked = hooks_left(model, network) > before
            model(images)
        terms.append((looked, steering.loss(images).requires_grad))
        assert hooks_left(model, network) == before
    assert terms == [(True, True), (True, True), (False, False), (False, False)]


@pytest.mark.parametrize("side", [32, 24, 40])
def test_a_guide_sees_images_as_it_would_read_them(side: int) -> None:
    """Exactly at its own size, and near to that where images come in another."""
    y, x = np.mgrid[0:side, 0:side] / side
    smooth = np.stack([x, y, (x + y) / 2], 2)
    picture = Image.fromarray((255 * smooth).astype(np.uint8))
    common = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}
    given = Preprocessing(
        input_size=(3, side, side), mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.2), **common
    )
    own = Preprocessing(input_size=(3, 24, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), **common)
    network = make_backbone()
    network.preprocessing = own
    network.forward = lambda images: images  # type: ignore[method-assign, assignment]
    found = _Converted(network, given)(given.transform()(picture)[None])

    assert found.shape == (1, 3, 24, 24)
    close = 1e-5 if side == 24 else 0.05
    assert (found[0] - own.transform()(picture)).abs().max() < close


def test_half_precision_is_for_the_target_alone(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = Backbone.forward

    def watch(self: Backbone, images: Tensor) -> Tensor:
        answer = forward(self, images)
        if self is network:
            seen.add((torch.is_autocast_enabled("cpu"), answer.dtype, answer.requires_grad))
        return answer

    monkeypatch.setattr(Backbone, "forward", watch)
    recipe = replace(RECIPE, precision="bfloat16", epochs=2)
    report = run(tiny_backbone, tmp_path / "a", recipe=recipe, guide=Guide(network=network))
    assert seen == {(False, torch.float32, False)}
    assert all(t.isfinite().all() for t in report.adapter.tensors.values())


def test_a_network_that_is_trained_whole_is_steered_too(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path
) -> None:
    """Guidance was published for training from scratch."""
    products = []
    for number, guide in enumerate((None, Guide(network=network), Guide(network=network))):
        report = train_network(
            tiny_backbone,
            colour_data(),
            tmp_path / f"{number}",
            task="colours",
            method="scratch",
            recipe=replace(RECIPE, epochs=1),
            guide=guide,
        )
        products.append(contents(report.folder))
    alone, guided, again = products
    assert guided == again
    assert guided["model.safetensors"] != alone["model.safetensors"]
    assert b'"guide": "resnet18"' in guided[INFO_FILE]


def test_runs_that_no_guide_can_steer_are_refused(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path
) -> None:
    guide = Guide(network=network)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"team": Team(0, 2)}, "each of 2 devices would see only its share"),
        (
            {"recipe": replace(RECIPE, gradient_checkpointing=True)},
            "what gradient checkpointing throws away",
        ),
        ({"recipe": replace(RECIPE, batch_size=2)}, "has 2 images, and a guide compares 3 or more"),
        (
            {"gates": "none", "norm": "frozen", "recipe": replace(RECIPE, epochs=0)},
            "No layer that the guide would steer depends on anything that is learned",
        ),
    ]
    for options, sentence in cases:
        with pytest.raises(GuidanceError, match=sentence):
            run(tiny_backbone, tmp_path / "a", guide=guide, **options)
        assert not (tmp_path / "a").exists()
    with pytest.raises(GuidanceError, match="With method 'lora' a layer's output is the sum"):
        guide.check_run(RECIPE, images=48, method="lora")
    unbiased = replace(guide, distance=CKA(unbiased=True))
    with pytest.raises(GuidanceError, match="a guide compares 4 or more"):
        run(tiny_backbone, tmp_path / "a", guide=unbiased, recipe=replace(RECIPE, batch_size=3))
    for steps in (0, -1, 2.5, True, 2**63):
        with pytest.raises(GuidanceError, match=r"guide_steps is .*; expected 1 or more"):
            Guide(network=network, steps=steps)  # type: ignore[arg-type]


def test_a_distance_that_is_not_finite_ends_the_run(
    tiny_backbone: Backbone, network: Backbone, tmp_path: Path
) -> None:
    class Broken(CKA):
        calls = 0

        def compare(self, first: Tensor, second: Tensor) -> Tensor:
            Broken.calls += 1
            found = super().compare(first, second)
            return found * float("nan") if Broken.calls > 60 else found

    with pytest.raises(DivergenceError, match=r"The distance of layer .* became nan"):
        run(tiny_backbone, tmp_path / "a", guide=Guide(network=network, distance=Broken()))
    assert not work_folder(tmp_path / "a").exists()
