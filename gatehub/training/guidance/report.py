"""How alike two networks are, layer by layer, and whether they err alike.

It compares what architectures prefer (their priors), trained or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gatehub.errors import GuidanceError
from gatehub.training.guidance.distances import CKA, Distance
from gatehub.training.guidance.guidance import pair_layers
from gatehub.training.guidance.layers import Layer, stands_for_features, watch_layers

Judge = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alignment:
    """How alike two networks are.

    Args:
        target_layers: names, in the order of a pass.
        guide_layers: names, in the order of a pass.
        similarities: (target layers, guide layers) float64, one minus the distance, the mean over
            the batches; with CKA 1 for layers that arrange the samples alike, and 0 for such that
            have nothing in common.
        samples: how many were looked at.
        target_accuracy: share of them that the target has right; None where nobody judged.
        guide_accuracy: the same of the guide.
        consistency: see `error_consistency`; None where it is not defined, too.
    """

    target_layers: Sequence[str]
    guide_layers: Sequence[str]
    similarities: NDArray[np.float64]
    samples: int
    target_accuracy: float | None = None
    guide_accuracy: float | None = None
    consistency: float | None = None

    @property
    def pairs(self) -> list[tuple[str, str, float]]:
        """The pairs that guidance would make, and how alike each is: target, guide, similarity."""
        places = pair_layers(len(self.target_layers), len(self.guide_layers))
        return [
            (self.target_layers[ours], self.guide_layers[theirs], float(value))
            for theirs, ours in enumerate(places)
            for value in (self.similarities[ours, theirs],)
        ]

    @property
    def mean(self) -> float:
        """The mean similarity of these pairs."""
        return float(np.mean([value for _, _, value in self.pairs]))

    def to_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "target_layers": list(self.target_layers),
            "guide_layers": list(self.guide_layers),
            "similarities": self.similarities.tolist(),
            "samples": self.samples,
            "target_accuracy": self.target_accuracy,
            "guide_accuracy": self.guide_accuracy,
            "error_consistency": self.consistency,
        }

    def to_table(self) -> str:
        """Return the pairs as a table in Markdown, and below it who is right."""
        lines = ["| target | guide | similarity |", "|---|---|---|"]
        lines += [f"| {ours} | {theirs} | {value:.3f} |" for ours, theirs, value in self.pairs]
        lines += ["", f"Mean similarity of {len(self.pairs)} pairs: {self.mean:.3f}."]
        if self.target_accuracy is not None and self.guide_accuracy is not None:
            kappa = "not defined" if self.consistency is None else f"{self.consistency:.3f}"
            lines.append(
                f"Right of {self.samples}: target {100 * self.target_accuracy:.1f} %, guide "
                f"{100 * self.guide_accuracy:.1f} %. Error consistency (Cohen's kappa): {kappa}."
            )
        return "\n".join(lines) + "\n"


def measure_alignment(
    target: nn.Module,
    guide: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    *,
    distance: Distance | None = None,
    judge: Judge | None = None,
    selects: Callable[[nn.Module], bool] = stands_for_features,
) -> Alignment:
    """Compare every layer of one network with every layer of another, both in evaluation mode.

    Args:
        target: one network; it is left as it was.
        guide: the other.
        batches: what both are given, and what `judge` needs; at least one. Similarities depend on
            the size of batches, which should be equal.
        distance: of two layers; None for `CKA`.
        judge: from an answer and a batch's second part to (B,) bool, which samples are right.
        selects: which modules count.

    Raises:
        GuidanceError: there is no batch, or the networks call other layers in each.
    """
    chosen = distance or CKA()
    networks = (target, guide)
    modes = {module: module.training for network in networks for module in network.modules()}
    right: tuple[list[Tensor], list[Tensor]] = ([], [])
    found: list[NDArray[np.float64]] = []
    names: set[tuple[tuple[str, ...], ...]] = set()
    samples = 0

    def keep(features: Tensor, before: int) -> Tensor:
        return chosen.summarise(features)

    try:
        with (
            torch.no_grad(),
            watch_layers(target, keep, selects=selects) as ours,
            watch_layers(guide, keep, selects=selects) as theirs,
        ):
            for network in networks:
                network.eval()
            for inputs, expected in batches:
                answers = [network(inputs) for network in networks]
                layers = ours.take(), theirs.take()
                names.add(tuple(tuple(layer.name for layer in side) for side in layers))
                found.append(_compare(*layers, chosen))
                samples += len(inputs)
                if judge is not None:
                    for answer, judged in zip(answers, right, strict=True):
                        judged.append(judge(answer, expected).cpu())
    finally:
        for module, mode in modes.items():
            module.training = mode
    if len(names) != 1:
        raise GuidanceError(
            "The networks call other layers in one batch than in another, so they cannot be "
            "compared layer by layer."
            if names
            else "There are no batches to compare the networks on; expected 1 or more."
        )
    first, second = (torch.cat(side).numpy() if side else None for side in right)
    (called,) = names
    return Alignment(
        target_layers=called[0],
        guide_layers=called[1],
        similarities=np.mean(found, axis=0),
        samples=samples,
        target_accuracy=None if first is None else float(first.mean()),
        guide_accuracy=None if second is None else float(second.mean()),
        consistency=None if first is None or second is None else error_consistency(first, second),
    )


def _compare(
    ours: Sequence[Layer], theirs: Sequence[Layer], distance: Distance
) -> NDArray[np.float64]:
    kept = [[layer.kept for layer in side if layer.kept is not None] for side in (ours, theirs)]
    return np.array([[1 - float(distance.compare(a, b)) for b in kept[1]] for a in kept[0]])


def judge_classes(logits: Tensor, classes: Tensor) -> Tensor:
    """Judge classifiers: logits (B, C) and classes (B,) → (B,) bool, the highest logit is right."""
    return logits.argmax(1) == classes.to(logits.device)


def error_consistency(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """Return Cohen's kappa of being right: whether two networks err on the same samples.

    1 where they err on the same ones, 0 where as often together as by chance, below 0 where each
    is right when the other errs (Geirhos, Meding and Wichmann, arXiv 2006.16736).

    Args:
        first: (N,), which samples one network has right.
        second: (N,), the other's.

    Returns:
        None where both are right, or both wrong, of all samples.

    Raises:
        GuidanceError: there are no samples, or other ones of each.
    """
    if first.shape != second.shape or not first.size:
        raise GuidanceError(
            f"Error consistency is of the same samples; got {first.shape} and {second.shape}."
        )
    one, other = float(first.mean()), float(second.mean())
    chance = one * other + (1 - one) * (1 - other)
    if chance == 1:
        return None
    return (float((first == second).mean()) - chance) / (1 - chance)
