"""A range test as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gatehub.training.range_test.sweep import HIGHEST, LOWEST, RateRange


def draw_range(found: RateRange, *, title: str) -> bytes:
    """Draw the loss against the learning rate, and mark the rate that a run would take.

    Args:
        found: from `sweep_rates`.
        title: what was swept.

    Returns:
        A PNG of 1120 x 640 pixels; the same bytes for the same sweep.
    """
    figure = Figure(figsize=(7, 4), dpi=160, layout="constrained")
    axes = figure.subplots()
    smoothed = found.smoothed
    axes.plot(found.rates, found.losses, ".", color="C0", alpha=0.35, label="a step")
    axes.plot(found.rates, smoothed, color="C0", label="smoothed")
    axes.axvline(found.found, color="C1", label=f"a run takes {found.found:g}")
    if found.lowest is not None:
        axes.plot(
            *([found.lowest], [min(smoothed)], "o"),
            fillstyle="none",
            color="C2",
            label=f"lowest at {found.lowest:.2g}",
        )
    # The end, where the loss is lost, would leave nothing of the valley to be seen.
    low, high = min(*found.losses, *smoothed), 2.5 * smoothed[0] + 0.01
    axes.set(
        xscale="log",
        xlabel=f"learning rate of the {found.learned}",
        ylabel="loss of a training batch (nats)",
        xlim=(min(LOWEST, found.found), HIGHEST),
        ylim=(0.95 * low, max(high, 1.05 * low)),
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.suptitle(title)
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
