"""How like a network's answers another's are, on images that neither was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.problem import Problem

Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """A network's answers to N images.

    Args:
        logits: (N, labels) float32.
        targets: (N,) int64, or (N, labels) float32; None where no labels are known.
    """

    logits: Tensor
    targets: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How like a network's answers are.

    Args:
        agreement: share of the images with the same answer: the same label has the highest logit;
            or, where an image may have several, the same labels reach their thresholds.
        logit_difference: mean absolute difference of logits.
        divergence: mean Kullback-Leibler divergence from the network's scores, in nats an image;
            where an image may have several labels, summed over them.
        accuracy: of the answers, as a fraction; None where no labels are known.
    """

    agreement: float
    logit_difference: float
    divergence: float
    accuracy: float | None


@torch.inference_mode()
def answer(
    model: Answer, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device, labelled: bool
) -> Answers:
    """Ask a model, in evaluation mode, for its answers to batches of images and targets."""
    logits, targets = [], []
    for images, own in batches:
        logits.append(model(images.to(device)).float().cpu())
        targets.append(own)
    return Answers(logits=torch.cat(logits), targets=torch.cat(targets) if labelled else None)


def compare(found: Answers, network: Answers, problem: Problem) -> Likeness:
    """Return how like answers are to a network's.

    Args:
        found: of a gated model.
        network: what they should be.
        problem: how logits are read.
    """
    own, theirs = found.logits, network.logits
    return Likeness(
        agreement=float((choose(own, problem) == choose(theirs, problem)).all(-1).float().mean()),
        logit_difference=float((own - theirs).abs().mean()),
        divergence=float(diverge(own, theirs, problem)),
        accuracy=measure_accuracy(found, problem),
    )


def measure_accuracy(found: Answers, problem: Problem) -> float | None:
    """Return the share of right answers; None where no labels are known."""
    if found.targets is None:
        return None
    chosen = choose(found.logits, problem)
    if problem.is_multi_label:
        return float((chosen == (found.targets > 0.5)).all(-1).float().mean())
    return float((chosen[:, 0] == found.targets).float().mean())


def choose(logits: Tensor, problem: Problem) -> Tensor:
    """Return what is answered: (N, 1) int64, or (N, labels) bool."""
    if problem.thresholds is None:
        return logits.argmax(-1, keepdim=True)
    return problem.score(logits) >= torch.tensor(problem.thresholds, device=logits.device)


def diverge(own: Tensor, theirs: Tensor, problem: Problem) -> Tensor:
    """Return the mean divergence KL(theirs || own) of scores, in nats; (N, labels) logits."""
    if not problem.is_multi_label:
        target = theirs.log_softmax(-1)
        return F.kl_div(own.log_softmax(-1), target, log_target=True, reduction="batchmean")
    score = theirs.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(theirs, score, reduction="none")
    cross = F.binary_cross_entropy_with_logits(own, score, reduction="none")
    return (cross - entropy).sum(-1).mean()
