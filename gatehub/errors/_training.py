"""Data that cannot be used, and training that cannot go on."""

from __future__ import annotations

from gatehub.errors._root import GatehubError


class DataError(GatehubError, ValueError):
    """Training or evaluation data that cannot be used."""


class UnreadableImageError(DataError):
    """Images that cannot be decoded."""


class LabelMismatchError(DataError):
    """Data whose classes differ from the adapter's labels."""


class TrainingError(GatehubError, RuntimeError):
    """A training run cannot go on."""


class DivergenceError(TrainingError):
    """The loss of a run became infinite or NaN."""


class ResumeError(TrainingError):
    """A checkpoint that cannot be continued with these settings."""


class GuidanceError(TrainingError):
    """A network cannot guide another."""


class PoorFitError(TrainingError):
    """An adapter that answers too often otherwise than the network it was made of.

    Args:
        message: one sentence.
        hint: what to do next.
        stages: how near each stage came, see `gatehub.training.distillation`.
    """

    def __init__(self, message: str, *, hint: str | None = None, stages: object = ()) -> None:
        super().__init__(message, hint=hint)
        self.stages = stages
