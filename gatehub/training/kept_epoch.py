"""Which epoch of a run an adapter gets, by the validation images."""

from __future__ import annotations

from collections.abc import Sequence

from gatehub.training.checkpoint import EpochRecord


def choose_epoch(
    history: Sequence[EpochRecord], *, keep: str = "auto", by: str = "accuracy"
) -> int:
    """Return the number of the epoch whose values are kept; the start, 0, is a candidate.

    On a few hundred images the highest accuracy is often luck: it counts answers, and hardly any
    of them change between epochs. The loss weighs each answer, but a network that becomes too sure
    has a higher one while it becomes better. So "auto" takes the epoch whose calibrated loss is
    the least, of those whose accuracy is above the start's; where none is above, of those that
    equal it, the start among them. mAP goes by the order of all images, so of it the highest is
    taken, for "auto" as for "best".

    Args:
        history: one record for the start and one for each epoch.
        keep: "auto"; "best", the highest of all, and of equals the one with the least loss; or
            "last".
        by: "accuracy", "recall" or "mean_average_precision".
    """
    if keep == "last":
        return history[-1].epoch
    if keep == "best" or by == "mean_average_precision":
        return max(history, key=lambda r: (getattr(r, f"val_{by}"), -r.val_loss)).epoch
    scores = [getattr(record, f"val_{by}") for record in history]
    gained = max(scores) > scores[0]
    candidates = [
        record
        for record, score in zip(history, scores, strict=True)
        if (score > scores[0] if gained else score == scores[0])
    ]
    return min(candidates, key=lambda record: record.val_calibrated_loss).epoch
