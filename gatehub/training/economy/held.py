"""What is decoded, or computed, once for each training image."""

from __future__ import annotations

from dataclasses import dataclass

from gatehub.gates.attach import GatedModel
from gatehub.training.economy.decoded import hold_decoded
from gatehub.training.economy.stem import Stem, find_stem, hold_features
from gatehub.training.examples import Examples
from gatehub.training.methods.learner import Learner
from gatehub.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """Training images as the steps take them.

    Args:
        train: with features, or decoded as far as the budget goes.
        model: what is given them: the whole network, or what comes behind its stem.
        stem: None where the gates do not start late, or it cannot be run apart.
        note: in a sentence, how often the layers before the gates are computed; None where there
            are none.
    """

    train: Examples
    model: Learner
    stem: Stem | None
    note: str | None


def hold_images(
    model: Learner,
    train: Examples,
    recipe: Recipe,
    *,
    limit_bytes: int,
    guided: bool = False,
    workers: int = 0,
) -> Held:
    """Hold what a frozen stem gives for the training images, or else the decoded images.

    A stem gives the same for an image in every epoch if nothing about it is drawn. All of the
    images are held so, or none.

    Args:
        model: in evaluation mode, made ready to be trained.
        train: they stay as they are.
        recipe: says what is drawn.
        limit_bytes: of what is held.
        guided: whether the steps give the images to a guide, too, which needs them whole.
        workers: processes that decode images beside this one.

    Raises:
        InputError: an image cannot be decoded any more.
    """
    start = model.layout.start if isinstance(model, GatedModel) else None
    stem = find_stem(model) if isinstance(model, GatedModel) else None
    need, note = 0, None
    if stem is not None and not recipe.augments and not guided:
        need = stem.count_bytes(len(train))
        if need <= limit_bytes:
            return Held(
                train=hold_features(stem, train, workers=workers),
                model=stem.rest,
                stem=stem,
                note=f"What comes before {start} is computed once for each image: {_show(need)} "
                f"for the {len(train):,} to train on.",
            )
    if stem is not None:
        if recipe.augments:
            why = "which differ from epoch to epoch"
        elif guided:
            why = "which the guide sees, too"
        else:
            why = f"which would take {_show(need)}, more than the {_show(limit_bytes)} of "
            why += "decoded_bytes"
        note = (
            f"What comes before {start} is computed once for the validation images, and in every "
            f"step for those to train on, {why}."
        )
    elif start is not None:
        note = f"What comes before {start} cannot be computed apart in this network."
    return Held(
        train=hold_decoded(train, model.preprocessing, limit_bytes=limit_bytes, workers=workers),
        model=model,
        stem=stem,
        note=note,
    )


def _show(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
