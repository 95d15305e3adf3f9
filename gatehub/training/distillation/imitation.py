"""A short training against a network's own answers: images need no labels.

The loss is the divergence of scores (arXiv 1503.02531, at temperature 1) and the squared distance
of what the two heads are given, relative to its spread (cf. arXiv 1412.6550). The network sees each
image cropped as the learner does (arXiv 2106.05237, "consistent teaching").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import DivergenceError
from gatehub.gates.attach import GatedModel
from gatehub.problem import Problem
from gatehub.training.batches import training_batches
from gatehub.training.distillation.likeness import diverge
from gatehub.training.distillation.settings import Distillation
from gatehub.training.examples import Examples
from gatehub.training.methods.whole import hold_statistics
from gatehub.training.recipe import Recipe
from gatehub.training.start.head_inputs import find_logit_layers
from gatehub.training.start.rates import IMAGES, find_rates
from gatehub.training.steps.average import Average, put_tensors

_MAX_GRADIENT_NORM = 5.0
_FEATURES = 1.0  # what their distance counts beside the divergence
_AVERAGED = 0.125  # over the last so many of the steps
_WARMUP = 0.1

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """Divergence from logits that are given as targets; see `StepLoss`."""

    problem: Problem

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
        return diverge(logits, targets, self.problem)

    def centre(self, logits: Tensor) -> Tensor:
        return logits if self.problem.is_multi_label else logits - logits.mean(-1, keepdim=True)


def imitate(
    model: GatedModel,
    network: nn.Module,
    images: Examples,
    settings: Distillation,
    *,
    preprocessing: Preprocessing,
    problem: Problem,
    workers: int = 0,
    on_step: Told | None = None,
) -> None:
    """Train gates, normalisation values and head against a network's answers, in place.

    Both stay in evaluation mode, so nothing is dropped and no statistics move: what differs between
    their answers to an image is what the adapter lacks.

    Args:
        model: at its start; it is left with the mean of the last steps' values.
        network: of the same architecture, frozen, in evaluation mode.
        images: their targets are not looked at.
        settings: how.
        preprocessing: how files become tensors.
        problem: how logits are read.
        workers: processes that decode images beside this one.
        on_step: called with (steps done, steps in all).

    Raises:
        DivergenceError: the loss became infinite or NaN.
    """
    device = next(model.parameters()).device
    recipe = Recipe(min_crop=settings.min_crop, batch_size=settings.batch_size, seed=settings.seed)
    transform = recipe.augment(preprocessing, min_crop=settings.min_crop)
    loss_of = AnswerLoss(problem)
    model.eval()
    hold_statistics(model.net)

    def batches() -> Iterator[Tensor]:
        epoch = 0
        while True:
            epoch += 1
            for batch, _ in training_batches(
                images,
                transform,
                batch_size=settings.batch_size,
                seed=settings.seed,
                epoch=epoch,
                workers=workers,
            ):
                yield batch.to(device)

    drawn = batches()
    first = _gather(images, preprocessing, device)
    with torch.no_grad():
        answers = network(first).float()
    rates = find_rates(model, first, answers, objective=loss_of)
    groups = (
        (model.gate_parameters(), rates.gates),
        (model.norm_parameters(), rates.norms),
        (model.head_parameters(), rates.head),
    )
    optimiser = torch.optim.AdamW(
        [
            {"params": list(parameters.values()), "peak": settings.rate_factor * rate, "lr": 0.0}
            for parameters, rate in groups
            if parameters
        ],
        weight_decay=0.0,
    )
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    average = Average(model, model.task_tensors(), steps=_AVERAGED * settings.steps)
    recipe_rate = Recipe(warmup=_WARMUP).rate_at
    layers = tuple(find_logit_layers(model))
    with _watching(model.net, layers) as own, _watching(network, layers) as theirs:
        for step in range(settings.steps):
            batch = next(drawn)
            with torch.no_grad():
                answers = network(batch).float()
            logits = model(batch).float()
            loss = loss_of.loss(logits, answers) + _FEATURES * _distance(own, theirs)
            if not bool(loss.isfinite()):
                raise DivergenceError(
                    f"The distance to the network's answers became {loss.item()} in step "
                    f"{step + 1}.",
                    hint="Lower rate_factor, or train for no steps.",
                )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * recipe_rate(step, settings.steps)
            optimiser.step()
            average.update()
            if on_step is not None:
                on_step(step + 1, settings.steps)
    put_tensors(model, average.tensors)


def _gather(images: Examples, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """Return some of the images as a batch, of all kinds that there are."""
    every = max(1, len(images) // IMAGES)
    transform = preprocessing.transform()
    chosen = range(0, len(images), every)[:IMAGES]
    return torch.stack([transform(images.source(place)) for place in chosen]).to(device)


def _distance(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Return the squared distance of what heads are given, relative to its spread."""
    total = torch.zeros(())
    for name, features in theirs.items():
        spread = (features - features.mean(0)).square().mean() + 1e-8
        total = total.to(features) + (own[name] - features).square().mean() / spread
    return total


@contextmanager
def _watching(net: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield what layers are given at the latest pass, as float32, by their names."""
    given: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            given[name] = inputs[0].float()

        return look

    with ExitStack() as stack:
        for name in layers:
            handle = net.get_submodule(name).register_forward_pre_hook(keep(name))
            stack.callback(handle.remove)
        yield given
