"""A model's answers to labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from gatehub.backbone.torch_settings import pin_thread_settings
from gatehub.training.batches import Batch
from gatehub.training.methods.learner import Network
from gatehub.training.objectives import SINGLE_LABEL, Evaluation, Measured, Objective

M = TypeVar("M", bound=Measured)
Progress = Callable[[int], None]


@overload
def evaluate(
    model: Network, batches: Iterable[Batch], *, progress: Progress | None = None
) -> Evaluation: ...


@overload
def evaluate(
    model: Network,
    batches: Iterable[Batch],
    *,
    objective: Objective[M],
    progress: Progress | None = None,
) -> M: ...


@pin_thread_settings()
def evaluate(
    model: Network,
    batches: Iterable[Batch],
    *,
    objective: Objective[Any] = SINGLE_LABEL,
    progress: Progress | None = None,
) -> Any:
    """Measure a model, in evaluation mode; its mode is restored afterwards.

    Args:
        model: (B, C, H, W) float32 → (B, classes) logits.
        batches: from `evaluation_batches`; at least one.
        objective: what the answers are to be.
        progress: called with the number of images done.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    answers: list[Mapping[str, Tensor]] = []
    loss, done = 0.0, 0
    with torch.inference_mode():
        for images, targets in batches:
            logits: Tensor = model(images.to(device)).float().cpu()
            read, batch_loss = objective.read(logits, targets)
            answers.append(read)
            loss += batch_loss
            done += len(targets)
            if progress is not None:
                progress(done)
    model.train(was_training)
    joined = {name: torch.cat([read[name] for read in answers]) for name in answers[0]}
    return objective.measure(joined, loss / done)
