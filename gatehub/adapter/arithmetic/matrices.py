"""Gate matrices as sums: M = 1 + L Rᵀ, or 1 + a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gatehub.gates.kinds import MAX_RANK, GateKind
from gatehub.gates.layout import GateLayout, SiteGate

Parts = Mapping[str, Tensor]

_FULL = GateKind(name="full")


def read_moved(gate: SiteGate, parts: Parts) -> Tensor:
    """Return M - 1 of a gate, (O, I) float64."""
    return gate.kind.matrix({name: part.double() for name, part in parts.items()}) - 1


def add_gates(
    shape: tuple[int, int], terms: Sequence[tuple[float, SiteGate, Parts]]
) -> tuple[SiteGate, dict[str, Tensor]]:
    """Return the gate M = 1 + Σ weight (M_k - 1), exactly, in the kind that has fewest values.

    Low-rank gates add to a low-rank one: their factors stand side by side. So do `scale` gates,
    which are of rank 2 beside 1.

    Args:
        shape: (O, I) of each.
        terms: at least one: a weight, a gate, and its tensors by the last part of their name.
    """
    if len(terms) == 1 and terms[0][0] == 1:
        _, gate, parts = terms[0]
        return gate, {name: part.clone() for name, part in parts.items()}
    if all(gate.kind.name != "full" for _, gate, _ in terms):
        factors = [_factorise(gate, parts) for _, gate, parts in terms]
        rank = sum(left.shape[1] for left, _ in factors)
        kind = GateKind(name="lowrank", rank=rank) if rank <= MAX_RANK else _FULL
        if kind.count(*shape) < _FULL.count(*shape):
            weighted = [
                weight * left for (weight, _, _), (left, _) in zip(terms, factors, strict=True)
            ]
            right = torch.cat([right for _, right in factors], dim=1)
            return SiteGate(kind=kind, shape=shape), {
                "gate_a": torch.cat(weighted, dim=1).float(),
                "gate_b": right.float(),
            }
    matrix = torch.ones(shape, dtype=torch.float64)
    for weight, gate, parts in terms:
        matrix += weight * read_moved(gate, parts)
    return SiteGate(kind=_FULL, shape=shape), {"gate": matrix.float()}


def truncate(gate: SiteGate, parts: Parts, rank: int) -> tuple[SiteGate, dict[str, Tensor]] | None:
    """Return the gate of a rank that is nearest, by singular values; None if it would save nothing.

    Args:
        gate: of any kind.
        parts: its tensors, by the last part of their name.
        rank: of M - 1.
    """
    kind = GateKind(name="lowrank", rank=rank)
    if kind.count(*gate.shape) >= gate.kind.count(*gate.shape):
        return None
    left, singular, right = torch.linalg.svd(read_moved(gate, parts), full_matrices=False)
    share = singular[:rank].sqrt()  # each factor gets half, so that both round alike
    factors = {"gate_a": left[:, :rank] * share, "gate_b": right[:rank].T * share}
    return replace(gate, kind=kind), {
        name: _widen(factor, rank).float().contiguous() for name, factor in factors.items()
    }


def balance(gate: SiteGate, parts: Parts) -> dict[str, Tensor]:
    """Return the same gate with factors whose values can be compared: columns of equal length."""
    if gate.kind.name != "lowrank":
        return dict(parts)
    left, right = parts["gate_a"].double(), parts["gate_b"].double()
    lengths = left.norm(dim=0), right.norm(dim=0)
    moves = lengths[0] * lengths[1] > 0
    ratio = torch.where(moves, lengths[1] / torch.where(moves, lengths[0], 1), 1).sqrt()
    return {"gate_a": (left * ratio).float(), "gate_b": (right / ratio).float()}


def order_tensors(tensors: Parts, layout: GateLayout) -> dict[str, Tensor]:
    """Return an adapter's tensors in the order in which a training leaves them, gates first."""
    gates = layout.gate_shapes()
    return {name: tensors[name] for name in (*gates, *(t for t in tensors if t not in gates))}


def _factorise(gate: SiteGate, parts: Parts) -> tuple[Tensor, Tensor]:
    """Return L: (O, R) and R: (I, R) with M = 1 + L Rᵀ, float64, of a gate that is not full."""
    left, right = parts["gate_a"].double(), parts["gate_b"].double()
    if gate.kind.name == "lowrank":
        return left, right
    return (
        torch.stack([left, -torch.ones_like(left)], dim=1),
        torch.stack([right, torch.ones_like(right)], dim=1),
    )


def _widen(factor: Tensor, rank: int) -> Tensor:
    """Add columns of 0 where a matrix has fewer singular values than the rank asks for."""
    return torch.nn.functional.pad(factor, (0, rank - factor.shape[1]))
