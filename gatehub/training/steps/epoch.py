"""One epoch of steps: AdamW on what is the task's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gatehub.errors import DivergenceError
from gatehub.training.batches import count_batches, seed_everything, training_batches
from gatehub.training.data import ImageData
from gatehub.training.economy.precision import MixedPrecision
from gatehub.training.methods.learner import Learner
from gatehub.training.observers import Step
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices
from gatehub.training.start.linear_probe import weigh_head
from gatehub.training.steps.added_loss import NOTHING, AddedLoss
from gatehub.training.steps.optimiser import decay_gates

MAX_GRADIENT_NORM = 5.0


def train_epoch(
    model: Learner,
    optimiser: torch.optim.Optimizer,
    data: ImageData,
    recipe: Recipe,
    choices: Choices,
    penalties: Mapping[str, Tensor],
    mixed: MixedPrecision,
    *,
    epoch: int,
    workers: int,
    on_step: Callable[[Step], None],
    team: Team = ALONE,
    added: AddedLoss = NOTHING,
) -> float:
    """Train for one epoch and return the mean loss, in nats.

    Args:
        model: its values and the optimiser's state are changed in place.
        optimiser: from `make_optimiser`.
        data: with the model's labels.
        recipe: how.
        choices: what the recipe had left open.
        penalties: of the head; see `weigh_head`.
        mixed: the precision; its state is changed in place.
        epoch: from 1; with the recipe's seed it decides all that is drawn.
        workers: processes that decode images beside this one.
        on_step: is told of each step.
        team: the processes that share each batch.
        added: what the loss has beside the task's; it is not in the mean.

    Raises:
        DivergenceError: the loss, or what is added to it, became infinite or NaN.
    """
    model.train()
    device = next(model.parameters()).device
    per_epoch = count_batches(data.train, recipe.batch_size)
    steps = choices.epochs * per_epoch
    batches = training_batches(
        data.train,
        recipe.augment(model.preprocessing, min_crop=choices.min_crop),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        epoch=epoch,
        workers=workers,
        team=team,
    )
    whole = min(recipe.batch_size, len(data.train))
    weights = data.objective.weigh(recipe, data.train, len(data.labels))
    counted = None if weights is None else torch.tensor(weights, device=device)
    total = 0.0
    for index, (images, targets) in enumerate(batches):
        step = (epoch - 1) * per_epoch + index
        # The transforms seed the generators for each image, in whichever process they run.
        # What layers drop is drawn for a process's own images.
        others = (team.rank,) if team.rank else ()
        seed_everything(recipe.seed, epoch, len(data.train) + index, *others)
        images = images.to(device)
        with mixed.compute(), added.watching(step):
            logits = model(images)
        loss = data.objective.loss(
            logits.float(),
            targets.to(device),
            weights=counted,
            label_smoothing=recipe.label_smoothing,
        )
        if team.size > 1:
            loss = loss * (len(targets) / whole)
        optimiser.zero_grad()
        own = loss + weigh_head(model, penalties) if team.rank == 0 else loss
        mixed.scaler.scale(own + added.loss(images)).backward()
        trained = [p for group in optimiser.param_groups for p in group["params"]]
        loss = loss.detach()
        team.add_up([loss, *(p.grad for p in trained if p.grad is not None)])
        check_finite(loss.item(), f"in epoch {epoch}, step {index + 1}", choices)
        mixed.scaler.unscale_(optimiser)  # of the sums: all see the same overflow
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        share = recipe.rate_at(step, steps)
        for group in optimiser.param_groups:
            group["lr"] = share * group["peak"]
        mixed.scaler.step(optimiser)
        mixed.scaler.update()
        decay_gates(model, share * choices.gate_rate * recipe.gate_decay)
        total += loss.item()
        rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
        on_step(Step(done=step + 1, total=steps, loss=loss.item(), rates=rates))
    return total / per_epoch


def check_finite(loss: float, where: str, choices: Choices) -> None:
    """Refuse to go on from a loss that is infinite or NaN; `where` says when it became so."""
    if not math.isfinite(loss):
        raise DivergenceError(
            f"The loss became {loss} {where}.",
            hint=f"Lower gate_rate (now {choices.gate_rate:g}) or head_rate (now "
            f"{choices.head_rate:g}).",
        )
