"""What a task asks of an image: which one of its labels it has, or which of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub._text import shorten
from gatehub.errors import ConfigError

SINGLE_LABEL, MULTI_LABEL = "single-label", "multi-label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """How the logits of a task are read.

    Where an image has one label, scores are a softmax and the label with the highest one is the
    answer. Where it may have any number of them, or none, each score is a sigmoid of its own, and
    every label is an answer whose score is not below its threshold.

    Args:
        thresholds: one for each label, in [0, 1], in the order of the logits; None where an image
            has one label.

    Raises:
        ConfigError: a threshold is not a number in [0, 1].
    """

    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for place, threshold in enumerate(self.thresholds or ()):
            if not _is_share(threshold):
                raise ConfigError(
                    f"The threshold of label {place} is {shorten(repr(threshold), 40)}; expected a "
                    "number from 0 to 1.",
                    hint="It is compared with the sigmoid of a logit.",
                )

    @property
    def type(self) -> str:
        """The problem's name, "single-label" or "multi-label"."""
        return SINGLE_LABEL if self.thresholds is None else MULTI_LABEL

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.thresholds is not None

    @property
    def function(self) -> str:
        """What makes scores of logits, "softmax" or "sigmoid"."""
        return "sigmoid" if self.is_multi_label else "softmax"

    def to_json(self) -> dict[str, object]:
        """Return the field of config.json: none where an image has one label."""
        if self.thresholds is None:
            return {}
        return {"problem": {"type": self.type, "thresholds": list(self.thresholds)}}

    def score(self, logits: Tensor) -> Tensor:
        """Return probabilities in [0, 1]: (..., labels) float32 → the same."""
        return torch.sigmoid(logits) if self.is_multi_label else logits.softmax(-1)

    def choose(self, logits: Tensor, scores: Tensor, *, top_k: int | None, usual: int) -> list[int]:
        """Return the places of the labels to show, those with the highest scores first.

        Args:
            logits: (labels,) float32, of one image.
            scores: (labels,) float32, by which they are ordered; equals stay in their order.
            top_k: how many, whatever their thresholds; None for those that are the answer.
            usual: how many then, where an image has one label.
        """
        order: list[int] = scores.sort(descending=True, stable=True).indices.tolist()
        if top_k is not None or self.thresholds is None:
            return order[: usual if top_k is None else top_k]
        own = self.score(logits).tolist()
        return [place for place in order if own[place] >= self.thresholds[place]]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


ONE_LABEL = Problem()
