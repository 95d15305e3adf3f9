"""Networks to adapters, whole: what is kept, refused, and left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    AdapterExistsError,
    DataError,
    PoorFitError,
    TrainingError,
    UnsafeWeightsError,
)
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from gatehub.training.distillation import Distillation, distill_to_gates, read_network
from gatehub.training.distillation.images import read_images
from tests.tiny import make_backbone, random_images
from tests.training.distillation.networks import LABELS, fine_tune, make_described, write_images


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_described()


@pytest.fixture(scope="module")
def place(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    fine_tune(backbone, folder / "net")
    write_images(folder / "images")
    write_images(folder / "classes", classes=LABELS)
    return folder


def test_every_stage_comes_nearer_and_the_best_is_saved(
    backbone: Backbone, place: Path, tmp_path: Path
) -> None:
    settings = Distillation(steps=20, batch_size=8, max_drop=1.0, min_crop=1.0)
    report = distill_to_gates(
        backbone, place / "net", tmp_path / "out", data=place / "images", settings=settings
    )

    likeness = [stage.likeness.divergence for stage in report.stages]
    assert [stage.name for stage in report.stages] == ["least squares", "statistics", "training"]
    assert likeness[0] > likeness[1] > likeness[2]
    assert (report.kept, report.images, report.network_accuracy) == ("training", 8, None)
    adapter = Adapter.load(tmp_path / "out")
    assert (adapter.task, adapter.labels) == ("net", LABELS)
    assert adapter.config.metrics["agreement"] == report.stages[2].likeness.agreement
    with torch.no_grad():  # what is saved is what was measured
        answers = [fold(backbone, made)(random_images(2)) for made in (adapter, report.adapter)]
    assert torch.equal(*answers)


def test_what_is_worse_is_neither_kept_nor_gone_on_from(
    backbone: Backbone, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def spoil(model: GatedModel, *_: object) -> int:
        with torch.no_grad():
            for tensor in model.norm_parameters().values():
                begun.append(tensor.clone())
                tensor.mul_(-3)
        return len(begun)

    def look(model: GatedModel, *_: object, **__: object) -> None:
        assert all(map(torch.equal, begun, model.norm_parameters().values()))
        spoil(model)

    monkeypatch.setattr("gatehub.training.distillation.stages.match_moments", spoil)
    monkeypatch.setattr("gatehub.training.distillation.stages.imitate", look)
    settings = Distillation(steps=1, max_drop=1.0)
    report = distill_to_gates(
        backbone, place / "net", tmp_path / "out", data=place / "images", settings=settings
    )
    assert report.kept == "least squares"
    assert report.likeness == report.stages[0].likeness
    assert torch.equal(report.adapter.tensors["bn1.weight"], begun[0])


def test_labels_give_accuracies_and_images_are_not_trained_on_twice(
    backbone: Backbone, place: Path, tmp_path: Path
) -> None:
    settings = Distillation(steps=1, max_drop=1.0)
    report = distill_to_gates(
        backbone, place / "net", tmp_path / "out", data=place / "classes", settings=settings
    )
    assert report.network_accuracy is not None
    assert all(stage.likeness.accuracy is not None for stage in report.stages)
    network = read_network(place / "net")
    images = read_images(network, place / "classes", preprocessing=backbone.preprocessing)
    assert set(images.train.names).isdisjoint(images.held_out.names)
    assert len(images.train) + len(images.held_out) == 40


def test_what_a_network_was_validated_on_is_held_out(
    backbone: Backbone, place: Path, tmp_path: Path
) -> None:
    training = {"data": str(place / "classes"), "split_seed": 7, "split_val_fraction": 0.3}
    counts = {"train_count": 28, "val_count": 12}
    info = {"task": "colours", "labels": list(LABELS), "training": training | counts}
    network = read_network(fine_tune(backbone, tmp_path / "net", info=info))
    assert network.task == "colours"

    images = read_images(network, place / "classes", preprocessing=backbone.preprocessing)

    assert len(images.held_out) == 12
    other = read_images(
        read_network(place / "net"),
        place / "classes",
        preprocessing=backbone.preprocessing,
        held_out=0.3,
    )
    assert set(images.held_out.names) != set(other.held_out.names)


def test_classes_that_are_not_the_networks_are_no_labels(backbone: Backbone, place: Path) -> None:
    network = read_network(place / "net", labels=["x", "y", "z"])
    images = read_images(network, place / "classes", preprocessing=backbone.preprocessing)
    assert not images.labelled
    assert "no accuracy is measured" in images.notes[-1]


def test_without_images_weights_are_fitted_and_nothing_is_said_of_it(
    backbone: Backbone, place: Path, tmp_path: Path
) -> None:
    report = distill_to_gates(backbone, place / "net", tmp_path / "out")
    assert (report.stages, report.likeness, report.images) == ((), None, 0)
    assert 0 < report.fit.explained < 1
    assert Adapter.load(tmp_path / "out").config.metrics == {}


def test_what_is_too_unlike_is_refused_and_nothing_is_written(
    backbone: Backbone, place: Path, tmp_path: Path
) -> None:
    settings = Distillation(steps=0, max_drop=0.0)
    network = fine_tune(backbone, tmp_path / "net", moved=2.0)
    with pytest.raises(PoorFitError, match=r"answers \d+\.\d % of the held-out images") as caught:
        distill_to_gates(
            backbone, network, tmp_path / "out", data=place / "images", settings=settings
        )
    assert len(caught.value.stages) == 2  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_there_is_left(backbone: Backbone, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    distill_to_gates(backbone, place / "net", out)
    before = (out / "config.json").read_bytes()
    with pytest.raises(AdapterExistsError, match="already; it is left as it is"):
        distill_to_gates(backbone, place / "net", out, gates="scale")
    assert (out / "config.json").read_bytes() == before
    distill_to_gates(backbone, place / "net", out, gates="scale", force=True)
    assert Adapter.load(out).layout.policy == "scale"


def test_refusals_say_what_is_where(backbone: Backbone, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "alone.safetensors"
    shutil.copy(place / "net" / "model.safetensors", file)
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match="does not name the labels"):
        distill_to_gates(backbone, file, out)
    with pytest.raises(TrainingError, match=r"answers with 3 logits .*, and 2 labels are named"):
        distill_to_gates(backbone, file, out, labels=["a", "b"])
    pickle = tmp_path / "net.pth"
    pickle.write_bytes(b"")
    with pytest.raises(UnsafeWeightsError, match="is a pickle, which can run code"):
        distill_to_gates(backbone, pickle, out, labels=LABELS)
    wider = Backbone(
        make_backbone("resnet18", layers=(1, 1, 1, 1), channels=(8, 16, 24, 40)).model,
        arguments={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 40)},
    )
    with pytest.raises(TrainingError, match=r"of shape \(32.*where resnet18 has \(40"):
        distill_to_gates(wider, place / "net", out)
    other = make_backbone("test_resnet", num_classes=3)
    with pytest.raises(TrainingError, match="is a 'resnet18', and the backbone test_resnet"):
        distill_to_gates(other, place / "net", out)
    with pytest.raises(TrainingError, match=r"lacks '.*', which a network of test_resnet has"):
        distill_to_gates(other, file, out, labels=LABELS)
    few = write_images(tmp_path / "few", count=5)
    with pytest.raises(DataError, match="expected at least 4 on each side"):
        distill_to_gates(backbone, place / "net", out, data=few)
    adapter = tmp_path / "adapter"
    distill_to_gates(backbone, place / "net", adapter)
    with pytest.raises(TrainingError, match="is an adapter, and no network"):
        distill_to_gates(backbone, adapter, out)
    assert not out.exists()
    distill_to_gates(backbone, file, out, labels=LABELS, task="colours")
    assert Adapter.load(out).task == "colours"
