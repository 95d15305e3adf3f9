"""What a program is, in writing, and a check that it is one.

Each node of a graph is of one of these kinds, and has the facts of its kind and no others:

    kind        how it is written                        what it gives      facts
    input       images, factors                          a value            Value
                weights | values | labels, batch         weights | values | a size    none
    size        value.shape | shape[0] | size * int      a shape | a size | a size    none
    lookup      weights["name"]                          a weight           Lookup of that name
    operation   any other function, of values, weights,  a value, or        Effect, Value
                sizes and numbers                        values             Effect
    part        values[index]                            a value            Effect, Value
    output      a value, or values

A node reads only what stands before it, and each weight is looked up once. `storage` names the
memory in which a value or a weight lies:

    M1  An operation reads the memory of the values and weights that it is given, and no other;
        a part reads its own.
    M2  An operation writes only what it reads, and an ATen operator just what its schema says.
    M3  A value lies in new memory, or in memory that its operation reads: a part in new memory,
        or in memory that the operation reads which it is a part of.
    M4  Nothing writes the memory of weights and constants.

Weights that may be packed (`Program.kernels`) are read as kernels of convolutions only, since
nothing else can read them. A recorded program, moreover,

    P1  has the inputs images, weights and labels, in this order;
    P2  takes its batch size from the shape of the images;
    P3  answers with one value of (batch, labels);
    P4  names the weights, kernels and matrices that its lookups and convolutions show;
    P5  says whether an operation writes the memory of the images.

A violation is a fault of whatever wrote or rewrote the graph, never of a network.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from enum import Enum, auto

import torch
from torch import fx

from gatehub.compiler.program import (
    RECORDED_BATCHES,
    RECORDED_LABELS,
    Constant,
    Effect,
    Lookup,
    Program,
    Value,
    find_storages,
    read_effect,
    read_lookup,
    read_value,
)
from gatehub.compiler.tracing import find_changed
from gatehub.compiler.weight_use import find_kernels, find_matrices, is_read_as_kernel
from gatehub.errors import ProgramError


class _Gives(Enum):
    VALUE = auto()
    VALUES = auto()
    WEIGHT = auto()
    WEIGHTS = auto()
    SIZE = auto()
    SHAPE = auto()
    NOTHING = auto()


_INPUTS = {
    "images": _Gives.VALUE,
    "factors": _Gives.VALUE,
    "values": _Gives.VALUES,
    "weights": _Gives.WEIGHTS,
    "labels": _Gives.SIZE,
    "batch": _Gives.SIZE,
}
# What an item is, by what it is taken out of, and by which type of key.
_ITEMS: Mapping[_Gives, tuple[_Gives, type]] = {
    _Gives.VALUES: (_Gives.VALUE, int),
    _Gives.WEIGHTS: (_Gives.WEIGHT, str),
    _Gives.SHAPE: (_Gives.SIZE, int),
}


def verify(program: Program) -> Program:
    """Check a recorded program, and return it.

    Raises:
        ProgramError: it breaks one of the rules.
    """
    graph = program.graph
    verify_graph(graph, kernels=program.kernels)
    inputs = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    names = [*inputs]
    _check(names == ["images", "weights", "labels"], "P1", f"its inputs are {names}")
    _check(program.inputs == inputs, "P1", "it names other inputs than its graph has")
    is_batch = program.batch in graph.nodes and _is_batch(program.batch, inputs["images"])
    _check(is_batch, "P2", "it takes its batch size from elsewhere", program.batch)
    _check(graph.output_node().args == (program.answer,), "P3", "its graph gives another answer")
    value = read_value(program.answer)
    shapes = tuple(zip(RECORDED_BATCHES, RECORDED_LABELS, strict=True))
    _check(value is not None and value.shapes == shapes, "P3", f"its answer is {value}")
    lookups = map(read_lookup, graph.nodes)
    for kind, named, found in (
        ("weights", program.weights, {lookup.name for lookup in lookups if lookup is not None}),
        ("kernels", program.kernels, find_kernels(graph)),
        ("matrices", program.matrices, find_matrices(graph)),
    ):
        _check(named == found, "P4", f"as {kind} it names {sorted(named)}, not {sorted(found)}")
    changes = not find_storages([inputs["images"]]).isdisjoint(_find_written(graph))
    _check(program.changes_images is changes, "P5", f"it says {program.changes_images}")
    return program


def verify_graph(graph: fx.Graph, *, kernels: Collection[str] = ()) -> fx.Graph:
    """Check a graph, such as one that was made out of a program, and return it.

    Args:
        graph: nodes in the order in which they run.
        kernels: names of weights that may be packed.

    Raises:
        ProgramError: it breaks one of the rules.
    """
    gives: dict[fx.Node, _Gives] = {}
    names: set[str] = set()
    memory: set[int] = set()
    known: dict[fx.Node, frozenset[int]] = {}  # which memory there was before a list
    fixed = _find_fixed(graph)
    for node in graph.nodes:
        is_in_order = all(source in gives for source in node.all_input_nodes)
        _check(is_in_order, "order", "it reads what does not stand before it", node)
        gives[node] = _classify(node, gives)
        _check_facts(node, gives[node])
        if gives[node] is _Gives.VALUES:
            known[node] = frozenset(memory)
        if (lookup := read_lookup(node)) is not None:
            _check(lookup.name not in names, "lookup", "its weight has been looked up", node)
            names.add(lookup.name)
            is_free = lookup.name not in kernels or is_read_as_kernel(node)
            _check(is_free, "kernels", "another operation than a convolution reads it", node)
        if (effect := read_effect(node)) is not None:
            _check_effect(node, effect)
            _check(effect.writes.isdisjoint(fixed), "M4", "it writes a weight or a constant", node)
        if (value := read_value(node)) is not None:
            origin = node.all_input_nodes[0] if node.target is operator.getitem else node
            own = fixed if isinstance(node.target, Constant) else _find_reads(origin)
            is_own = value.storage in own or value.storage not in known.get(origin, memory)
            _check(is_own, "M3", "it lies in memory that it has no part in", node)
        memory |= find_storages([node])
    return graph


def _classify(node: fx.Node, gives: Mapping[fx.Node, _Gives]) -> _Gives:
    """Return what a node gives, by how it is written."""
    given = [gives[source] for source in node.all_input_nodes]
    if node.op == "placeholder":
        _check(node.target in _INPUTS, "input", "no input has this name", node)
        return _INPUTS[str(node.target)]
    if node.op == "output":
        _check({*given} == {_Gives.VALUE}, "output", "it is not made of values", node)
        return _Gives.NOTHING
    _check(node.op == "call_function", "operation", f"it is a {node.op}", node)
    if node.target is getattr:
        is_shape = given == [_Gives.VALUE] and node.args[1:] == ("shape",)
        _check(is_shape, "size", "it reads another attribute than a value's shape", node)
        return _Gives.SHAPE
    if node.target is operator.mul:
        is_size = given == [_Gives.SIZE] and type(node.args[1]) is int
        _check(is_size, "size", "it is not a size times an integer", node)
        return _Gives.SIZE
    if node.target is operator.getitem:
        item, key = _ITEMS.get(given[0], (_Gives.NOTHING, object))
        is_item = len(given) == 1 and item is not _Gives.NOTHING and type(node.args[1]) is key
        _check(is_item, "part", "it is no item of a mapping, a list or a shape", node)
        return item
    is_plain = {*given} <= {_Gives.VALUE, _Gives.WEIGHT, _Gives.SIZE}
    _check(is_plain, "operation", "it is given other than values, weights and sizes", node)
    return _Gives.VALUES if read_value(node) is None else _Gives.VALUE


def _check_facts(node: fx.Node, gives: _Gives) -> None:
    lookup = read_lookup(node)
    facts = {Value: read_value(node), Effect: read_effect(node), Lookup: lookup}
    found = {kind for kind, fact in facts.items() if fact is not None}
    expected: set[type] = {Lookup} if gives is _Gives.WEIGHT else set()
    if gives in (_Gives.VALUE, _Gives.VALUES):
        expected |= {Value} if gives is _Gives.VALUE else set()
        expected |= {Effect} if node.op == "call_function" else set()
    names = [sorted(kind.__name__ for kind in kinds) for kinds in (found, expected)]
    _check(found == expected, "facts", f"it has the facts {names[0]}, not {names[1]}", node)
    if lookup is not None:
        _check(lookup.name == node.args[1], "lookup", f"it is said to be {lookup.name}", node)


def _check_effect(node: fx.Node, effect: Effect) -> None:
    given = [node] if node.target is operator.getitem else node.all_input_nodes
    reads = find_storages(given)
    _check(effect.reads == reads, "M1", f"it reads {[*reads]}, not {[*effect.reads]}", node)
    _check(effect.writes <= effect.reads, "M2", "it writes what it does not read", node)
    if isinstance(node.target, torch._ops.OpOverload):
        changed = find_changed(node.target, node.args, node.kwargs)
        writes = find_storages(leaf for leaf in changed if isinstance(leaf, fx.Node))
        _check(effect.writes == writes, "M2", f"it writes {[*writes]}, by its schema", node)


def _find_reads(node: fx.Node) -> frozenset[int]:
    return (read_effect(node) or Effect()).reads


def _find_fixed(graph: fx.Graph) -> frozenset[int]:
    """Return the memory of weights and constants."""
    return find_storages(
        node
        for node in graph.nodes
        if read_lookup(node) is not None or isinstance(node.target, Constant)
    )


def _find_written(graph: fx.Graph) -> frozenset[int]:
    effects = map(read_effect, graph.nodes)
    return frozenset().union(*(effect.writes for effect in effects if effect is not None))


def _is_batch(node: fx.Node, images: fx.Node) -> bool:
    shapes = node.all_input_nodes
    is_item = (node.target, node.args) == (operator.getitem, (*shapes, 0))
    return is_item and all((n.target, n.args) == (getattr, (images, "shape")) for n in shapes)


def _check(holds: bool, rule: str, otherwise: str, node: fx.Node | None = None) -> None:
    if not holds:
        where = "A program" if node is None else f"Node {node.format_node()!r} of a program"
        raise ProgramError(
            f"{where} breaks its rule '{rule}': {otherwise}.",
            hint="This is a fault of gatehub: report it, with the name of the backbone.",
        )
