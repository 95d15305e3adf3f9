"""The training loop: a checkpoint an epoch, and the values of one epoch are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from gatehub.errors import DivergenceError, ResumeError
from gatehub.training.batches import count_batches, evaluation_batches
from gatehub.training.checkpoint import (
    Checkpoint,
    EpochRecord,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from gatehub.training.data import ImageData
from gatehub.training.economy.precision import MixedPrecision
from gatehub.training.economy.stem import Stem
from gatehub.training.evaluation import evaluate
from gatehub.training.kept_epoch import choose_epoch
from gatehub.training.methods.learner import Learner
from gatehub.training.objectives import Measured
from gatehub.training.observers import Observer, Step
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices, KnownStart, begin
from gatehub.training.steps import check_finite, train_epoch
from gatehub.training.steps.added_loss import NOTHING, AddedLoss
from gatehub.training.steps.average import Average, put_tensors
from gatehub.training.steps.optimiser import (
    make_optimiser,
    read_state,
    restore_state,
)

_MODEL, _START, _BEST = "model.", "start.", "best."
_AVERAGE, _PENALTY, _OPTIMISER = "average.", "penalty.", "optimiser."
_MIXED = "mixed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a run went.

    Args:
        choices: what the recipe had left open.
        history: one record for the start and one for each epoch.
        kept: the number of the epoch whose values the model has.
        start: the values at the start, by `Learner.task_tensors`.
    """

    choices: Choices
    history: Sequence[EpochRecord]
    kept: int
    start: Mapping[str, Tensor]


def fit(
    model: Learner,
    data: ImageData,
    recipe: Recipe,
    *,
    folder: Path,
    settings: Mapping[str, object],
    known: int = 0,
    stem: Stem | None = None,
    resume: bool = False,
    workers: int = 0,
    observer: Observer | None = None,
    team: Team = ALONE,
    added: AddedLoss = NOTHING,
    known_start: KnownStart | None = None,
) -> Fitted:
    """Train a model in place, from its start on; it is left as the epoch that is kept.

    What is measured after an epoch, and kept, is the average of the last steps; see `Average`. It
    begins at the linear probe, so the first epochs are not below it while the head finds its place.

    What is drawn in an epoch depends on the recipe's seed and the epoch alone, so a run that was
    interrupted and resumed ends with the same numbers as one that was not.

    Args:
        model: what learns; see `Learner`. Where the training images have features, it takes these.
        data: with the model's labels.
        recipe: the settings.
        folder: where the checkpoint of the last whole epoch is kept.
        settings: what must be the same for a checkpoint to be continued.
        known: how many of the labels the model has learned already; see `begin`.
        stem: of the model, which validation images go through once; None for all of it each time.
        resume: continue from the checkpoint, if there is one.
        workers: processes that decode images beside this one.
        observer: is told of the start, of steps and of epochs.
        team: the processes that share each batch; this one leads them.
        added: what the loss of a step has beside the task's.
        known_start: see `begin`.

    Raises:
        ResumeError: the checkpoint is of another run, or of more epochs.
        DivergenceError: the loss became infinite or NaN; the checkpoint is gone.
        TrainingError: the backbone's features are not finite, or a process that decodes died.
        InputError: an image cannot be decoded any more.
    """
    sample = data.val.sample(recipe.val_images, seed=recipe.seed)
    # Decoded once: the same images are looked at after each epoch.
    images = evaluation_batches(sample, model.preprocessing.transform(), workers=workers)
    watched = list(images if stem is None else stem.compute_batches(images))
    watching: Learner = model if stem is None else stem.rest
    checkpoint = read_checkpoint(folder, settings) if resume else None
    if checkpoint is not None:
        history = list(checkpoint.history)
        choices = _lengthen(Choices(**checkpoint.chosen), recipe, done=history[-1].epoch)
        first: Mapping[str, Tensor] = _select(_START, checkpoint.tensors)
        best: Mapping[str, Tensor] = _select(_BEST, checkpoint.tensors) or first
        mean: Mapping[str, Tensor] = _select(_AVERAGE, checkpoint.tensors)
        penalties: Mapping[str, Tensor] = _select(_PENALTY, checkpoint.tensors)
    else:
        start = begin(
            model,
            data,
            recipe,
            watched=watched,
            watching=watching,
            known=known,
            workers=workers,
            known_start=known_start,
        )
        choices, first, penalties = start.choices, start.tensors, start.penalties
        best = mean = first
        history = [_record(0, None, start.measured, recipe)]
    optimiser = make_optimiser(model, recipe, choices)
    mixed = MixedPrecision(recipe.precision, next(model.parameters()).device)
    if checkpoint is not None:
        put_tensors(model, _select(_MODEL, checkpoint.tensors))
        restore_state(optimiser, _select(_OPTIMISER, checkpoint.tensors))
        mixed.restore_state(_select(_MIXED, checkpoint.tensors))
    team.tell(
        {"choices": asdict(choices)},
        {
            **_label(_MODEL, model.task_tensors()),
            **_label(_PENALTY, penalties),
            **_label(_OPTIMISER, read_state(optimiser)),
            **_label(_MIXED, mixed.read_state()),
        },
    )
    per_epoch = count_batches(data.train, recipe.batch_size)
    if observer is not None:
        observer.on_start(choices, list(history), steps_per_epoch=per_epoch)
    average = Average(model, mean, steps=recipe.averaging * choices.epochs * per_epoch)

    choose = partial(
        choose_epoch,
        images=len(sample),
        keep=recipe.keep,
        by=data.objective.compared_by(recipe),
    )
    watched_for = "auto" if recipe.keep == "last" else recipe.keep

    def after_step(step: Step) -> None:
        average.update()
        if observer is not None:
            observer.on_step(step)

    for epoch in range(len(history), choices.epochs + 1):
        if recipe.patience is not None:
            since = history[-1].epoch - choose(history, keep=watched_for)
            if since >= recipe.patience:
                break
        team.tell({"epoch": epoch})
        try:
            loss = train_epoch(
                model,
                optimiser,
                data,
                recipe,
                choices,
                penalties,
                mixed,
                epoch=epoch,
                workers=workers,
                on_step=after_step,
                team=team,
                added=added,
            )
            with average.in_place():
                measured = evaluate(watching, watched, objective=data.objective)
            check_finite(measured.loss, f"on the validation images after epoch {epoch}", choices)
        except DivergenceError:
            remove_checkpoint(folder)  # it leads to the same end, at rates that are to be lowered
            raise
        record = _record(epoch, loss, measured, recipe)
        history.append(record)
        if choose(history) == epoch:
            best = {name: tensor.clone() for name, tensor in average.tensors.items()}
        checkpoint = Checkpoint(
            settings=settings,
            chosen=asdict(choices),
            history=history,
            tensors={
                **_label(_MODEL, model.task_tensors()),
                **_label(_AVERAGE, average.tensors),
                **_label(_START, first),
                **({} if best is first else _label(_BEST, best)),
                **_label(_PENALTY, penalties),
                **_label(_OPTIMISER, read_state(optimiser)),
                **_label(_MIXED, mixed.read_state()),
            },
        )
        write_checkpoint(folder, checkpoint)
        if observer is not None:
            observer.on_epoch(record, choices.epochs)
    team.tell({"epoch": None})
    put_tensors(model, best)
    return Fitted(
        choices=choices,
        history=history,
        kept=choose(history),
        start=first,
    )


def _lengthen(choices: Choices, recipe: Recipe, *, done: int) -> Choices:
    """Return the choices of a run that is continued, with as many epochs as are asked for now."""
    if recipe.epochs is None:
        return choices
    if recipe.epochs < done:
        raise ResumeError(
            f"{done} epochs are done, more than the {recipe.epochs} that are asked for.",
            hint=f"Ask for {done} or more.",
        )
    return replace(choices, epochs=recipe.epochs)


def _record(
    epoch: int, train_loss: float | None, measured: Measured, recipe: Recipe
) -> EpochRecord:
    balanced = recipe.class_weights == "balanced"
    return EpochRecord(
        epoch=epoch,
        train_loss=train_loss,
        val_loss=measured.loss,
        val_calibrated_loss=measured.calibrated_loss(balanced=balanced),
        val_accuracy=measured.accuracy,
        val_recall=measured.recall,
        val_mean_average_precision=measured.mean_average_precision,
    )


def _label(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor.contiguous() for name, tensor in tensors.items()}


def _select(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
