"""Batches that mix tasks: which of them share a pass, and how far."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate

from torch import Tensor

from gatehub.errors import MemoryBudgetError
from gatehub.runtime.execution.programs import size_of
from gatehub.runtime.tasks.served import Answer, Served
from gatehub.runtime.tasks.tiers import Tiers

# With this many images each, folded weights are faster than a pass that is shared by all.
_IMAGES_WORTH_FOLDING = 4


def answer_mixed(
    tasks: Sequence[Served], images: Tensor, tiers: Tiers, exact: bool = False
) -> list[Answer]:
    """Answer for another task with each image.

    Args:
        tasks: the task of each image.
        images: (B, C, H, W) float32.
        tiers: where the tasks' weights are.
        exact: see `Execution.run`; nothing is shared then.

    Returns:
        For each image, in order, logits (classes,) float32 and the task.
    """
    rows: dict[Served, list[int]] = {}
    for row, task in enumerate(tasks):
        rows.setdefault(task, []).append(row)
    answers: list[Answer | None] = [None] * len(tasks)
    for group in _by_stem(list(rows), exact).values():
        order = [row for task in group for row in rows[task]]
        # The only copy: from here on the images of tasks that follow one another are a view.
        together = images[order]
        counts = [len(rows[task]) for task in group]
        logits = _answer_own(group, counts, together, tiers, exact)
        for task, answer in zip(group, logits, strict=True):
            for row, values in zip(rows[task], answer, strict=True):
                # Of its own: who changes or learns from one answer must not touch the others.
                answers[row] = Answer(logits=values.clone(), task=task.info)
    return [answer for answer in answers if answer is not None]


def answer_all(
    tasks: Sequence[Served], images: Tensor, tiers: Tiers, exact: bool = False
) -> list[Answer]:
    """Answer for several distinct tasks with the same images.

    Returns:
        For each task, in order, logits (B, classes) float32 and the task.
    """
    found: dict[Served, Tensor] = {}
    for group in _by_stem(tasks, exact).values():
        found |= zip(group, _answer_every(group, images, tiers, exact), strict=True)
    return [Answer(logits=found[task], task=task.info) for task in tasks]


def _answer_every(
    tasks: Sequence[Served], images: Tensor, tiers: Tiers, exact: bool
) -> list[Tensor]:
    """Answer for tasks of one stem, each for all the images."""

    execution, size = tasks[0].execution, size_of(images)

    def run(first: int, last: int) -> list[Tensor]:
        forms = [execution.forms(len(images), size)] * (last - first)
        with tiers.folded(tasks[first:last], forms) as folded:
            if exact:
                return [execution.run(task, images, exact=True) for task in folded]
            return execution.run_all(folded, images)

    return _in_parts(0, len(tasks), run)


def _answer_own(
    tasks: Sequence[Served], counts: Sequence[int], images: Tensor, tiers: Tiers, exact: bool
) -> list[Tensor]:
    """Answer for tasks of one stem, each for its own images, which stand side by side."""
    execution, size = tasks[0].execution, size_of(images)
    shared = None
    if (
        len(tasks) > 1
        and tasks[0].plan.body.is_scale
        and len(images) < _IMAGES_WORTH_FOLDING * len(tasks)
    ):
        shared = execution.shared.find(tasks[0].plan, size)
    starts = [0, *accumulate(counts)]

    def run(first: int, last: int) -> list[Tensor]:
        some, rows = tasks[first:last], counts[first:last]
        given = images[starts[first] : starts[last]]
        if shared is not None:
            try:
                with tiers.channels(some, shared) as own:
                    return execution.shared.run(shared, list(zip(own, rows, strict=True)), given)
            except MemoryBudgetError:
                if len(some) > 1:
                    raise
                # Its factors have no room, but its folded weights may be there, pinned.
        forms = [execution.forms(count, size) for count in rows]
        with tiers.folded(some, forms) as folded:
            if exact:
                return [execution.run(task, given, exact=True) for task in folded]
            return execution.run_rows(list(zip(folded, rows, strict=True)), given)

    return _in_parts(0, len(tasks), run)


def _in_parts(first: int, last: int, run: Callable[[int, int], list[Tensor]]) -> list[Tensor]:
    """Run tasks, from the first to before the last, as many at a time as memory has room for."""
    try:
        return run(first, last)
    except MemoryBudgetError:
        if last - first == 1:
            raise
    middle = (first + last) // 2
    return _in_parts(first, middle, run) + _in_parts(middle, last, run)


def _by_stem(tasks: Sequence[Served], exact: bool) -> dict[Hashable, list[Served]]:
    """Put tasks together that can share a pass; each is alone where nothing may be shared."""
    groups: dict[Hashable, list[Served]] = {}
    for task in tasks:
        groups.setdefault(task if exact else task.stem, []).append(task)
    return groups
