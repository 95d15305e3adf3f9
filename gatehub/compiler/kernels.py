"""Convolution kernels in the order in which oneDNN reads them."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.compiler.activations import Activation


class Kernel:
    """A convolution kernel on a CPU, reordered at its first use instead of at every use.

    oneDNN computes with kernels in blocks of channels, and torch reorders a dense one on every
    call, which at a batch of one takes as long as the convolution. The answers are those of
    `torch.nn.functional.conv2d` but for rounding, and lie channels-last in memory, as its do with
    a kernel that lies so. Any thread may be the first: all would reorder it alike.

    Where images have one pixel, as in squeeze-and-excitation (arXiv 1709.01507), a kernel of one
    row and column is a matrix. It stays dense: a product takes a quarter of the time, and what
    oneDNN packed for one such image takes fifty times longer on two.

    Args:
        dense: (O, I/groups, kH, kW) float32 or bfloat16, channels-last. It is let go of at the
            first use, and every use has to be with the same groups.
        is_matrix: whether it is one.
    """

    __slots__ = ("_dense", "_matrix", "_packed")

    def __init__(self, dense: Tensor, *, is_matrix: bool = False) -> None:
        self._dense: Tensor | None = dense
        self._packed: Tensor | None = None
        self._matrix = dense.flatten(1) if is_matrix else None

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
        if self._matrix is not None:
            if images.shape[2:] == (1, 1):
                value = F.linear(images.flatten(1), self._matrix, bias)[:, :, None, None]
            else:  # on images of another size
                dense = self._matrix[:, :, None, None]
                value = F.conv2d(images, dense, bias, stride, padding, dilation, groups)
            return _finish(value, other, activation)
        packed = self._packed
        if packed is None:
            packed = self._pack(images, stride, padding, dilation, groups)
        operators = torch.ops.mkldnn._convolution_pointwise
        setting = (packed, bias, padding, stride, dilation, groups)
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

    def _pack(
        self,
        images: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Tensor:
        dense = self._dense
        if dense is None:  # another thread has been faster
            return cast(Tensor, self._packed)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            dense, padding, stride, dilation, groups, list(images.shape)
        )
        self._packed = cast(Tensor, packed)
        self._dense = None
        return self._packed


def pack(tensor: Tensor, *, is_matrix: bool = False) -> Tensor | Kernel:
    """Wrap a channels-last kernel that nothing but convolutions reads, if that is faster.

    Args:
        tensor: dense.
        is_matrix: whether the images that it meets have one pixel, and it has one row and column.
    """
    worthwhile = tensor.ndim == 4 and tensor.device.type == "cpu" and can_pack(tensor.dtype)
    return Kernel(tensor, is_matrix=is_matrix) if worthwhile else tensor


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
    try:
        with torch.inference_mode():
            found = Kernel(kernel).convolve(
                images, None, *setting, other=other, activation=activation
            )
            expected = convolve(images, kernel, None, *setting, other=other, activation=activation)
    except (AttributeError, RuntimeError, TypeError):
        return False
    same_layout = found.stride() == expected.stride()
    return same_layout and torch.allclose(found, expected, rtol=0.02, atol=0.1)


def convolve(
    images: Tensor,
    kernel: Tensor | Kernel,
    bias: Tensor | None = None,
    stride: list[int] | int = 1,
    padding: list[int] | int = 0,
    dilation: list[int] | int = 1,
    groups: int = 1,
    *,
    other: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does, with a kernel of either kind.

    Args:
        images: (B, I, H, W).
        kernel: (O, I/groups, kH, kW), dense or packed.
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
        setting = (_pair(stride), _pair(padding), _pair(dilation), groups)
        if can_pack(images.dtype, activation, adds=other is not None) and not _is_pixel(other):
            return kernel.convolve(images, bias, *setting, other=other, activation=activation)
        value = kernel.convolve(images, bias, *setting)
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
        self, images: Tensor, kernel: Tensor | Kernel, *setting: Any, other: Tensor | None
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


def _pair(size: list[int] | int) -> list[int]:
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * 2 if len(sizes) == 1 else sizes
