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
from gatehub.compiler.program import RECORDED_BATCHES, RECORDED_LABELS, Program
from gatehub.compiler.tracing import Operation
from gatehub.errors import ExecutionError

# Operators that read a value out of a tensor and whose tags do not say so.
_READS_VALUES = frozenset({"aten.is_nonzero", "aten.item"})

_FOLD_INSTEAD = "Serve its tasks as folded models (gatehub.fold)."


def write_program(small: Pass, large: Pass) -> Program:
    """Write two passes as one program, for any batch and number of labels.

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
        self._read_otherwise: set[str] = set()
        self._settings: dict[str, set[str]] = {}
        self._has_pixels: set[str] = set()
        self._written = {storage for one in small.operations for storage in _written(one)}

    def write(self) -> Program:
        small, large = self._small, self._large
        if [o.function for o in small.operations] != [o.function for o in large.operations]:
            raise ExecutionError(
                "This backbone runs other operations on another batch size.", hint=_FOLD_INSTEAD
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
        inputs = (self._images, self._weights, self._labels)
        only_convolved = self._lookups.keys() - self._read_otherwise
        kernels = frozenset(name for name in only_convolved if len(self._settings[name]) == 1)
        return Program(
            graph=self._graph,
            inputs={node.name: node for node in inputs},
            batch=self._batch,
            answer=answer,
            weights=frozenset(self._lookups),
            kernels=kernels,
            matrices=kernels - self._has_pixels,
            changes_images=_storage(small.images) in self._written,
        )

    def _add(self, one: Operation, other: Operation) -> None:
        _check_tensors_only(one)
        is_convolution = _is_convolution(one)
        arguments = self._unify(one.arguments, other.arguments, convolution=is_convolution)
        keywords = self._unify(dict(one.keywords), dict(other.keywords))
        target: Callable[..., Any] = one.function
        if is_convolution:
            target = convolve
            name = arguments[1].meta.get("weight", "")
            self._settings.setdefault(name, set()).add(repr(arguments[3:]))
            if not _is_product(one):
                self._has_pixels.add(name)
        elif one.name == "aten.lift_fresh" and _storage(one.outputs[0]) in self._written:
            target = torch.clone  # a literal is made anew in every pass, and changed there
        node = self._graph.call_function(target, arguments, keywords)
        node.meta["reads"] = frozenset(map(_storage, one.inputs))
        node.meta["writes"] = _written(one)
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
                part.meta |= {"reads": frozenset({_storage(mine)}), "writes": frozenset()}
                self._bind(part, mine, theirs)

    def _bind(self, node: fx.Node, one: Tensor, other: Tensor) -> None:
        node.meta["shapes"], node.meta["dtype"] = (one.shape, other.shape), one.dtype
        node.meta["storage"] = _storage(one)
        self._nodes[id(one)] = self._twins[id(other)] = node

    def _unify(self, one: Any, other: Any, *, convolution: bool = False) -> Any:
        """Turn the arguments of both passes into those of any pass."""
        if type(one) is not type(other):
            raise _differs(one, other)
        if isinstance(one, list | tuple):
            if len(one) != len(other):
                raise ExecutionError(
                    "This backbone passes lists that grow with the batch.", hint=_FOLD_INSTEAD
                )
            return type(one)(
                self._find(a, b, is_kernel=True)
                if convolution and place == 1
                else self._unify(a, b)
                for place, (a, b) in enumerate(zip(one, other, strict=True))
            )
        if isinstance(one, dict):
            return {key: self._unify(one[key], other.get(key)) for key in one}
        if isinstance(one, Tensor):
            return self._find(one, other, is_kernel=False)
        if one == other:
            return one
        if isinstance(one, int) and not isinstance(one, bool):
            return self._scale(one, other)
        raise _differs(one, other)

    def _find(self, one: Tensor, other: Tensor, *, is_kernel: bool) -> fx.Node:
        node, twin = self._nodes.get(id(one)), self._twins.get(id(other))
        name, its_name = self._small.names.get(id(one)), self._large.names.get(id(other))
        if node is not twin or (node is None and name != its_name):
            raise ExecutionError(
                "This backbone reads another value on another batch size.", hint=_FOLD_INSTEAD
            )
        if node is not None:
            return node
        if name is None:
            return self._add_constant(one, other)
        if name not in self._lookups:
            lookup = self._graph.call_function(operator.getitem, (self._weights, name))
            lookup.meta["weight"] = name
            self._lookups[name] = lookup
        if not is_kernel:
            self._read_otherwise.add(name)
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
        node = self._graph.call_function(_Constant(one.detach()))
        node.meta |= {"reads": frozenset({_storage(one)}), "writes": frozenset()}
        self._bind(node, one, other)
        return node

    def _scale(self, one: int, other: int) -> fx.Node:
        pairs = ((self._batch, RECORDED_BATCHES), (self._labels, RECORDED_LABELS))
        for size, (first, second) in pairs:
            if one % first == 0 and one // first * second == other:
                return self._graph.call_function(operator.mul, (size, one // first))
        raise _differs(one, other)


class _Constant:
    """A function of nothing that returns one tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.__name__ = "constant"
        self.__module__ = __name__

    def __call__(self) -> Tensor:
        return self._tensor


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


def _is_product(convolution: Operation) -> bool:
    """Whether a convolution is a matrix product: all that it reads and gives has one pixel."""
    images, kernel, *_ = convolution.arguments
    padding = [size for given in convolution.arguments[4:5] for size in given]
    sizes = {tensor.shape[2:] for tensor in (images, kernel, convolution.result)}
    # With padding and a stride, the one pixel of the answer can lie beside the image.
    return sizes == {(1, 1)} and images.shape[1] == kernel.shape[1] and not any(padding)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written(operation: Operation) -> frozenset[int]:
    """Return the storages that an operation changes."""
    schema = operation.function._schema  # type: ignore[attr-defined]
    if not schema.is_mutable or operation.name == "aten.detach_":  # it changes no number
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
