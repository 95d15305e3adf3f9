"""How adapters are made of fine-tuned networks."""

from __future__ import annotations

from dataclasses import dataclass

from gatehub._arguments import check_fields
from gatehub.errors import TrainingError
from gatehub.training import defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Settings of `distill_to_gates`.

    Args:
        steps: of the training against the network's answers; 0 for none.
        batch_size: images in each.
        max_drop: the largest share of the held-out images that may be answered otherwise than by
            the network; an adapter that does worse is refused.
        min_crop: the smallest share of an image that is cropped from it in training, above 0 and
            at most 1.
        rate_factor: what the rates that are found are multiplied by.
        measured: how many images the statistics are measured on, at most.
        held_out: share of the images that are not trained on, where the source does not say which.
        seed: decides which these are, and all that is drawn.

    Raises:
        TrainingError: a value is out of its range.
    """

    steps: int = defaults.DISTILL_STEPS
    batch_size: int = defaults.BATCH_SIZE
    max_drop: float = defaults.DISTILL_MAX_DROP
    min_crop: float = 0.6
    rate_factor: float = 1.0
    measured: int = 512
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, TrainingError)
        for name, least in (("steps", 0), ("batch_size", 1), ("measured", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise TrainingError(
                    f"{name} is {getattr(self, name)}; expected a whole number from {least} on."
                )
        if not 0 <= self.max_drop <= 1:
            raise TrainingError(
                f"max_drop is {self.max_drop:g}; expected a share from 0 to 1.",
                hint="Five points are 0.05.",
            )
        if not 0 < self.min_crop <= 1 or not 0 < self.held_out < 1 or not self.rate_factor > 0:
            raise TrainingError(
                f"min_crop is {self.min_crop:g}, held_out {self.held_out:g} and rate_factor "
                f"{self.rate_factor:g}; expected shares, and a factor above 0."
            )
