"""Which operations a network runs, and which tensors each reads: found by running it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gatehub._text import first_line
from gatehub.errors import GateError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One call of an ATen operator.

    Args:
        name: the operator without its overload, such as "aten.convolution".
        function: the operator.
        arguments: those that were given by position.
        keywords: those that were given by name.
        outputs: the tensors that it returned.
        result: what it returned, as it was returned.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outputs: tuple[Tensor, ...]
    result: Any

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that it reads, or writes to."""
        return _tensors((self.arguments, dict(self.keywords)))

    @property
    def changed(self) -> tuple[Tensor, ...]:
        """The tensors that it writes to."""
        return _tensors(find_changed(self.function, self.arguments, self.keywords))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """One forward pass.

    Args:
        operations: in the order in which they ran.
        names: of each parameter and buffer, by the id of the tensor that stood for it. A tensor
            that several layers share has several names.
        readers: how many operations read each tensor, by its id, the network's answer counted as
            one more.
    """

    operations: tuple[Operation, ...]
    names: Mapping[int, tuple[str, ...]]
    readers: Mapping[int, int]

    def name(self, tensor: object) -> str | None:
        """Return the one name of a parameter or buffer; None for any other, and for shared ones."""
        names = self.names.get(id(tensor), ())
        return names[0] if len(names) == 1 else None


def trace_forward(model: nn.Module, input_size: tuple[int, int, int]) -> Trace:
    """Run a model in evaluation mode on the meta device, and record each operation.

    It computes and allocates nothing, so it takes milliseconds, and sees what really runs: a
    kernel that a block reads by itself, a layer that is skipped or called twice.

    Args:
        model: any; it stays as it is.
        input_size: (channels, height, width) of an image.

    Raises:
        GateError: the model does not run on the meta device.
    """
    recorder = Recorder()
    try:
        # In inference mode operators arrive whole, before they become those that are known here.
        with torch.inference_mode(False), torch.no_grad():
            probe = copy_to_meta(model).eval()
            dtype = next(probe.parameters()).dtype
            image = torch.empty(1, *input_size, dtype=dtype, device="meta")
            with recorder:
                answer = probe(image)
    # Operators without a meta form, branches on values, and modules that are missed.
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise GateError(
            f"{type(model).__name__} cannot be traced on an input of {input_size}: "
            f"{first_line(error)}.",
            hint="Fold without merge_norm.",
        ) from error
    readers: dict[int, int] = {}
    read = [operation.inputs for operation in recorder.operations]
    for tensors in (*read, _tensors(answer)):
        for tensor in tensors:
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    names: dict[int, tuple[str, ...]] = {}
    for name, tensor in named_tensors(probe):
        names[id(tensor)] = (*names.get(id(tensor), ()), name)
    return Trace(operations=tuple(recorder.operations), names=names, readers=readers)


class Recorder(TorchDispatchMode):
    """Records the operations that run in its `with` block, in order.

    It keeps every tensor that it has seen alive, so that an id names one tensor only. Literals,
    which a pass may change like any other tensor, are copied: what it has seen of them stays.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.lift_fresh.default:
            result = result.clone()
        self.operations.append(
            Operation(
                name=str(func.overloadpacket),
                function=func,
                arguments=args,
                keywords=kwargs or {},
                outputs=_tensors(result),
                result=result,
            )
        )
        return result


def find_changed(
    operator: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return those of an ATen operator's arguments whose numbers it changes, lists taken apart.

    Args:
        operator: with a schema, which says so.
        arguments: those that are given by position: tensors, or what stands for them.
        keywords: those that are given by name.
    """
    schema = operator._schema
    if not schema.is_mutable or operator is torch.ops.aten.detach_.default:  # it changes no number
        return ()
    named = {**dict(zip((a.name for a in schema.arguments), arguments, strict=False)), **keywords}
    changed = [
        named[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None
        and argument.alias_info.is_write
        and argument.name in named
    ]
    return tuple(tree_leaves(changed))


def copy_to_meta(model: nn.Module) -> nn.Module:
    """Return the same structure with parameters and buffers that have shapes and no values."""
    stand_ins: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        stand_ins[id(tensor)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(model, stand_ins)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Go through parameters and buffers; a tensor with several names comes once for each."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _tensors(tree: Any) -> tuple[Tensor, ...]:
    return tuple(leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
