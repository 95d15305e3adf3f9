"""Many `scale` tasks in one pass: shared kernels, and each image's own factors around them.

A `scale` gate is M = a bᵀ, so W' x = a · (W (b · x)): b multiplies the channels that go in, a those
that come out, and the kernel itself is the backbone's for every task. Norm values are vectors of
channels too. One pass over a batch then serves another task with each image (cf. BatchEnsemble,
arXiv 2002.06715, equation 5).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from gatehub.compiler.kernels import convolve
from gatehub.compiler.lowering import Run, compile_graph
from gatehub.compiler.partition import count_rows, find_rest, partition
from gatehub.compiler.program import Program, Shape, read_lookup, read_value
from gatehub.compiler.stem import Stem, lower
from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.factors import (
    Entering,
    FactorSource,
    Leaving,
    NormScale,
    NormShift,
    Plain,
    Shift,
    TaskVectors,
)

_ELEMENTWISE = frozenset({"mul", "mul_", "add", "add_"})
_COMMUTATIVE = frozenset({"mul", "add"})
_RESHAPES = frozenset({"reshape", "view", "unsqueeze", "squeeze"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnePass:
    """A network in which each image has factors of its own.

    Args:
        body: (images, weights, factors: (B, V)) → what crosses over to the heads.
        heads: the rest of the program, which depends on each task's head.
        sources: how each run of factors is read from a task, in their order within V.
        length: V.
        weights: names of the weights that it reads, but for the heads'.
        plan: of the tasks' layout.
    """

    body: Run
    heads: Stem
    sources: tuple[FactorSource, ...]
    length: int
    weights: frozenset[str]
    plan: LayoutPlan

    def factors(self, merged: MergedBackbone, task: GateState, *, dtype: torch.dtype) -> Tensor:
        """Return a task's factors: (V,)."""
        vectors = TaskVectors(merged, task, self.plan)
        return torch.cat([source.read(vectors).reshape(-1) for source in self.sources]).to(dtype)


def build_one_pass(
    program: Program, merged: MergedBackbone, plan: LayoutPlan, *, heads: Collection[str]
) -> OnePass | None:
    """Rewrite a program so that one pass serves many tasks of a layout.

    Args:
        program: of the merged backbone.
        merged: that backbone.
        plan: what its tasks have of their own.
        heads: names of the head's tensors in the model.

    Returns:
        None where a gate is of another kind than `scale`, an operation reads a task's values in a
        way for which there is no rule here, or none reads them at all.
    """
    if not plan.is_scale:
        return None
    parts = partition(program, heads)
    if parts is None:
        return None
    writer = _Writer(program, merged, plan, rest=find_rest(program, heads))
    try:
        body = writer.write(parts.crossing)
    except _NoRule:
        return None
    if not writer.sources:  # nothing that runs is the tasks' own, so their stem is everything
        return None
    return OnePass(
        body=body,
        heads=lower(parts),
        sources=tuple(writer.sources),
        length=writer.length,
        weights=frozenset(writer.weights),
        plan=plan,
    )


class _NoRule(Exception):
    pass


class _Writer:
    """Copies the nodes of a program, and puts factors where a task's values were read."""

    def __init__(
        self, program: Program, merged: MergedBackbone, plan: LayoutPlan, *, rest: set[fx.Node]
    ) -> None:
        self._program, self._merged, self._plan, self._rest = program, merged, plan, rest
        self._graph = fx.Graph()
        self._copies: dict[fx.Node, fx.Node] = {}
        self._reshaped: dict[fx.Node, str] = {}
        self.length = 0
        self.sources: list[FactorSource] = []
        self.weights: set[str] = set()

    def write(self, crossing: Sequence[fx.Node]) -> Run:
        graph = self._graph
        for name in ("images", "weights"):
            self._copies[self._program.inputs[name]] = graph.placeholder(name)
        self._weights = self._copies[self._program.inputs["weights"]]
        self._factors = graph.placeholder("factors")
        for node in self._program.graph.nodes:
            own = any(self._vector(source) is not None for source in node.all_input_nodes)
            if node in self._rest:
                if own:
                    raise _NoRule  # behind the heads, weights are the backbone's and the heads'
            elif node in self._copies or node.op == "output" or self._vector(node) is not None:
                continue
            elif own:
                self._rewrite(node)
            else:
                self._copies[node] = graph.node_copy(node, self._copies.__getitem__)
                if (lookup := read_lookup(node)) is not None:
                    self.weights.add(lookup.name)
        if not self._copies.keys() >= {*crossing}:
            raise _NoRule
        graph.output(tuple(self._copies[node] for node in crossing))
        return compile_graph(graph)

    def _vector(self, node: Any) -> str | None:
        """Return the name of the task's own tensor that a node stands for, in whatever shape."""
        if not isinstance(node, fx.Node):
            return None
        lookup = read_lookup(node)
        name = self._reshaped.get(node) if lookup is None else lookup.name
        return name if name in self._plan.own else None

    def _rewrite(self, node: fx.Node) -> None:
        name = getattr(node.target, "__name__", "").split(".")[0]
        first, *_ = (*_arguments(node), None)
        own = self._vector(first)
        if own is not None and name in _RESHAPES:
            self._reshaped[node] = own
            return
        if own is not None and name in _COMMUTATIVE:
            _, first, *_ = (*_arguments(node), None)
        # Factors meet values that lie image by image, by operations that say all they do.
        if self._vector(first) is not None or node.kwargs or not isinstance(first, fx.Node):
            raise _NoRule
        if count_rows(first) != 1:
            raise _NoRule
        if node.target is convolve or name == "conv2d":  # the latter with a padding by name
            value = self._rewrite_layer(node, node.target, channels=1)
        elif name == "linear":
            value = self._rewrite_layer(node, F.linear, channels=-1)
        elif name == "batch_norm":
            value = self._rewrite_batch_norm(node)
        elif name in ("layer_norm", "group_norm"):
            value = self._rewrite_norm(node, channels=-1 if name == "layer_norm" else 1)
        elif name in _ELEMENTWISE and len(_arguments(node)) == 2:
            vector = next(other for other in _arguments(node) if other is not first)
            value = self._rewrite_elementwise(node, first, vector)
        else:
            raise _NoRule
        value.meta |= node.meta
        self._copies[node] = value

    def _rewrite_layer(self, node: fx.Node, target: Any, *, channels: int) -> fx.Node:
        """y = out · K(in · x) + shift, with vectors of each image."""
        images, kernel, *others = _arguments(node)
        bias, *others = others or [None]
        site = self._find_site(kernel, "weight")
        if bias is not None and self._find_site(bias, "bias") != site:
            raise _NoRule
        gate = self._plan.layout.sites.get(site)
        if gate is None and site not in self._merged.merges:
            raise _NoRule  # a vector that is used as a kernel
        value, shape = self._copies[images], _read_shape(images)
        if gate is not None and gate.shape[1] > 1:
            groups = shape[channels] // gate.shape[1]
            entering = Entering(site, groups)
            factor = self._factor(entering, shape[channels], len(shape), channels)
            value = self._call(operator.mul, (value, factor))
        size = self._merged.shape(f"{site}.weight")[0]
        self.weights.add(f"{site}.weight")
        raw = self._call(operator.getitem, (self._weights, f"{site}.weight"))
        value = self._call(target, (value, raw, None, *others))
        leaving = self._factor(Leaving(site), size, len(shape), channels)
        value = self._call(torch.Tensor.mul_, (value, leaving))
        if bias is None:
            return value
        shift = self._factor(Shift(site), size, len(shape), channels)
        return self._call(torch.Tensor.add_, (value, shift))

    def _find_site(self, node: Any, part: str) -> str:
        """Return the layer whose weight or bias a node looks up as it stands."""
        site, _, found = (self._find_name(node) or "").rpartition(".")
        if found != part:
            raise _NoRule
        return site

    def _rewrite_batch_norm(self, node: fx.Node) -> fx.Node:
        images, *parts, training, _, eps = _arguments(node)[:8]
        weight, bias, mean, variance = (self._find_name(part) for part in parts)
        if training or mean is None or variance is None:
            raise _NoRule
        scale = NormScale(weight=weight, variance=variance, eps=eps)
        shift = NormShift(scale=scale, bias=bias, mean=mean)
        return self._affine(self._copies[images], scale, shift, _read_shape(images), 1)

    def _rewrite_norm(self, node: fx.Node, *, channels: int) -> fx.Node:
        images, groups, *parts = _arguments(node)
        weight, bias, *others = (*parts, None, None)[: max(2, len(parts))]
        if channels == -1 and len(groups) != 1:
            raise _NoRule
        scale, shift = (
            None if name is None else Plain(name) for name in map(self._find_name, (weight, bias))
        )
        value = self._call(node.target, (self._copies[images], groups, None, None, *others))
        return self._affine(value, scale, shift, _read_shape(images), channels)

    def _find_name(self, node: Any) -> str | None:
        """Return the name of the weight that a node looks up, None for no node."""
        if node is None:
            return None
        lookup = read_lookup(node) if isinstance(node, fx.Node) else None
        if lookup is None:
            raise _NoRule
        return lookup.name

    def _affine(
        self,
        value: fx.Node,
        scale: FactorSource | None,
        shift: FactorSource | None,
        shape: Sequence[int],
        channels: int,
    ) -> fx.Node:
        # Whatever is added to has just been made, so it can be added to in place.
        for source, combine in ((scale, operator.mul), (shift, torch.Tensor.add_)):
            if source is not None:
                factor = self._factor(source, shape[channels], len(shape), channels)
                value = self._call(combine, (value, factor))
        return value

    def _rewrite_elementwise(self, node: fx.Node, images: fx.Node, vector: Any) -> fx.Node:
        """A vector that meets the images by broadcasting, such as a layer scale."""
        name = self._vector(vector)
        if name is None:
            raise _NoRule
        ndim = len(_read_shape(images))
        shape = _read_shape(vector) if vector in self._reshaped else self._merged.shape(name)
        if len(shape) == ndim and shape[0] == 1:
            shape = shape[1:]
        if len(shape) >= ndim:
            raise _NoRule
        spread = (-1, *(1,) * (ndim - 1 - len(shape)), *shape)
        factor = self._slice(Plain(name), math.prod(shape), spread)
        return self._call(node.target, (self._copies[images], factor))

    def _call(self, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
        return self._graph.call_function(target, arguments)

    def _factor(self, source: FactorSource, size: int, ndim: int, channels: int) -> fx.Node:
        spread = [-1] + [1] * (ndim - 1)
        spread[channels] = size
        return self._slice(source, size, tuple(spread))

    def _slice(self, source: FactorSource, size: int, shape: tuple[int, ...]) -> fx.Node:
        start, self.length = self.length, self.length + size
        self.sources.append(source)
        return self._call(_read_factors, (self._factors, start, size, shape))


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def _read_shape(node: fx.Node) -> Shape:
    value = read_value(node)
    assert value is not None
    return value.shapes[0]


def _read_factors(factors: Tensor, start: int, size: int, shape: tuple[int, ...]) -> Tensor:
    """Return (B, …) for broadcasting from (B, V)."""
    return factors[:, start : start + size].reshape(shape)
