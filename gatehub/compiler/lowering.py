"""A graph as a function; in it, convolutions and what follows them on the same values are one.

A residual sum and an activation each read and write every value once more, which takes about as
long as a convolution over few channels. oneDNN computes both while it holds a convolution's answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from gatehub.compiler.activations import read_activation
from gatehub.compiler.kernels import FusedConvolution, convolve, is_convolution
from gatehub.compiler.program import (
    Effect,
    describe,
    drop_unread,
    find_storages,
    read_effect,
    read_value,
)

Run: TypeAlias = Callable[..., Any]

_ADD, _ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor


def compile_graph(graph: fx.Graph, *, exact: bool = False) -> Run:
    """Return a graph as a function of its inputs.

    Args:
        graph: stays as it is. What nothing reads is not run, but for operations that change
            memory.
        exact: whether NaN and infinity must go the way that they go in the module. oneDNN makes
            numbers of NaN in some activations, which then stay apart from the convolution.
    """
    lowered = fx.Graph()
    lowered.output(lowered.graph_copy(graph, {}))
    drop_unread(lowered)
    fuse(lowered, exact=exact)
    return fx.GraphModule(nn.Module(), lowered)


def run_watched(run: Run, inputs: Sequence[Any]) -> tuple[Any, float]:
    """Run a compiled graph, and say how large the values behind its convolutions become.

    Args:
        run: from `compile_graph`.
        inputs: of the graph, in order.

    Returns:
        Its answer, and the largest magnitude; infinity if a value is not finite.
    """
    watch = _Watch(run)
    return watch.run(*inputs), watch.largest


class _Watch(fx.Interpreter):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.largest = 0.0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = super().call_function(target, args, kwargs)
        if is_convolution(target):
            low, high = (bound.item() for bound in torch.aminmax(value))
            magnitude = max(-low, high)
            # Of NaN nothing is the larger one.
            self.largest = max(self.largest, magnitude) if magnitude < math.inf else math.inf
        return value


def fuse(graph: fx.Graph, *, exact: bool = False) -> None:
    """Fuse the convolutions of a graph, in place, with the sum and the activation behind them.

    Only what nothing else reads is fused.

    Args:
        graph: nodes in the order in which they run.
        exact: see `compile_graph`.
    """
    for node in list(graph.nodes):
        if node.target is convolve:
            _fuse_at(graph, node, exact=exact)


def _fuse_at(graph: fx.Graph, convolution: fx.Node, *, exact: bool) -> None:
    following, other, activation = [convolution], None, None
    user = _only_user(convolution)
    if user is not None and (other := _find_other(user, convolution)) is not None:
        following.append(user)
        user = _only_user(user)
    place = following[-1]  # by now all that both read is known
    if user is not None and len(user.all_input_nodes) == 1:
        activation = read_activation(user.target, user.args[1:], user.kwargs)
        if exact and activation is not None and not activation.keeps_nan:
            activation = None
        following += [] if activation is None else [user]
    if len(following) == 1:
        return
    result = read_value(following[-1])
    assert result is not None
    with graph.inserting_before(place):
        fused = graph.call_function(
            FusedConvolution(activation), convolution.args, {"other": other}
        )
    describe(fused, result, Effect(reads=find_storages(fused.all_input_nodes)))
    following[-1].replace_all_uses_with(fused)
    for node in reversed(following):
        graph.erase_node(node)


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the operation that reads a value, if nothing else does."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def _find_other(add: fx.Node, convolution: fx.Node) -> fx.Node | None:
    """Return what a convolution's answer is added to, if both can be computed together."""
    if add.target not in (_ADD, _ADD_IN_PLACE) or len(add.args) != 2 or add.kwargs:
        return None
    first, second = add.args
    other = second if first is convolution else first
    if not isinstance(other, fx.Node) or first is second:
        return None
    if add.target is _ADD_IN_PLACE and other is first:
        return None  # the other value is changed for all who read it
    values = [read_value(node) for node in (add, convolution, other)]
    if len({value and (value.shapes, value.dtype) for value in values}) > 1:
        return None  # one of them is spread over the other, or widened for it
    return None if _is_changed(_reads(convolution), convolution, add) else other


def _reads(operation: fx.Node) -> frozenset[int]:
    effect = read_effect(operation)
    return frozenset() if effect is None else effect.reads


def _is_changed(storages: frozenset[int], start: fx.Node, end: fx.Node) -> bool:
    """Whether an operation between two others changes memory."""
    node = start.next
    while node is not end:
        effect = read_effect(node)
        if effect is not None and effect.writes & storages:
            return True
        node = node.next
    return False
