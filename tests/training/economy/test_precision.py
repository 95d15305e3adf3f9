"""Steps in half precision: what is learned stays in float32, and a run goes on bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gatehub.backbone import Backbone
from gatehub.errors import TrainingError
from gatehub.gates.attach import attach_gates
from gatehub.training.economy.precision import MixedPrecision, check_precision
from gatehub.training.methods.train_network import train_network
from gatehub.training.range_test import sweep_rates
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport
from gatehub.training.train import train_adapter
from tests.tiny import make_backbone, make_trained
from tests.training.tasks import colour_data

HALF = ["bfloat16", "float16"]
RECIPE = Recipe(epochs=3, batch_size=16, seed=5, keep="last")


class CutOff:
    """An observer that interrupts the run after its first epoch."""

    def on_start(self, *given: object, **named: object) -> None: ...

    def on_step(self, step: object) -> None: ...

    def on_epoch(self, *given: object) -> None:
        raise KeyboardInterrupt


def run(backbone: Backbone, out: Path, recipe: Recipe, **options: object) -> TrainReport:
    return train_adapter(
        backbone,
        colour_data(),
        out,
        task="t",
        recipe=recipe,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("precision", HALF)
def test_a_run_in_half_precision_learns_and_goes_on_bit_for_bit(
    tiny_backbone: Backbone, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, precision=precision)
    computed: set[tuple[bool, torch.dtype]] = set()
    convolve = torch.nn.Conv2d.forward

    def watch(layer: torch.nn.Conv2d, images: Tensor) -> Tensor:
        answer = convolve(layer, images)
        if answer.device.type == "cpu":
            computed.add((torch.is_autocast_enabled("cpu"), answer.dtype))
        return answer

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watch)
    whole = run(tiny_backbone, tmp_path / "whole", recipe)
    assert computed == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert whole.accuracy > 0.9
    assert {tensor.dtype for tensor in whole.adapter.tensors.values()} == {torch.float32}
    assert whole.adapter.config.training["precision"] == precision
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, tmp_path / "cut", recipe, observer=CutOff())
    with pytest.raises(TrainingError, match=rf"precision = '{precision}', but 'float32' is asked"):
        run(tiny_backbone, tmp_path / "cut", RECIPE, resume=True)
    run(tiny_backbone, tmp_path / "cut", recipe, resume=True)
    files = [tmp_path / name / "gates.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_scale_of_gradients_goes_on() -> None:
    mixed = MixedPrecision("float16", torch.device("cpu"))
    value = torch.nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([value], lr=0.1)
    for gradient in (1.0, float("inf"), 1.0):
        mixed.scaler.scale(value.sum()).backward()
        value.grad = torch.full((1,), gradient)
        mixed.scaler.unscale_(optimiser)
        mixed.scaler.step(optimiser)
        mixed.scaler.update()
    state = mixed.read_state()
    assert state["scale"] == 2.0**15  # halved once
    other = MixedPrecision("float16", torch.device("cpu"))
    other.restore_state(state)
    assert other.scaler.state_dict() == mixed.scaler.state_dict()
    assert MixedPrecision("float32", torch.device("cpu")).read_state() == {}


@pytest.mark.parametrize("gates", ["full", "lowrank:2", "scale"])
def test_gates_are_not_rounded_by_autocast(gates: str) -> None:
    model = make_trained(make_backbone(), gates=gates)
    layer = model.net.get_submodule(next(iter(model.layout.sites)))
    expected = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.weight
    assert found.dtype is torch.float32
    assert torch.equal(found, expected)  # type: ignore[arg-type]


def test_a_device_that_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for precision in ("float32", *HALF):
        check_precision(precision, cpu)
    with pytest.raises(TrainingError, match=r"device meta cannot train with precision bfloat16"):
        check_precision("bfloat16", torch.device("meta"))
    # As where torch warns and goes on: a processor or a version without that autocast.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.no_grad())
    with pytest.raises(TrainingError, match=r"cannot train with precision float16") as refusal:
        check_precision("float16", cpu)
    assert refusal.value.hint == "Use float32, which every device has."


def test_a_model_under_autocast_answers_in_half_precision(tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=["a", "b"])
    with MixedPrecision("bfloat16", torch.device("cpu")).compute():
        assert model(torch.randn(2, 3, 32, 32)).dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_backbone_that_was_cast_is_refused(
    dtype: torch.dtype, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    cast = copy.deepcopy(tiny_backbone).to(dtype)
    found = str(dtype).removeprefix("torch.")
    for train in (
        lambda: train_adapter(cast, colour_data(), tmp_path / "a", task="t"),
        lambda: train_network(cast, colour_data(), tmp_path / "a", task="t", method="scratch"),
        lambda: sweep_rates(cast, colour_data(), recipe=Recipe()),
    ):
        with pytest.raises(TrainingError, match=f"has weights in {found}; expected float32"):
            train()
    assert not any(tmp_path.iterdir())
