"""Two recorded passes of one network, on batches of two sizes, written as one program."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from gatehub.compiler.forward import Pass
from gatehub.compiler.kernels import convolve
from gatehub.compiler.program import (
    RECORDED_BATCHES,
    RECORDED_LABELS,
    Constant,
    Effect,
    Lookup,
    Program,
    Value,
    describe,
    drop_unread,
    find_storages,
)
from gatehub.compiler.tracing import Operation
from gatehub.compiler.weight_use import find_kernels, find_matrices
from gatehub.errors import ExecutionError

# Operators that read a value out of a tensor and whose tags do not say so.
_READS_VALUES = frozenset({"aten.is_nonzero", "aten.item"})

_FOLD_INSTEAD = "Serve its tasks as folded models (gatehub.fold)."


def unify_shapes(small: Pass, large: Pass) -> Program:
    """Make one program of two passes, for any batch and number of labels.

    Args:
        small: of `RECORDED_BATCHES[0]` images and `RECORDED_LABELS[0]` labels.
        large: of `RECORDED_BATCHES[1]` images and `RECORDED_LABELS[1]` labels.

    Raises:
        ExecutionError: what the network runs depends on the values in an image, or changes with
            the batch in another way than in proportion, or it changes its own weights.
    """
    return _Writer(small, large).write()


class _Writer:
    def __init__(self, small: Pass, large: Pass) -> None:
        self._small, self._large = small, large
        self._graph = fx.Graph()
        self._images = self._graph.placeholder("images")
        self._weights = self._graph.placeholder("weights")
        self._labels = self._graph.placeholder("labels")
        shape = self._graph.call_function(getattr, (self._images, "shape"))
        self._batch = self._graph.call_function(operator.getitem, (shape, 0))
        # What stands for each tensor of either pass, by its id.
        self._nodes: dict[int, fx.Node] = {}
        self._twins: dict[int, fx.Node] = {}
        self._lookups: dict[str, fx.Node] = {}
        self._written = {storage for one in small.operations for storage in _written(one)}

    def write(self) -> Program:
        small, large = self._small, self._large
        if [o.function for o in small.operations] != [o.function for o in large.operations]:
            raise ExecutionError(
                "This backbone runs different operations at different batch sizes.",
                hint=_FOLD_INSTEAD,
            )
        if self._written & {_storage(tensor) for tensor in small.weights.values()}:
            raise _changes_itself()
        self._bind(self._images, small.images, large.images)
        for one, other in zip(small.operations, large.operations, strict=True):
            self._add(one, other)
        answer = self._nodes.get(id(small.answer))
        if answer is None or self._twins.get(id(large.answer)) is not answer:
            raise ExecutionError(
                "This backbone's answer comes from no recorded operation.", hint=_FOLD_INSTEAD
            )
        self._graph.output(answer)
        drop_unread(self._graph, keep=[self._batch])
        inputs = (self._images, self._weights, self._labels)
        return Program(
            graph=self._graph,
            inputs={node.name: node for node in inputs},
            batch=self._batch,
            answer=answer,
            weights=frozenset(name for name, lookup in self._lookups.items() if lookup.users),
            kernels=find_kernels(self._graph),
            matrices=find_matrices(self._graph),
            changes_images=_storage(small.images) in self._written,
        )

    def _add(self, one: Operation, other: Operation) -> None:
        _check_tensors_only(one)
        arguments = self._unify(one.arguments, other.arguments)
        keywords = self._unify(dict(one.keywords), dict(other.keywords))
        target: Callable[..., Any] = one.function
        if _is_convolution(one):
            target = convolve
        elif one.name == "aten.lift_fresh" and _storage(one.outputs[0]) in self._written:
            target = torch.clone  # a literal is made anew in every pass, and changed there
        node = self._graph.call_function(target, arguments, keywords)
        describe(node, Effect(reads=find_storages(node.all_input_nodes), writes=_written(one)))
        if isinstance(one.result, Tensor):
            self._bind(node, one.result, other.result)
        elif one.outputs:
            self._add_parts(node, one.result, other.result)

    def _add_parts(self, node: fx.Node, one: Any, other: Any) -> None:
        if len(one) != len(other):
            raise ExecutionError(
                "This backbone makes lists that grow with the batch.", hint=_FOLD_INSTEAD
            )
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            if isinstance(mine, Tensor):
                part = self._graph.call_function(operator.getitem, (node, index))
                describe(part, Effect(reads=frozenset({_storage(mine)})))
                self._bind(part, mine, theirs)

    def _bind(self, node: fx.Node, one: Tensor, other: Tensor) -> None:
        shapes = (tuple(one.shape), tuple(other.shape))
        describe(node, Value(shapes=shapes, dtype=one.dtype, storage=_storage(one)))
        self._nodes[id(one)] = self._twins[id(other)] = node

    def _unify(self, one: Any, other: Any) -> Any:
        """Turn the arguments of both passes into those of any pass."""
        if type(one) is not type(other):
            raise _differs(one, other)
        if isinstance(one, list | tuple):
            if len(one) != len(other):
                raise ExecutionError(
                    "This backbone passes lists that grow with the batch.", hint=_FOLD_INSTEAD
                )
            return type(one)(self._unify(a, b) for a, b in zip(one, other, strict=True))
        if isinstance(one, dict):
            return {key: self._unify(one[key], other.get(key)) for key in one}
        if isinstance(one, Tensor):
            return self._find(one, other)
        if one == other:
            return one
        if isinstance(one, int) and not isinstance(one, bool):
            return self._scale(one, other)
        raise _differs(one, other)

    def _find(self, one: Tensor, other: Tensor) -> fx.Node:
        node, twin = self._nodes.get(id(one)), self._twins.get(id(other))
        name, its_name = self._small.names.get(id(one)), self._large.names.get(id(other))
        if node is not twin or (node is None and name != its_name):
            raise ExecutionError(
                "This backbone reads different values at different batch sizes.", hint=_FOLD_INSTEAD
            )
        if node is not None:
            return node
        if name is None:
            return self._add_constant(one, other)
        if name not in self._lookups:
            lookup = self._graph.call_function(operator.getitem, (self._weights, name))
            fact = Lookup(name=name, shape=tuple(one.shape), storage=_storage(one))
            self._lookups[name] = describe(lookup, fact)
        return self._lookups[name]

    def _add_constant(self, one: Tensor, other: Tensor) -> fx.Node:
        """Keep a tensor that the network keeps beside its parameters and buffers, or a literal."""
        if one.shape != other.shape or one.dtype != other.dtype or not torch.equal(one, other):
            raise ExecutionError(
                "This backbone makes a tensor of the batch, or of the values in an image, where "
                "no operation shows it.",
                hint=_FOLD_INSTEAD,
            )
        if _storage(one) in self._written:
            raise _changes_itself()
        node = describe(self._graph.call_function(Constant(one.detach())), Effect())
        self._bind(node, one, other)
        return node

    def _scale(self, one: int, other: int) -> fx.Node:
        pairs = ((self._batch, RECORDED_BATCHES), (self._labels, RECORDED_LABELS))
        for size, (first, second) in pairs:
            if one % first == 0 and one // first * second == other:
                return self._graph.call_function(operator.mul, (size, one // first))
        raise _differs(one, other)


def _check_tensors_only(operation: Operation) -> None:
    """Refuse operators that read values out of tensors: what follows may depend on them unseen."""
    tags = getattr(operation.function, "tags", ())
    others = [
        leaf
        for leaf in tree_leaves(operation.result)
        if leaf is not None and not isinstance(leaf, Tensor)
    ]
    if others or operation.name in _READS_VALUES or torch.Tag.data_dependent_output in tags:
        raise ExecutionError(
            f"This backbone reads values out of tensors ({operation.name}), so what it runs may "
            "change from image to image.",
            hint=_FOLD_INSTEAD,
        )


def _is_convolution(operation: Operation) -> bool:
    """Whether it is one that kernels can be packed for: of a batch, with a padding in numbers."""
    return (
        operation.name == "aten.conv2d"
        and operation.arguments[0].ndim == 4
        and not any(isinstance(argument, str) for argument in operation.arguments)
    )


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written(operation: Operation) -> frozenset[int]:
    """Return the memory that an operation changes."""
    return frozenset(map(_storage, operation.changed))


def _changes_itself() -> ExecutionError:
    return ExecutionError(
        "This backbone changes tensors of its own while it runs, so an answer depends on what was "
        "answered before.",
        hint=_FOLD_INSTEAD,
    )


def _differs(one: object, other: object) -> ExecutionError:
    small, large = RECORDED_BATCHES
    return ExecutionError(
        f"This backbone uses {one!r} for a batch of {small} and {other!r} for one of {large}; "
        "expected the same, or sizes in proportion.",
        hint=_FOLD_INSTEAD,
    )
