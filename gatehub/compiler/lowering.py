"""Convolutions, and what follows them on the same values, as one operation.

A residual sum and an activation each read and write every value once more, which takes about as
long as a convolution over few channels. oneDNN computes both while it holds a convolution's answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from gatehub.compiler.activations import Activation, read_activation
from gatehub.compiler.kernels import Kernel, convolve

_ADD, _ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor


class FusedConvolution:
    """A convolution with the sum and the activation behind it: one operation of a graph.

    Args:
        activation: None for none.
    """

    def __init__(self, activation: Activation | None) -> None:
        self._activation = activation
        self.__name__ = "convolve" if activation is None else f"convolve_{activation.name}"
        self.__module__ = __name__

    def __call__(
        self, other: Tensor | None, images: Tensor, kernel: Tensor | Kernel, *setting: Any
    ) -> Tensor:
        """Return activation(convolve(images, kernel, *setting) + other)."""
        return convolve(images, kernel, *setting, other=other, activation=self._activation)


def fuse(graph: fx.Graph) -> fx.Graph:
    """Return a graph in which convolutions take in the sum and the activation that follow them.

    Only what nothing else reads is taken in.
    """
    fused = fx.Graph()
    fused.output(fused.graph_copy(graph, {}))
    for node in list(fused.nodes):
        if node.target is convolve:
            _fuse_at(fused, node)
    return fused


def _fuse_at(graph: fx.Graph, convolution: fx.Node) -> None:
    following, other, activation = [convolution], None, None
    user = _only_user(convolution)
    if user is not None and (other := _find_other(user, convolution)) is not None:
        following.append(user)
        user = _only_user(user)
    place = following[-1]  # by now all that both read is known
    if user is not None and len(user.all_input_nodes) == 1:
        activation = read_activation(user.target, user.args[1:], user.kwargs)
        following += [] if activation is None else [user]
    if len(following) == 1:
        return
    with graph.inserting_before(place):
        arguments = (other, *convolution.args)
        fused = graph.call_function(FusedConvolution(activation), arguments)
    fused.meta |= following[-1].meta | {"writes": frozenset()}
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
    kinds = [
        (node.meta.get("shapes"), node.meta.get("dtype")) for node in (add, convolution, other)
    ]
    if kinds[0][0] is None or kinds != kinds[:1] * 3:
        return None  # one of them is spread over the other, or widened for it
    return None if _is_changed(convolution.meta["reads"], convolution, add) else other


def _is_changed(storages: frozenset[int], start: fx.Node, end: fx.Node) -> bool:
    """Whether an operation between two others changes memory."""
    node = start.next
    while node is not end:
        if node.meta.get("writes", frozenset()) & storages:
            return True
        node = node.next
    return False
