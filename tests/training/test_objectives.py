"""What differs between one label an image and any number of them, held against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, recall_score

from gatehub.backbone import Backbone
from gatehub.gates.attach import attach_gates
from gatehub.training.batches import evaluation_batches
from gatehub.training.evaluation import evaluate
from gatehub.training.examples import Examples
from gatehub.training.objectives import MULTI_LABEL, SINGLE_LABEL
from gatehub.training.objectives.multi_label import choose_threshold
from gatehub.training.recipe import Recipe
from gatehub.training.start import begin
from gatehub.training.start.head_inputs import gather_inputs
from gatehub.training.start.linear_probe import (
    fit_head,
    fit_probe,
    list_penalties,
    set_head,
    weigh_head,
)
from tests.training.tasks import LABELS, light_data


def draw(images: int = 40, labels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(images, labels, generator=generator) < 0.4).float()
    return targets * 2 - 1 + torch.randn(images, labels, generator=generator), targets


def test_the_loss_is_binary_cross_entropy() -> None:
    logits, targets = draw()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    assert torch.equal(MULTI_LABEL.loss(logits, targets), expected)
    weights = torch.tensor([1.0, 2.0, 9.0])
    by_hand = -(weights * targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits))
    found = MULTI_LABEL.loss(logits, targets, weights=weights)
    assert found.item() == pytest.approx(by_hand.mean().item(), rel=1e-5)
    smooth = MULTI_LABEL.loss(logits, targets, label_smoothing=0.2)
    expected = F.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1)
    assert smooth.item() == pytest.approx(expected.item())


def test_the_figures_are_scikit_learns() -> None:
    logits, targets = draw()
    targets[:, 2] = 0  # nobody has it
    read, loss = MULTI_LABEL.read(logits, targets)
    measured = MULTI_LABEL.measure(read, loss / len(targets))
    assert measured.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, targets))
    had, said = targets.numpy()[:, :2] > 0, logits.numpy()[:, :2] >= 0
    precisions = [average_precision_score(had[:, i], logits.numpy()[:, i]) for i in range(2)]
    assert measured.average_precisions[:2].tolist() == precisions
    assert np.isnan(measured.average_precisions[2])
    assert measured.mean_average_precision == pytest.approx(np.mean(precisions))
    assert measured.recall == recall_score(had, said, average="macro")
    exact = ((targets > 0) == (logits >= 0)).all(1).float().mean()
    assert measured.accuracy == pytest.approx(exact.item())
    metrics = measured.to_metrics()
    whole = (targets.numpy() > 0, logits.numpy() >= 0)
    assert metrics["micro_f1"] == f1_score(*whole, average="micro")
    seen = whole[0].any(0)  # as in `eval`: of a label without an image nothing can be found
    assert metrics["macro_f1"] == pytest.approx(
        f1_score(whole[0][:, seen], whole[1][:, seen], average="macro", zero_division=0)
    )
    decided = measured.decide()
    assert decided.to_metrics()["micro_f1"] >= 0
    assert decided.thresholds[2] == 0.5
    assert decided.mean_average_precision == measured.mean_average_precision


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_has_a_higher_f1(pairs: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in pairs])
    targets = np.array([own for _, own in pairs])
    chosen = choose_threshold(scores, targets)
    assert 0 <= chosen <= 1

    def f1(threshold: float) -> float:
        said = scores >= threshold
        return float(2 * (said & targets).sum() / (said.sum() + targets.sum()))

    if targets.any():
        assert f1(chosen) >= max(f1(each) for each in (*scores, 0.5)) - 1e-12
    else:
        assert chosen == 0.5


def test_of_equal_thresholds_the_one_closest_to_one_half_is_taken() -> None:
    right = np.array([True, False])
    assert choose_threshold(np.array([0.9, 0.1]), right) == 0.5
    assert choose_threshold(np.array([0.3, 0.1]), right) == pytest.approx(0.2)
    assert choose_threshold(np.array([0.9, 0.8]), right) == pytest.approx(0.85)
    # The upper cut and the lower one are as good.
    found = choose_threshold(np.array([0.9, 0.7, 0.6, 0.1]), np.array([True, False, True, False]))
    assert found == 0.5


def test_balanced_labels_weigh_with_and_without_alike() -> None:
    examples = Examples(
        names=("a", "b", "c", "d"),
        targets=((0,), (0, 2), (0,), ()),
        sources=tuple(np.zeros((4, 2, 2, 3), np.uint8)),
        label_count=3,
    )
    balanced = Recipe(class_weights="balanced")
    assert MULTI_LABEL.weigh(balanced, examples, 3) == [1 / 3, 1.0, 3.0]
    assert MULTI_LABEL.weigh(Recipe(), examples, 3) is None
    assert SINGLE_LABEL.compared_by(Recipe()) == "accuracy"
    assert MULTI_LABEL.compared_by(balanced) == "mean_average_precision"
    assert torch.equal(examples.target(1), torch.tensor([1.0, 0.0, 1.0]))
    assert torch.equal(examples.target(3), torch.zeros(3))


@pytest.mark.parametrize("weights", [None, (2.0, 1.0, 0.5)])
def test_the_probe_is_a_logistic_regression_of_each_label(
    weights: tuple[float, ...] | None,
) -> None:
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(90, 5)) * [0.01, 1, 10, 1, 1] + 3).astype(np.float32)
    targets = np.stack([features[:, 1] > 3, features[:, 2] + features[:, 3] * 5 > 20], 1)
    targets = np.concatenate([targets ^ (generator.random((90, 2)) < 0.1), np.zeros((90, 1))], 1)
    targets = targets.astype(np.float32)
    probe = fit_probe(features, targets, classes=3, strength=2.0, weights=weights)
    standard = (features - features.mean(0)) / features.std(0)
    for label in range(2):
        counted = None if weights is None else {0: 1.0, 1: weights[label]}
        peer = LogisticRegression(C=0.5, class_weight=counted, max_iter=2000)
        expected = peer.fit(standard, targets[:, label]).decision_function(standard)
        found = features @ probe.weight[label] + probe.bias[label]
        assert np.abs(found - expected).max() < 1e-2
    assert not probe.weight[2].any()
    assert probe.bias[2] < -4
    assert fit_probe(features, targets, classes=3).strength in (1.0, 10.0, 100.0, 1000.0)


def test_the_start_is_where_loss_and_penalty_are_least(tiny_backbone: Backbone) -> None:
    data = light_data(60)
    model = attach_gates(tiny_backbone, labels=LABELS)
    batch = next(
        evaluation_batches(data.train, tiny_backbone.preprocessing.transform(), batch_size=60)
    )
    weights = MULTI_LABEL.weigh(Recipe(class_weights="balanced"), data.train, 3)
    probes = fit_head(
        model, gather_inputs(model, [batch]), strengths={"fc": 300.0}, weights=weights
    )
    set_head(model, probes)
    penalties = list_penalties(probes)
    weight = model.head_parameters()["head.weight"]

    def slope(penalised: bool) -> float:
        model.zero_grad()
        loss = MULTI_LABEL.loss(model(batch[0]), batch[1], weights=torch.tensor(weights))
        (loss + penalised * weigh_head(model, penalties)).backward()
        assert weight.grad is not None
        return float(weight.grad.norm())

    assert slope(penalised=True) < 0.02 * slope(penalised=False)


def test_a_run_begins_at_the_probe(tiny_backbone: Backbone) -> None:
    model, data = attach_gates(tiny_backbone, labels=LABELS), light_data()
    watched = list(evaluation_batches(data.val, model.preprocessing.transform()))
    start = begin(model, data, Recipe(), watched=watched)
    with torch.no_grad():
        for name, tensor in model.task_tensors().items():
            tensor.copy_(start.tensors[name])
    measured = evaluate(model, watched, objective=MULTI_LABEL)
    assert measured.mean_average_precision == start.measured.mean_average_precision
    assert measured.mean_average_precision > 0.9
