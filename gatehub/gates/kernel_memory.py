"""How kernels lie in memory, and how they are multiplied and rounded there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Values that are multiplied and rounded to a smaller dtype at a time; they stay in a core's cache.
_CHUNK_VALUES = 2**18


def multiply(kernel: Tensor, factor: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Multiply a kernel by what broadcasts against it, and round the product once to `dtype`.

    Returns:
        A new tensor, laid out in memory as the kernel is.
    """
    product = torch.empty_like(kernel, dtype=dtype)
    if torch.promote_types(kernel.dtype, factor.dtype) == dtype:
        with torch.no_grad():
            return torch.mul(kernel, factor, out=product)
    rows = max(1, _CHUNK_VALUES // max(1, kernel[0].numel()))
    for start in range(0, len(kernel), rows):
        chunk = slice(start, start + rows)
        product[chunk].copy_(kernel[chunk] * (factor[chunk] if len(factor) > 1 else factor))
    return product


def lay_out(tensor: Tensor, memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    """Return a kernel over two dimensions in a memory format, and any other tensor contiguous.

    The strides of a kernel with one row and column, or one input channel, can say both formats.
    Here they always say the one that is asked for, so that a convolution's output lies so too; such
    kernels share the memory of what was given.

    Args:
        tensor: of any shape.
        memory_format: channels-last or contiguous.
    """
    if tensor.ndim != 4 or memory_format is not torch.channels_last:
        strides = torch.empty(tensor.shape, device="meta").stride()
    else:
        _, channels, height, width = tensor.shape
        strides = (height * width * channels, 1, width * channels, channels)
    if tensor.stride() == strides:
        return tensor
    if tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided(tensor.shape, strides)  # the same order by other names
    empty = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return empty.copy_(tensor)


def arrange_kernels(network: nn.Module) -> None:
    """Let a network on the CPU compute channels-last, in place: convolutions do as kernels lie.

    The rule is fixed: a choice by a stopwatch would be another one in the next run, and with it
    the rounding. Trained with one thread, depthwise convolutions gain a third at 112 pixels,
    dense ones from nothing to a tenth, and none of the networks tried lost. On other devices
    kernels stay as they are.

    Args:
        network: what is frozen in it is laid out anew; what is learned, and saved, is left alone.
    """
    for parameter in network.parameters():
        if parameter.device.type == "cpu" and parameter.ndim == 4 and not parameter.requires_grad:
            parameter.data = lay_out(parameter.data)


def cast_to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in `dtype`, but leave integers, which count, as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
