"""How good a model is on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.errors import DataError, LabelMismatchError
from gatehub.training.batches import Batch
from gatehub.training.data import Examples, ImageData
from gatehub.training.sources.pictures import spell_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures over a set of examples.

    Args:
        accuracy: share of the images whose highest logit is their class.
        loss: mean cross-entropy, in nats.
        images: how many there were.
    """

    accuracy: float
    loss: float
    images: int


def choose_examples(data: ImageData, labels: Sequence[str], split: str) -> Examples:
    """Return the examples of a split, with targets that index into a model's labels.

    Args:
        data: from `load_data`; its classes may be fewer than the model's.
        labels: the model's class names, in the order of its logits.
        split: "val", "train", "test" or "all".

    Raises:
        LabelMismatchError: the data has a class that the model lacks.
        DataError: the data has no such split.
    """
    place = {spell_label(label): index for index, label in enumerate(labels)}
    unknown = sorted(set(data.labels) - place.keys())
    if unknown:
        raise LabelMismatchError(
            f"{data.source} has the class {unknown[0]!r}, which the adapter lacks "
            f"({len(unknown)} such); its labels are {', '.join(labels[:10])}"
            + ("…" if len(labels) > 10 else ".")
        )
    sides = {"train": data.train, "val": data.val, "test": data.test}
    parts = tuple(sides.values()) if split == "all" else (sides[split],)
    if not any(map(len, parts)):
        raise DataError(
            f"{data.source} has no {split} images.",
            hint=f"Put them into {split}/CLASS folders beside train, or choose another split.",
        )
    return Examples(
        names=tuple(name for part in parts for name in part.names),
        targets=tuple(place[data.labels[t]] for part in parts for t in part.targets),
        sources=tuple(source for part in parts for source in part.sources),
    )


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a model, in evaluation mode; its mode is restored afterwards.

    Args:
        model: (B, C, H, W) float32 → (B, classes) logits.
        batches: from `evaluation_batches`; at least one.
        progress: called with the number of images done.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right, loss, done = 0, 0.0, 0
    with torch.inference_mode():
        for images, targets in batches:
            logits: Tensor = model(images.to(device)).float().cpu()
            right += int((logits.argmax(1) == targets).sum())
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            done += len(targets)
            if progress is not None:
                progress(done)
    model.train(was_training)
    return Evaluation(accuracy=right / done, loss=loss / done, images=done)
