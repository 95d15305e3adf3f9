"""A network as the list of operations that it runs, which any number of threads can run at once.

A module holds its weights in attributes, so two tasks cannot run through one module at the same
time. A program takes its weights as an argument: it is recorded once for a backbone, never
changes, and gives the same numbers as the module, since it runs the same operations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from gatehub.errors import ExecutionError
from gatehub.gates.trace import Operation, Recorder, named_tensors
from gatehub.runtime.kernels import convolve

# Two runs tell a size that follows the batch or the labels from one that does not. Both pairs are
# coprime, so that no size can follow both.
_BATCHES = (2, 3)
_LABELS = (5, 7)

# Operators that read a value out of a tensor: what follows may depend on it unseen.
_READS_VALUES = frozenset({"aten._local_scalar_dense", "aten.is_nonzero", "aten.equal"})

Weights = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """A network's operations, as a graph whose inputs are `images`, `weights` and `labels`.

    Args:
        graph: nodes in the order in which they run. `node.meta` holds "reads" and "writes", ids of
            the storages that an operation reads and changes, and "shapes", those of its value in
            the two recorded runs.
        inputs: the graph's input nodes, by name.
        batch: the node that gives the number of images.
        answer: the node that gives the logits.
        weights: names of the tensors that it reads.
        kernels: names of the weights that nothing but convolutions reads.
        changes_images: whether it writes into the images that it is given.
    """

    graph: fx.Graph
    inputs: Mapping[str, fx.Node]
    batch: fx.Node
    answer: fx.Node
    weights: frozenset[str]
    kernels: frozenset[str]
    changes_images: bool


def record(
    build: Callable[[int], nn.Module],
    *,
    input_size: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Program:
    """Record what a network runs on images of one size, for any batch and number of labels.

    Args:
        build: returns the network with a head for so many labels, and the same weights otherwise.
        input_size: (channels, height, width) of an image.
        device: of the network.
        dtype: of the network.

    Raises:
        ExecutionError: what it runs depends on the values in an image, or changes with the batch
            in another way than in proportion.
    """
    runs = [
        _run(build(labels), (batch, *input_size), device=device, dtype=dtype)
        for batch, labels in zip(_BATCHES, _LABELS, strict=True)
    ]
    program = _Writer(*runs).write()
    graph = fx.GraphModule(nn.Module(), program.graph)
    again = runs[0]
    found = graph(again.given, again.weights, _LABELS[0])
    # Operations on half-precision tensors round differently where a kernel is packed.
    if not torch.allclose(found.float(), again.answer.float(), rtol=1e-3, atol=1e-4):
        difference = (found - again.answer).abs().max().item()
        raise ExecutionError(
            f"The recorded operations of this backbone answer differently from it, by "
            f"{difference:.2g} at most; expected the same numbers."
        )
    return program


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """One recorded pass.

    Args:
        operations: in the order in which they ran.
        images: the very tensor that the network was given; it may have been changed.
        given: what was in it.
        answer: the logits.
        weights: parameters and buffers, by name.
        names: of each of them, by id.
    """

    operations: Sequence[Operation]
    images: Tensor
    given: Tensor
    answer: Tensor
    weights: Mapping[str, Tensor]
    names: Mapping[int, str]


def _run(
    model: nn.Module, shape: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
) -> _Run:
    weights: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, tensor in named_tensors(model):
        weights[name] = tensor.detach()
        names.setdefault(id(tensor), name)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator).to(device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    given = images.clone(memory_format=torch.preserve_format)
    recorder = Recorder()
    # In inference mode operators arrive whole, so that they run again just as they ran here.
    with torch.inference_mode(), recorder:
        answer = model(images)
    if not isinstance(answer, Tensor):
        raise ExecutionError(
            f"{type(model).__name__} answers a {type(answer).__name__}; expected one tensor."
        )
    return _Run(
        operations=recorder.operations,
        images=images,
        given=given,
        answer=answer,
        weights=weights,
        names=names,
    )


class _Writer:
    """Writes two recorded runs of one network as one graph."""

    def __init__(self, small: _Run, large: _Run) -> None:
        self._small, self._large = small, large
        self._graph = fx.Graph()
        self._images = self._graph.placeholder("images")
        self._weights = self._graph.placeholder("weights")
        self._labels = self._graph.placeholder("labels")
        self._batch = self._graph.call_function(operator.getitem, (self._shape(), 0))
        self._nodes: dict[int, fx.Node] = {}
        self._lookups: dict[str, fx.Node] = {}
        self._read_otherwise: set[str] = set()

    def _shape(self) -> fx.Node:
        return self._graph.call_function(getattr, (self._images, "shape"))

    def write(self) -> Program:
        small, large = self._small, self._large
        if [o.function for o in small.operations] != [o.function for o in large.operations]:
            raise ExecutionError("This backbone runs other operations on another batch size.")
        self._nodes[id(small.images)] = self._images
        self._images.meta |= {
            "shapes": (small.images.shape, large.images.shape),
            "storage": _storage(small.images),
        }
        for one, other in zip(small.operations, large.operations, strict=True):
            self._add(one, other)
        answer = self._nodes.get(id(small.answer))
        if answer is None:
            raise ExecutionError("This backbone's answer comes from no recorded operation.")
        self._graph.output(answer)
        written = {storage for one in small.operations for storage in _written(one)}
        inputs = (self._images, self._weights, self._labels)
        return Program(
            graph=self._graph,
            inputs={node.name: node for node in inputs},
            batch=self._batch,
            answer=answer,
            weights=frozenset(self._lookups),
            kernels=frozenset(self._lookups.keys() - self._read_otherwise),
            changes_images=_storage(small.images) in written,
        )

    def _add(self, one: Operation, other: Operation) -> None:
        if one.name in _READS_VALUES:
            raise ExecutionError(
                f"This backbone reads values out of tensors ({one.name}), so what it runs may "
                "change from image to image.",
                hint="Serve its tasks as folded models (gatehub.fold).",
            )
        is_convolution = one.name == "aten.conv2d" and not any(
            isinstance(argument, str) for argument in one.arguments
        )
        arguments, keywords = (
            self._unify(one.arguments, other.arguments, kernel=is_convolution),
            self._unify(dict(one.keywords), dict(other.keywords), kernel=False),
        )
        target = convolve if is_convolution else one.function
        node = self._graph.call_function(target, arguments, keywords)
        node.meta["reads"] = frozenset(map(_storage, one.inputs))
        node.meta["writes"] = _written(one)
        if isinstance(one.result, Tensor):
            self._bind(node, one.result, other.result)
            return
        for index, (mine, theirs) in enumerate(zip(one.outputs, other.outputs, strict=True)):
            part = self._graph.call_function(operator.getitem, (node, index))
            part.meta |= {"reads": frozenset({_storage(mine)}), "writes": frozenset()}
            self._bind(part, mine, theirs)

    def _bind(self, node: fx.Node, one: Tensor, other: Tensor) -> None:
        node.meta["shapes"] = (one.shape, other.shape)
        node.meta["storage"] = _storage(one)
        self._nodes[id(one)] = node

    def _unify(self, one: Any, other: Any, *, kernel: bool) -> Any:
        """Turn the arguments of both runs into those of any run."""
        if isinstance(one, list | tuple):
            if len(one) != len(other):
                raise ExecutionError("This backbone passes lists that grow with the batch.")
            return type(one)(
                self._unify(a, b, kernel=kernel and place == 1)
                for place, (a, b) in enumerate(zip(one, other, strict=True))
            )
        if isinstance(one, dict):
            return {key: self._unify(one[key], other[key], kernel=False) for key in one}
        if isinstance(one, Tensor):
            return self._find(one, kernel=kernel)
        if isinstance(one, int) and not isinstance(one, bool) and one != other:
            return self._scale(one, other)
        if one != other and one is not other:
            raise ExecutionError(
                f"This backbone uses {one!r} for one batch and {other!r} for another."
            )
        return one

    def _find(self, tensor: Tensor, *, kernel: bool) -> Any:
        if id(tensor) in self._nodes:
            return self._nodes[id(tensor)]
        name = self._small.names.get(id(tensor))
        if not name:
            # A tensor that the network keeps beside its parameters and buffers.
            return self._constant(tensor)
        if name not in self._lookups:
            lookup = self._graph.call_function(operator.getitem, (self._weights, name))
            lookup.meta["weight"] = name
            self._lookups[name] = lookup
        if not kernel:
            self._read_otherwise.add(name)
        return self._lookups[name]

    def _constant(self, tensor: Tensor) -> fx.Node:
        node = self._graph.call_function(_Constant(tensor.detach()))
        self._nodes[id(tensor)] = node
        return node

    def _scale(self, one: int, other: int) -> fx.Node:
        for size, (first, second) in ((self._batch, _BATCHES), (self._labels, _LABELS)):
            if one % first == 0 and one // first * second == other:
                return self._graph.call_function(operator.mul, (size, one // first))
        raise ExecutionError(
            f"This backbone has a size of {one} for a batch of {_BATCHES[0]} and of {other} for "
            f"one of {_BATCHES[1]}; expected sizes in proportion."
        )


class _Constant:
    """A function of nothing that returns one tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.__name__ = "constant"
        self.__module__ = __name__

    def __call__(self) -> Tensor:
        return self._tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written(operation: Operation) -> frozenset[int]:
    """Return the storages that an operation changes."""
    schema = operation.function._schema  # type: ignore[attr-defined]
    if not schema.is_mutable:
        return frozenset()
    named = dict(zip((a.name for a in schema.arguments), operation.arguments, strict=False))
    named |= operation.keywords
    changed = [
        named[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None
        and argument.alias_info.is_write
        and argument.name in named
    ]
    return frozenset(_storage(leaf) for leaf in tree_leaves(changed) if isinstance(leaf, Tensor))
