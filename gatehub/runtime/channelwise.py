"""Many `scale` tasks in one pass: shared kernels, and each image's own factors around them.

A `scale` gate is M = a bᵀ, so W' x = a · (W (b · x)): b multiplies the channels that go in, a those
that come out, and the kernel itself is the backbone's for every task. Norm values are vectors of
channels too. One pass over a batch then serves another task with each image (cf. BatchEnsemble,
arXiv 2002.06715, equation 5).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gatehub.gates.fold import GateState
from gatehub.gates.merged import LayoutPlan, MergedBackbone
from gatehub.runtime.kernels import convolve
from gatehub.runtime.program import Program
from gatehub.runtime.segments import Run, Stem, count_rows, find_rest, split
from gatehub.runtime.vectors import TaskVectors

Source = Callable[["TaskVectors"], Tensor]

_ELEMENTWISE = frozenset({"mul", "mul_", "add", "add_"})
_RESHAPES = frozenset({"reshape", "view"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnePass:
    """A network in which each image has factors of its own.

    Args:
        body: (images, weights, labels, factors: (B, V)) → what crosses over to the heads.
        heads: the rest of the program, which depends on each task's head.
        sources: how each run of factors is read from a task, in their order within V.
        length: V.
        weights: names of the weights that the body reads.
        plan: of the tasks' layout.
    """

    body: Run
    heads: Stem
    sources: Sequence[Source]
    length: int
    weights: frozenset[str]
    plan: LayoutPlan

    def factors(self, merged: MergedBackbone, task: GateState, *, dtype: torch.dtype) -> Tensor:
        """Return a task's factors: (V,)."""
        values = TaskVectors(merged, task, self.plan)
        return torch.cat([source(values).reshape(-1) for source in self.sources]).to(dtype)


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
        None where a gate is of another kind than `scale`, or an operation reads a task's values in
        a way for which there is no rule here.
    """
    if not plan.is_scale:
        return None
    stem = split(program, heads)
    if stem is None:
        return None
    writer = _Writer(program, merged, plan, rest=find_rest(program, heads))
    try:
        body = writer.write(stem.crossing)
    except _NoRule:
        return None
    return OnePass(
        body=body,
        heads=stem,
        sources=writer.sources,
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
        self.length = 0
        self._reshaped: dict[fx.Node, str] = {}
        self.sources: list[Source] = []
        self.weights: set[str] = set()

    def write(self, crossing: Sequence[fx.Node]) -> Run:
        graph = self._graph
        for name in ("images", "weights", "labels"):
            self._copies[self._program.inputs[name]] = graph.placeholder(name)
        self._weights = self._copies[self._program.inputs["weights"]]
        self._factors = graph.placeholder("factors")
        own = self._plan.own
        for node in self._program.graph.nodes:
            if node in self._copies or node.op == "output" or node in self._rest:
                continue
            if node.meta.get("weight") in own:
                continue
            if any(self._vector(source) is not None for source in node.all_input_nodes):
                self._rewrite(node)
            else:
                self._copies[node] = graph.node_copy(node, self._copies.__getitem__)
                if "weight" in node.meta:
                    self.weights.add(node.meta["weight"])
        graph.output(tuple(self._copies[node] for node in crossing))
        graph.eliminate_dead_code()
        return fx.GraphModule(nn.Module(), graph)

    def _vector(self, node: Any) -> str | None:
        """Return the name of the task's own tensor that a node stands for, in whatever shape."""
        if not isinstance(node, fx.Node):
            return None
        name = self._reshaped.get(node, node.meta.get("weight"))
        return name if name in self._plan.own else None

    def _rewrite(self, node: fx.Node) -> None:
        name = getattr(node.target, "__name__", "").split(".")[0]
        first = _arguments(node)[0]
        own = self._vector(first)
        if own is not None and name in _RESHAPES:
            self._reshaped[node] = own
            return
        if own is not None or not isinstance(first, fx.Node) or count_rows(first) != 1:
            raise _NoRule  # factors meet values that lie image by image
        if node.target is convolve:
            value = self._rewrite_layer(node, convolve, channels=1)
        elif name == "linear":
            value = self._rewrite_layer(node, F.linear, channels=-1)
        elif name == "batch_norm":
            value = self._rewrite_batch_norm(node)
        elif name in ("layer_norm", "group_norm"):
            value = self._rewrite_norm(node, channels=-1 if name == "layer_norm" else 1)
        elif name in _ELEMENTWISE and len(_arguments(node)) == 2:
            value = self._rewrite_elementwise(node)
        else:
            raise _NoRule
        self._copies[node] = value

    def _rewrite_layer(self, node: fx.Node, target: Any, *, channels: int) -> fx.Node:
        """y = out · K(in · x) + shift, with vectors of each image."""
        images, kernel, bias, *others = (*_arguments(node), None, None)[: max(3, len(node.args))]
        if self._vector(kernel) is None or kernel in self._reshaped:
            raise _NoRule
        site = kernel.meta["weight"].removesuffix(".weight")
        gate = self._plan.layout.sites.get(site)
        value = self._copies[images]
        ndim = len(images.meta["shapes"][0])
        if gate is not None and gate.shape[1] > 1:
            groups = images.meta["shapes"][0][channels] // gate.shape[1]
            entering = self._factor(
                lambda v: v.entering(site, groups), gate.shape[1] * groups, ndim, channels
            )
            value = self._call(operator.mul, (value, entering))
        size = len(self._merged.kernels[f"{site}.weight"])
        self.weights.add(f"{site}.weight")
        raw = self._call(operator.getitem, (self._weights, f"{site}.weight"))
        value = self._call(target, (value, raw, None, *others))
        leaving = self._factor(lambda v: v.leaving(site), size, ndim, channels)
        value = self._call(torch.Tensor.mul_, (value, leaving))
        if bias is None:
            return value
        shift = self._factor(lambda v: v.shift(site), size, ndim, channels)
        return self._call(torch.Tensor.add_, (value, shift))

    def _rewrite_batch_norm(self, node: fx.Node) -> fx.Node:
        images, *parts = _arguments(node)[:5]
        eps = float(_arguments(node)[7])
        if any(part is not None and "weight" not in part.meta for part in parts):
            raise _NoRule
        names = [None if part is None else part.meta["weight"] for part in parts]
        weight, bias, mean, variance = names
        if mean is None or variance is None:
            raise _NoRule
        size, ndim = images.meta["shapes"][0][1], len(images.meta["shapes"][0])

        def scale(values: TaskVectors) -> Tensor:
            factor = torch.rsqrt(values.plain(variance) + eps)
            return factor if weight is None else factor * values.plain(weight)

        def shift(values: TaskVectors) -> Tensor:
            moved = -values.plain(mean) * scale(values)
            return moved if bias is None else moved + values.plain(bias)

        return self._affine(self._copies[images], scale, shift, size, ndim, 1)

    def _rewrite_norm(self, node: fx.Node, *, channels: int) -> fx.Node:
        images, shape, weight, bias, *others = _arguments(node)
        vectors = [None if part is None else part.meta.get("weight") for part in (weight, bias)]
        sizes = images.meta["shapes"][0]
        if None in vectors or (channels == -1 and len(shape) != 1):
            raise _NoRule
        value = self._call(node.target, (self._copies[images], shape, None, None, *others))
        scale, shift = ((lambda v, name=name: v.plain(name)) for name in vectors)
        return self._affine(value, scale, shift, sizes[channels], len(sizes), channels)

    def _affine(
        self, value: fx.Node, scale: Source, shift: Source, size: int, ndim: int, channels: int
    ) -> fx.Node:
        factor = self._factor(scale, size, ndim, channels)
        value = self._call(operator.mul, (value, factor))
        offset = self._factor(shift, size, ndim, channels)
        return self._call(torch.Tensor.add_, (value, offset))

    def _rewrite_elementwise(self, node: fx.Node) -> fx.Node:
        """A vector that meets the images by broadcasting, such as a layer scale."""
        images, vector = _arguments(node)
        name = self._vector(vector)
        if name is None:
            raise _NoRule
        small, _ = images.meta["shapes"]
        shape = vector.meta["shapes"][0] if vector in self._reshaped else self._merged.shape(name)
        if len(shape) == len(small) and shape[0] == 1:
            shape = shape[1:]
        if len(shape) >= len(small):
            raise _NoRule
        spread = (-1, *(1,) * (len(small) - 1 - len(shape)), *shape)
        factor = self._slice(lambda v: v.plain(name), math.prod(shape), spread)
        return self._call(node.target, (self._copies[images], factor))

    def _call(self, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
        return self._graph.call_function(target, arguments)

    def _factor(self, source: Source, size: int, ndim: int, channels: int) -> fx.Node:
        spread = [-1] + [1] * (ndim - 1)
        spread[channels] = size
        return self._slice(source, size, tuple(spread))

    def _slice(self, source: Source, size: int, shape: tuple[int, ...]) -> fx.Node:
        start, self.length = self.length, self.length + size
        self.sources.append(source)
        return self._call(_read_factors, (self._factors, start, size, shape))


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def _read_factors(factors: Tensor, start: int, size: int, shape: tuple[int, ...]) -> Tensor:
    """Return (B, …) for broadcasting from (B, V)."""
    return factors[:, start : start + size].reshape(shape)
