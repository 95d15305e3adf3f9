"""In which order oneDNN wants a convolution kernel, which depends on the images that it meets."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatehub.compiler.program import Shape

# Of `dnnl_memory_desc`, as torch hands it out: four bytes behind the data type belong to no field,
# and hold what lay in memory before.
_DESCRIPTION_BYTES, _HOLE = 772, slice(108, 112)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionSetting:
    """How a convolution runs, but for its images and its kernel.

    Args:
        stride: of each of both dimensions, as are the next two.
        padding: zeros.
        dilation: of the kernel.
        groups: of channels.
    """

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The order of one kernel in memory. Two are equal if the order is.

    Args:
        order: oneDNN's description of it.
        bytes: of a kernel that lies so, padding included.
        images: (B, C, H, W), the shape of images that it is for.
        setting: of the convolution that it is for.
    """

    order: bytes = field(repr=False)
    bytes: int
    images: Shape = field(compare=False)
    setting: ConvolutionSetting = field(compare=False)

    def reorder(self, kernel: Tensor) -> Tensor:
        """Return a kernel, (O, I/groups, kH, kW) and channels-last, in this order."""
        return _reorder(kernel, self.images, self.setting)


def find_layout(
    kernel: Shape, images: Shape, setting: ConvolutionSetting, dtype: torch.dtype
) -> Layout:
    """Find the order that oneDNN wants on this processor, with the present number of threads.

    On processors with AVX2 alone it is another for other sizes of images, and with several threads
    for one image; a kernel in an order that is not wanted is reordered by a slow loop in each call.

    Args:
        kernel: (O, I/groups, kH, kW).
        images: (B, C, H, W).
        setting: of the convolution.
        dtype: of both.

    Raises:
        AttributeError: torch has no such operators; or RuntimeError, they do not take it.
    """
    return _find_layout(kernel, images, setting, dtype, torch.get_num_threads())


@functools.lru_cache(maxsize=4096)
def _find_layout(
    kernel: Shape, images: Shape, setting: ConvolutionSetting, dtype: torch.dtype, threads: int
) -> Layout:
    with torch.inference_mode():
        like = torch.zeros(kernel, dtype=dtype, device="cpu")
        packed = _reorder(like.contiguous(memory_format=torch.channels_last), images, setting)
        order = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()
        size = int(torch.ops.mkldnn._nbytes(packed))
    if len(order) == _DESCRIPTION_BYTES:
        order = order[: _HOLE.start] + order[_HOLE.stop :]
    return Layout(order=order, bytes=size, images=images, setting=setting)


def _reorder(kernel: Tensor, images: Shape, setting: ConvolutionSetting) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        kernel,
        list(setting.padding),
        list(setting.stride),
        list(setting.dilation),
        setting.groups,
        list(images),
    )
    return packed
