"""A run starts at the linear probe, at rates that suit the backbone, and never ends below it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.training.batches import evaluation_batches
from gatehub.training.evaluation import evaluate
from gatehub.training.objectives import SINGLE_LABEL
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
from gatehub.training.start.rates import IMAGES, find_rates
from gatehub.training.steps.average import put_tensors
from tests.tiny import make_backbone
from tests.training.tasks import LABELS, colour_data


def blobs(classes: int, *, features: int = 6, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian classes whose features have scales from 0.001 to 1000."""
    generator = np.random.default_rng(0)
    targets = np.arange(count) % classes
    centres = generator.normal(size=(classes, features))
    points = centres[targets] + generator.normal(size=(count, features))
    scale = 10.0 ** np.linspace(-3, 3, features)
    return (points * scale + 5).astype(np.float32), targets


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(classes: int) -> None:
    features, targets = blobs(classes)
    probe = fit_probe(features, targets, classes=classes)
    standard = (features - features.mean(0)) / features.std(0)
    peers = [
        LogisticRegression(C=penalty, max_iter=2000).fit(standard, targets).predict(standard)
        for penalty in (0.001, 0.01, 0.1, 1.0)
    ]
    agreement = max((probe.predict(features) == peer).mean() for peer in peers)
    assert agreement >= 0.99


def test_a_class_without_images_and_a_constant_feature_do_no_harm() -> None:
    features, targets = blobs(2)
    features[:, 0] = 7.0
    probe = fit_probe(features, 2 * targets, classes=4)
    assert probe.weight.shape == (4, 6)
    assert np.isfinite(probe.weight).all()
    assert set(probe.predict(features)) <= {0, 2}
    assert (probe.predict(features) == 2 * targets).mean() > 0.6


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
@pytest.mark.parametrize("architecture", ["resnet18", "resnetv2_18", "levit_128s", "caformer_s18"])
def test_any_kind_of_head_starts_as_a_probe(architecture: str) -> None:
    """Linear, a 1 x 1 convolution, two heads whose answers are averaged, and an MLP."""
    size = 224 if architecture == "levit_128s" else 64
    overlay = {"input_size": (3, size, size)}
    backbone = make_backbone(architecture, pretrained_cfg_overlay=overlay)
    model = attach_gates(backbone, labels=LABELS, gates="scale")
    before = {name: t.clone() for name, t in model.task_tensors().items()}
    batches = list(evaluation_batches(colour_data(24).train, model.preprocessing.transform()))
    best = fit_head(model, gather_inputs(model, batches))
    assert best
    set_head(model, best)
    assert evaluate(model, batches).accuracy >= 0.9
    for name in (*model.gate_parameters(), *model.norm_parameters()):
        assert torch.equal(before[name], model.task_tensors()[name]), name


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
@pytest.mark.parametrize("weights", [None, (2.0, 0.5, 0.5)])
def test_the_start_is_where_loss_and_penalty_are_least(
    tiny_backbone: Backbone, labels: tuple[str, ...], weights: tuple[float, ...] | None
) -> None:
    data = colour_data(60)
    chosen = [index for index, target in enumerate(data.train.targets) if target < len(labels)]
    images, targets = next(
        evaluation_batches(data.train, tiny_backbone.preprocessing.transform(), batch_size=60)
    )
    images, targets = images[chosen], targets[chosen]
    model = attach_gates(tiny_backbone, labels=labels)
    counted = None if weights is None else torch.tensor(weights[: len(labels)])
    probes = fit_head(
        model,
        gather_inputs(model, [(images, targets)]),
        strengths={"fc": 300.0},
        weights=None if counted is None else weights,
    )
    set_head(model, probes)
    penalties = list_penalties(probes)
    weight = model.head_parameters()["head.weight"]

    def slope(penalised: bool) -> float:
        model.zero_grad()
        loss = SINGLE_LABEL.loss(model(images), targets, weights=counted)
        (loss + penalised * weigh_head(model, penalties)).backward()
        assert weight.grad is not None
        return float(weight.grad.norm())

    assert slope(penalised=True) < 0.02 * slope(penalised=False)


def first_step(
    model: GatedModel,
    images: torch.Tensor,
    targets: torch.Tensor,
    *,
    counted: torch.Tensor | None = None,
    **rates: float,
) -> float:
    """Return how far a step of Adam moves what it should, over its spread.

    That is the logits for the head, and what the head is given for gates and norm values.
    """
    groups = {
        "gates": model.gate_parameters(),
        "norms": model.norm_parameters(),
        "head": model.head_parameters(),
    }
    optimiser = torch.optim.Adam(
        [{"params": [*groups[name].values()], "lr": rate} for name, rate in rates.items()]
    )

    def measure() -> torch.Tensor:
        given: list[torch.Tensor] = []
        hook = model.net.fc.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        with torch.no_grad():
            logits = model(images)
        hook.remove()
        return logits - logits.mean(1, keepdim=True) if "head" in rates else given[0]

    before = measure()
    SINGLE_LABEL.loss(model(images), targets, weights=counted).backward()
    optimiser.step()
    moved = measure() - before
    spread = before if "head" in rates else before - before.mean(0)
    return float(moved.norm() / spread.norm())


@pytest.mark.parametrize("gates", ["full", "scale", "lowrank:4"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_at_the_rate_that_was_found_goes_as_far_as_it_should(gates: str, seed: int) -> None:
    torch.manual_seed(seed)
    data = colour_data(48, seed=seed)
    backbone = make_backbone(seed=seed)
    reach = {"gates": 0.5, "norms": 0.5, "head": 0.1}
    for group, share in reach.items():
        model = attach_gates(backbone, labels=LABELS, gates=gates)
        [(images, targets)] = evaluation_batches(data.train, model.preprocessing.transform())
        start = begin(model, data, Recipe(), watched=[(images, targets)])
        with torch.no_grad():
            for name, tensor in model.task_tensors().items():
                tensor.copy_(start.tensors[name])
        before = {name: t.clone() for name, t in model.task_tensors().items()}
        rate = getattr(find_rates(model, images, targets), group)
        for name, tensor in model.task_tensors().items():
            assert torch.equal(before[name], tensor), name
        assert rate == getattr(start.choices, RATES[group])
        assert first_step(model, images, targets, **{group: rate}) == pytest.approx(share, rel=0.15)


def test_rates_are_found_on_the_loss_that_is_trained_on() -> None:
    """Where classes count alike, what a few images say moves the logits as far as what many say."""
    whole, recipe = colour_data(96), Recipe(class_weights="balanced")
    targets = [target if i % 5 == 0 else 0 for i, target in enumerate(whole.train.targets)]
    data = replace(whole, train=replace(whole.train, targets=tuple(targets)))
    weights = recipe.weigh_classes(targets, len(LABELS))
    assert weights is not None
    far = []
    for group, share in (("gates", 0.5), ("norms", 0.5), ("head", 0.1)):
        model = attach_gates(make_backbone(), labels=LABELS, gates="full")
        [(images, classes)] = evaluation_batches(
            data.train, model.preprocessing.transform(), batch_size=96
        )
        start = begin(model, data, recipe, watched=[(images, classes)])
        put_tensors(model, start.tensors)
        few = data.train.sample(IMAGES, seed=recipe.seed)
        [(images, classes)] = evaluation_batches(few, model.preprocessing.transform())
        rate = getattr(start.choices, RATES[group])
        assert rate == getattr(find_rates(model, images, classes, weights=weights), group)
        counted = torch.tensor(weights)
        step = first_step(model, images, classes, counted=counted, **{group: rate})
        far.append(step / share)
    assert far == pytest.approx([1.0] * 3, rel=0.15)


RATES = {"gates": "gate_rate", "norms": "norm_rate", "head": "head_rate"}


def test_what_a_recipe_says_is_taken(tiny_backbone: Backbone) -> None:
    model, data = attach_gates(tiny_backbone, labels=LABELS), colour_data()
    watched = list(evaluation_batches(data.val, model.preprocessing.transform()))
    recipe = Recipe(gate_rate=0.5, head_rate=0.25, epochs=7, min_crop=0.4)
    choices = begin(model, data, recipe, watched=watched).choices
    assert (choices.gate_rate, choices.norm_rate, choices.head_rate) == (0.5, 0.5, 0.25)
    assert (choices.epochs, choices.min_crop) == (7, 0.4)
    assert begin(model, data, Recipe(norm_rate=0.125), watched=watched).choices.norm_rate == 0.125


def test_the_first_candidate_is_the_best_probe(tiny_backbone: Backbone) -> None:
    model, data = attach_gates(tiny_backbone, labels=LABELS), colour_data()
    watched = list(evaluation_batches(data.val, model.preprocessing.transform()))
    start = begin(model, data, Recipe(), watched=watched)
    held_back = model.task_tensors()["head.weight"].norm()
    assert start.tensors["head.weight"].norm() > held_back
    with torch.no_grad():
        for name, tensor in model.task_tensors().items():
            tensor.copy_(start.tensors[name])
    assert evaluate(model, watched).accuracy == start.measured.accuracy
