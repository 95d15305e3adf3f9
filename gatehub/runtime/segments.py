"""Which part of a program is the same for many tasks, and can be run once for all of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from gatehub.runtime.program import Program

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stem:
    """The operations that depend on no task's own weights, and those that follow them.

    Args:
        crossing: the nodes of the program whose values cross from one part to the other.
        stem: (images, weights, labels) → those values.
        rest: (crossing values, weights, labels, batch) → logits.
        rows: for each crossing value, how many rows it has for each image; 0 for a value that
            the images play no part in.
        changed: for each crossing value, whether the rest changes it in place.
        operations: how many operations the stem runs.
    """

    crossing: Sequence[fx.Node]
    stem: Run
    rest: Run
    rows: tuple[int, ...]
    changed: tuple[bool, ...]
    operations: int

    def take(self, values: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        """Return what belongs to the images from `start` to `stop`."""
        return [
            value[rows * start : rows * stop] if rows else value
            for value, rows in zip(values, self.rows, strict=True)
        ]

    def protect(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Copy those that the rest would change, so that another task can read them too."""
        return [
            value.clone() if changed else value
            for value, changed in zip(values, self.changed, strict=True)
        ]


def compile_whole(program: Program) -> Run:
    """Return the whole program as a function (images, weights, labels) → logits."""
    return fx.GraphModule(nn.Module(), program.graph)


def split(program: Program, own: Collection[str]) -> Stem | None:
    """Split a program in what is the same for all tasks and what each task does with it.

    An operation belongs to the rest if it depends on one of the task's own weights, reads or
    changes memory that the rest has changed, or changes memory that the rest reads. Everything
    else can run before, in its order.

    Args:
        program: stays as it is.
        own: names of the weights that differ from task to task.

    Returns:
        None where nothing can be shared: the first operation on the images depends on the task,
        or a value that crosses over does not lie image by image.
    """
    rest = find_rest(program, own)
    computing = [n for n in program.graph.nodes if "reads" in n.meta]
    operations = sum(node not in rest for node in computing)
    crossing = _find_crossing(program, rest)
    if not operations or program.answer not in rest or not crossing:
        return None
    rows = [count_rows(node) for node in crossing]
    storages = [node.meta["storage"] for node in crossing]
    written = frozenset().union(*(node.meta["writes"] for node in computing if node in rest))
    changed = [storage in written for storage in storages]
    if None in rows or (any(changed) and len(set(storages)) < len(storages)):
        return None
    if not any(rows):
        return None
    return Stem(
        crossing=crossing,
        stem=_extract_stem(program, crossing, rest),
        rest=_extract_rest(program, crossing, rest),
        rows=tuple(row for row in rows if row is not None),
        changed=tuple(changed),
        operations=operations,
    )


def find_rest(program: Program, own: Collection[str]) -> set[fx.Node]:
    """Return the nodes that cannot run before a task is known; see `split`."""
    rest: set[fx.Node] = set()
    read: set[int] = set()
    written: set[int] = set()
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        reads = node.meta.get("reads", frozenset())
        writes = node.meta.get("writes", frozenset())
        if (
            node.meta.get("weight") in own
            or any(source in rest for source in node.all_input_nodes)
            or reads & written
            or writes & read
        ):
            rest.add(node)
            read |= reads
            written |= writes
    return rest


def _find_crossing(program: Program, rest: set[fx.Node]) -> list[fx.Node] | None:
    """Return the values of the stem that the rest reads, but for weights and sizes.

    None where one of them is a list of tensors.
    """
    crossing = [
        node
        for node in program.graph.nodes
        if node not in rest
        and ("shapes" in node.meta or "reads" in node.meta)
        and any(user in rest for user in node.users)
    ]
    return crossing if all("shapes" in node.meta for node in crossing) else None


def count_rows(node: fx.Node) -> int | None:
    """Return how many rows of a value belong to each image, 0 if none does, None if unclear."""
    if "shapes" not in node.meta:
        return None
    small, large = node.meta["shapes"]
    if small == large:
        return 0
    if len(small) != len(large) or tuple(small[1:]) != tuple(large[1:]):
        return None
    # The two recorded batches are of two and of three images.
    return small[0] // 2 if small[0] % 2 == 0 and small[0] // 2 * 3 == large[0] else None


def _extract_stem(program: Program, crossing: Sequence[fx.Node], rest: set[fx.Node]) -> Run:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "output" and node not in rest:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[value] for value in crossing))
    return _compile(graph)


def _extract_rest(program: Program, crossing: Sequence[fx.Node], rest: set[fx.Node]) -> Run:
    graph = fx.Graph()
    values, weights, labels, batch = map(
        graph.placeholder, ("values", "weights", "labels", "batch")
    )
    copies = {program.inputs["weights"]: weights, program.inputs["labels"]: labels}
    copies[program.batch] = batch
    for index, node in enumerate(crossing):
        copies[node] = graph.call_function(operator.getitem, (values, index))
    for node in program.graph.nodes:
        if node in copies or node.op in ("placeholder", "output"):
            continue
        # Lookups and sizes are no operations: both parts have their own.
        is_operation = "reads" in node.meta
        if node in rest or (
            not is_operation and all(source in copies for source in node.all_input_nodes)
        ):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[program.answer])
    return _compile(graph)


def _compile(graph: fx.Graph) -> Run:
    graph.eliminate_dead_code()
    return fx.GraphModule(nn.Module(), graph)
