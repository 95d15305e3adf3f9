"""Which part of a program is the same for many tasks, and can be run once for all of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from gatehub.compiler.program import RECORDED_BATCHES, Program, Run, compile_graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stem:
    """The operations that depend on no task's own weights, and those that follow them.

    Args:
        crossing: the nodes of the program whose values cross from one part to the other.
        stem: (images, weights) → those values.
        rest: (crossing values, weights, labels, batch) → logits.
        rows: for each crossing value, how many rows it has for each image; 0 for a value that
            the images play no part in.
        changed: for each crossing value, whether the rest changes it in place.
    """

    crossing: Sequence[fx.Node]
    stem: Run
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


def split(program: Program, own: Collection[str]) -> Stem | None:
    """Split a program in what is the same for all tasks and what each task does with it.

    An operation belongs to the rest if it depends on one of the task's own weights or on its
    number of labels, reads or changes memory that the rest has changed, or changes memory that the
    rest reads. Everything else can run before, in its order.

    Args:
        program: stays as it is.
        own: names of the weights that differ from task to task.

    Returns:
        None where nothing can be shared: the first operation on the images depends on the task,
        or a value that crosses over does not have its rows image by image. Whether the rows that
        it has for each image lie together has to be tried; see `keeps_images_apart`.
    """
    rest = find_rest(program, own)
    crossing = _find_crossing(program, rest)
    if program.answer not in rest or not crossing:
        return None
    rows = [count_rows(node) for node in crossing]
    storages = [node.meta["storage"] for node in crossing]
    written = {
        storage
        for node in program.graph.nodes
        if node in rest
        for storage in node.meta.get("writes", ())
    }
    changed = [storage in written for storage in storages]
    # Copies of two views of one memory would not see each other's changes.
    if None in rows or not any(rows) or (any(changed) and len(set(storages)) < len(storages)):
        return None
    if all(node is program.inputs["images"] for node in crossing):
        return None
    return Stem(
        crossing=crossing,
        stem=_extract_stem(program, crossing, rest),
        rest=_extract_rest(program, crossing, rest),
        rows=tuple(row for row in rows if row is not None),
        changed=tuple(changed),
    )


def find_rest(program: Program, own: Collection[str]) -> set[fx.Node]:
    """Return the nodes that cannot run before a task is known; see `split`."""
    rest = {program.inputs["labels"]}
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


def count_rows(node: fx.Node) -> int | None:
    """Return how many rows of a value there are for each image, 0 for none, None if unclear."""
    if "shapes" not in node.meta:
        return None
    small, large = node.meta["shapes"]
    if small == large:
        return 0
    if len(small) != len(large) or tuple(small[1:]) != tuple(large[1:]):
        return None
    first, second = RECORDED_BATCHES
    return (
        small[0] // first
        if small[0] % first == 0 and small[0] // first * second == large[0]
        else None
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


def _extract_stem(program: Program, crossing: Sequence[fx.Node], rest: set[fx.Node]) -> Run:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "output" and node not in rest:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[value] for value in crossing))
    return compile_graph(graph)


def _extract_rest(program: Program, crossing: Sequence[fx.Node], rest: set[fx.Node]) -> Run:
    graph = fx.Graph()
    values, weights, labels, batch = map(
        graph.placeholder, ("values", "weights", "labels", "batch")
    )
    copies = {program.inputs["weights"]: weights, program.inputs["labels"]: labels}
    copies[program.batch] = batch
    for index, node in enumerate(crossing):
        copies[node] = graph.call_function(operator.getitem, (values, index))
        copies[node].meta |= {key: node.meta[key] for key in ("shapes", "dtype")}
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
    return compile_graph(graph)
