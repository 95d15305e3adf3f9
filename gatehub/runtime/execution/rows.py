"""A batch in which each task has images of its own, side by side: what each makes of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gatehub.compiler.kernels import Weight
from gatehub.compiler.stem import Stem
from gatehub.runtime.execution.programs import leave


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """One task's part in a batch.

    Args:
        weights: what its part of the program reads.
        labels: its number of classes.
        count: how many of the images are its own.
    """

    weights: Mapping[str, Weight]
    labels: int
    count: int


def answer_rows(stem: Stem, values: Sequence[Tensor], shares: Iterable[Share]) -> list[Tensor]:
    """Run what follows a stem for several tasks, each on the rows of its own images.

    Args:
        stem: the part that has run; it knows which rows belong to which image.
        values: what crosses over from it, of all images.
        shares: of the tasks, in the order of their images.

    Returns:
        For each task (its images, classes) float32, on the CPU.
    """
    answers, start = [], 0
    for share in shares:
        stop = start + share.count
        rows = stem.take(values, start, stop)
        answers.append(leave(stem.rest(rows, share.weights, share.labels, share.count)))
        start = stop
    return answers
