"""Answers to a stream of images: one batch in memory, every task on the same pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gatehub.cli.answers._pictures import in_batches
from gatehub.errors import GatehubError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.problem import Problem

    Transform = Callable[[Path], Tensor]

# Decoding releases the interpreter lock; more threads than this only wait for the disk.
_MAX_THREADS = 8


class Task(Protocol):
    """What answers are read by."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def problem(self) -> Problem: ...


class Answering(Protocol):
    """What answers for several tasks: an `Engine`, or `Networks`."""

    def task(self, task: str) -> Task: ...
    def predict_all(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is said of one image.

    Args:
        image: its path, as it was given.
        found: for each task, its labels with their scores, the best first; of a task with several
            labels an image, perhaps none. Empty after an error.
        error: why there is no answer.
    """

    image: str
    found: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    error: GatehubError | None = None


def answer_images(
    engine: Answering,
    tasks: Sequence[str],
    images: Iterable[tuple[str, GatehubError | None]],
    *,
    top_k: int | None,
    batch_size: int,
) -> Iterator[list[Answer]]:
    """Yield the answers to images in their order, a batch at a time.

    Tasks with the same preprocessing share a pass over the backbone. An image that a task refuses
    is answered for none.

    Args:
        engine: serves the tasks.
        tasks: their names.
        images: from `find_images`.
        top_k: how many labels an answer has at most, whatever their thresholds; None for the best
            one, or for all that reach their thresholds where an image may have several.
        batch_size: how many images are decoded and run together.
    """
    infos = {task: engine.task(task) for task in tasks}
    sharing: dict[Preprocessing, list[str]] = {}
    for task, info in infos.items():
        sharing.setdefault(info.preprocessing, []).append(task)
    transforms = [preprocessing.transform() for preprocessing in sharing]

    def answer(batch: Sequence[tuple[str, GatehubError | None]]) -> list[Answer]:
        decoded = list(threads.map(lambda image: _decode(image, transforms), batch))
        good = [row for row, tensors in enumerate(decoded) if isinstance(tensors, list)]
        found: list[dict[str, list[tuple[str, float]]]] = [{} for _ in batch]
        for place, group in enumerate(sharing.values()) if good else ():
            logits = engine.predict_all(_stack(decoded, place), group)
            for task in group:
                for row, own in zip(good, logits[task], strict=True):
                    found[row][task] = _name_best(own, infos[task], top_k)
        return [
            Answer(image=path, error=tensors)
            if isinstance(tensors, GatehubError)
            else Answer(image=path, found={task: found[row][task] for task in tasks})
            for row, ((path, _), tensors) in enumerate(zip(batch, decoded, strict=True))
        ]

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        # In a function of its own, so that a batch is gone before the next one is decoded.
        yield from map(answer, in_batches(images, batch_size))


def _name_best(logits: Tensor, info: Task, top_k: int | None) -> list[tuple[str, float]]:
    """Return the labels to show with their scores, the best first."""
    scores = info.problem.score(logits)
    chosen = info.problem.choose(logits, scores, top_k=top_k, usual=1)
    return [(info.labels[place], scores[place].item()) for place in chosen]


def _decode(
    image: tuple[str, GatehubError | None], transforms: Sequence[Transform]
) -> list[Tensor] | GatehubError:
    """Return an image as each transform makes it, (3, H, W) float32, or why it cannot be used."""
    from pathlib import Path

    path, error = image
    if error is not None:
        return error
    try:
        return [transform(Path(path)) for transform in transforms]
    except InputError as refused:
        return refused


def _stack(decoded: Sequence[list[Tensor] | GatehubError], place: int) -> Tensor:
    import torch

    return torch.stack([tensors[place] for tensors in decoded if isinstance(tensors, list)])
