"""A graph in the making, in which factors of each image stand where a task's values were read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from gatehub.compiler.program import (
    RECORDED_BATCHES,
    Effect,
    Program,
    Shape,
    Value,
    describe,
    find_storages,
    read_lookup,
    read_value,
)
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.runtime.execution.factors import FactorSource


class FactorGraph:
    """Takes over nodes of a program, and adds operations on factors: (B, V), a row for each image.

    Args:
        program: it stays as it is.
        plan: what tasks have of their own.

    Attributes:
        sources: how each run of factors is read from a task, in their order within V.
        length: V.
    """

    def __init__(self, program: Program, plan: LayoutPlan) -> None:
        self._own = plan.own
        self._graph = fx.Graph()
        self._copies: dict[fx.Node, fx.Node] = {}
        self._vectors: dict[fx.Node, str] = {}
        self._storages = itertools.count(1 + max(find_storages(program.graph.nodes)))
        images = self.copy(program.inputs["images"])
        self.copy(program.inputs["weights"])
        self._table = self.renew(value_of(images))
        self._factors = describe(self._graph.placeholder("factors"), self._table)
        self.sources: list[FactorSource] = []
        self.length = 0

    def finish(self, crossing: Sequence[fx.Node]) -> fx.Graph:
        """Return the graph: (images, weights, factors) → what crosses over."""
        self._graph.output(tuple(self._copies[node] for node in crossing))
        describe(self._factors, self._spread((-1, self.length)))
        return self._graph

    def __contains__(self, node: fx.Node) -> bool:
        """Whether a node of the program stands in the graph, as it was or rewritten."""
        return node in self._copies

    def __getitem__(self, node: fx.Node) -> fx.Node:
        """Return what stands for a node of the program."""
        return self._copies[node]

    def copy(self, node: fx.Node) -> fx.Node:
        """Take over a node of the program as it is, once."""
        if node not in self._copies:
            self._copies[node] = self._graph.node_copy(node, self._copies.__getitem__)
        return self._copies[node]

    def put(self, node: fx.Node, rewritten: fx.Node) -> None:
        """Let a node of the graph stand for one of the program."""
        self._copies[node] = rewritten

    def reshape(self, node: fx.Node, name: str) -> None:
        """Let a node of the program stand for a task's vector in another shape."""
        self._vectors[node] = name

    def find_vector(self, node: object) -> str | None:
        """Return the name of the task's own tensor that a node stands for, in whatever shape."""
        if not isinstance(node, fx.Node):
            return None
        lookup = read_lookup(node)
        name = self._vectors.get(node) if lookup is None else lookup.name
        return name if name in self._own else None

    def renew(self, value: Value) -> Value:
        """Describe a tensor like another, in memory of its own."""
        return replace(value, storage=next(self._storages))

    def call(
        self,
        operation: Any,
        arguments: tuple[Any, ...],
        result: Value,
        *,
        writes: frozenset[int] = frozenset(),
    ) -> fx.Node:
        """Add an operation.

        Args:
            operation: what the graph calls.
            arguments: of it.
            result: what it gives.
            writes: the memory that it changes.
        """
        node = self._graph.call_function(operation, arguments)
        reads = find_storages(node.all_input_nodes)
        return describe(node, result, Effect(reads=reads, writes=writes))

    def change(self, operation: Any, value: fx.Node, factor: fx.Node) -> fx.Node:
        """Add an operation that changes a value which has just been made."""
        result = value_of(value)
        return self.call(operation, (value, factor), result, writes=frozenset({result.storage}))

    def affine(
        self,
        value: fx.Node,
        scale: FactorSource | None,
        shift: FactorSource | None,
        result: Value,
        *,
        channels: int,
    ) -> fx.Node:
        """Add scale · value + shift.

        Args:
            value: it stays as it is, but where there is no scale.
            scale: None for none, as for the next.
            shift: one number for each channel, too.
            result: what comes of it.
            channels: which dimension they are.
        """
        shape = result.shapes[0]
        if scale is not None:
            value = self.call(torch.mul, (value, self.factor(scale, shape, channels)), result)
        if shift is not None:
            value = self.change(torch.Tensor.add_, value, self.factor(shift, shape, channels))
        return value

    def factor(self, source: FactorSource, shape: Shape, channels: int) -> fx.Node:
        """Add a vector of each image, spread for values of a shape: one number for each channel."""
        spread = [-1] + [1] * (len(shape) - 1)
        spread[channels] = shape[channels]
        return self.slice(source, shape[channels], tuple(spread))

    def slice(self, source: FactorSource, size: int, shape: Shape) -> fx.Node:
        """Add a vector of each image.

        Args:
            source: how it is read from a task.
            size: how many numbers it has.
            shape: in which it is wanted, -1 for the images.
        """
        start, self.length = self.length, self.length + size
        self.sources.append(source)
        given = (self._factors, start, size, shape)
        return self.call(_read_factors, given, self._spread(shape))

    def _spread(self, shape: Shape) -> Value:
        small, large = ((batch, *shape[1:]) for batch in RECORDED_BATCHES)
        return replace(self._table, shapes=(small, large))


def value_of(node: fx.Node) -> Value:
    """Return which tensor a node stands for, where it stands for one."""
    value = read_value(node)
    assert value is not None
    return value


def _read_factors(factors: Tensor, start: int, size: int, shape: Shape) -> Tensor:
    """Return (B, …) for broadcasting from (B, V)."""
    return factors[:, start : start + size].reshape(shape)
