"""Going on from an adapter: what stays of it, what comes beside it, and what contradicts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.images import ImageRules
from gatehub.errors import BackboneMismatchError, ResumeError, TrainingError
from gatehub.gates.fold import fold
from gatehub.hub import push
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData, load_data
from gatehub.training.evaluation import evaluate
from gatehub.training.evaluation.selection import select_images
from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport
from gatehub.training.start import begin
from gatehub.training.start.new_rows import fit_new_rows
from gatehub.training.start.origin import Origin, open_origin
from gatehub.training.train import train_adapter
from tests.hub_server.serve import TestHub
from tests.tiny import make_backbone, make_trained, random_images
from tests.training.images import numbered, write_images
from tests.training.tasks import colour_data

RECIPE = Recipe(epochs=3, batch_size=16, seed=5)


def take_classes(data: ImageData, *labels: str) -> ImageData:
    """The images of some classes, and nothing of the others."""

    def cut(side: Examples) -> Examples:
        kept = [i for i, target in enumerate(side.targets) if data.labels[target] in labels]
        return Examples(
            names=tuple(side.names[i] for i in kept),
            targets=tuple(labels.index(data.labels[side.targets[i]]) for i in kept),
            sources=tuple(side.sources[i] for i in kept),
        )

    return replace(data, train=cut(data.train), val=cut(data.val), labels=labels)


def run(backbone: Backbone, data: ImageData, out: Path, **options: object) -> TrainReport:
    options = {"task": "colours", "recipe": RECIPE, **options}
    return train_adapter(backbone, data, out, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that knows two of the three colours, in an order of its own."""
    out = tmp_path_factory.mktemp("first") / "colours"
    return run(tiny_backbone, take_classes(colour_data(), "red", "blue"), out).folder


def test_the_start_is_the_adapter_itself(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    """At rates of 0 nothing moves, so what is saved is what was loaded, in whatever order."""
    data = take_classes(colour_data(seed=3), "blue", "red")
    still = replace(RECIPE, epochs=1, gate_rate=0.0, head_rate=0.0)
    report = run(tiny_backbone, data, tmp_path / "a", init_from=first, recipe=still)
    before, after = Adapter.load(first), Adapter.load(report.folder)
    assert after.labels == before.labels == ("red", "blue")
    assert after.layout == before.layout
    for name, tensor in before.tensors.items():
        assert torch.equal(after.tensors[name], tensor), name
    turned = take_classes(data, *before.labels)
    batches = evaluation_batches(turned.val, before.preprocessing.transform())
    measured = evaluate(fold(tiny_backbone, before), batches)
    assert report.start_accuracy == report.accuracy == measured.accuracy


def test_new_classes_come_behind_the_old_ones(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    report = run(tiny_backbone, colour_data(seed=3), tmp_path / "a", init_from=str(first))
    assert report.adapter.labels == ("red", "blue", "green")
    assert report.accuracy >= report.start_accuracy > 0.6
    training = report.adapter.config.training
    assert training["init_from"] == str(first)
    assert training["init_digest"] == Adapter.load(first).digest
    batches = evaluation_batches(
        colour_data(seed=3).with_labels(report.adapter.labels).val,
        report.adapter.preprocessing.transform(),
    )
    measured = evaluate(fold(tiny_backbone, Adapter.load(report.folder)), batches)
    assert measured.accuracy == report.accuracy


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
@pytest.mark.parametrize(
    "architecture",
    [
        "resnet18",
        "resnetv2_18",
        pytest.param("levit_128s", marks=pytest.mark.slow),
        pytest.param("caformer_s18", marks=pytest.mark.slow),
    ],
)
def test_old_rows_stay_in_any_kind_of_head(architecture: str) -> None:
    """Linear, a 1 x 1 convolution, two heads whose answers are averaged, and an MLP."""
    size = 224 if architecture == "levit_128s" else 64
    backbone = make_backbone(architecture, pretrained_cfg_overlay={"input_size": (3, size, size)})
    data = colour_data(24)
    old = Adapter.from_model(
        make_trained(backbone, labels=("red", "blue"), gates="scale"), task="colours"
    )
    origin = Origin(adapter=old, name="colours")
    data = origin.take_up(data)
    model = origin.attach(backbone, data.labels)
    images = random_images(2, size)
    with torch.no_grad():
        expected = fold(backbone, old)(images)
        assert torch.allclose(model(images)[:, :2], expected, atol=1e-4)
        watched = list(evaluation_batches(data.val, model.preprocessing.transform()))
    begin(model, data, Recipe(), watched=watched, known=2)
    with torch.no_grad():
        assert torch.allclose(model(images)[:, :2], expected, atol=1e-4)
    for name, tensor in old.tensors.items():
        assert torch.equal(model.task_tensors()[name][: len(tensor)], tensor), name


def test_new_rows_are_where_loss_and_penalty_are_least() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(90, 4))
    answers = generator.normal(size=(90, 2)) + 7  # what is added to all of them must not matter
    targets = np.arange(90) % 4
    for weights in (None, (0.5, 1.5, 1.0, 1.0)):
        options = {"count": 2, "strength": 3.0, "weights": weights}
        slopes, offsets = fit_new_rows(features, answers, targets, **options)
        rows = torch.tensor(np.c_[slopes, offsets], requires_grad=True)
        centre = torch.tensor(answers.mean(1, keepdims=True))
        logits = torch.cat(
            [torch.tensor(answers), centre + torch.tensor(np.c_[features, np.ones(90)]) @ rows.T], 1
        )
        losses = -logits.log_softmax(1)[range(90), targets]
        if weights is not None:
            losses = losses * torch.tensor(weights)[torch.tensor(targets)]
        (losses.sum() + 1.5 * rows.square().sum()).backward()
        assert rows.grad is not None
        assert rows.grad.abs().max() < 0.02
        moved, _ = fit_new_rows(features, answers + 100, targets, **options)
        assert np.allclose(moved, slopes, atol=1e-3)


def test_classes_without_images_stay(tiny_backbone: Backbone, first: Path, tmp_path: Path) -> None:
    data = take_classes(colour_data(seed=3), "green", "red")
    report = run(tiny_backbone, data, tmp_path / "a", init_from=first)
    assert report.adapter.labels == ("red", "blue", "green")
    assert report.accuracy >= report.start_accuracy


def test_what_is_asked_for_must_not_contradict_the_adapter(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    data, own = colour_data(), tiny_backbone.preprocessing
    black = replace(own, image_rules=ImageRules(background=(0, 0, 0)))
    for options, told in (
        ({"gates": "full"}, "has gates 'auto', and gates 'full' is asked for"),
        ({"norm": "stats"}, "has norm 'affine', and norm 'stats' is asked for"),
        ({"start": "layer3"}, "has no start, and start 'layer3' is asked for"),
        ({"preprocessing": black}, "has background #ffffff, and background #000000"),
        (
            {"preprocessing": own.with_input_size(24)},
            "has input_size 32, and input_size 24 is asked for",
        ),
        (
            {"preprocessing": replace(own, input_size=(3, 24, 40))},
            "has input_size 32, and input_size 24 x 40 is asked for",
        ),
        ({"init_from": 7}, "got 7 .int. as init_from; expected str, Path or Adapter"),
    ):
        with pytest.raises(TrainingError, match=told):
            run(tiny_backbone, data, tmp_path / "a", **{"init_from": first, **options})
    with pytest.raises(BackboneMismatchError, match="was trained on"):
        run(make_backbone(seed=9), data, tmp_path / "a", init_from=first)
    assert list(tmp_path.iterdir()) == []
    same = {"gates": "auto", "norm": "affine", "preprocessing": own}
    run(tiny_backbone, data, tmp_path / "a", init_from=first, **same)


def test_the_form_is_the_adapters(tiny_backbone: Backbone, tmp_path: Path) -> None:
    data = take_classes(colour_data(), "red", "blue")
    form = {"gates": "scale", "norm": "stats", "start": "layer3"}
    small = tiny_backbone.preprocessing.with_input_size(24)
    old = run(tiny_backbone, data, tmp_path / "a", preprocessing=small, **form)
    new = run(tiny_backbone, colour_data(), tmp_path / "b", init_from=old.adapter).adapter
    assert new.layout == old.adapter.layout
    assert new.preprocessing == small
    assert new.config.training["gates"] == "scale"
    assert new.config.training["norm"] == "stats"


def test_an_adapter_of_another_layout_is_refused(tiny_backbone: Backbone) -> None:
    old = Adapter.from_model(make_trained(tiny_backbone, gates="scale"), task="birds")
    layout = replace(old.layout, policy="full")
    other = replace(old, config=replace(old.config, layout=layout))
    with pytest.raises(
        TrainingError, match=r"No run can go on from 'birds': it lacks 'conv1.gate'"
    ):
        open_origin(other).attach(tiny_backbone, other.labels)


class Stop:
    """Interrupts a run after its first epoch."""

    def on_start(self, *_: object, **__: object) -> None: ...

    def on_step(self, *_: object) -> None: ...

    def on_epoch(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_a_run_is_resumed_from_the_adapter_that_it_began_with(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    data = colour_data(seed=3)
    old = Adapter.load(first)
    other = replace(old, tensors={**old.tensors, "head.bias": old.tensors["head.bias"] + 1})
    whole = run(tiny_backbone, data, tmp_path / "whole", init_from=first)
    for before, now, told in (
        (first, None, "goes on from an adapter, but none is named now"),
        (first, other, "goes on from another adapter than the one that is named now"),
        (None, first, "began anew, but an adapter to go on from is named now"),
    ):
        out = tmp_path / told[:12]
        with pytest.raises(KeyboardInterrupt):
            run(tiny_backbone, data, out, init_from=before, observer=Stop())
        with pytest.raises(ResumeError, match=told):
            run(tiny_backbone, data, out, init_from=now, resume=True)
        if before is not None:  # wherever it lies now
            moved = old.save(tmp_path / "moved")
            resumed = run(tiny_backbone, data, out, init_from=moved, resume=True)
            assert resumed.adapter.digest == whole.adapter.digest
        else:
            run(tiny_backbone, data, out, resume=True)


def test_an_adapter_may_be_replaced_by_what_it_becomes(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    out = Adapter.load(first).save(tmp_path / "colours")
    report = run(tiny_backbone, colour_data(seed=3), out, init_from=out)
    assert Adapter.load(out).labels == report.adapter.labels == ("red", "blue", "green")
    assert report.adapter.config.training["init_digest"] == Adapter.load(first).digest


def test_an_adapter_on_a_hub_is_gone_on_from(
    tiny_backbone: Backbone,
    first: Path,
    tmp_path: Path,
    test_hub: TestHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEHUB_HUB", test_hub.url)
    push(first, "ada/colours", tag="v1")
    report = run(tiny_backbone, colour_data(), tmp_path / "a", init_from="ada/colours@v1")
    assert report.adapter.labels == ("red", "blue", "green")
    training = report.adapter.config.training
    assert training["init_from"] == "ada/colours@v1"
    assert training["init_digest"] == Adapter.load(first).digest


def test_what_a_training_replays_it_knows_though_it_lacks_classes(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    """`eval` of an adapter some of whose classes its own images lack divides them as it did."""
    photos = write_images(tmp_path / "photos", *numbered("green", 10), *numbered("red", 10))
    out = tmp_path / "a"
    run(tiny_backbone, load_data(photos), out, init_from=first, recipe=replace(RECIPE, epochs=1))
    selected = select_images(Adapter.load(out), str(photos))
    assert (selected.split, len(selected.examples), selected.trained) == ("val", 4, 0)
