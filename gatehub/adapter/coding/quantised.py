"""Gates as small whole numbers: rest + scale · code, where rest is the value at which M = 1.

What is rounded is how far a gate has moved, so one that has not moved stays exactly 1. A scale
belongs to each index of a tensor's shorter side: to each row of a square gate, to each component of
a low-rank factor, to all of a vector or of a depthwise gate. Scales are bfloat16, so that scale ·
code is exact in float32, and rounding what was rounded before changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Largest code for each number of bits; the smallest is its negative.
LARGEST = {8: 127, 4: 7, 1: 1}
# A scale may leave the largest values out where that brings the others closer.
_SHARES = tuple(share / 20 for share in range(20, 9, -1))
# Beside 1 float32 does not resolve steps of less; float16 stops at 2 ** -11.
_LEAST_MOVE = 2.0**-14
_LEAST_FACTOR = 2.0**-100
_MOST = torch.finfo(torch.bfloat16).max


def count_scales(shape: tuple[int, ...]) -> int:
    """Return how many scales a tensor of one or two dimensions has."""
    return min(shape) if len(shape) == 2 else 1


def quantise(values: Tensor, *, bits: int, rest: float) -> tuple[Tensor, Tensor]:
    """Round a gate's values to codes and scales.

    With one bit the scale is the mean distance from rest (BitDelta, arXiv 2402.10193), and the code
    is the sign of the distance, 0 where there is none. With more bits the scale is the one of a few
    that has the least squared error.

    Args:
        values: (N,) or (N, M), finite.
        bits: 8, 4 or 1.
        rest: the value at which M = 1.

    Returns:
        Codes, int8, of the shape of `values`; scales, bfloat16, from `count_scales`.
    """
    moved = values.detach().to(torch.float32) - rest
    least = _LEAST_MOVE if rest else _LEAST_FACTOR
    over = _axis(tuple(moved.shape))
    if bits == 1:
        count = (moved != 0).sum(over, keepdim=True).clamp_min(1)
        mean = moved.abs().sum(over, keepdim=True, dtype=torch.float64) / count
        scales = _round(mean, reach=1, least=least)
        return (moved.sign() * (scales > 0)).to(torch.int8), scales.reshape(-1).bfloat16()
    largest = LARGEST[bits]
    reach = moved.abs().amax(over, keepdim=True).double()
    best = codes = torch.zeros(())
    error = torch.full_like(reach, torch.inf)
    for share in _SHARES:
        scales = _round(reach * (share / largest), reach=largest, least=least)
        tried = _divide(moved, scales, largest)
        found = (tried * scales - moved).double().square().sum(over, keepdim=True)
        better = found < error
        best, codes = torch.where(better, scales, best), torch.where(better, tried, codes)
        error = torch.where(better, found, error)
    return codes.to(torch.int8), best.reshape(-1).bfloat16()


def restore(codes: Tensor, scales: Tensor, *, rest: float) -> Tensor:
    """Return the values that codes and scales stand for, as float32; see `quantise`."""
    shape = tuple(codes.shape)
    along = scales.float()
    if len(shape) == 2:
        along = along.view((-1, 1) if shape[0] <= shape[1] else (1, -1))
    return codes.float() * along + rest


def _axis(shape: tuple[int, ...]) -> int:
    """The axis along which values share a scale."""
    return 1 if len(shape) == 2 and shape[0] <= shape[1] else 0


def _round(scales: Tensor, *, reach: int, least: float) -> Tensor:
    """Return scales as bfloat16 holds them, 0 where the largest code is too small a move."""
    rounded = scales.clamp_max(_MOST / reach).bfloat16().float()
    return torch.where(rounded * reach < least, 0.0, rounded)


def _divide(moved: Tensor, scales: Tensor, largest: int) -> Tensor:
    codes = torch.round(moved / torch.where(scales > 0, scales, 1.0)) * (scales > 0)
    return codes.clamp(-largest, largest)
