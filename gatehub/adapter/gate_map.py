"""How far the gates of each site moved from 1, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gatehub.gates.layout import GateLayout

COLUMNS = 64
_MAX_LABELS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far the gates of a site lie from 1.

    Args:
        distance: the root of the mean of (M - 1)².
        largest: the same of the output channel that moved most.
    """

    distance: float
    largest: float


def measure_sites(layout: GateLayout, tensors: Mapping[str, Tensor]) -> dict[str, Moved]:
    """How far the gates of each site lie from 1; see `measure_gates`."""
    return {
        site: Moved(distance=float(distances.square().mean().sqrt()), largest=float(distances[0]))
        for site, distances in measure_gates(layout, tensors).items()
    }


def measure_gates(layout: GateLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How far each output channel's gates lie from 1, as the root of the mean of (M - 1)².

    Args:
        layout: which gates there are.
        tensors: by name, "SITE.gate", "SITE.gate_a" and "SITE.gate_b"; others do not count.

    Returns:
        For each site (O,) float32, the channel that moved most first.
    """
    moved = {}
    for site, gate in layout.sites.items():
        parts = {part: tensors[f"{site}.{part}"].float() for part in gate.parts}
        distance = (gate.kind.matrix(parts) - 1).square().mean(dim=1).sqrt()
        moved[site] = distance.sort(descending=True).values
    return moved


def draw_gates(layout: GateLayout, tensors: Mapping[str, Tensor], *, title: str) -> bytes:
    """Draw a heat map: a row for each site, its output channels from most to least moved.

    Args:
        layout: which gates there are, at least one.
        tensors: see `measure_gates`.
        title: whose gates they are.

    Returns:
        A PNG, 960 pixels wide; the same bytes for the same gates.
    """
    moved = measure_gates(layout, tensors)
    rows = torch.stack([_resample(distance) for distance in moved.values()])
    means = [found.distance for found in measure_sites(layout, tensors).values()]
    # Few rows are as high as their labels; of many only some are labelled.
    shown = min(len(moved), _MAX_LABELS)
    figure = Figure(figsize=(8, 1.8 + 0.15 * shown), dpi=120, layout="constrained")
    cells, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    image = cells.imshow(
        rows.numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap=colormaps["magma"].resampled(32),
        vmin=0,
        vmax=max(float(rows.max()), 1e-3),
        extent=(0, 100, len(moved) - 0.5, -0.5),
    )
    every = -(-len(moved) // shown)
    labels = [f"{site}  {gate.kind}" for site, gate in layout.sites.items()]
    cells.set_yticks(range(0, len(moved), every), labels[::every], fontsize=6)
    cells.set_xlabel("output channels, most moved first (%)")
    figure.colorbar(image, ax=cells, label="distance from 1", location="top", aspect=50, pad=0.01)
    bars.barh(range(len(moved)), means, height=0.8, color="C0")
    bars.set_xlabel("of the whole site")
    bars.tick_params(labelleft=False, left=False)
    bars.spines[["top", "right"]].set_visible(False)
    bars.grid(axis="x", alpha=0.3)
    figure.suptitle(title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    # A palette is enough to read it, and takes a fifth of the bytes.
    picture.quantize(96, Image.Quantize.MAXCOVERAGE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _resample(distance: Tensor) -> Tensor:
    """(O,) → (COLUMNS,): the nearest channel for each column."""
    place = (torch.arange(COLUMNS) + 0.5) / COLUMNS * len(distance)
    return distance[place.long()]
