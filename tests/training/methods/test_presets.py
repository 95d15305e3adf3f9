"""The methods whose result is an adapter: what they are, and what they refuse beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import TrainingError
from gatehub.training.methods.presets import ADAPTER_METHODS, Asked, apply_method
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.training.tasks import colour_data

NOTHING = Asked(gates=None, norm=None, epochs=None)


@pytest.mark.parametrize(
    ("method", "meant"),
    [
        ("gates", NOTHING),
        ("scale", Asked(gates="scale", norm=None, epochs=None)),
        ("norm", Asked(gates="none", norm=None, epochs=None)),
        ("linear", Asked(gates="none", norm="frozen", epochs=0)),
    ],
)
def test_a_method_says_what_is_trained(method: str, meant: Asked) -> None:
    assert apply_method(method, NOTHING) == meant
    assert apply_method(method, meant) == meant


def test_what_a_method_leaves_open_may_be_asked_for() -> None:
    asked = Asked(gates="lowrank:2", norm="stats", epochs=3)
    assert apply_method("gates", asked) == asked
    assert apply_method("norm", Asked(gates=None, norm="stats", epochs=3)).norm == "stats"


@pytest.mark.parametrize(
    ("method", "asked", "text"),
    [
        ("scale", {"gates": "full"}, "Method 'scale' is gates scale, and gates full is asked for"),
        ("norm", {"gates": "auto"}, "Method 'norm' is gates none, and gates auto"),
        ("norm", {"norm": "frozen"}, "Method 'norm' trains normalisation values"),
        ("linear", {"norm": "affine"}, "Method 'linear' is norm frozen, and norm affine"),
        ("linear", {"epochs": 2}, "Method 'linear' is epochs 0, and epochs 2"),
        ("prompt", {}, "method is 'prompt'; expected one of gates, scale, norm, linear"),
    ],
)
def test_what_contradicts_a_method_is_refused(
    method: str, asked: dict[str, str], text: str
) -> None:
    fields = {"gates": None, "norm": None, "epochs": None} | asked
    with pytest.raises(TrainingError, match=text):
        apply_method(method, Asked(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ADAPTER_METHODS)
def test_each_method_makes_an_adapter_that_says_how_good_it_is(
    method: str, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    asked = apply_method(method, Asked(gates=None, norm=None, epochs=None))
    report = train_adapter(
        tiny_backbone,
        colour_data(),
        tmp_path / "colours",
        task="colours",
        recipe=Recipe(epochs=2 if asked.epochs is None else asked.epochs, batch_size=16),
        gates=asked.gates,
        norm=asked.norm,
    )

    loaded = Adapter.load(tmp_path / "colours")
    assert loaded.digest == report.adapter.digest
    assert loaded.config.metrics["accuracy"] == report.accuracy >= report.start_accuracy
    assert (tmp_path / "colours" / "gates.png").is_file() == bool(loaded.layout.sites)
    own = {name.partition(".")[0] for name in loaded.tensors}
    assert (own == {"head"}) == (method == "linear")
    assert report.epochs == (0 if method == "linear" else 2)
    values = sum(tensor.numel() for tensor in loaded.tensors.values())
    assert report.trained_parameters == values


def test_the_linear_probe_is_where_every_method_starts(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    probe = train_adapter(
        tiny_backbone,
        colour_data(),
        tmp_path / "probe",
        task="colours",
        recipe=Recipe(epochs=0, batch_size=16),
        gates="none",
        norm="frozen",
    )
    gates = train_adapter(
        tiny_backbone,
        colour_data(),
        tmp_path / "gates",
        task="colours",
        recipe=Recipe(epochs=1, batch_size=16),
    )

    assert probe.accuracy == gates.start_accuracy
    settings = probe.adapter.config.training
    assert [settings[f"{group}_rate"] for group in ("gate", "norm", "head")] == [0, 0, 0]
    assert torch.isfinite(probe.adapter.tensors["head.weight"]).all()
