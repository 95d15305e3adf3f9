"""Going on from an adapter where an image may have any number of labels, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import TrainingError
from gatehub.gates.fold import fold
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate
from gatehub.training.objectives import MULTI_LABEL, MultiLabelEvaluation
from gatehub.training.parallel.plan import Plan, read_plan, write_plan
from gatehub.training.range_test import sweep_rates
from gatehub.training.recipe import Recipe
from gatehub.training.start.linear_probe import fit_probe
from gatehub.training.start.origin import open_origin
from gatehub.training.train import TrainReport, train_adapter
from tests.tiny import make_trained
from tests.training.tasks import colour_data, light_data, take_labels

RECIPE = Recipe(epochs=3, batch_size=16, seed=5)


def run(backbone: Backbone, data: ImageData, out: Path, **options: object) -> TrainReport:
    options = {"task": "lights", "recipe": RECIPE, **options}
    return train_adapter(backbone, data, out, **options)  # type: ignore[arg-type]


def measure(backbone: Backbone, adapter: Adapter, data: ImageData) -> MultiLabelEvaluation:
    images = evaluation_batches(data.val, adapter.preprocessing.transform())
    return evaluate(fold(backbone, adapter), images, objective=MULTI_LABEL)


def rows(adapter: Adapter, count: int) -> list[Tensor]:
    return [adapter.tensors[name][:count] for name in ("head.weight", "head.bias")]


@pytest.fixture(scope="module")
def first(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that knows two of the three lights, in an order of its own."""
    out = tmp_path_factory.mktemp("first") / "lights"
    return run(tiny_backbone, take_labels(light_data(), "red", "blue"), out).folder


def test_the_start_is_the_adapter_and_its_thresholds_are_measured_anew(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    data = take_labels(light_data(seed=3), "blue", "red")
    before = Adapter.load(first)
    moved = before.with_thresholds([0.01, 0.99]).save(tmp_path / "moved")
    still = replace(RECIPE, epochs=1, gate_rate=0.0, head_rate=0.0)
    report = run(tiny_backbone, data, tmp_path / "a", init_from=moved, recipe=still)
    after = Adapter.load(report.folder)
    assert after.labels == before.labels == ("red", "blue")
    for name, tensor in before.tensors.items():
        assert torch.equal(after.tensors[name], tensor), name
    found = measure(tiny_backbone, before, take_labels(data, "red", "blue"))
    assert after.problem.thresholds == pytest.approx(found.decide().to_thresholds(), abs=1e-4)
    assert report.mean_average_precision == found.mean_average_precision
    assert report.start_mean_average_precision == found.mean_average_precision


def test_new_labels_come_behind_the_old_ones(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    report = run(tiny_backbone, light_data(seed=3), tmp_path / "a", init_from=first)
    assert report.adapter.labels == ("red", "blue", "green")
    assert report.start_mean_average_precision is not None
    assert report.score >= report.start_score > 0.7
    assert report.adapter.config.training["init_digest"] == Adapter.load(first).digest


def test_new_rows_are_those_of_a_probe_and_old_ones_stay(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    still = replace(RECIPE, epochs=1, gate_rate=0.0, head_rate=0.0)
    report = run(tiny_backbone, light_data(), tmp_path / "a", init_from=first, recipe=still)
    before, after = Adapter.load(first), Adapter.load(report.folder)
    for own, kept in zip(rows(before, 2), rows(after, 2), strict=True):
        assert torch.equal(own, kept)
    found = measure(tiny_backbone, after, light_data().with_labels(after.labels))
    assert found.average_precisions[2] > 0.8  # of green, which is new
    # A probe with its own offset says a label as often as images have it.
    assert abs(found.scores[:, 2].mean() - found.targets[:, 2].mean()) < 0.1


def test_labels_of_which_nothing_is_said_stay_as_they_are(
    tiny_backbone: Backbone, first: Path, tmp_path: Path
) -> None:
    """Images that may well have them must not teach the adapter that they have not."""
    data = light_data(seed=3)
    before = Adapter.load(first).with_thresholds([0.25, 0.75])
    origin = before.save(tmp_path / "before")
    report = run(tiny_backbone, take_labels(data, "green"), tmp_path / "a", init_from=origin)
    after = Adapter.load(report.folder)
    assert after.labels == ("red", "blue", "green")
    for own, kept in zip(rows(before, 2), rows(after, 2), strict=True):
        assert torch.equal(own, kept)
    assert after.problem.thresholds is not None
    assert after.problem.thresholds[:2] == (0.25, 0.75)
    found = measure(tiny_backbone, after, data.with_labels(after.labels))
    green = measure(tiny_backbone, after, take_labels(data, "green").with_labels(after.labels))
    own = found.average_precisions
    assert own.min() > 0.7
    # What is reported is of the label that was learned, alone.
    assert report.mean_average_precision == green.mean_average_precision == own[2]
    assert report.accuracy > 0.7
    assert report.adapter.config.metrics["micro_f1"] > 0.7


def test_figures_and_loss_are_of_what_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator)
    targets = (torch.randn(12, 3, generator=generator) > 0).float()
    weights = torch.tensor([1.0, 2.0, 3.0])
    partly = targets.clone()
    partly[:, 1] = torch.nan
    known = [0, 2]
    for options in ({}, {"weights": weights, "label_smoothing": 0.2}):
        cut = {k: v[known] if k == "weights" else v for k, v in options.items()}  # type: ignore[index]
        found = MULTI_LABEL.loss(logits, partly, **options)  # type: ignore[arg-type]
        expected = MULTI_LABEL.loss(logits[:, known], targets[:, known], **cut)  # type: ignore[arg-type]
        assert found == pytest.approx(expected)
    answers, _ = MULTI_LABEL.read(logits, partly)
    measured = MULTI_LABEL.measure(answers, 0.0)
    alone = MULTI_LABEL.measure({"logits": logits[:, known], "targets": targets[:, known]}, 0.0)
    assert measured.known.tolist() == [True, False, True]
    for one, other in ((measured, alone), (measured.decide(), alone.decide())):
        assert one.to_metrics() == pytest.approx(other.to_metrics())
        assert one.recall == other.recall
        assert one.calibrated_loss() == pytest.approx(other.calibrated_loss())


def test_a_probes_penalty_is_that_of_what_is_known() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 4)).astype(np.float32)
    targets = (generator.random((30, 3)) > 0.5).astype(np.float32)
    partly = targets.copy()
    partly[:, 1] = np.nan
    whole = fit_probe(features, targets[:, [0, 2]], classes=2, strength=3.0)
    part = fit_probe(features, partly, classes=3, strength=3.0)
    assert part.penalty == pytest.approx(whole.penalty)
    assert part.weight[[0, 2]] == pytest.approx(whole.weight)


def test_other_processes_know_what_is_not_known(tmp_path: Path, tiny_backbone: Backbone) -> None:
    data = take_labels(light_data(4, 4), "green").with_labels(("red", "blue", "green"))
    plan = Plan(
        backbone="demo",
        weights=None,
        digest="0",
        labels=data.labels,
        train=data.train,
        recipe=RECIPE,
        gates="auto",
        norm="affine",
        start=None,
        preprocessing=tiny_backbone.preprocessing,
        workers=0,
        decoded_bytes=0,
    )
    assert read_plan(*write_plan(plan)).train.unknown == data.train.unknown == {0, 1}
    assert data.train.target(2).isnan().tolist() == [True, True, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("several", "told", "hint"),
    [
        (True, "gives an image any number of labels, and one is asked for", "Add --multi-label"),
        (False, "gives an image one label, and any number of them is asked", "Leave --multi-label"),
    ],
)
def test_an_adapter_of_the_other_kind_is_no_start(
    tiny_backbone: Backbone, tmp_path: Path, several: bool, told: str, hint: str
) -> None:
    model = make_trained(tiny_backbone)
    thresholds = [0.5] * len(model.labels) if several else None
    other = Adapter.from_model(model, task="lights", thresholds=thresholds)
    data = colour_data() if several else light_data()
    with pytest.raises(TrainingError, match=told) as caught:
        run(tiny_backbone, data, tmp_path / "a", init_from=other)
    assert hint in str(caught.value.hint)
    with pytest.raises(TrainingError, match=told):
        sweep_rates(tiny_backbone, data, recipe=RECIPE, init_from=open_origin(other))
    assert not (tmp_path / "a.training").exists()
