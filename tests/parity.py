"""One way to compare two computations of the same thing: figures first, then the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub.export.parity import compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two computations of the same thing may lie apart.

    Args:
        name: what it is for, as it appears in the output.
        relative: largest difference, as a share of the largest expected magnitude.
    """

    name: str
    relative: float


FLOAT32 = Tolerance(name="float32", relative=1e-5)
FLOAT64 = Tolerance(name="float64", relative=1e-12)


def assert_parity(found: Tensor, expected: Tensor, tolerance: Tolerance | None = None) -> None:
    """Print how far `found` is from `expected`, and fail beyond the tolerance.

    Args:
        found: what is tested, of any shape.
        expected: the reference, with the same shape and dtype.
        tolerance: by default the one named after the dtype.
    """
    assert found.dtype == expected.dtype
    limit = tolerance or {torch.float32: FLOAT32, torch.float64: FLOAT64}[expected.dtype]
    difference = compare(expected.detach(), found.detach())
    figures = (
        f"max abs error {difference.max_abs:.3g}, relative {difference.max_rel:.3g}; "
        f"{limit.name} allows relative {limit.relative:g}"
    )
    print(figures)
    assert difference.max_rel <= limit.relative, figures
