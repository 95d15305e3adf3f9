"""The guide's term of the loss: the published sum, a frozen guide, nothing left behind."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.errors import GuidanceError
from gatehub.training.guidance import CKA, RSA, Guidance, pair_layers
from tests.training.guidance.networks import (
    Recurrent,
    draw_images,
    hooks_left,
    make_connected,
    make_convolutional,
)


def published_sum(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Σ (1 - CKA) by the textbook formula in float64, over the pairs that the paper makes."""
    total = torch.zeros((), dtype=torch.float64)
    for i, y in enumerate(theirs):
        x = ours[round(i * (len(ours) - 1) / (len(theirs) - 1))].flatten(1).double()
        y = y.flatten(1).double()
        x, y = x - x.mean(0), y - y.mean(0)
        total = total + 1 - (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    return total


def test_the_loss_is_the_published_sum_and_so_are_its_gradients() -> None:
    target, guide, images = make_connected(6), make_convolutional().eval(), draw_images()
    twin = deepcopy(target)
    guidance = Guidance(target, guide, weight=0.5)
    with guidance.watching():
        target(images)
    loss = guidance.loss(images)
    loss.backward()

    ours = [twin[:place](images) for place in (2, 4, 6, 8, 10)]
    with torch.no_grad():
        theirs = [guide[:place](images).clone() for place in (1, 3, 6)]
    expected = 0.5 * published_sum(ours, theirs)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert list(guidance.distances) == [("1", "0"), ("5", "2"), ("9", "5")]
    assert 0.5 * sum(guidance.distances.values()) == pytest.approx(loss.item())
    for found, wanted in zip(target.parameters(), twin.parameters(), strict=True):
        if wanted.grad is None:  # of the last layer
            assert found.grad is None
        else:
            assert found.grad is not None
            assert torch.allclose(found.grad, wanted.grad, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "guides", "expected"),
    [
        (5, 3, (0, 2, 4)),
        (3, 5, (0, 0, 1, 2, 2)),  # Python rounds halves to even numbers, as the authors' code does
        (4, 4, (0, 1, 2, 3)),
        (1, 4, (0, 0, 0, 0)),
        (6, 1, (0,)),
        (49, 17, tuple(range(0, 49, 3))),
    ],
)
def test_layers_are_paired_as_published(
    targets: int, guides: int, expected: tuple[int, ...]
) -> None:
    assert pair_layers(targets, guides) == expected


def test_the_guide_stays_as_it_is() -> None:
    target, guide, images = make_connected(), make_convolutional(), draw_images()
    guide.train()
    guide[1].eval()  # modes may be mixed
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    guidance = Guidance(target, guide)
    for _ in range(2):
        with guidance.watching():
            target(images)
        found = guidance.loss(images)
    found.backward()

    assert all(torch.equal(before[name], tensor) for name, tensor in guide.state_dict().items())
    assert all(parameter.grad is None for parameter in guide.parameters())
    assert [module.training for module in guide] == [index != 1 for index in range(len(guide))]
    assert hooks_left(target, guide) == 0


def test_a_second_loss_is_that_of_the_first_though_fewer_layers_are_summarised() -> None:
    target, guide, images = make_connected(8), make_convolutional(), draw_images()
    guidance = Guidance(target, guide)
    losses = []
    for _ in range(2):
        with guidance.watching():
            target(images)
        losses.append(guidance.loss(images).item())
    assert losses[0] == losses[1]


def test_a_network_comes_to_lie_as_its_guide_does() -> None:
    target, guide, images = make_connected(3), make_convolutional(), draw_images(24)
    guidance = Guidance(target, guide, distance=CKA(unbiased=True))
    optimiser = torch.optim.Adam(target.parameters(), 0.01)
    losses = []
    with guidance.watching():
        for _ in range(60):
            target(images)
            loss = guidance.loss(images)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("distance", [CKA(), CKA(unbiased=True), RSA()])
def test_any_network_guides_any_other(distance: CKA | RSA) -> None:
    steps = torch.randn(9, 4, 3)
    transformer = nn.Sequential(
        nn.Linear(3, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2)
    )
    for target, guide in ((Recurrent(), transformer), (transformer, Recurrent())):
        guidance = Guidance(target, guide, distance=distance)
        with guidance.watching():
            answers = target(steps)
        loss = F.mse_loss(answers, torch.zeros_like(answers)) + guidance.loss(steps)
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in target.parameters())
        assert hooks_left(target, guide) == 0


def test_layers_that_learn_nothing_are_left_out() -> None:
    target, guide, images = make_connected(5), make_convolutional(), draw_images()
    target[1].requires_grad_(False)
    guidance = Guidance(target, guide)
    with guidance.watching():
        target(images)
    guidance.loss(images).backward()
    assert ("1", "0") not in guidance.distances
    assert len(guidance.distances) == 2

    target.requires_grad_(False)
    with guidance.watching():
        target(images)
    with pytest.raises(GuidanceError, match="No layer that the guide would steer depends on"):
        guidance.loss(images)


def test_networks_that_fail_leave_no_hook() -> None:
    target, guide = make_connected(), make_convolutional()
    guidance = Guidance(target, guide)
    guide.train()
    with guidance.watching():
        target(draw_images())
    with pytest.raises(RuntimeError):
        guidance.loss(torch.zeros(12, 5))
    assert hooks_left(target, guide) == 0
    assert all(module.training for module in guide.modules())


def test_what_cannot_be_compared_is_refused() -> None:
    target, guide, images = make_connected(), make_convolutional(), draw_images()
    guidance = Guidance(target, guide)
    target(images)
    with pytest.raises(GuidanceError, match="The target has not computed since"):
        guidance.loss(images)
    with guidance.watching():
        target(images)
    with pytest.raises(GuidanceError, match="expected the same samples in both"):
        guidance.loss(images[:8])
    with pytest.raises(GuidanceError, match="A network cannot guide itself"):
        Guidance(target, target)
    for weight in (-1, float("nan"), float("inf"), "1", True):
        with pytest.raises(GuidanceError, match=r"The guide's weight is .*; expected 0 or more"):
            Guidance(target, guide, weight=weight)  # type: ignore[arg-type]
    with guidance.watching(), pytest.raises(GuidanceError, match="expected 3 samples or more"):
        target(images[:2])
