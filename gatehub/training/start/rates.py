"""Learning rates found on the model itself: how far one step may move what it computes.

Adam's first step changes every number by the rate, whatever its gradient. What that does differs a
hundredfold between backbones: with depth, with the kind of gate, with how many normalisation values
there are, and with the scale of the features. So a rate is not given but found: for gates and
normalisation values the largest one whose step moves the features that the head is given by a set
share of their spread, for the head the largest one whose step moves the logits so. Of gates the
features are measured, and not the logits, since how far these move depends on the head as well: of
two tasks the one whose probe was sure would get the lower rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gatehub.training.methods.learner import Learner
from gatehub.training.objectives import SINGLE_LABEL
from gatehub.training.start.head_inputs import watch_features

# Shares of the spread of features and logits by which the first step at the full rate moves them.
GATE_REACH = 0.5
NORM_REACH = 0.5
HEAD_REACH = 0.1
# Logits that are all but equal, as of a head that has learned nothing, are taken to spread so far.
_LEAST_SPREAD = 0.3
_LOWEST, _HIGHEST = 1e-6, 0.3
_HALVINGS = 8  # the rate is found to within 5 %
IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates of the three groups of what a task learns; 0 where one is empty."""

    gates: float
    norms: float
    head: float


class StepLoss(Protocol):
    """What steps make less of; an `Objective` has it."""

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""

    def centre(self, logits: Tensor) -> Tensor:
        """Return logits without what does not change the answer."""


def find_rates(
    model: Learner,
    images: Tensor,
    targets: Tensor,
    *,
    objective: StepLoss = SINGLE_LABEL,
    weights: Sequence[float] | None = None,
) -> Rates:
    """Find the rates of a model that is about to be trained; it stays as it was.

    Args:
        model: at its start; its mode does not matter.
        images: (B, 3, H, W), normalised, of the training set.
        targets: see `Objective`.
        objective: what the task is trained for.
        weights: from `Objective.weigh`, as in training; None if all count alike.
    """
    device = next(model.parameters()).device
    images, targets = images.to(device), targets.to(device)
    was_training = model.training
    model.eval()
    counted = None if weights is None else torch.tensor(weights, device=device)
    objective.loss(model(images), targets, weights=counted).backward()

    def give_logits() -> Tensor:
        return objective.centre(model(images).float())

    def give_features() -> Tensor:
        with watch_features(model) as features:
            logits = model(images)
        # A network whose head has no such layer has its logits for features.
        return torch.cat([f.float() for f in features.values()] or [logits.float()], 1)

    with torch.no_grad():
        features, logits = give_features(), give_logits()
    spread = _size(features - features.mean(0))
    spread_of_logits = max(_size(logits), _LEAST_SPREAD)

    def find_by_features(parameters: Mapping[str, nn.Parameter], reach: float) -> float:
        return _find_rate(parameters, give_features, before=features, farthest=reach * spread)

    rates = Rates(
        gates=find_by_features(model.gate_parameters(), GATE_REACH),
        norms=find_by_features(model.norm_parameters(), NORM_REACH),
        head=_find_rate(
            model.head_parameters(),
            give_logits,
            before=logits,
            farthest=HEAD_REACH * spread_of_logits,
        ),
    )
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return rates


@torch.no_grad()
def _find_rate(
    parameters: Mapping[str, nn.Parameter],
    measure: Callable[[], Tensor],
    *,
    before: Tensor,
    farthest: float,
) -> float:
    """Return the largest rate whose step moves what is measured by at most `farthest`."""
    if not parameters:
        return 0.0
    learned = parameters.values()
    moved = [(p, p.detach().clone(), p.grad.sign()) for p in learned if p.grad is not None]
    if not moved:
        return _LOWEST
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    for _ in range(_HALVINGS):  # bisection
        middle = (low + high) / 2
        for parameter, start, sign in moved:
            parameter.copy_(start - math.exp(middle) * sign)
        distance = _size(measure() - before)
        # Not a number compares as false: a step that breaks the network was too long.
        low, high = (middle, high) if distance <= farthest else (low, middle)
    for parameter, start, _ in moved:
        parameter.copy_(start)
    return float(f"{math.exp(low):.2g}")


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
