"""Batch norms multiplied into the convolutions that they follow, wherever that is exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from gatehub.compiler.tracing import Operation, Trace, trace_forward

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
BATCH_NORMS = frozenset(
    {
        "aten.native_batch_norm",
        "aten.cudnn_batch_norm",
        "aten.miopen_batch_norm",
        "aten._native_batch_norm_legit_no_training",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormMerge:
    """A batch norm that reads what one convolution writes, and nothing else reads it.

    Args:
        convolution: name of the `Conv2d`.
        norm: name of the normalisation.
        eps: what it adds to the variance.
    """

    convolution: str
    norm: str
    eps: float


def find_merges(model: nn.Module, *, input_size: tuple[int, int, int]) -> tuple[NormMerge, ...]:
    """Find the batch norms that can be multiplied into a convolution, from what really runs.

    A pair qualifies when the norm's input is the convolution's output itself, no other operation
    reads that output, and both layers run once. Names and the order of definition play no part.

    Args:
        model: a network whose convolutions compute with their weight as it stands.
        input_size: (channels, height, width) of an image.

    Raises:
        GateError: the model does not run on the meta device.
    """
    trace = trace_forward(model, input_size)
    modules = dict(model.named_modules())
    writers = {
        id(operation.outputs[0]): operation
        for operation in trace.operations
        if operation.name == "aten.convolution"
    }
    merges = []
    for operation in trace.operations:
        if operation.name not in BATCH_NORMS:
            continue
        source = operation.arguments[0]
        writer = writers.get(id(source))
        if writer is None or trace.readers[id(source)] != 1:
            continue
        norm = _find_norm(trace, operation, modules)
        convolution = _find_convolution(trace, writer, modules)
        if norm is not None and convolution is not None:
            eps = cast(nn.BatchNorm2d, modules[norm]).eps
            merges.append(NormMerge(convolution=convolution, norm=norm, eps=eps))
    return tuple(merges)


def merge_kernels(
    tensors: Mapping[str, Tensor], merges: tuple[NormMerge, ...]
) -> dict[str, Tensor]:
    """Return the weight and bias of each convolution that has taken a norm in.

    With scale = weight / sqrt(running_var + eps) of the norm, the kernel becomes W * scale and the
    bias (b - running_mean) * scale + bias of the norm: arXiv 1502.03167, algorithm 2.

    Args:
        tensors: the network's parameters and buffers, by name.
        merges: from `find_merges`.
    """
    merged = {}
    for merge in merges:
        kernel = tensors[f"{merge.convolution}.weight"]
        scale, shift = scale_and_shift(tensors, merge)
        merged[f"{merge.convolution}.weight"] = (kernel * scale.reshape(-1, 1, 1, 1)).to(kernel)
        merged[f"{merge.convolution}.bias"] = shift.to(kernel)
    return merged


def scale_and_shift(tensors: Mapping[str, Tensor], merge: NormMerge) -> tuple[Tensor, Tensor]:
    """Return what a merged norm multiplies each output channel by, and what it then adds.

    Args:
        tensors: the network's parameters and buffers, by name.
        merge: the norm, and its convolution, whose bias goes into the shift.

    Returns:
        scale: (O,) and shift: (O,), float32 where the network is in half precision, so that both
        are rounded once, at the end.
    """
    mean = tensors[f"{merge.norm}.running_mean"]
    wide = torch.promote_types(mean.dtype, torch.float32)
    mean = mean.to(wide)
    scale = torch.rsqrt(tensors[f"{merge.norm}.running_var"].to(wide) + merge.eps)
    if (weight := tensors.get(f"{merge.norm}.weight")) is not None:
        scale = scale * weight
    bias = tensors.get(f"{merge.convolution}.bias")
    shift = scale * (-mean if bias is None else bias - mean)
    if (offset := tensors.get(f"{merge.norm}.bias")) is not None:
        shift = shift + offset
    return scale, shift


def merge_norms(model: nn.Module, *, input_size: tuple[int, int, int]) -> None:
    """Multiply batch norms into convolutions, in place; the tensors they had stay as they are.

    Args:
        model: a network whose convolutions compute with their weight as it stands.
        input_size: (channels, height, width) of an image.

    Raises:
        GateError: the model does not run on the meta device.
    """
    apply_merges(model, find_merges(model, input_size=input_size))


def apply_merges(model: nn.Module, merges: tuple[NormMerge, ...]) -> None:
    """Multiply norms into convolutions, in place; see `merge_norms`.

    Args:
        model: a network whose convolutions compute with their weight as it stands.
        merges: what `find_merges` finds in it.
    """
    merged = merge_kernels(model.state_dict(keep_vars=True), merges)
    for merge in merges:
        convolution = cast(nn.Conv2d, model.get_submodule(merge.convolution))
        for part in ("weight", "bias"):
            tensor = merged[f"{merge.convolution}.{part}"].detach()
            setattr(convolution, part, nn.Parameter(tensor, requires_grad=False))
        norm = model.get_submodule(merge.norm)
        model.set_submodule(merge.norm, _REMAINDERS[type(norm)](norm))


def _find_norm(trace: Trace, operation: Operation, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the module that an operation is all the work of, but for a known remainder."""
    own = operation.arguments[1:5]
    name = (trace.name(own[2]) or "").rpartition(".")[0]
    if type(modules.get(name)) not in _REMAINDERS:
        return None
    if any(tensor is not None and trace.readers[id(tensor)] != 1 for tensor in own):
        return None
    expected = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    found = [trace.name(tensor) for tensor in own]
    if any(
        tensor is not None and a != b for tensor, a, b in zip(own, found, expected, strict=True)
    ):
        return None
    return name


def _find_convolution(
    trace: Trace, operation: Operation, modules: Mapping[str, nn.Module]
) -> str | None:
    """Return the module whose own weight and bias an operation computes with, and nobody else."""
    _, weight, bias = operation.arguments[:3]
    name = (trace.name(weight) or "").rpartition(".")[0]
    module = modules.get(name)
    if type(module) not in _CONVOLUTIONS or trace.readers[id(weight)] != 1:
        return None
    if trace.name(weight) != f"{name}.weight":
        return None
    if bias is not None and (trace.name(bias) != f"{name}.bias" or trace.readers[id(bias)] != 1):
        return None
    return name


def _drop_norm(norm: nn.Module) -> nn.Module:
    return nn.Identity()


def _keep_activation(norm: nn.Module) -> nn.Module:
    activated = cast(BatchNormAct2d, norm)
    return nn.Sequential(activated.drop, activated.act)


# What is left of a norm, by its exact class, when its statistics are gone. Other classes may do
# more, and keep their norm.
_REMAINDERS: Mapping[type[nn.Module] | None, Callable[[nn.Module], nn.Module]] = {
    nn.BatchNorm2d: _drop_norm,
    BatchNormAct2d: _keep_activation,
}
