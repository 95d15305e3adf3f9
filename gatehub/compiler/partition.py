"""Which part of a program is the same for many tasks, and can be run once for all of them."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import fx

from gatehub.compiler.program import (
    RECORDED_BATCHES,
    Effect,
    Program,
    Value,
    describe,
    read_effect,
    read_lookup,
    read_value,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition:
    """A program in two parts: what depends on no task's own weights, and what follows it.

    Args:
        crossing: the nodes of the program whose values cross from one part to the other.
        stem: (images, weights) → those values.
        rest: (crossing values, weights, labels, batch) → logits.
        rows: for each crossing value, how many rows it has for each image; 0 for a value that
            the images play no part in.
        changed: for each crossing value, whether the rest changes it in place.
    """

    crossing: Sequence[fx.Node]
    stem: fx.Graph
    rest: fx.Graph
    rows: tuple[int, ...]
    changed: tuple[bool, ...]


def partition(program: Program, own: Collection[str]) -> Partition | None:
    """Divide a program into what is the same for all tasks and what each task does with it.

    An operation belongs to the rest if it depends on one of the task's own weights or on its
    number of labels, reads or changes memory that the rest has changed, or changes memory that the
    rest reads. Everything else can run before, in its order.

    Args:
        program: stays as it is.
        own: names of the weights that differ from task to task.

    Returns:
        None where nothing can be shared: the first operation on the images depends on the task,
        or a value that crosses over does not have its rows image by image. Whether the rows that
        it has for each image lie together has to be tried; see `stem.keeps_images_apart`.
    """
    rest = find_rest(program, own)
    crossing = _find_crossing(program, rest)
    if program.answer not in rest or not crossing:
        return None
    rows = [count_rows(node) for node in crossing]
    storages = [value.storage for value in crossing.values()]
    written = {
        storage
        for node in rest
        if (effect := read_effect(node)) is not None
        for storage in effect.writes
    }
    changed = [storage in written for storage in storages]
    # Copies of two views of one memory would not see each other's changes.
    if None in rows or not any(rows) or (any(changed) and len(set(storages)) < len(storages)):
        return None
    if all(node is program.inputs["images"] for node in crossing):
        return None
    return Partition(
        crossing=tuple(crossing),
        stem=_extract_stem(program, crossing, rest),
        rest=_extract_rest(program, crossing, rest),
        rows=tuple(row for row in rows if row is not None),
        changed=tuple(changed),
    )


def find_rest(program: Program, own: Collection[str]) -> set[fx.Node]:
    """Return the nodes that cannot run before a task is known; see `partition`."""
    rest = {program.inputs["labels"]}
    read: set[int] = set()
    written: set[int] = set()
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        lookup, effect = read_lookup(node), read_effect(node) or Effect()
        if (
            (lookup is not None and lookup.name in own)
            or any(source in rest for source in node.all_input_nodes)
            or effect.reads & written
            or effect.writes & read
        ):
            rest.add(node)
            read |= effect.reads
            written |= effect.writes
    return rest


def count_rows(node: fx.Node) -> int | None:
    """Return how many rows of a value there are for each image, 0 for none, None if unclear."""
    value = read_value(node)
    if value is None:
        return None
    small, large = value.shapes
    if small == large:
        return 0
    if len(small) != len(large) or small[1:] != large[1:]:
        return None
    first, second = RECORDED_BATCHES
    return (
        small[0] // first
        if small[0] % first == 0 and small[0] // first * second == large[0]
        else None
    )


def _find_crossing(program: Program, rest: set[fx.Node]) -> dict[fx.Node, Value] | None:
    """Return the values of the stem that the rest reads, but for weights and sizes.

    None where one of them is a list of tensors.
    """
    crossing = {}
    for node in program.graph.nodes:
        if node not in rest and any(user in rest for user in node.users):
            value = read_value(node)
            if value is not None:
                crossing[node] = value
            elif read_effect(node) is not None:
                return None
    return crossing


def _extract_stem(
    program: Program, crossing: Collection[fx.Node], rest: Collection[fx.Node]
) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "output" and node not in rest:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[value] for value in crossing))
    return graph


def _extract_rest(
    program: Program, crossing: dict[fx.Node, Value], rest: Collection[fx.Node]
) -> fx.Graph:
    graph = fx.Graph()
    values, weights, labels, batch = map(
        graph.placeholder, ("values", "weights", "labels", "batch")
    )
    copies = {program.inputs["weights"]: weights, program.inputs["labels"]: labels}
    copies[program.batch] = batch
    for index, (node, value) in enumerate(crossing.items()):
        part = graph.call_function(operator.getitem, (values, index))
        copies[node] = describe(part, value, Effect(reads=frozenset({value.storage})))
    for node in program.graph.nodes:
        if node in copies or node.op in ("placeholder", "output"):
            continue
        # Lookups and sizes are no operations: both parts have their own.
        is_operation = read_effect(node) is not None
        if node in rest or (
            not is_operation and all(source in copies for source in node.all_input_nodes)
        ):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[program.answer])
    return graph
