"""The stages by which a gated model comes near a network, each measured on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import PoorFitError
from gatehub.gates.attach import GatedModel
from gatehub.gates.fold import fold
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.problem import Problem
from gatehub.training import defaults
from gatehub.training.batches import evaluation_batches, training_batches
from gatehub.training.distillation.images import AnsweredImages
from gatehub.training.distillation.imitation import imitate
from gatehub.training.distillation.likeness import (
    Answers,
    Likeness,
    answer,
    compare,
    measure_accuracy,
)
from gatehub.training.distillation.moments import match_moments
from gatehub.training.distillation.settings import Distillation
from gatehub.training.economy.decoded import hold_decoded
from gatehub.training.examples import Examples
from gatehub.training.steps.average import put_tensors

LEAST_SQUARES, STATISTICS, TRAINING = "least squares", "statistics", "training"
_BATCH = 64

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An adapter on its way.

    Args:
        name: "least squares", "statistics" (measured again), or "training".
        likeness: to the network's answers, as the adapter would be stored.
    """

    name: str
    likeness: Likeness


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """What became of a gated model.

    Args:
        adapter: the one that is most like the network, with its figures.
        kept: the name of its stage.
        stages: what was measured, in their order.
        network_accuracy: of the network on the same images; None where no labels are known.
    """

    adapter: Adapter
    kept: str
    stages: tuple[Stage, ...]
    network_accuracy: float | None

    def check(self, task: str, *, max_drop: float) -> None:
        """Refuse what is too little like the network.

        Raises:
            PoorFitError: more than `max_drop` of the images are answered otherwise.
        """
        best = next(stage for stage in self.stages if stage.name == self.kept)
        lost = 1 - best.likeness.agreement
        if lost > max_drop + 1e-9:
            raise PoorFitError(
                f"The adapter of '{task}' answers {100 * lost:.1f} % of the held-out images "
                f"otherwise than its network; expected at most {100 * max_drop:g} %.",
                hint="Give more images (data), more steps, or gates of more values (gates full, or "
                "lowrank:R of a higher R); or allow more (max_drop).",
                stages=self.stages,
            )


def climb(
    model: GatedModel,
    network: nn.Module,
    images: AnsweredImages,
    settings: Distillation,
    *,
    make: Callable[[], Adapter],
    backbone: Backbone,
    problem: Problem,
    workers: int = 0,
    progress: Progress | None = None,
) -> Climb:
    """Bring a model that least squares have made nearer to its network, in place.

    Each stage begins at what was best before it. What is kept is the stage with the least
    divergence: on a few hundred images agreement is the coarser measure.

    Args:
        model: from `project`.
        network: what it is to be like, on the same device.
        images: to learn from and to measure on.
        settings: how.
        make: returns what the model is at that moment, as it would be stored.
        backbone: its own.
        problem: how logits are read.
        workers: processes that decode images beside this one.
        progress: called with what is done, how much of it is, and of how much.
    """
    preprocessing = model.preprocessing
    limit = defaults.DECODED_BYTES
    train = hold_decoded(images.train, preprocessing, limit_bytes=limit, workers=workers)
    ask = partial(_ask, images=images, model=model, workers=workers)
    theirs = ask(network)

    def measure(adapter: Adapter) -> Likeness:
        folded = fold(backbone, adapter)
        arrange_kernels(folded)
        return compare(ask(folded), theirs, problem)

    def measure_statistics() -> bool:
        some = train.sample(settings.measured, seed=settings.seed)
        return match_moments(model, network, _draw(some, model, settings, workers)) > 0

    def train_model() -> bool:
        if settings.steps:
            imitate(
                model,
                network,
                train,
                settings,
                preprocessing=preprocessing,
                problem=problem,
                workers=workers,
                on_step=None if progress is None else partial(progress, "training"),
            )
        return settings.steps > 0

    best = make()
    stages = [Stage(name=LEAST_SQUARES, likeness=measure(best))]
    kept = stages[0]
    for name, advance in ((STATISTICS, measure_statistics), (TRAINING, train_model)):
        before = {n: tensor.clone() for n, tensor in model.task_tensors().items()}
        if not advance():
            continue
        made = make()
        stages.append(Stage(name=name, likeness=measure(made)))
        if stages[-1].likeness.divergence <= kept.likeness.divergence:
            best, kept = made, stages[-1]
        else:  # what is worse is no start for what comes next
            put_tensors(model, before)
    figures = {
        "agreement": kept.likeness.agreement,
        "divergence": kept.likeness.divergence,
        "accuracy": kept.likeness.accuracy,
    }
    return Climb(
        adapter=best.with_metrics({n: v for n, v in figures.items() if v is not None}),
        kept=kept.name,
        stages=tuple(stages),
        network_accuracy=measure_accuracy(theirs, problem),
    )


def _ask(net: nn.Module, *, images: AnsweredImages, model: GatedModel, workers: int) -> Answers:
    batches = evaluation_batches(
        images.held_out, model.preprocessing.transform(), batch_size=_BATCH, workers=workers
    )
    device = next(model.parameters()).device
    return answer(net, batches, device=device, labelled=images.labelled)


def _draw(
    examples: Examples, model: GatedModel, settings: Distillation, workers: int
) -> Iterator[Tensor]:
    """Yield images as they are evaluated, in no order of classes."""
    for images, _ in training_batches(
        examples,
        model.preprocessing.transform(),
        batch_size=min(_BATCH, len(examples)),
        seed=settings.seed,
        epoch=0,
        workers=workers,
    ):
        yield images
