"""A network as the list of operations that it runs, which any number of threads can run at once.

A module holds its weights in attributes, so two tasks cannot run through one module at the same
time. A program takes its weights as an argument: it is recorded once for a backbone, never
changes, and gives the same numbers as the module, since it runs the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from gatehub.compiler.lowering import fuse

# Two recorded passes tell a size that follows the batch or the labels from one that does not.
# Both pairs are coprime, so that no size can follow both.
RECORDED_BATCHES = (2, 3)
RECORDED_LABELS = (5, 7)

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """A network's operations, as a graph whose inputs are `images`, `weights` and `labels`.

    The `meta` of an operation holds "reads" and "writes", ids of the memory that it reads and
    changes. That of a value holds "shapes", its shapes in the two recorded passes, "dtype", and
    "storage", the id of its memory. That of a weight that is looked up holds "weight", its name;
    lookups and sizes are no operations.

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


def compile_graph(graph: fx.Graph) -> Run:
    """Return a graph as a function of its inputs.

    What nothing reads is left out, but for operations that change memory: a view's change is
    read through another view.
    """
    graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or bool(node.meta.get("writes"))
    )
    return fx.GraphModule(nn.Module(), fuse(graph))
