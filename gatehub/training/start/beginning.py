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
from gatehub.training.start.linear_probe import MAX_IMAGES, fit_head, list_penalties, set_head
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


def begin(
    model: Learner,
    data: ImageData,
    recipe: Recipe,
    *,
    watched: Iterable[Batch],
    watching: Network | None = None,
    known: int = 0,
    workers: int = 0,
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
    """
    objective, transform = data.objective, model.preprocessing.transform()
    examples = data.train.sample(MAX_IMAGES, seed=recipe.seed)
    inputs = gather_inputs(model, evaluation_batches(examples, transform, workers=workers))
    weights = objective.weigh(recipe, data.train, len(data.labels))
    fit = partial(fit_head, model, inputs, known=known, weights=weights, seed=recipe.seed)
    best = fit()
    strengths = {name: probe.strength for name, probe in best.items()}
    restrained = fit(strengths={name: RESTRAINT * found for name, found in strengths.items()})
    epochs = recipe.choose_epochs(count_batches(data.train, recipe.batch_size))
    min_crop = recipe.min_crop or 1.0
    if recipe.min_crop is None and epochs:
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
    choices = Choices(
        epochs=epochs,
        gate_rate=_prefer(recipe.gate_rate, found.gates),
        norm_rate=_prefer(recipe.norm_rate, _prefer(recipe.gate_rate, found.norms)),
        head_rate=_prefer(recipe.head_rate, found.head),
        min_crop=min_crop,
    )
    return Start(
        choices=choices, tensors=tensors, measured=measured, penalties=list_penalties(restrained)
    )


def _prefer(given: float | None, found: float) -> float:
    return found if given is None else given
