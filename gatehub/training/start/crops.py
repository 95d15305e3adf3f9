"""How small a random crop may be: as small as leaves an image readable.

Gates know a few hundred photographs by heart after some epochs, and small crops keep them from it.
But half of a letter may be another letter. So the backbone is asked: where a linear probe reads
small crops of images that it has not seen about as well as it reads large ones, crops may be small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np

from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate
from gatehub.training.examples import Examples
from gatehub.training.methods.learner import Learner
from gatehub.training.recipe import Recipe
from gatehub.training.start.head_inputs import HeadInputs
from gatehub.training.start.linear_probe import fit_head, set_head

CROPS = (0.25, 0.4, 0.7)
LARGE = CROPS[-1]
# What must be read of small crops, as a share of what is read of large ones.
LEAST_READ = 0.85
MAX_IMAGES = 600
_FEWEST = 40  # of fewer, nothing can be said


def choose_crop(
    model: Learner,
    data: ImageData,
    examples: Examples,
    inputs: HeadInputs,
    recipe: Recipe,
    *,
    strengths: Mapping[str, float],
    known: int = 0,
    weights: Sequence[float] | None = None,
    workers: int = 0,
) -> float:
    """Return the smallest share of an image's area that random crops are to keep.

    Each half of the images is judged by a probe of the other.

    Args:
        model: in evaluation mode; its head is changed in place.
        data: with the model's labels.
        examples: training images.
        inputs: what the model's head is given for them.
        recipe: its other augmentation is drawn, too.
        strengths: see `fit_head`.
        known: see `fit_head`.
        weights: see `fit_probe`.
        workers: processes that decode images beside this one.
    """
    halves = halve(examples, seed=recipe.seed)
    if halves is None or not inputs.features:
        return LARGE
    score = attrgetter(data.objective.compared_by(recipe))
    judges = [
        (
            fit_head(
                model,
                inputs.take(seen),
                strengths=strengths,
                known=known,
                weights=weights,
                seed=recipe.seed,
            ),
            examples.take(unseen),
        )
        for seen, unseen in (halves, halves[::-1])
    ]

    def read(crop: float) -> float:
        transform = recipe.augment(model.preprocessing, min_crop=crop)
        found = 0.0
        for probes, unseen in judges:
            set_head(model, probes)
            batches = evaluation_batches(unseen, transform, seed=recipe.seed, workers=workers)
            found += score(evaluate(model, batches, objective=data.objective))
        return found

    least = LEAST_READ * read(LARGE)
    return next((crop for crop in CROPS[:-1] if 0 < least <= read(crop)), LARGE)


def halve(examples: Examples, *, seed: int) -> tuple[list[int], list[int]] | None:
    """Return the places of two halves with as many images of each class, give or take one.

    Args:
        examples: of more than `MAX_IMAGES`, some are left out.
        seed: decides which.

    Returns:
        None where there are too few images, or all of a half are of one class.
    """
    drawn = np.random.default_rng(seed).permutation(len(examples))[:MAX_IMAGES].tolist()
    drawn.sort(key=lambda index: examples.targets[index])
    halves = sorted(drawn[::2]), sorted(drawn[1::2])
    kinds = (len({examples.targets[index] for index in half}) for half in halves)
    return None if len(drawn) < _FEWEST or min(kinds) < 2 else halves
