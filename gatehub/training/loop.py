"""The training loop: AdamW on what is the task's own, one checkpoint an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.errors import TrainingError
from gatehub.gates.attach import GatedModel
from gatehub.training.batches import (
    count_batches,
    evaluation_batches,
    seed_everything,
    training_batches,
)
from gatehub.training.checkpoint import Checkpoint, EpochRecord, read_checkpoint, write_checkpoint
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate
from gatehub.training.recipe import Recipe

MAX_GRADIENT_NORM = 5.0

_MODEL, _OPTIMISER = "model.", "optimiser."


class Observer(Protocol):
    """Who wants to know how a run goes."""

    def on_step(self, done: int, steps: int) -> None:
        """A step is done, of all steps of all epochs."""

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch is done and its checkpoint written."""


def fit(
    model: GatedModel,
    data: ImageData,
    recipe: Recipe,
    *,
    folder: Path,
    settings: Mapping[str, object],
    resume: bool = False,
    workers: int = 0,
    observer: Observer | None = None,
) -> list[EpochRecord]:
    """Train a gated model in place, and keep a checkpoint of the last whole epoch.

    What is drawn in an epoch depends on the recipe's seed and the epoch alone, so a run that was
    interrupted and resumed ends with the same numbers as one that was not.

    Args:
        model: from `attach_gates`.
        data: with the model's labels.
        recipe: the settings.
        folder: where the checkpoint is kept.
        settings: what must be the same for a checkpoint to be continued.
        resume: continue from the checkpoint, if there is one.
        workers: processes that decode images beside this one.
        observer: is told of steps and epochs.

    Returns:
        One record for each epoch.

    Raises:
        ResumeError: the checkpoint is of another run.
        TrainingError: the loss became infinite or NaN.
    """
    optimiser = _make_optimiser(model, recipe)
    history: list[EpochRecord] = []
    checkpoint = read_checkpoint(folder, settings) if resume else None
    if checkpoint is not None:
        _restore(model, optimiser, checkpoint.tensors)
        history = list(checkpoint.history)
    sample = data.val.sample(recipe.val_images, seed=recipe.seed)
    # Decoded once: the same images are looked at after each epoch.
    watched = list(evaluation_batches(sample, model.preprocessing.transform(), workers=workers))
    steps = recipe.epochs * count_batches(data.train, recipe.batch_size)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        loss = _run_epoch(
            model,
            optimiser,
            data,
            recipe,
            epoch=epoch,
            workers=workers,
            on_step=None if observer is None else lambda done: observer.on_step(done, steps),
        )
        measured = evaluate(model, watched)
        record = EpochRecord(
            epoch=epoch,
            train_loss=loss,
            val_loss=measured.loss,
            val_accuracy=measured.accuracy,
        )
        history.append(record)
        tensors = _capture(model, optimiser)
        write_checkpoint(folder, Checkpoint(settings=settings, history=history, tensors=tensors))
        if observer is not None:
            observer.on_epoch(record, recipe.epochs)
    return history


def _run_epoch(
    model: GatedModel,
    optimiser: torch.optim.Optimizer,
    data: ImageData,
    recipe: Recipe,
    *,
    epoch: int,
    workers: int,
    on_step: Callable[[int], None] | None,
) -> float:
    """Train for one epoch and return the mean loss, in nats."""
    model.train()
    device = next(model.parameters()).device
    per_epoch = count_batches(data.train, recipe.batch_size)
    batches = training_batches(
        data.train,
        recipe.augment(model.preprocessing),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        epoch=epoch,
        workers=workers,
    )
    total = 0.0
    for index, (images, targets) in enumerate(batches):
        step = (epoch - 1) * per_epoch + index
        # The transforms seed the generators for each image, in whichever process they run.
        seed_everything(recipe.seed, epoch, len(data.train) + index)
        loss = F.cross_entropy(
            model(images.to(device)), targets.to(device), label_smoothing=recipe.label_smoothing
        )
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"The loss became {loss.item()} in epoch {epoch}, step {index + 1}.",
                hint=f"Lower the rates (gate_rate is {recipe.gate_rate}, head_rate "
                f"{recipe.head_rate}).",
            )
        optimiser.zero_grad()
        loss.backward()
        trained = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        share = recipe.rate_at(step, recipe.epochs * per_epoch)
        for group in optimiser.param_groups:
            group["lr"] = share * group["peak"]
        optimiser.step()
        _decay_gates(model, share * recipe.gate_rate * recipe.gate_decay)
        total += loss.item()
        if on_step is not None:
            on_step(step + 1)
    return total / per_epoch


def _make_optimiser(model: GatedModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, arXiv 1711.05101; gates decay towards M = 1, see `_decay_gates`."""
    groups = (
        (model.gate_parameters(), recipe.gate_rate, 0.0),
        (model.norm_parameters(), recipe.gate_rate, 0.0),
        (model.head_parameters(), recipe.head_rate, recipe.head_decay),
    )
    return torch.optim.AdamW(
        [
            {"params": list(parameters.values()), "peak": rate, "lr": rate, "weight_decay": decay}
            for parameters, rate, decay in groups
            if parameters
        ]
    )


def _decay_gates(model: GatedModel, share: float) -> None:
    """Move gates towards the values at which M = 1: weight decay around the backbone."""
    gates = model.gate_parameters()
    with torch.no_grad():
        for site, gate in model.layout.sites.items():
            for part in gate.parts:
                parameter = gates[f"{site}.{part}"]
                parameter.lerp_(torch.full_like(parameter, gate.kind.rest), share)


def _capture(model: GatedModel, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return everything that a run needs to go on, by name."""
    tensors = {f"{_MODEL}{name}": t.contiguous() for name, t in model.task_tensors().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMISER}{index}.{name}": value for name, value in state.items()}
    return tensors


def _restore(
    model: GatedModel, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    with torch.no_grad():
        for name, tensor in model.task_tensors().items():
            tensor.copy_(tensors[f"{_MODEL}{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMISER):
            index, _, key = name.removeprefix(_OPTIMISER).partition(".")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
