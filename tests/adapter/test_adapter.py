"""The adapter as an object: made of a model, saved, loaded, and used on its backbone."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import FrozenInstanceError
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone, digest_tensors
from gatehub.errors import (
    AdapterFormatError,
    BackboneMismatchError,
    ConfigError,
    NegativeVarianceError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnsafeNameError,
)
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from tests.adapter.sample import CONFIG, GOLDEN, PROBE, TENSORS, make_sample, sample_tensors
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


def test_an_adapter_keeps_nothing_that_others_change() -> None:
    tensors = sample_tensors()
    adapter = make_sample(tensors=tensors)
    before = adapter.digest
    tensors["head.bias"] = tensors["head.bias"] + 1
    tensors["head.weight"].requires_grad_(True)
    assert adapter.digest == before
    assert not adapter.tensors["head.weight"].requires_grad


def test_an_adapter_is_copied_and_pickled(tiny_adapter: Adapter) -> None:
    for adapter in (tiny_adapter, Adapter.load(GOLDEN), make_sample(probe=PROBE)):
        for again in (
            copy.copy(adapter),
            copy.deepcopy(adapter),
            *(pickle.loads(pickle.dumps(adapter, protocol)) for protocol in range(2, 6)),
        ):
            assert again.config == adapter.config
            assert again.digest == adapter.digest
            with pytest.raises(TypeError, match="does not support item assignment"):
                again.tensors["head.bias"] = torch.zeros(3)  # type: ignore[index]


def test_a_deep_copy_has_memory_of_its_own(tiny_adapter: Adapter) -> None:
    again = copy.deepcopy(tiny_adapter)
    places = {tensor.data_ptr() for tensor in tiny_adapter.tensors.values()}
    assert places.isdisjoint(tensor.data_ptr() for tensor in again.tensors.values())


@pytest.mark.slow
def test_an_adapter_goes_to_a_process_that_is_spawned(tiny_adapter: Adapter) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(attrgetter("digest"), tiny_adapter).result() == tiny_adapter.digest


UNSOUND = [
    ("conv1.gate", torch.full((2, 3), torch.nan), NonFiniteTensorError, "holds NaN or infinity"),
    ("head.bias", torch.tensor([0, -torch.inf]), NonFiniteTensorError, "holds NaN or infinity"),
    ("head.bias", torch.ones(2).double() * 1e39, NonFiniteTensorError, "holds values beyond the"),
    ("bn1.running_var", torch.tensor([1, -1e-30]), NegativeVarianceError, "holds -1e-30; a vari"),
    ("head.bn.running_var", torch.tensor(-1.0), NegativeVarianceError, "holds -1; a variance is"),
    ("head.bias", torch.ones(0), TensorShapeError, r"is \[0\]: no value"),
    ("head.weight", torch.ones(2, 0), TensorShapeError, r"is \[2, 0\]: no value"),
    ("head.bias", torch.ones(2, dtype=torch.int64), TensorDtypeError, "is of torch.int64"),
    ("head.bias", torch.ones(2, dtype=torch.complex64), TensorDtypeError, "is of torch.complex64"),
    ("head.bias", torch.ones(2, device="meta"), TensorDtypeError, "is without memory"),
    ("head.bias", torch.ones(2).to_sparse(), TensorDtypeError, "is of layout torch.sparse_coo"),
    ("head.bias", [0.5, 0.5], TensorDtypeError, "is a list; expected a dense tensor"),
]


@pytest.mark.parametrize(("name", "value", "error", "match"), UNSOUND)
def test_an_object_that_cannot_compute_is_never_made(
    name: str, value: torch.Tensor, error: type[AdapterFormatError], match: str
) -> None:
    with pytest.raises(error, match=f"Tensor '{name}' in adapter 'fruit' {match}"):
        make_sample(tensors={**sample_tensors(), name: value})


def test_a_model_that_diverged_becomes_no_adapter(trained_model: GatedModel) -> None:
    with torch.no_grad():
        next(iter(trained_model.gate_parameters().values())).fill_(torch.nan)
    with pytest.raises(NonFiniteTensorError, match=r"NaN or infinity\. The training diverged"):
        Adapter.from_model(trained_model, task="birds")


def test_a_running_variance_below_zero_is_refused_of_a_model(tiny_backbone: Backbone) -> None:
    model = make_trained(tiny_backbone, norm="stats")
    model.net.get_submodule("bn1").running_var.neg_()
    with pytest.raises(
        NegativeVarianceError, match=r"'bn1\.running_var' in adapter 'birds' holds -"
    ):
        Adapter.from_model(model, task="birds")


def test_a_tensor_of_no_dimension_stays_what_it_is(tmp_path: Path) -> None:
    """Some networks learn one number for a whole layer."""
    tensors = {**sample_tensors(), "bn1.gamma": torch.tensor(0.75)}
    loaded = Adapter.load(make_sample(tensors=tensors).save(tmp_path / "fruit"))
    assert loaded.tensors["bn1.gamma"].shape == ()
    assert loaded.tensors["bn1.gamma"].item() == 0.75
    assert loaded.digest == make_sample(tensors=tensors).digest


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
    with pytest.raises(UnsafeNameError, match=r"'\.\./birds' is not a valid task name"):
        Adapter.from_model(trained_model, task="../birds")


def test_figures_that_could_not_be_stored_are_refused(trained_model: GatedModel) -> None:
    with pytest.raises(ConfigError, match="metric 'accuracy' nan"):
        Adapter.from_model(trained_model, task="birds", metrics={"accuracy": float("nan")})
