"""Which epoch of a run an adapter gets, by the validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gatehub.training.checkpoint import EpochRecord


def choose_epoch(
    history: Sequence[EpochRecord], *, images: int, keep: str = "auto", by: str = "accuracy"
) -> int:
    """Return the number of the epoch whose values are kept; the start, 0, is a candidate.

    On a few hundred images the highest accuracy is often luck, and training longer is not. So
    "auto" takes the last epoch that is within one standard error of the best one (the rule of
    Breiman et al., Classification and Regression Trees, 1984) and not below the start. An epoch
    that was not the choice when it was the last will not be it later.

    Args:
        history: one record for the start and one for each epoch.
        images: how many validation images were looked at.
        keep: "auto"; "best", the highest of all, and of equals the one with the least loss; or
            "last".
        by: "accuracy" or "recall".
    """
    if keep == "last":
        return history[-1].epoch
    best = find_best_epoch(history, by=by)
    if keep == "best":
        return best
    scores = [float(getattr(record, f"val_{by}")) for record in history]
    highest = scores[best]
    error = math.sqrt(highest * (1 - highest) / images)
    least = max(highest - error, scores[0])
    return max(r.epoch for r, score in zip(history, scores, strict=True) if score >= least)


def find_best_epoch(history: Sequence[EpochRecord], *, by: str = "accuracy") -> int:
    """Return the number of the epoch with the highest accuracy or recall; see `choose_epoch`."""
    return max(history, key=lambda r: (getattr(r, f"val_{by}"), -r.val_loss)).epoch
