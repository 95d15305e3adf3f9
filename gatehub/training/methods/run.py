"""What every method's run has in common: the steps, and which of its values are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Generic, TypeVar

from gatehub.adapter.trained_on import read_sources
from gatehub.backbone import Backbone
from gatehub.training.checkpoint import EpochRecord
from gatehub.training.data import ImageData
from gatehub.training.destination import Destination
from gatehub.training.economy.held import hold_images
from gatehub.training.examples import Digests
from gatehub.training.loop import fit
from gatehub.training.methods.learner import Learner
from gatehub.training.objectives import Measured
from gatehub.training.observers import Observer
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices, KnownStart
from gatehub.training.steps.added_loss import NOTHING, AddedLoss
from gatehub.training.steps.average import put_tensors

Made = TypeVar("Made")

# What may be another when a run is continued; the images are compared by `Digests.order`, and the
# adapter that it goes on from by its digest.
_CHANGING = ("train_digest", "val_digest", "epochs", "init_from", "columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Made]):
    """What a run came to.

    Args:
        made: of the values that are kept.
        measured: how good it is on all validation images.
        start_accuracy: of the run's start, a fraction.
        start_mean_average_precision: the same; None where an image has one label.
        history: one record for the start and one for each epoch.
        kept: the number of the epoch whose values are kept; 0 is the start.
    """

    made: Made
    measured: Measured
    start_accuracy: float
    start_mean_average_precision: float | None
    history: Sequence[EpochRecord]
    kept: int


def identify_run(
    settings: Mapping[str, object],
    model: Learner,
    *,
    task: str,
    digests: Digests,
    backbone: Backbone,
) -> dict[str, object]:
    """Return what must be the same for a run to be continued.

    Args:
        settings: what is remembered of the run; see `recorded_settings`.
        model: at its start.
        task: its name.
        digests: of the images.
        backbone: what it starts from.
    """
    changing = {*_CHANGING, *read_sources(settings)}
    return {
        # These decide much of what follows.
        "init_digest": settings.get("init_digest"),
        "guide": settings.get("guide"),
        **{name: value for name, value in settings.items() if name not in changing},
        "images": digests.order,
        "task": task,
        "labels": list(model.labels),
        "input_size": list(model.preprocessing.input_size),
        "image_rules": model.preprocessing.to_json().get("image_rules"),
        "backbone_digest": backbone.digest,
    }


def run_training(
    model: Learner,
    data: ImageData,
    recipe: Recipe,
    *,
    place: Destination,
    settings: Mapping[str, object],
    make: Callable[[Choices], tuple[Made, Measured]],
    known: int = 0,
    resume: bool = False,
    workers: int = 0,
    decoded_bytes: int,
    observer: Observer | None = None,
    note: Callable[[str], None] | None = None,
    team: Team = ALONE,
    added: AddedLoss = NOTHING,
    known_start: KnownStart | None = None,
) -> Outcome[Made]:
    """Train a model, and return what is made of the epoch that is kept.

    Args:
        model: at its start; it is trained in place.
        data: with the model's labels.
        recipe: the settings.
        place: where the run keeps its state.
        settings: what must be the same for the run to be continued.
        make: returns what the model is at that moment, as it will be stored, and how good that is
            on all validation images.
        known: see `begin`.
        resume: see `fit`.
        workers: processes that decode images beside this one.
        decoded_bytes: of training images that are decoded once and held, or of what a stem gives
            for them; the team shares it.
        observer: is told of the start, of steps and of epochs.
        note: see `train_adapter`.
        team: the processes that share each batch.
        added: what the loss of a step has beside the task's.
        known_start: see `begin`.

    Raises:
        GatehubError: see `fit`.
    """
    share = decoded_bytes // team.size
    held = hold_images(
        model,
        data.train,
        recipe,
        limit_bytes=share,
        guided=added is not NOTHING,
        workers=workers,
    )
    if note is not None and held.note is not None:
        note(held.note)
    fitted = fit(
        held.model,
        replace(data, train=held.train),
        recipe,
        folder=place.work,
        settings=settings,
        known=known,
        stem=held.stem,
        resume=resume,
        workers=workers,
        observer=observer,
        team=team,
        added=added,
        known_start=known_start,
    )
    made, measured = make(fitted.choices)
    kept, begun = fitted.kept, fitted.history[0]
    by = data.objective.compared_by(recipe)
    score = attrgetter(by)
    at_start: float = getattr(begun, f"val_{by}")
    start_accuracy, start_map = begun.val_accuracy, begun.val_mean_average_precision
    if len(data.val) > recipe.val_images or score(measured) < at_start:
        # The epoch was chosen on a sample, and before its values were rounded.
        put_tensors(model, fitted.start)
        first, first_measured = make(fitted.choices)
        start_accuracy = first_measured.accuracy
        start_map = first_measured.mean_average_precision
        if recipe.keep != "last" and score(measured) < score(first_measured):
            made, measured, kept = first, first_measured, 0
    return Outcome(
        made=made,
        measured=measured,
        start_accuracy=start_accuracy,
        start_mean_average_precision=start_map,
        history=fitted.history,
        kept=kept,
    )
