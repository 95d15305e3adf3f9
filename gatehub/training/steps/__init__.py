"""Steps: one epoch of them, the optimiser that takes them, and their running mean."""

from gatehub.training.steps.epoch import check_finite, train_epoch

__all__ = ["check_finite", "train_epoch"]
