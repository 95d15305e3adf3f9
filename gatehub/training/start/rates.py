"""Learning rates found on the model itself: how far one step may move its answers.

Adam's first step changes every number by the rate, whatever its gradient. What that does to the
logits differs a hundredfold between backbones: with depth, with the kind of gate, with how many
normalisation values there are, and with the scale of the features. So a rate is not given but
found: the largest one whose step moves the logits by a set share of their spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.gates.attach import GatedModel

# Shares of the logits' spread by which the first step at the full rate moves them.
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
    """Peak learning rates of the three groups of what a task learns."""

    gates: float
    norms: float
    head: float


def find_rates(model: GatedModel, images: Tensor, targets: Tensor) -> Rates:
    """Find the rates of a gated model that is about to be trained; it stays as it was.

    Args:
        model: at its start; its mode does not matter.
        images: (B, 3, H, W), normalised, of the training set.
        targets: (B,) int64.
    """
    device = next(model.parameters()).device
    images, targets = images.to(device), targets.to(device)
    was_training = model.training
    model.eval()
    F.cross_entropy(model(images), targets).backward()
    with torch.no_grad():
        before = _centre(model(images))
    spread = max(_size(before), _LEAST_SPREAD)

    def find(parameters: Iterable[nn.Parameter], reach: float) -> float:
        return _find_rate(model, images, before, list(parameters), farthest=reach * spread)

    rates = Rates(
        gates=find(model.gate_parameters().values(), GATE_REACH),
        norms=find(model.norm_parameters().values(), NORM_REACH),
        head=find(model.head_parameters().values(), HEAD_REACH),
    )
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return rates


@torch.no_grad()
def _find_rate(
    model: GatedModel,
    images: Tensor,
    before: Tensor,
    parameters: list[nn.Parameter],
    *,
    farthest: float,
) -> float:
    """Return the largest rate whose step moves the logits by at most `farthest` (bisection)."""
    moved = [(p, p.detach().clone(), p.grad.sign()) for p in parameters if p.grad is not None]
    if not moved:
        return _LOWEST
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        for parameter, start, sign in moved:
            parameter.copy_(start - math.exp(middle) * sign)
        distance = _size(_centre(model(images)) - before)
        # Not a number compares as false: a step that breaks the network was too long.
        low, high = (middle, high) if distance <= farthest else (low, middle)
    for parameter, start, _ in moved:
        parameter.copy_(start)
    return float(f"{math.exp(low):.2g}")


def _centre(logits: Tensor) -> Tensor:
    """Return logits without what softmax ignores: their mean over the classes."""
    return logits.float() - logits.float().mean(1, keepdim=True)


def _size(logits: Tensor) -> float:
    return float(logits.square().mean().sqrt())
