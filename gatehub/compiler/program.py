"""A network as the list of operations that it runs, which any number of threads can run at once.

A module holds its weights in attributes, so two tasks cannot run through one module at the same
time. A program takes its weights as an argument: it is recorded once for a backbone, never
changes, and gives the same numbers as the module, since it runs the same operations.

What is known of a node is kept with it as facts: `Value`, `Effect` and `Lookup`. Which node has
which of them, and what else a program has to hold to, is written in `verification`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, fx

# Two recorded passes tell a size that follows the batch or the labels from one that does not.
# Both pairs are coprime, so that no size can follow both.
RECORDED_BATCHES = (2, 3)
RECORDED_LABELS = (5, 7)

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor that a node stands for.

    Args:
        shapes: in the two recorded passes.
        dtype: of its numbers.
        storage: which memory it lies in; a view lies in that of its base.
    """

    shapes: tuple[Shape, Shape]
    dtype: torch.dtype
    storage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Which memory an operation touches.

    Args:
        reads: the memory of what it is given.
        writes: the part of that which it changes.
    """

    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A weight that a node takes out of the program's input.

    Args:
        name: of the weight.
        shape: of the weight.
        storage: which memory it lies in.
    """

    name: str
    shape: Shape
    storage: int


class Constant:
    """A function of nothing that returns one tensor, which no operation changes.

    Args:
        tensor: what it returns, in every run.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.__name__ = "constant"
        self.__module__ = __name__

    def __call__(self) -> Tensor:
        return self._tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """A network's operations, as a graph whose inputs are `images`, `weights` and `labels`.

    Args:
        graph: nodes in the order in which they run.
        inputs: the graph's input nodes, by name.
        batch: the node that gives the number of images.
        answer: the node that gives the logits.
        weights: names of the tensors that it reads.
        kernels: names of the weights that nothing but convolutions of one setting reads.
        matrices: names of those that have one row and column, as have the images that they meet.
        changes_images: whether it writes into the images that it is given.
    """

    graph: fx.Graph
    inputs: Mapping[str, fx.Node]
    batch: fx.Node
    answer: fx.Node
    weights: frozenset[str]
    kernels: frozenset[str]
    matrices: frozenset[str]
    changes_images: bool


def describe(node: fx.Node, *facts: Value | Effect | Lookup) -> fx.Node:
    """Keep facts with a node, in place of those of the same kind, and return the node."""
    node.meta |= {type(fact).__name__: fact for fact in facts}
    return node


def read_value(node: fx.Node) -> Value | None:
    """Return which tensor a node stands for; None for sizes, lists and lookups."""
    found: Value | None = node.meta.get(Value.__name__)
    return found


def read_effect(node: fx.Node) -> Effect | None:
    """Return which memory a node touches; None for those that are no operation."""
    found: Effect | None = node.meta.get(Effect.__name__)
    return found


def read_lookup(node: fx.Node) -> Lookup | None:
    """Return which weight a node looks up; None for those that look up none."""
    found: Lookup | None = node.meta.get(Lookup.__name__)
    return found


def find_storages(nodes: Iterable[fx.Node]) -> frozenset[int]:
    """Return the memory in which values and weights lie."""
    facts = (read_value(node) or read_lookup(node) for node in nodes)
    return frozenset(fact.storage for fact in facts if fact is not None)


def drop_unread(graph: fx.Graph, *, keep: Collection[fx.Node] = ()) -> None:
    """Take out of a graph, in place, what nothing reads.

    Operations that change memory stay: a view's change is read through another view.

    Args:
        graph: nodes in the order in which they run.
        keep: nodes that stay though nothing reads them.
    """

    def stays(node: fx.Node) -> bool:
        effect = read_effect(node)
        is_end = node.op in ("placeholder", "output")
        return is_end or node in keep or (effect is not None and bool(effect.writes))

    graph.eliminate_dead_code(stays)
