"""The gates that bring frozen kernels nearest to those of a fine-tuned network.

What is minimised is Σ over the kernel of (W'[o, i] - M[o, i] W[o, i])², for each site. With
w[o, i] = <W[o, i], W[o, i]> and c[o, i] = <W'[o, i], W[o, i]> that is, up to a constant,
Σ w (M - c / w)²: each filter counts by its size, and one of zeros not at all.

| kind | minimiser |
|---|---|
| full | M = c / w |
| lowrank | weighted low-rank approximation of c / w - 1, by alternating least squares (Srebro and Jaakkola, ICML 2003, "Weighted Low-Rank Approximations") |
| scale | the same of c / w, of rank 1, each factor in its closed form while the other stands |
"""  # noqa: E501

from __future__ import annotations

import torch
from torch import Tensor

from gatehub.adapter.arithmetic.matrices import balance
from gatehub.gates.layout import SiteGate

# Beside filters of usual size one of next to none says nothing about its gate, which stays 1.
_DAMPING = 1e-7
_LEAST = 1e-30  # where all are zeros
_ROUNDS = 40


def fit_gate(kernel: Tensor, target: Tensor, gate: SiteGate) -> dict[str, Tensor]:
    """Return the learned tensors of the gate that brings a kernel nearest to another.

    Args:
        kernel: the backbone's `K(W)`, (O, I/groups, kH, kW) or (O, I).
        target: the fine-tuned network's, of the same shape.
        gate: the site's.

    Returns:
        float32 tensors by the last part of their name, on the CPU.
    """
    frozen, wanted = (
        k.detach().double().cpu().flatten(2) if k.ndim > 2 else k.detach().double().cpu()[..., None]
        for k in (kernel, target)
    )
    weights = frozen.square().sum(-1)
    damping = _DAMPING * float(weights.mean()) + _LEAST
    pull = ((wanted - frozen) * frozen).sum(-1)  # w · (c / w - 1), without a division
    match gate.kind.name:
        case "full":
            return {"gate": (1 + pull / (weights + damping)).float()}
        case "scale":
            left, right = _fit_scale(weights, pull + weights, damping)
            return {"gate_a": left.float(), "gate_b": right.float()}
    left, right = _fit_lowrank(weights, pull, gate.kind.rank, damping)
    return balance(gate, {"gate_a": left.float(), "gate_b": right.float()})


def measure_misfit(kernel: Tensor, target: Tensor, matrix: Tensor) -> tuple[float, float]:
    """Return how far gated kernels are from a fine-tuned network's: squared, before and after.

    Args:
        kernel: as in `fit_gate`.
        target: as in `fit_gate`.
        matrix: M, (O, I/groups).
    """
    frozen, wanted = kernel.detach().double().cpu(), target.detach().double().cpu()
    spread = matrix.detach().double().cpu().reshape(matrix.shape + (1,) * (frozen.ndim - 2))
    before = float((wanted - frozen).square().sum())
    return before, float((wanted - spread * frozen).square().sum())


def _fit_scale(weights: Tensor, products: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Minimise Σ w (a bᵀ - c / w)²; `products` is c. Where nothing weighs, a factor is 1."""
    left, right = (torch.ones(n, dtype=weights.dtype) for n in weights.shape)
    for _ in range(_ROUNDS):
        # Damping pulls towards 1.
        left = (products @ right + damping) / (weights @ right.square() + damping)
        right = (products.T @ left + damping) / (weights.T @ left.square() + damping)
    # Each factor takes half, so that both round alike.
    ratio = (right.abs().mean() / left.abs().mean().clamp_min(1e-30)).clamp(1e-6, 1e6).sqrt()
    return left * ratio, right / ratio


def _fit_lowrank(weights: Tensor, pull: Tensor, rank: int, damping: float) -> tuple[Tensor, Tensor]:
    """Minimise Σ w (A Bᵀ - d)²; `pull` is w · d."""
    # Begins where all filters count alike; small ones, whose d is wild, are held down.
    start = pull / (weights + weights.mean() + damping)
    left, singular, right = torch.linalg.svd(start, full_matrices=False)
    kept = min(rank, len(singular))
    factor = torch.zeros(weights.shape[1], rank, dtype=weights.dtype)
    factor[:, :kept] = right[:kept].T
    if kept < rank:  # more columns than there are directions stay at 0
        factor = factor[:, :kept]
    other = left[:, :kept] * singular[:kept]
    for _ in range(_ROUNDS):
        other = _solve_rows(weights, pull, factor, damping)
        factor = _solve_rows(weights.T, pull.T, other, damping)
    pad = (0, rank - kept)
    return torch.nn.functional.pad(other, pad), torch.nn.functional.pad(factor, pad)


def _solve_rows(weights: Tensor, pull: Tensor, factor: Tensor, damping: float) -> Tensor:
    """Return for each row o the a that minimises Σ_i w[o, i] (a · factor[i] - d[o, i])²."""
    rank = factor.shape[1]
    normal = torch.einsum("oi,ir,is->ors", weights, factor, factor)
    size = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(damping)
    normal += 1e-9 * size[:, None, None] * torch.eye(rank, dtype=weights.dtype)
    solved: Tensor = torch.linalg.solve(normal, (pull @ factor)[..., None])
    return solved[..., 0]
