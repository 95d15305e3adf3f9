"""How each operator that reads a task's vectors is rewritten for factors of each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx

from gatehub.compiler.kernels import convolve
from gatehub.compiler.partition import count_rows
from gatehub.compiler.program import Effect, Lookup, Shape, read_effect, read_lookup
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.factor_graph import FactorGraph, value_of
from gatehub.runtime.execution.factors import Entering, Leaving, NormScale, NormShift, Plain, Shift


class NoRule(Exception):
    """An operation reads a task's values in a way for which there is no rule."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewriting:
    """What rules look at and write to.

    Args:
        into: the graph in the making.
        merged: the backbone.
        plan: what its tasks have of their own.
    """

    into: FactorGraph
    merged: MergedBackbone
    plan: LayoutPlan


def rewrite(node: fx.Node, rewriting: Rewriting) -> None:
    """Rewrite an operation that reads a task's vectors, or note that it only reshapes one.

    Raises:
        NoRule: it reads them in a way for which there is no rule.
    """
    into = rewriting.into
    first, second, *_ = (*node.args, None, None)
    own = into.find_vector(first)
    if own is not None and node.target in _RESHAPES:
        into.reshape(node, own)
        return
    images = second if own is not None and node.target in _COMMUTATIVE else first
    rule = _RULES.get(node.target)
    # Factors meet values that lie image by image, by operations that say all they do.
    if rule is None or node.kwargs or not isinstance(images, fx.Node):
        raise NoRule
    if into.find_vector(images) is not None or count_rows(images) != 1:
        raise NoRule
    into.put(node, rule(node, images, rewriting))


def _rewrite_layer(
    node: fx.Node, images: fx.Node, rewriting: Rewriting, *, channels: int
) -> fx.Node:
    """y = out · K(in · x) + shift, with vectors of each image."""
    into, (_, kernel, bias, *others) = rewriting.into, _arguments(node, 3)
    lookup = _find_part(kernel, "weight")
    site = lookup.name.removesuffix(".weight")
    if bias is not None and _find_part(bias, "bias").name != f"{site}.bias":
        raise NoRule
    gate = rewriting.plan.layout.sites.get(site)
    if gate is None and site not in rewriting.merged.merges:
        raise NoRule  # a vector that is used as a kernel
    given, shape = into[images], value_of(images).shapes[0]
    if gate is not None and gate.shape[1] > 1:
        source = Entering(site, shape[channels] // gate.shape[1])
        factor = into.factor(source, shape, channels)
        given = into.call(torch.mul, (given, factor), into.renew(value_of(images)))
    result = value_of(node)
    value = into.call(node.target, (given, into.copy(kernel), None, *others), result)
    leaving = into.factor(Leaving(site), result.shapes[0], channels)
    value = into.change(torch.Tensor.mul_, value, leaving)
    shift = None if bias is None else Shift(site)
    return into.affine(value, None, shift, result, channels=channels)


def _rewrite_batch_norm(node: fx.Node, images: fx.Node, rewriting: Rewriting) -> fx.Node:
    """y = scale · x + shift, by the task's own statistics."""
    _, *parts, training, _, eps = _arguments(node, 8)[:8]
    weight, bias, mean, variance = map(_find_name, parts)
    if training or mean is None or variance is None:
        raise NoRule
    scale = NormScale(weight=weight, variance=variance, eps=eps)
    shift = NormShift(scale=scale, bias=bias, mean=mean)
    return rewriting.into.affine(rewriting.into[images], scale, shift, value_of(node), channels=1)


def _rewrite_norm(
    node: fx.Node, images: fx.Node, rewriting: Rewriting, *, channels: int
) -> fx.Node:
    """y = scale · norm(x) + shift, where the norm takes its statistics from the image."""
    into, (_, groups, weight, bias, *others) = rewriting.into, _arguments(node, 4)
    if channels == -1 and len(groups) != 1:
        raise NoRule
    scale, shift = (
        None if name is None else Plain(name) for name in map(_find_name, (weight, bias))
    )
    result = value_of(node)
    normalised = result if scale is None else into.renew(result)
    value = into.call(node.target, (into[images], groups, None, None, *others), normalised)
    return into.affine(value, scale, shift, result, channels=channels)


def _rewrite_elementwise(node: fx.Node, images: fx.Node, rewriting: Rewriting) -> fx.Node:
    """A vector that meets the images by broadcasting, such as a layer scale."""
    into = rewriting.into
    vector = next(given for given in _arguments(node, 2) if given is not images)
    name = into.find_vector(vector)
    if name is None or len(node.args) != 2:
        raise NoRule
    shape, ndim = _shape_of(vector), len(value_of(images).shapes[0])
    if len(shape) == ndim and shape[0] == 1:
        shape = shape[1:]
    if len(shape) >= ndim:
        raise NoRule
    spread = (-1, *(1,) * (ndim - 1 - len(shape)), *shape)
    factor = into.slice(Plain(name), math.prod(shape), spread)
    effect = read_effect(node) or Effect()
    return into.call(node.target, (into[images], factor), value_of(node), writes=effect.writes)


# Of an operation, and of which of its arguments lies image by image.
_Rule = Callable[[fx.Node, fx.Node, Rewriting], fx.Node]

_aten = torch.ops.aten

_RULES: Mapping[object, _Rule] = {
    convolve: partial(_rewrite_layer, channels=1),
    _aten.conv2d.padding: partial(_rewrite_layer, channels=1),
    _aten.linear.default: partial(_rewrite_layer, channels=-1),
    _aten.batch_norm.default: _rewrite_batch_norm,
    _aten.layer_norm.default: partial(_rewrite_norm, channels=-1),
    _aten.group_norm.default: partial(_rewrite_norm, channels=1),
    _aten.mul.Tensor: _rewrite_elementwise,
    _aten.mul_.Tensor: _rewrite_elementwise,
    _aten.add.Tensor: _rewrite_elementwise,
    _aten.add_.Tensor: _rewrite_elementwise,
}
_COMMUTATIVE = frozenset({_aten.mul.Tensor, _aten.add.Tensor})
# They give a task's vector another shape, and do nothing else.
_RESHAPES = frozenset(
    {
        _aten.reshape.default,
        _aten.view.default,
        _aten.unsqueeze.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
    }
)


def _arguments(node: fx.Node, count: int) -> tuple[Any, ...]:
    """Return what an operation is given by position, filled up with None."""
    return (*node.args, *(None,) * (count - len(node.args)))


def _shape_of(vector: fx.Node) -> Shape:
    lookup = read_lookup(vector)
    return value_of(vector).shapes[0] if lookup is None else lookup.shape


def _find_part(node: object, part: str) -> Lookup:
    """Return the weight or bias of a layer that a node looks up as it stands."""
    lookup = read_lookup(node) if isinstance(node, fx.Node) else None
    if lookup is None or lookup.name.rpartition(".")[2] != part:
        raise NoRule
    return lookup


def _find_name(node: object) -> str | None:
    """Return the name of the weight that a node looks up, None for no node."""
    if node is None:
        return None
    lookup = read_lookup(node) if isinstance(node, fx.Node) else None
    if lookup is None:
        raise NoRule
    return lookup.name
