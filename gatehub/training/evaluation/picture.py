"""The confusion matrix as a picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gatehub._text import shorten

_DPI = 160
_LABEL_CHARACTERS = 24
# Beyond these, numbers and names would run into each other.
_MOST_NUMBERS = 30
_MOST_NAMES = 100


def draw_confusion(confusion: NDArray[np.int64], labels: Sequence[str], *, title: str) -> bytes:
    """Draw a confusion matrix: a row for each class, a column for what it was taken for.

    A cell is as dark as its share of its row; up to 30 classes it bears its number, and up to 100
    the classes are named.

    Args:
        confusion: (classes, classes), see `Figures`.
        labels: names of the classes.
        title: whose matrix it is.

    Returns:
        A PNG of 6 to 14 inches at 160 pixels each; the same bytes for the same matrix.
    """
    count = len(labels)
    side = min(max(6.0, 2.0 + 0.4 * count), 14.0)
    figure = Figure(figsize=(side, side), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= _MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(confusion):
            if number:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=colour)
    if count <= _MOST_NAMES:
        size = 10 if count <= _MOST_NUMBERS else 6
        names = [shorten(label, _LABEL_CHARACTERS) for label in labels]
        # A label may hold dollar signs, which would begin a formula.
        axes.set_xticks(range(count), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(count), names, fontsize=size, parse_math=False)
    axes.set(xlabel="taken for", ylabel="is")
    figure.suptitle(title, parse_math=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        # Without the version of matplotlib, which would change the bytes.
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
