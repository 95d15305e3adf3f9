"""The adapter as an object: made of a model, saved, loaded, and used on its backbone."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone, digest_tensors
from gatehub.errors import BackboneMismatchError, ConfigError, UnsafeNameError
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from tests.adapter.sample import CONFIG, GOLDEN, TENSORS, make_sample, sample_tensors
from tests.tiny import disturb, make_backbone, make_trained, random_images


def test_an_adapter_is_all_that_its_model_has_of_its_own(
    trained_model: GatedModel, tiny_backbone: Backbone
) -> None:
    adapter = Adapter.from_model(
        trained_model, task="birds", metrics={"accuracy": 0.5}, training={"epochs": 2}
    )
    assert adapter.task == "birds"
    assert adapter.labels == trained_model.labels
    assert adapter.backbone == tiny_backbone.identity
    assert adapter.layout == trained_model.layout
    assert adapter.preprocessing == tiny_backbone.preprocessing
    assert adapter.config.metrics == {"accuracy": 0.5}
    assert adapter.config.training == {"epochs": 2}
    tensors = trained_model.task_tensors()
    assert list(adapter.tensors) == list(tensors)
    assert all(torch.equal(adapter.tensors[name], tensor) for name, tensor in tensors.items())


def test_an_adapter_stays_when_its_model_goes_on_learning(trained_model: GatedModel) -> None:
    adapter = Adapter.from_model(trained_model, task="birds")
    before = adapter.digest
    disturb(trained_model)
    assert adapter.digest == before
    assert Adapter.from_model(trained_model, task="birds").digest != before


def test_an_adapter_never_changes(tiny_adapter: Adapter) -> None:
    with pytest.raises(FrozenInstanceError):
        tiny_adapter.config = tiny_adapter.config  # type: ignore[misc]
    for adapter in (tiny_adapter, Adapter.load(GOLDEN)):
        with pytest.raises(TypeError, match="does not support item assignment"):
            adapter.tensors["head.bias"] = torch.zeros(3)  # type: ignore[index]


def test_adapters_are_compared_as_objects() -> None:
    one, other = Adapter.load(GOLDEN), Adapter.load(GOLDEN)
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    assert one.digest == other.digest


@pytest.mark.parametrize("gates", ["auto", "full", "lowrank:2", "scale"])
@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_a_loaded_adapter_folds_to_what_its_model_computes(
    gates: str, norm: str, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    model = make_trained(tiny_backbone, gates=gates, norm=norm, start="layer2")
    saved = Adapter.from_model(model, task="birds").save(tmp_path / "birds", dtype="float32")

    loaded = Adapter.load(saved)

    images = random_images()
    with torch.no_grad():
        expected, found = model(images), fold(tiny_backbone, loaded)(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert loaded.layout == model.layout


def test_what_is_loaded_is_what_was_promised(tiny_adapter: Adapter, tmp_path: Path) -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        loaded = Adapter.load(tiny_adapter.save(tmp_path / dtype, dtype=dtype))
        assert loaded.digest == tiny_adapter.as_stored(dtype).digest
        assert (loaded.digest == tiny_adapter.digest) == (dtype == "float32")


def test_float16_is_the_default_and_half_as_large(tiny_adapter: Adapter, tmp_path: Path) -> None:
    default = tiny_adapter.save(tmp_path / "default")
    half = tiny_adapter.save(tmp_path / "half", dtype="float16")
    whole = tiny_adapter.save(tmp_path / "whole", dtype="float32")
    assert (default / TENSORS).read_bytes() == (half / TENSORS).read_bytes()
    gates = sum(tiny_adapter.tensors[name].numel() for name in tiny_adapter.layout.gate_shapes())
    saving = (whole / TENSORS).stat().st_size - (half / TENSORS).stat().st_size
    assert abs(saving - 2 * gates) < 100  # the header's own length may differ


def test_another_backbone_is_refused_with_both_digests(adapter_folder: Path) -> None:
    adapter = Adapter.load(adapter_folder)
    other = make_backbone(seed=7)
    with pytest.raises(BackboneMismatchError, match="was trained on") as caught:
        fold(other, adapter)
    assert adapter.backbone.digest[:12] in caught.value.message
    assert other.digest[:12] in caught.value.message


def test_other_figures_leave_everything_else(tmp_path: Path) -> None:
    adapter = make_sample().with_metrics({"accuracy": 0.5, "images": 12})
    assert make_sample().config.metrics == {"accuracy": 0.75}
    folder = adapter.save(tmp_path / "fruit")
    assert (folder / TENSORS).read_bytes() == (GOLDEN / TENSORS).read_bytes()
    golden, found = (json.loads((at / CONFIG).read_bytes()) for at in (GOLDEN, folder))
    assert found == {**golden, "metrics": {"accuracy": 0.5, "images": 12.0}}


def test_the_digest_is_that_of_the_numbers() -> None:
    tensors = sample_tensors()
    assert make_sample().digest == digest_tensors(tensors) == Adapter.load(GOLDEN).digest
    tensors["head.bias"][0] += 1 / 16
    assert make_sample(tensors=tensors).digest != make_sample().digest


def test_names_that_are_paths_are_refused_before_anything_is_written(
    trained_model: GatedModel,
) -> None:
    with pytest.raises(UnsafeNameError, match=r"'\.\./birds' is no task name"):
        Adapter.from_model(trained_model, task="../birds")


def test_figures_that_could_not_be_stored_are_refused(trained_model: GatedModel) -> None:
    with pytest.raises(ConfigError, match="metric 'accuracy' nan"):
        Adapter.from_model(trained_model, task="birds", metrics={"accuracy": float("nan")})
