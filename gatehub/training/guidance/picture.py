"""How alike two networks are, as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gatehub._text import shorten
from gatehub.training.guidance.guidance import pair_layers
from gatehub.training.guidance.report import Alignment

_MOST_NAMES = 40
_MAX_CHARACTERS = 28


def draw_alignment(alignment: Alignment, *, title: str) -> bytes:
    """Draw the similarity of all layers, and mark the pairs that guidance makes.

    Returns:
        A PNG of 1120 x 960 pixels; the same bytes for the same alignment.
    """
    figure = Figure(figsize=(7, 6), dpi=160, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(alignment.similarities, vmin=0, vmax=1, origin="lower", aspect="auto")
    places = pair_layers(len(alignment.target_layers), len(alignment.guide_layers))
    axes.plot(range(len(places)), places, "o", fillstyle="none", color="white", label="paired")
    axes.legend(loc="upper left", labelcolor="black")
    for axis, names, label in (
        (axes.xaxis, alignment.guide_layers, "guide"),
        (axes.yaxis, alignment.target_layers, "target"),
    ):
        axis.set_label_text(f"layer of the {label}")
        if len(names) <= _MOST_NAMES:
            short = [shorten(name, _MAX_CHARACTERS) for name in names]
            axis.set_ticks(range(len(names)), short, fontsize=6)
    axes.tick_params(axis="x", labelrotation=90)
    figure.colorbar(shown, label="similarity")
    figure.suptitle(title)
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
