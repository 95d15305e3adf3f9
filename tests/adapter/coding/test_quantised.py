"""Gates as small whole numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatehub.adapter.coding.quantised import LARGEST, count_scales, quantise, restore


def round_to(values: Tensor, bits: int, *, rest: float = 1.0) -> Tensor:
    return restore(*quantise(values, bits=bits, rest=rest), rest=rest)


def test_each_row_of_a_square_gate_has_a_scale_of_its_own() -> None:
    gate = 1 + torch.tensor([[127.0, -64.0, 1.0], [1.27, 0.01, -0.5], [0.0, 0.0, 0.0]]) / 128
    codes, scales = quantise(gate, bits=8, rest=1.0)
    assert codes.tolist() == [[127, -64, 1], [127, 1, -50], [0, 0, 0]]
    assert scales[0] == 1 / 128
    assert scales[2] == 0


@pytest.mark.parametrize(
    ("shape", "count"), [((5,), 1), ((4, 4), 4), ((3, 9), 3), ((64, 4), 4), ((64, 1), 1)]
)
def test_scales_belong_to_the_shorter_side(shape: tuple[int, ...], count: int) -> None:
    codes, scales = quantise(torch.randn(shape), bits=4, rest=0.0)
    assert codes.shape == shape
    assert scales.shape == (count_scales(shape),) == (count,)


def test_a_sign_stands_for_the_mean_distance() -> None:
    gate = torch.tensor([[1.5, 0.75, 1.25, 1.0], [2.0, 2.0, 1.0, 1.0]])
    codes, scales = quantise(gate, bits=1, rest=1.0)
    assert codes.tolist() == [[1, -1, 1, 0], [1, 1, 0, 0]]  # what has not moved does not count
    assert torch.allclose(scales.float(), torch.tensor([1 / 3, 1.0]), rtol=2**-8)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.15), (1, 0.62)])
def test_more_bits_come_closer(bits: int, error: float) -> None:
    """Relative to the distance; a bell curve's signs alone lose sqrt(1 - 2/pi) of it, 0.60."""
    moved = 0.05 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    found = round_to(1 + moved, bits) - 1 - moved
    assert float(found.norm() / moved.norm()) < error


def test_a_few_large_values_do_not_cost_the_others_their_precision() -> None:
    moved = 0.02 * torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    moved[0, 0] = 0.14
    widest = (moved / (0.14 / 7)).round() * (0.14 / 7)
    assert (round_to(1 + moved, 4) - 1 - moved).norm() < 0.9 * (widest - moved).norm()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    bits=st.sampled_from(sorted(LARGEST)),
    rest=st.sampled_from([0.0, 1.0]),
    rows=st.integers(1, 9),
    columns=st.integers(0, 9),
    exponent=st.integers(-8, 6),
    zeros=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 999),
)
def test_rounding_again_changes_nothing(
    bits: int, rest: float, rows: int, columns: int, exponent: int, zeros: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns) if columns else (rows,)
    moved = 10.0**exponent * torch.randn(shape, generator=generator)
    moved[torch.rand(shape, generator=generator) < zeros] = 0
    once = round_to(rest + moved, bits, rest=rest)
    assert torch.equal(round_to(once, bits, rest=rest), once)
    assert torch.equal(once[moved == 0], torch.full_like(once[moved == 0], rest))
