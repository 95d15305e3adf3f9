"""The start of a run, and the settings that are chosen for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from gatehub.training.batches import Batch, count_batches, evaluation_batches
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate
from gatehub.training.methods.learner import Learner, Network
from gatehub.training.objectives import Measured
from gatehub.training.recipe import Recipe
from gatehub.training.start.crops import choose_crop
from gatehub.training.start.head_inputs import gather_inputs
from gatehub.training.start.linear_probe import (
    MAX_IMAGES,
    Probes,
    fit_head,
    list_penalties,
    set_head,
)
from gatehub.training.start.rates import IMAGES, Rates, find_rates

# How many times stronger the penalty of the head that is trained is than the best probe's.
RESTRAINT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Settings that a recipe may leave open, as they are for one run; see `Recipe`."""

    epochs: int
    gate_rate: float
    norm_rate: float
    head_rate: float
    min_crop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a run starts.

    Args:
        choices: what the recipe had left open.
        tensors: the task's tensors with the linear probe as head, which is the first candidate
            for what is kept.
        measured: how good that is on the images that are looked at after each epoch.
        penalties: of the head that is trained; see `weigh_head`.
    """

    choices: Choices
    tensors: Mapping[str, Tensor]
    measured: Measured
    penalties: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownStart:
    """What all runs on the same images begin with, whatever they train.

    Args:
        best: the linear probe.
        restrained: the probe under the penalty of the head that is trained.
        min_crop: smallest share of an image's area that a random crop keeps.
        rate: by what the rates of gates and normalisation values are multiplied that are found.
    """

    best: Probes
    restrained: Probes
    min_crop: float
    rate: float = 1.0


def find_start(
    model: Learner, data: ImageData, recipe: Recipe, *, known: int = 0, workers: int = 0
) -> KnownStart:
    """Fit the linear probe and choose how small random crops may be; see `begin`.

    Args:
        model: in evaluation mode; its head is changed in place.
        data: with the model's labels.
        recipe: see `begin`.
        known: see `begin`.
        workers: see `begin`.
    """
    examples = data.train.sample(MAX_IMAGES, seed=recipe.seed)
    transform = model.preprocessing.transform()
    inputs = gather_inputs(model, evaluation_batches(examples, transform, workers=workers))
    weights = data.objective.weigh(recipe, data.train, len(data.labels))
    fit = partial(fit_head, model, inputs, known=known, weights=weights, seed=recipe.seed)
    best = fit()
    strengths = {name: probe.strength for name, probe in best.items()}
    restrained = fit(strengths={name: RESTRAINT * found for name, found in strengths.items()})
    min_crop = recipe.min_crop or 1.0
    if recipe.min_crop is None and recipe.epochs != 0:
        min_crop = choose_crop(
            model,
            data,
            examples,
            inputs,
            recipe,
            strengths=strengths,
            known=known,
            weights=weights,
            workers=workers,
        )
    return KnownStart(best=best, restrained=restrained, min_crop=min_crop)


def begin(
    model: Learner,
    data: ImageData,
    recipe: Recipe,
    *,
    watched: Iterable[Batch],
    watching: Network | None = None,
    known: int = 0,
    workers: int = 0,
    known_start: KnownStart | None = None,
) -> Start:
    """Fit and measure the linear probe, and make a model ready to be trained.

    The head that is trained begins, and stays, under a stronger penalty than the best probe's. A
    head with as many features as there are images knows them all by heart, so its loss leaves the
    gates nothing to learn; one that is held back leaves the work to them.

    Args:
        model: in evaluation mode; its head is changed in place.
        data: with the model's labels.
        recipe: what it says is taken as it is.
        watched: validation images, or what a stem gives for them.
        watching: the same model as it takes these; None for the model itself.
        known: how many of the labels, the first ones, the head has learned already; their rows
            stay, and the probe is of the others. 0 for a new head.
        workers: processes that decode images beside this one.
        known_start: from `find_start`, where several runs share it.
    """
    objective, transform = data.objective, model.preprocessing.transform()
    found_start = known_start or find_start(model, data, recipe, known=known, workers=workers)
    best, restrained = found_start.best, found_start.restrained
    weights = objective.weigh(recipe, data.train, len(data.labels))
    epochs = recipe.choose_epochs(count_batches(data.train, recipe.batch_size))
    set_head(model, best)
    measured = evaluate(watching or model, watched, objective=objective)
    tensors = {name: tensor.clone() for name, tensor in model.task_tensors().items()}
    if epochs:
        few = data.train.sample(IMAGES, seed=recipe.seed)
        images, targets = next(evaluation_batches(few, transform, batch_size=len(few)))
        found = find_rates(model, images, targets, objective=objective, weights=weights)
    else:
        found = Rates(gates=0.0, norms=0.0, head=0.0)  # nothing is learned at any
    set_head(model, restrained)

    def scale(rate: float) -> float:
        return rate if found_start.rate == 1 else float(f"{found_start.rate * rate:.2g}")

    choices = Choices(
        epochs=epochs,
        gate_rate=_prefer(recipe.gate_rate, scale(found.gates)),
        norm_rate=_prefer(recipe.norm_rate, _prefer(recipe.gate_rate, scale(found.norms))),
        head_rate=_prefer(recipe.head_rate, found.head),
        min_crop=found_start.min_crop,
    )
    return Start(
        choices=choices, tensors=tensors, measured=measured, penalties=list_penalties(restrained)
    )


def _prefer(given: float | None, found: float) -> float:
    return found if given is None else given
