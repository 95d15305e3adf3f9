"""The training curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gatehub.training.checkpoint import EpochRecord


def draw_curve(history: Sequence[EpochRecord], *, kept: int, title: str) -> bytes:
    """Draw loss and accuracy, or mAP where there is one, over the epochs, and which was kept.

    Args:
        history: one record for the start and one for each epoch, at least one.
        kept: the epoch whose values the adapter has.
        title: what was trained.

    Returns:
        A PNG of 1280 x 480 pixels; the same bytes for the same history.
    """
    epochs = [record.epoch for record in history]
    figure = Figure(figsize=(8, 3), dpi=160, layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    trained = [record for record in history if record.train_loss is not None]
    losses.plot(
        [record.epoch for record in trained],
        [record.train_loss for record in trained],
        label="training",
        marker=".",
    )
    losses.plot(epochs, [record.val_loss for record in history], label="validation", marker=".")
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    losses.legend(frameon=False)
    precisions = [record.val_mean_average_precision for record in history]
    found = [100 * precision for precision in precisions if precision is not None]
    percent = found or [100 * record.val_accuracy for record in history]
    accuracy.plot(epochs, percent, marker=".", color="C2")
    best = percent[epochs.index(kept)]
    accuracy.plot(
        *([kept], [best], "o"),
        fillstyle="none",
        color="C2",
        label=f"kept: epoch {kept}, {best:.1f} %",
    )
    accuracy.legend(frameon=False, loc="lower right")
    accuracy.set(xlabel="epoch", ylabel=f"validation {'mAP' if found else 'accuracy'} (%)")
    for axes in (losses, accuracy):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
