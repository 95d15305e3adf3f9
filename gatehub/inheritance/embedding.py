"""A feed-forward network as an equal convolutional one.

What a feed-forward network computes with vectors, a convolutional one computes with channels. A
vector (B, F) is a map of one pixel, (B, F, 1, 1); tokens (B, N, F) are a map of N pixels, (B, F, N,
1); images stay as they are.

| feed-forward | convolutional |
|---|---|
| `Linear` | a 1x1 convolution |
| `Linear` behind `Flatten` | a convolution with a kernel as large as the map |
| `Linear` over tokens, between two transposes | a 1x1 convolution whose channels are the tokens |
| an affine layer (ResMLP's) | a depthwise 1x1 convolution with bias |
| `LayerNorm`, `BatchNorm1d` | the same over channels |
| activations, sums, layer scales | the same, pixel by pixel |
| `Dropout`, `DropPath` | nothing: the network is taken in evaluation mode |
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.mlp_mixer import Affine
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from gatehub._arguments import checked
from gatehub.errors import EmbeddingError
from gatehub.inheritance.layers import (
    POINTWISE_FUNCTIONS,
    POINTWISE_METHODS,
    POINTWISE_MODULES,
    embed_affine,
    embed_batch_norm,
    embed_layer_norm,
    embed_linear,
)

_NOTHING = (nn.Identity, nn.Dropout, nn.AlphaDropout, DropPath)
_SUMS: dict[Any, Callable[..., Any]] = {
    operator.add: operator.add,
    operator.iadd: operator.add,
    torch.add: operator.add,
    "add": operator.add,
    operator.sub: operator.sub,
    operator.mul: operator.mul,
    torch.mul: operator.mul,
    "mul": operator.mul,
}
_TRANSPOSED = ({1, 2}, {-1, -2}, {1, -1}, {2, -2})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """What stands for a value of the feed-forward network.

    Args:
        node: (B, channels, height, width) in the new graph.
        shape: of the value itself, without the batch.
        flat: the shape that it had before it was flattened, or None.
    """

    node: fx.Node
    shape: tuple[int, ...]
    flat: tuple[int, ...] | None = None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, (Affine, DropPath, nn.LayerNorm, *POINTWISE_MODULES))
        return known or super().is_leaf_module(m, module_qualified_name)


@checked(EmbeddingError)
def embed(network: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule:
    """Return a convolutional network that computes what a feed-forward one does.

    Args:
        network: a stack of the layers above, branches and sums included; it stays as it is.
        input_shape: of one input: (F,) a vector, (N, F) tokens, or (C, H, W) an image.

    Returns:
        A network in evaluation mode that takes and returns what `network` does; in between
        everything is (B, channels, height, width), and every `Linear` is a `Conv2d`.

    Raises:
        EmbeddingError: an operation that is not in the table, or no such input.
    """
    name = type(network).__name__
    # fx looks into what it traces, and a single layer is to be seen as one.
    network = nn.Sequential(copy.deepcopy(network)).eval()
    shape = tuple(input_shape)
    like = next(network.parameters(), torch.zeros(()))
    if not 1 <= len(shape) <= 3 or not all(type(size) is int and size > 0 for size in shape):
        raise EmbeddingError(
            f"The input shape is {shape}; expected (F,), (N, F) or (C, H, W), each from 1 on.",
            hint="Leave out the batch.",
        )
    try:
        graph = _Tracer().trace(network)
        inputs = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
        with torch.no_grad():
            ShapeProp(fx.GraphModule(network, graph)).propagate(inputs)
    except Exception as error:  # fx and the network itself raise whatever they like
        raise EmbeddingError(
            f"{name} cannot be followed from an input {shape}: {error}",
            hint="Its forward must not depend on values, and must take this input.",
        ) from error
    return _Embedder(network).embed(graph)


class _Embedder:
    """Writes the convolutional network, node by node.

    Args:
        network: the feed-forward one.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[fx.Node, _Value | Tensor] = {}

    def embed(self, graph: fx.Graph) -> fx.GraphModule:
        for node in graph.nodes:
            match node.op:
                case "placeholder":
                    self._values[node] = self._enter(node)
                case "get_attr":
                    self._values[node] = operator.attrgetter(node.target)(self._network)
                case "output":
                    self._leave(node.args[0])
                case "call_module":
                    module = self._network.get_submodule(node.target)
                    self._values[node] = self._call_module(node, module)
                case _:
                    self._values[node] = self._call(node)
        return fx.GraphModule(self._root, self._graph).eval()

    def _enter(self, node: fx.Node) -> _Value:
        shape = _shape(node)
        here = self._graph.placeholder(node.name)
        if len(shape) == 2:
            here = self._graph.call_method("transpose", (here, 1, 2))
        for _ in range(3 - len(shape)):
            here = self._graph.call_method("unsqueeze", (here, -1))
        return _Value(node=here, shape=shape)

    def _leave(self, result: Any) -> None:
        value = self._value(result)
        here = value.node
        if len(value.shape) == 2 or (value.flat is not None and len(value.flat) == 2):
            here = self._graph.call_method("squeeze", (here, -1))
            here = self._graph.call_method("transpose", (here, 1, 2))
        if len(value.shape) == 1:
            here = self._graph.call_method("flatten", (here, 1))
        self._graph.output(here)

    def _call_module(self, node: fx.Node, module: nn.Module) -> _Value:
        value = self._value(node.args[0])
        if isinstance(module, _NOTHING):
            return value
        if type(module) in POINTWISE_MODULES:
            return self._add(node, value, module)
        if isinstance(module, nn.Flatten):
            return self._flatten(node, value, module.start_dim, module.end_dim)
        if isinstance(module, nn.Linear) and len(value.shape) < 3:
            return self._add(node, value, embed_linear(module, flat=value.flat))
        if value.flat is None and len(value.shape) < 3:
            if isinstance(module, Affine):
                return self._add(node, value, embed_affine(module))
            if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
                return self._add(node, value, embed_layer_norm(module))
            if isinstance(module, nn.BatchNorm1d) and len(value.shape) == 1:
                return self._add(node, value, embed_batch_norm(module))
        raise _refuse(node, f"{type(module).__name__} on values {_shape(node)}")

    def _call(self, node: fx.Node) -> _Value:
        target: Any = node.target
        if target in _SUMS:
            return self._combine(node, _SUMS[target])
        value = self._value(node.args[0])
        rest: tuple[Any, ...] = node.args[1:]
        if target in POINTWISE_FUNCTIONS:
            here = self._graph.call_function(target, (value.node, *rest), node.kwargs)
            return _Value(node=here, shape=value.shape, flat=value.flat)
        if node.op == "call_method" and target in POINTWISE_METHODS:
            here = self._graph.call_method(str(target), (value.node, *rest), node.kwargs)
            return _Value(node=here, shape=value.shape, flat=value.flat)
        if target in ("flatten", torch.flatten) and not node.kwargs:
            first = rest[0] if rest else 0
            return self._flatten(node, value, first, rest[1] if len(rest) > 1 else -1)
        transposes = target in ("transpose", torch.transpose) and len(value.shape) == 2
        if transposes and set(rest) in _TRANSPOSED:
            here = self._graph.call_method("transpose", (value.node, 1, 2))
            return _Value(node=here, shape=value.shape[::-1])
        if target is F.dropout:
            return value
        raise _refuse(node, f"'{getattr(target, '__name__', target)}' on values {value.shape}")

    def _combine(self, node: fx.Node, function: Callable[..., Any]) -> _Value:
        """Add, subtract or multiply two values, or a value and what is learned for each channel."""
        sides = [self._values.get(arg) if isinstance(arg, fx.Node) else arg for arg in node.args]
        values = [side for side in sides if isinstance(side, _Value)]
        if node.kwargs or len({(value.shape, value.flat) for value in values}) != 1:
            raise _refuse(node, "a sum of values that differ in shape")
        first = values[0]
        arguments: list[Any] = []
        for side in sides:
            if isinstance(side, Tensor):
                if side.numel() not in (1, first.shape[-1]) or first.flat or len(first.shape) > 2:
                    raise _refuse(node, f"a learned tensor {tuple(side.shape)} beside values")
                arguments.append(self._keep(node, side))
            else:
                arguments.append(side.node if isinstance(side, _Value) else side)
        here = self._graph.call_function(function, tuple(arguments))
        return _Value(node=here, shape=first.shape, flat=first.flat)

    def _keep(self, node: fx.Node, tensor: Tensor) -> fx.Node:
        name = f"{node.name}_scale"
        kept = nn.Parameter(tensor.detach().reshape(1, -1, 1, 1).clone())
        self._root.register_parameter(name, kept)
        return self._graph.get_attr(name)

    def _flatten(self, node: fx.Node, value: _Value, first: int, last: int) -> _Value:
        if first != 1 or last not in (-1, len(value.shape)):
            raise _refuse(node, f"a flattening of dimensions {first} to {last}")
        if len(value.shape) == 1:
            return value
        return _Value(node=value.node, shape=_shape(node), flat=value.shape)

    def _add(self, node: fx.Node, value: _Value, module: nn.Module) -> _Value:
        name = f"{node.name}_"
        self._root.add_module(name, module)
        flat = value.flat if type(module) in POINTWISE_MODULES else None
        return _Value(
            node=self._graph.call_module(name, (value.node,)), shape=_shape(node), flat=flat
        )

    def _value(self, arg: Any) -> _Value:
        value = self._values.get(arg) if isinstance(arg, fx.Node) else None
        if not isinstance(value, _Value):
            raise EmbeddingError("The network returns or takes something other than one tensor.")
        return value


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta")
    if not hasattr(meta, "shape"):
        raise _refuse(node, "several tensors")
    return tuple(cast(Any, meta).shape[1:])


def _refuse(node: fx.Node, what: str) -> EmbeddingError:
    return EmbeddingError(
        f"'{node.name}' is {what}, for which no equal convolution is known.",
        hint="gatehub.inheritance.embedding lists what can be embedded.",
    )
