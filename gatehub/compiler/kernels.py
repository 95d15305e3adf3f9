"""Convolution kernels in the order in which oneDNN reads them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.compiler.activations import Activation
from gatehub.compiler.layouts import ConvolutionSetting, Layout, find_layout


class Kernel:
    """A convolution kernel on a CPU, in the order in which oneDNN reads it for some images.

    oneDNN computes with kernels in blocks of channels, and torch reorders a dense one on every
    call, which at a batch of one takes as long as the convolution. The answers are those of
    `torch.nn.functional.conv2d` but for rounding, and lie channels-last in memory, as its do with
    a kernel that lies so. Images that want another order get the same answer, but slowly.

    Args:
        dense: (O, I/groups, kH, kW) float32 or bfloat16, channels-last; not kept.
        layout: its order.
    """

    __slots__ = ("_packed", "nbytes")

    def __init__(self, dense: Tensor, layout: Layout) -> None:
        self._packed = layout.reorder(dense)
        self.nbytes = layout.bytes

    def convolve(
        self,
        images: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        *,
        other: Tensor | None = None,
        activation: Activation | None = None,
    ) -> Tensor:
        """Convolve (B, I, H, W) → (B, O, H', W'), as `torch.nn.functional.conv2d` does.

        Args:
            images: (B, I, H, W).
            bias: (O,).
            stride: of both dimensions, as are the next two.
            padding: zeros.
            dilation: of the kernel.
            groups: of channels.
            other: (B, O, H', W') in the images' dtype, added to the answer.
            activation: applied to the sum.
        """
        operators = torch.ops.mkldnn._convolution_pointwise
        setting = (self._packed, bias, padding, stride, dilation, groups)
        after: tuple[object, ...] = (None, (), None)
        if activation is not None:
            after = (activation.name, activation.scalars, activation.algorithm)
        if other is not None:
            answer = operators.binary(images, other, *setting, "add", None, *after)
        elif activation is not None:
            answer = operators(images, *setting, *after)
        else:
            answer = operators(images, *setting, "none", (), "")
        return cast(Tensor, answer)


class Matrix:
    """A kernel of one row and column that meets images of one pixel, as in squeeze-and-excitation.

    (arXiv 1709.01507.) A product takes a quarter of the time of a convolution, and what oneDNN
    packs for one such image takes fifty times longer on two.

    Args:
        dense: (O, I, 1, 1).
    """

    __slots__ = ("_matrix", "nbytes")

    def __init__(self, dense: Tensor) -> None:
        self._matrix = dense.flatten(1)
        self.nbytes = self._matrix.nbytes

    def convolve(self, images: Tensor, bias: Tensor | None, *setting: Any) -> Tensor:
        """Convolve (B, I, H, W) → (B, O, H', W'), as `torch.nn.functional.conv2d` does.

        Args:
            images: (B, I, H, W).
            bias: (O,).
            setting: stride, padding, dilation and groups, for images of more than one pixel.
        """
        if images.shape[2:] == (1, 1):
            return F.linear(images.flatten(1), self._matrix, bias)[:, :, None, None]
        return F.conv2d(images, self._matrix[:, :, None, None], bias, *setting)


# A weight in any form in which programs read it.
Weight: TypeAlias = Tensor | Kernel | Matrix


@functools.cache
def can_pack(
    dtype: torch.dtype, activation: Activation | None = None, *, adds: bool = False
) -> bool:
    """Whether this build of torch convolves with packed kernels on this processor.

    The operators are torch's own and private: they could change, and some processors lack what
    they need. So it is tried.

    Args:
        dtype: of images and kernels.
        activation: computed by the same operator.
        adds: whether a sum is, too.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 16, 5, 5, generator=generator).to(dtype)
    kernel = torch.randn(16, 16, 3, 3, generator=generator).to(dtype) / 8
    images, kernel = (t.contiguous(memory_format=torch.channels_last) for t in (images, kernel))
    other = images.flip(1) if adds else None
    setting = ([1, 1], [1, 1], [1, 1], 1)
    padded = ConvolutionSetting(padding=(1, 1))
    try:
        with torch.inference_mode():
            layout = find_layout(tuple(kernel.shape), tuple(images.shape), padded, dtype)
            found = Kernel(kernel, layout).convolve(
                images, None, *setting, other=other, activation=activation
            )
            expected = convolve(images, kernel, None, *setting, other=other, activation=activation)
    except (AttributeError, RuntimeError, TypeError):
        return False
    same_layout = found.stride() == expected.stride()
    return same_layout and torch.allclose(found, expected, rtol=0.02, atol=0.1)


def convolve(
    images: Tensor,
    kernel: Weight,
    bias: Tensor | None = None,
    stride: list[int] | int = 1,
    padding: list[int] | int = 0,
    dilation: list[int] | int = 1,
    groups: int = 1,
    *,
    other: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does, with a kernel in any form.

    Args:
        images: (B, I, H, W).
        kernel: (O, I/groups, kH, kW), in any form.
        bias: (O,).
        stride: of both dimensions or of each, as are the next two.
        padding: zeros.
        dilation: of the kernel.
        groups: of channels.
        other: (B, O, H', W') in the images' dtype, added to the answer.
        activation: applied to the sum.

    Returns:
        (B, O, H', W').
    """
    if isinstance(kernel, Kernel):
        setting = (pair(stride), pair(padding), pair(dilation), groups)
        if can_pack(images.dtype, activation, adds=other is not None) and not _is_pixel(other):
            return kernel.convolve(images, bias, *setting, other=other, activation=activation)
        value = kernel.convolve(images, bias, *setting)
    elif isinstance(kernel, Matrix):
        value = kernel.convolve(images, bias, stride, padding, dilation, groups)
    else:
        value = F.conv2d(images, kernel, bias, stride, padding, dilation, groups)
    return _finish(value, other, activation)


class FusedConvolution:
    """A convolution with the activation behind it, and perhaps a sum: one operation of a graph.

    Args:
        activation: None for none.
    """

    def __init__(self, activation: Activation | None) -> None:
        self._activation = activation
        self.__name__ = "convolve" if activation is None else f"convolve_{activation.name}"
        self.__module__ = __name__

    def __call__(
        self, images: Tensor, kernel: Weight, *setting: Any, other: Tensor | None
    ) -> Tensor:
        """Return activation(convolve(images, kernel, *setting) + other)."""
        return convolve(images, kernel, *setting, other=other, activation=self._activation)


def is_convolution(function: object) -> bool:
    """Whether a graph calls a convolution of (images, kernel, …), which takes packed kernels."""
    return function is convolve or isinstance(function, FusedConvolution)


def _is_pixel(other: Tensor | None) -> bool:
    """Whether a sum is of one pixel, whose strides can say any order: torch 2.6 fails on some."""
    return other is not None and other.shape[2:] == (1, 1)


def _finish(value: Tensor, other: Tensor | None, activation: Activation | None) -> Tensor:
    """Compute what follows a convolution; its answer may be changed."""
    if other is not None:
        value = value.add_(other)
    return value if activation is None else activation(value)


def pair(size: Sequence[int] | int) -> list[int]:
    """Return a size of both dimensions, however it was given."""
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * 2 if len(sizes) == 1 else sizes
