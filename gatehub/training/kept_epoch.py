"""Which epoch of a run an adapter gets, by the validation images."""

from __future__ import annotations

from collections.abc import Sequence

from gatehub.training.checkpoint import EpochRecord

# By how many images an epoch must beat the start. Two more that are right, in some epoch of fifty,
# are luck: on stamps, where 30 images validate, runs that were kept for two lost on test images.
# What was learned showed as six and more. The half is for rounding.
_LEAST_GAIN = 2.5


def choose_epoch(
    history: Sequence[EpochRecord], *, images: int, keep: str = "auto", by: str = "accuracy"
) -> int:
    """Return the number of the epoch whose values are kept; the start, 0, is a candidate.

    On a few hundred images the highest accuracy is often luck: it counts answers, and hardly any
    of them change between epochs. The loss weighs each answer, but a network that becomes too sure
    has a higher one while it becomes better. So "auto" takes the epoch whose calibrated loss is
    the least, of those that are right about at least three images more than the start; where there
    is none, the start. mAP goes by the order of all images, so of it the highest is taken, for
    "auto" as for "best".

    Args:
        history: one record for the start and one for each epoch.
        images: how many validation images were looked at.
        keep: "auto"; "best", the highest of all, and of equals the one with the least loss; or
            "last".
        by: "accuracy", "recall" or "mean_average_precision".
    """
    if keep == "last":
        return history[-1].epoch
    if keep == "best" or by == "mean_average_precision":
        return max(history, key=lambda r: (getattr(r, f"val_{by}"), -r.val_loss)).epoch
    least = getattr(history[0], f"val_{by}") + _LEAST_GAIN / images
    better = [record for record in history if getattr(record, f"val_{by}") >= least]
    return min(better or history[:1], key=lambda record: record.val_calibrated_loss).epoch
