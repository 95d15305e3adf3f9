"""Accuracy against bytes, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_DPI = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One form of an adapter.

    Args:
        name: of the form.
        bytes: of its gates.safetensors.
        score: share in [0, 1].
    """

    name: str
    bytes: int
    score: float


def draw_tradeoff(
    original: Point,
    points: Sequence[Point],
    *,
    kept: Point | None,
    least: float,
    measure: str,
    title: str,
) -> bytes:
    """Draw the forms of an adapter by their bytes and how good they are, with numbers and a key.

    Args:
        original: as it was.
        points: what was made of it.
        kept: the one of them that was chosen, or None.
        least: the score below which none is chosen.
        measure: what the score is, such as "accuracy".
        title: whose forms they are.

    Returns:
        A PNG, 1280 pixels wide; the same bytes for the same points.
    """
    figure = Figure(figsize=(8, max(4.0, 1.5 + 0.22 * len(points))), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    label = f"as it was: {original.name}"
    axes.plot(original.bytes / 1000, 100 * original.score, "*", ms=12, color="C3", label=label)
    for number, point in enumerate(points, 1):
        place = point.bytes / 1000, 100 * point.score
        chosen = point is kept
        axes.plot(
            *place,
            "o",
            ms=9 if chosen else 6,
            color="C2" if chosen else "C0",
            label=f"{number}  {point.name}{' (kept)' if chosen else ''}",
        )
        axes.annotate(str(number), place, xytext=(5, 4), textcoords="offset points", fontsize=9)
    axes.axhline(100 * least, color="0.5", lw=1, ls="--", label="least that is kept")
    axes.set(xscale="log", xlabel="kB of gates.safetensors", ylabel=f"{measure} (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.suptitle(title, parse_math=False)
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would change the bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
