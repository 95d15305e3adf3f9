"""Distances against plain numpy, what they ignore, and where 0 / 0 stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gatehub.errors import GuidanceError
from gatehub.training.guidance import CKA, RSA, Distance

ALL: tuple[Distance, ...] = (CKA(), CKA(unbiased=True), RSA())
Shapes = st.tuples(st.integers(4, 12), st.integers(2, 20), st.integers(2, 20))
SEEDS = st.integers(0, 10_000)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def measure(distance: Distance, first: Tensor, second: Tensor) -> float:
    return float(distance.compare(distance.summarise(first), distance.summarise(second)))


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(draw(size, size, seed=seed)).Q


def published_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Linear CKA as arXiv 1905.00414 writes it: HSIC from H K H and H L H."""
    centring = np.eye(len(x)) - 1 / len(x)

    def hsic(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.trace(a @ a.T @ centring @ b @ b.T @ centring))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def unbiased_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The same with the estimator of Song et al., JMLR 13 (2012), term by term."""
    n = len(x)
    one = np.ones(n)

    def hsic(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        last = 2 * (one @ k @ m @ one) / (n - 2)
        return float((np.trace(k @ m) + middle - last) / (n * (n - 3)))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def published_rsa(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    upper = np.triu_indices(len(x), 1)
    one, other = (1 - np.corrcoef(features)[upper] for features in (x, y))
    return float(np.corrcoef(one, other)[0, 1])


@settings(max_examples=40, deadline=None)
@given(Shapes, SEEDS)
def test_each_distance_equals_its_formula(shape: tuple[int, int, int], seed: int) -> None:
    samples, wide, narrow = shape
    x, y = draw(samples, wide + 1, seed=seed) + 3, draw(samples, narrow + 1, seed=seed + 1)

    assert measure(CKA(), x, y) == pytest.approx(1 - published_cka(x.numpy(), y.numpy()), abs=1e-9)
    expected = 1 - unbiased_cka(x.numpy(), y.numpy())
    assert measure(CKA(unbiased=True), x, y) == pytest.approx(expected, abs=1e-9)
    assert measure(RSA(), x, y) == pytest.approx(1 - published_rsa(x.numpy(), y.numpy()), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(Shapes, SEEDS, st.floats(1e-3, 1e3), st.floats(-100, 100), st.booleans())
def test_cka_ignores_rotations_scale_and_offset(
    shape: tuple[int, int, int], seed: int, scale: float, offset: float, unbiased: bool
) -> None:
    samples, wide, narrow = shape
    x, y = draw(samples, wide, seed=seed), draw(samples, narrow, seed=seed + 1)
    distance = CKA(unbiased=unbiased)

    turned = scale * (x @ rotation(wide, seed)) + offset

    assert measure(distance, x, turned) == pytest.approx(0, abs=1e-9)
    assert measure(distance, turned, y) == pytest.approx(measure(distance, x, y), abs=1e-9)


@pytest.mark.parametrize("distance", ALL)
def test_a_distance_is_symmetric_and_flattens(distance: Distance) -> None:
    x, y = draw(8, 2, 3, 4), draw(8, 5, seed=1)

    assert measure(distance, x, y) == measure(distance, y, x)
    assert measure(distance, x, y) == measure(distance, x.reshape(8, 24), y)


def test_only_the_unbiased_estimate_is_0_for_what_has_nothing_in_common() -> None:
    pairs = [(draw(32, 500, seed=s), draw(32, 500, seed=s + 100)) for s in range(30)]
    biased = np.mean([1 - measure(CKA(), x, y) for x, y in pairs])
    unbiased = np.mean([1 - measure(CKA(unbiased=True), x, y) for x, y in pairs])

    assert biased > 0.9
    assert abs(unbiased) < 0.02


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e4, 1e30])
def test_a_layer_that_answers_all_alike_has_nothing_in_common_and_no_gradient(
    distance: Distance, value: float
) -> None:
    constant = torch.full((7, 9), value, requires_grad=True)
    other = draw(7, 5).float().requires_grad_()
    found = distance.compare(distance.summarise(constant), distance.summarise(other))
    found.backward()

    assert found.item() == 1
    for features in (constant, other):
        assert features.grad is not None
        assert features.grad.count_nonzero() == 0


def test_rounding_in_a_constant_layer_is_no_signal() -> None:
    noise = 1e4 * (1 + 1e-7 * draw(16, 50).float())
    assert measure(CKA(), noise, noise) == 1
    # What is small beside the largest feature, but not beside itself, counts.
    beside = torch.cat([torch.full((16, 1), 1e6), draw(16, 3).float()], 1)
    assert measure(CKA(), beside, draw(16, 3)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e6, 1e15])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32_holds_at_every_scale(distance: Distance, scale: float, offset: float) -> None:
    x, y = scale * (draw(10, 3000) + offset), draw(10, 40, seed=1)
    ours = x.float().requires_grad_()
    found = distance.compare(distance.summarise(ours), distance.summarise(y.float()))
    found.backward()

    assert found.item() == pytest.approx(measure(distance, x, y), abs=2e-3 if offset else 1e-5)
    assert ours.grad is not None
    assert ours.grad.isfinite().all()
    assert ours.grad.count_nonzero() > 0


@pytest.mark.parametrize("distance", ALL)
def test_gradients_are_those_of_the_formula(distance: Distance) -> None:
    y = distance.summarise(draw(5, 4, seed=1))

    def far(x: Tensor) -> Tensor:
        return distance.compare(distance.summarise(x), y)

    assert torch.autograd.gradcheck(far, draw(5, 6).requires_grad_())


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_does_not_vanish(distance: Distance, bad: float) -> None:
    x = draw(6, 5).float()
    x[2, 3] = bad
    assert np.isnan(measure(distance, x, draw(6, 5, seed=1)))


@pytest.mark.parametrize("distance", ALL)
def test_half_precision_is_left_for_the_sums(distance: Distance) -> None:
    x, y = draw(8, 300).bfloat16(), draw(8, 20, seed=1).bfloat16()
    expected = measure(distance, x.double(), y.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure(distance, x, y) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distance", ALL)
def test_no_more_is_held_than_pairs_of_samples(distance: Distance) -> None:
    assert distance.summarise(draw(6, 100_000)).numel() <= 36


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_large_offsets_take_no_digits_away(offset: float) -> None:
    x, y = (draw(10, 3000) + offset).float(), draw(10, 40, seed=1)
    assert measure(CKA(), x, y) == pytest.approx(measure(CKA(), x.double(), y), abs=1e-6)


@pytest.mark.parametrize(("distance", "few"), [(CKA(), 2), (CKA(unbiased=True), 3), (RSA(), 2)])
def test_too_few_samples_are_refused(distance: Distance, few: int) -> None:
    with pytest.raises(GuidanceError, match=rf"the shape \({few}, 9\); expected {few + 1} samples"):
        distance.summarise(draw(few, 9))
    with pytest.raises(GuidanceError, match=r"the shape \(\)"):
        distance.summarise(torch.tensor(1.0))
    with pytest.raises(GuidanceError, match="expected the same samples"):
        measure(distance, draw(8, 3), draw(9, 3))
