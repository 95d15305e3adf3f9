"""In which form each kernel of a program is read, for batches of one size."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from gatehub.compiler.kernels import Kernel, Matrix, Weight, can_pack, pair
from gatehub.compiler.layouts import ConvolutionSetting, Layout, find_layout
from gatehub.compiler.program import RECORDED_BATCHES, Program, Shape, read_lookup, read_value
from gatehub.compiler.weight_use import find_convolutions

# Of `convolve`: images, kernel, bias, stride, padding, dilation, groups.
_DEFAULTS: tuple[Any, ...] = (None, None, None, 1, 0, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelForms:
    """What weights are made into, so that a program runs fast on batches of one size.

    Two are equal if they make the same of every weight.

    Args:
        layouts: orders of kernels, by their names.
        matrices: names of kernels that are multiplied as matrices.
    """

    layouts: tuple[tuple[str, Layout], ...] = ()
    matrices: frozenset[str] = frozenset()
    _by_name: Mapping[str, Layout] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", dict(self.layouts))
        # Every request looks weights up by their forms, of which there may be a hundred.
        object.__setattr__(self, "_hash", hash((self.layouts, self.matrices)))

    def __hash__(self) -> int:
        return self._hash

    def layout(self, name: str) -> Layout | None:
        """Return the order of a kernel, None for weights that stay as they are."""
        return self._by_name.get(name)

    def form(self, weight: Tensor, name: str) -> Weight:
        """Bring a weight, channels-last if it is a kernel, into its form."""
        if name in self.matrices:
            return Matrix(weight)
        layout = self._by_name.get(name)
        return weight if layout is None else Kernel(weight, layout)


def find_forms(
    program: Program,
    batch: int,
    *,
    kernels: Container[str] | None = None,
    device: torch.device,
    dtype: torch.dtype,
) -> KernelForms:
    """Find the forms in which this processor reads kernels fastest; see `find_layout`.

    Args:
        program: its weights are channels-last.
        batch: number of images.
        kernels: names of those of its kernels that may have a form; None for all of them.
        device: of images and weights.
        dtype: of images and weights.
    """
    if device.type != "cpu" or not can_pack(dtype):
        return KernelForms()
    kernels = program.kernels if kernels is None else kernels
    layouts: dict[str, Layout] = {}
    for name, convolutions in find_convolutions(program.graph).items():
        if name in kernels and name in program.kernels - program.matrices:
            found = {_find_layout(node, batch, dtype) for node in convolutions}
            # One that would be wanted in two orders stays dense.
            if len(found) == 1 and (layout := found.pop()) is not None:
                layouts[name] = layout
    matrices = frozenset(name for name in program.matrices if name in kernels)
    return KernelForms(layouts=tuple(sorted(layouts.items())), matrices=matrices)


def _find_layout(convolution: fx.Node, batch: int, dtype: torch.dtype) -> Layout | None:
    given: tuple[Any, ...] = convolution.args
    images, kernel, _, stride, padding, dilation, groups = (*given, *_DEFAULTS[len(given) :])
    value, lookup = read_value(images), read_lookup(kernel)
    shape = None if value is None else _scale(value.shapes, batch)
    if shape is None or lookup is None:
        return None
    setting = ConvolutionSetting(
        stride=tuple(pair(stride)),
        padding=tuple(pair(padding)),
        dilation=tuple(pair(dilation)),
        groups=groups,
    )
    return find_layout(lookup.shape, shape, setting, dtype)


def _scale(shapes: tuple[Shape, Shape], batch: int) -> Shape | None:
    """Return the shape of a value in a batch of another size; None if more than its rows follow."""
    small, large = shapes
    if small[1:] != large[1:]:
        return None
    rows = small[0] if small[0] == large[0] else small[0] // RECORDED_BATCHES[0] * batch
    return (rows, *small[1:])
