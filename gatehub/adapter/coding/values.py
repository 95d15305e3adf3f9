"""Numbers with which something can be computed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.adapter.coding.packed import FLOATS
from gatehub.errors import (
    NegativeVarianceError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
)

DIVERGED = "The training diverged; lower its learning rate."
_COMPUTED = (*FLOATS.values(), torch.float64)
_FLOAT32_MAX = torch.finfo(torch.float32).max


def check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors with which nothing can be computed.

    Args:
        tensors: by name, on any device.
        where: what holds them, for the errors.

    Raises:
        TensorDtypeError: not a dense tensor of floating-point numbers.
        TensorShapeError: no values at all.
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of float32.
        NegativeVarianceError: a running variance is below 0.
    """
    for name, tensor in tensors.items():
        found = _describe_kind(tensor)
        if found is not None:
            raise TensorDtypeError(
                f"Tensor {quote(name)} in {where} is {found}; expected a dense tensor of float32.",
                hint="Adapter.from_model(model, task=…) takes a trained model's own.",
            )
        if tensor.numel() == 0:
            raise TensorShapeError(
                f"Tensor {quote(name)} in {where} is {list(tensor.shape)}: no value."
            )
        smallest, largest = _find_extremes(tensor)
        if not max(-smallest, largest) <= _FLOAT32_MAX:
            beyond = math.isfinite(smallest) and math.isfinite(largest)
            reason = "values beyond the range of float32" if beyond else "NaN or infinity"
            raise NonFiniteTensorError(
                f"Tensor {quote(name)} in {where} holds {reason}.", hint=DIVERGED
            )
        if name.endswith(".running_var") and smallest < 0:
            raise NegativeVarianceError(
                f"Tensor {quote(name)} in {where} holds {smallest:.3g}; a variance is never below "
                "0.",
                hint="Measure the statistics again, or keep the backbone's.",
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return all(map(math.isfinite, _find_extremes(tensor)))


def _describe_kind(value: object) -> str | None:
    """Say what is wrong with a value as a tensor of numbers, None if nothing is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.is_meta or value.layout != torch.strided:
        return "without memory (meta)" if value.is_meta else f"of layout {value.layout}"
    return None if value.dtype in _COMPUTED else f"of {value.dtype}"


def _find_extremes(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value, both NaN if one is."""
    # One pass, where isfinite needs several and a tensor beside it.
    smallest, largest = torch.aminmax(tensor.detach())
    return float(smallest), float(largest)
