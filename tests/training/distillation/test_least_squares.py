"""Gates by least squares, held against solvers that know nothing of gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import SiteGate
from gatehub.training.distillation.least_squares import fit_gate, measure_misfit


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gate(kind: str, out: int, inner: int) -> SiteGate:
    return SiteGate(kind=parse_kind(kind), shape=(out, inner))


def misfit(kernel: Tensor, target: Tensor, site: SiteGate, parts: dict[str, Tensor]) -> float:
    return measure_misfit(kernel, target, site.kind.matrix(parts))[1]


def test_a_full_gate_is_the_least_squares_of_each_filter() -> None:
    kernel, target = draw(4, 3, 3, 3), draw(4, 3, 3, 3, seed=1)
    kernel[1, 2] = 0

    found = fit_gate(kernel, target, gate("full", 4, 3))["gate"]

    for o, i in np.ndindex(4, 3):
        own, wanted = kernel[o, i].reshape(-1, 1).numpy(), target[o, i].reshape(-1).numpy()
        expected = np.linalg.lstsq(own, wanted, rcond=None)[0][0] if (o, i) != (1, 2) else 1.0
        assert found[o, i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["full", "lowrank:2", "scale"])
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (6, 5, 1, 1), (6, 5), (6, 1, 3, 3)])
def test_what_a_gate_made_is_found_again(kind: str, shape: tuple[int, ...]) -> None:
    site = gate(kind, *shape[:2])
    kernel = draw(*shape)
    parts = {n: 1 + 0.3 * draw(*s, seed=2) for n, s in site.parts.items()}
    matrix = site.kind.matrix(parts)
    target = matrix.reshape(matrix.shape + (1,) * (kernel.ndim - 2)) * kernel

    found = fit_gate(kernel, target, site)

    assert {n: tuple(t.shape) for n, t in found.items()} == site.parts
    torch.testing.assert_close(site.kind.matrix(found), matrix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["lowrank:2", "scale"])
def test_filters_count_by_their_size_and_no_step_aside_is_better(kind: str) -> None:
    kernel = draw(8, 7, 1, 1) * torch.logspace(-2, 1, 56).view(8, 7, 1, 1)
    kernel[3, :] = 0
    target = kernel + 0.3 * draw(8, 7, 1, 1, seed=1)
    site = gate(kind, 8, 7)

    found = fit_gate(kernel, target, site)

    best = misfit(kernel, target, site, found)
    for seed in range(20):
        aside = {n: t * (1 + 0.01 * draw(*t.shape, seed=seed)) for n, t in found.items()}
        assert misfit(kernel, target, site, aside) >= best
    rank = int(kind[-1]) if ":" in kind else 1
    moved = (target / kernel)[..., 0, 0].nan_to_num(1, 1, 1) - float(kind != "scale")
    u, s, v = torch.linalg.svd(moved)
    plain = (u[:, :rank] * s[:rank]) @ v[:rank] + float(kind != "scale")
    assert best < measure_misfit(kernel, target, plain)[1]  # of all filters counted alike


@pytest.mark.parametrize("kind", ["full", "lowrank:2", "scale"])
def test_kernels_of_zeros_leave_their_gate_at_rest(kind: str) -> None:
    site = gate(kind, 4, 3)
    found = fit_gate(torch.zeros(4, 3, 3, 3), draw(4, 3, 3, 3), site)
    torch.testing.assert_close(site.kind.matrix(found), torch.ones(4, 3))
