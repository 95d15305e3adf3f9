"""Both parts of a divided program as functions, and how values pass from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub.compiler.lowering import Run, compile_graph
from gatehub.compiler.partition import Partition
from gatehub.compiler.weight_use import find_weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stem:
    """The operations that depend on no task's own weights, and those that follow them.

    Args:
        stem: (images, weights) → the values that cross over.
        weights: names of the weights that the stem reads.
        rest: (crossing values, weights, labels, batch) → logits.
        rows: for each crossing value, how many rows it has for each image; 0 for a value that
            the images play no part in.
        changed: for each crossing value, whether the rest changes it in place.
    """

    stem: Run
    weights: frozenset[str]
    rest: Run
    rows: tuple[int, ...]
    changed: tuple[bool, ...]

    def take(self, values: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        """Return what belongs to the images from `start` to `stop`, for the rest to use up.

        No two calls may take the same image: the rest may change its rows.
        """
        taken = []
        for value, rows, changed in zip(values, self.rows, self.changed, strict=True):
            if rows:
                taken.append(value[rows * start : rows * stop])
            else:
                taken.append(value.clone() if changed else value)
        return taken

    def protect(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Copy those that the rest would change, so that another task can read them too."""
        return [
            value.clone() if changed else value
            for value, changed in zip(values, self.changed, strict=True)
        ]


def lower(parts: Partition) -> Stem:
    """Return both parts of a program as functions."""
    return Stem(
        stem=compile_graph(parts.stem),
        weights=find_weights(parts.stem),
        rest=compile_graph(parts.rest),
        rows=parts.rows,
        changed=parts.changed,
    )


def keeps_images_apart(run: Callable[[list[int]], Sequence[Tensor]], rows: Sequence[int]) -> bool:
    """Try whether each image's rows lie together, in the images' order, and depend on it alone.

    Sizes do not tell: a network may put a second copy of all images behind the first, or their
    mean in a value of its own. So one image of two is replaced by a third, and what belongs to the
    other must not change by a bit.

    Args:
        run: computes values for two of three images, given by their indices.
        rows: for each value, how many rows it has for each image.
    """
    values, second_replaced, first_replaced = run([0, 1]), run([0, 2]), run([2, 1])
    return all(
        torch.equal(a[:count], b[:count]) and torch.equal(a[count:], c[count:])
        if count
        else torch.equal(a, b) and torch.equal(a, c)
        for count, a, b, c in zip(rows, values, second_replaced, first_replaced, strict=True)
    )
