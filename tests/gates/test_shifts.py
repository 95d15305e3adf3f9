"""Biases of gated layers as the task's own: which layers get one, and where it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.arithmetic import merge_adapters, reduce_rank
from gatehub.backbone import Backbone
from gatehub.errors import GateError, MissingTensorError, TensorShapeError, UnknownTensorError
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import fold
from gatehub.gates.layout import plan_gates
from gatehub.gates.norms import find_shifts
from gatehub.runtime.engine import Engine
from tests.parity import assert_parity
from tests.tiny import LABELS, SIDE, disturb, make_backbone, random_images


@pytest.fixture(scope="module")
def convnext() -> Backbone:
    return make_backbone(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=4,
        pretrained_cfg_overlay={"input_size": (3, SIDE, SIDE), "crop_pct": 1.0},
    )  # fmt: skip


def make_task(backbone: Backbone, seed: int, **settings: str | None) -> GatedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = attach_gates(backbone, labels=LABELS, shift=True, **settings)  # type: ignore[arg-type]
        disturb(model)
    return model


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("vgg11", {}, {"features.0", "features.3", "features.18", "pre_logits.fc1"}),
        ("efficientnet_b0", {}, {"blocks.0.0.se.conv_reduce", "blocks.6.0.se.conv_expand"}),
        ("nfnet_f0", {}, {"stem.conv1", "stages.0.0.conv2"}),
    ],
)
def test_layers_with_a_bias_and_no_batch_norm_behind_them_get_a_shift(
    name: str, arguments: dict[str, object], expected: set[str]
) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
    layout = plan_gates(model, exclude=("head", "classifier"))
    found = find_shifts(model, layout.sites, input_size=(3, 64, 64))
    assert found >= expected
    biased = {site for site in layout.sites if model.get_submodule(site).bias is not None}
    assert found == biased  # none of these has a bias before a batch norm


def test_a_batch_norm_takes_a_shift_away() -> None:
    with torch.device("meta"):
        model = timm.create_model("vgg11_bn")
    layout = plan_gates(model, exclude=("head",))
    assert model.get_submodule("features.0").bias is not None
    # What lies behind the norms has shifts, what a norm follows has none.
    found = find_shifts(model, layout.sites, input_size=(3, 64, 64))
    assert found == {"pre_logits.fc1", "pre_logits.fc2"}


def test_a_network_without_a_place_for_shifts_is_refused(tiny_backbone: Backbone) -> None:
    with pytest.raises(
        GateError, match=r"A shift adds nothing to the \d+ gated layers of ResNet"
    ) as caught:
        attach_gates(tiny_backbone, labels=LABELS, shift=True)
    assert "norm 'affine'" in str(caught.value.hint)


@pytest.mark.parametrize("norm", ["frozen", "affine"])
def test_a_shift_begins_at_the_backbone_and_learns(norm: str, convnext: Backbone) -> None:
    model = attach_gates(convnext, labels=LABELS, norm=norm, shift=True)
    images = random_images()
    expected = convnext.model.forward_features(images)
    assert_parity(model.net.forward_features(images), expected)
    shifts = {name: model.norm_parameters()[name] for name in model.layout.shift_names()}
    assert len(shifts) == len(model.layout.sites)
    model(images).square().sum().backward()
    assert all(shift.grad is not None and shift.grad.any() for shift in shifts.values())


@pytest.mark.parametrize("gates", ["auto", "scale"])
@pytest.mark.parametrize("start", [None, "stages.2"])
def test_a_task_with_shifts_answers_alike_wherever_it_runs(
    gates: str, start: str | None, convnext: Backbone, tmp_path: Path
) -> None:
    models = {task: make_task(convnext, seed, gates=gates, start=start)
              for seed, task in enumerate(("birds", "cars"))}  # fmt: skip
    images = random_images(4)
    engine = Engine(convnext, dtype="float32")
    for task, model in models.items():
        made = Adapter.from_model(model, task=task).with_probe(convnext, dtype="float32")
        made.save(tmp_path / task, dtype="float32")
        adapter = Adapter.load(tmp_path / task)
        assert adapter.config.format_version == 3
        assert adapter.layout == model.layout
        assert_parity(fold(convnext, adapter)(images), model(images))
        engine.load(task, adapter)
        assert_parity(engine.predict(task, images), model(images))
    tasks = ["birds", "cars", "birds", "cars"]
    mixed = torch.stack(engine.predict_mixed(tasks, images))
    expected = torch.cat([models[task](images[i : i + 1]) for i, task in enumerate(tasks)])
    assert_parity(mixed, expected)


def test_folding_puts_the_shift_in_the_bias_bit_for_bit(convnext: Backbone) -> None:
    adapter = Adapter.from_model(make_task(convnext, 0), task="birds")
    folded = fold(convnext, adapter).state_dict()
    for name in adapter.layout.shift_names():
        assert torch.equal(folded[name], adapter.tensors[name])


def test_merging_and_compressing_keep_shifts(convnext: Backbone) -> None:
    plain = Adapter.from_model(attach_gates(convnext, labels=LABELS), task="plain")
    shifted = Adapter.from_model(make_task(convnext, 0, gates="full"), task="birds")
    name = shifted.layout.shift_names()[0]
    merged = merge_adapters(convnext, [plain, shifted])
    own, theirs = convnext.model.state_dict()[name], shifted.tensors[name]
    assert torch.allclose(merged.tensors[name], (own + theirs) / 2, atol=1e-6)
    fold(convnext, merged)
    small = reduce_rank(shifted, 1)
    assert small.layout.shift_names() == shifted.layout.shift_names()
    assert small.layout != shifted.layout


def test_an_adapter_has_the_shifts_that_it_declares(convnext: Backbone, tmp_path: Path) -> None:
    adapter = Adapter.from_model(make_task(convnext, 0), task="birds")
    name = adapter.layout.shift_names()[0]
    without = {n: t for n, t in adapter.tensors.items() if n != name}
    with pytest.raises(MissingTensorError, match=f"declares a shift but no tensor '{name}'"):
        replace(adapter, tensors=without).save(tmp_path / "a")
    with pytest.raises(TensorShapeError, match="its shift needs"):
        replace(adapter, tensors={**adapter.tensors, name: torch.zeros(3)}).save(tmp_path / "a")
    plain = Adapter.from_model(attach_gates(convnext, labels=LABELS), task="birds")
    with pytest.raises(UnknownTensorError, match="neither a gate"):
        replace(plain, tensors={**plain.tensors, name: adapter.tensors[name]}).save(tmp_path / "a")
