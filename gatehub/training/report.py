"""What a training run leaves: its report, what the adapter remembers of it, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatehub.adapter import Adapter
from gatehub.adapter.gate_map import draw_gates
from gatehub.adapter.trained_on import write_sources
from gatehub.training.checkpoint import EpochRecord
from gatehub.training.curve import draw_curve
from gatehub.training.data import ImageData
from gatehub.training.examples import Digests
from gatehub.training.sources import list_given
from gatehub.training.sources.tables.columns import write_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a training run went.

    Args:
        task: its name.
        folder: where what it made was saved.
        metrics: the figures that are kept with it.
        accuracy: of what was saved, on the validation images; a fraction.
        start_accuracy: of the start on the same images, a fraction: of the linear probe, or of the
            adapter that the run went on from.
        mean_average_precision: the same; None where an image has one label.
        start_mean_average_precision: of the start.
        trained_parameters: how many numbers were learned.
        adapter_bytes: size of the file of tensors that was saved.
        epochs: passes over the training images, fewer than planned where patience ended.
        kept_epoch: which of them is kept; 0 is the start.
        seconds: wall-clock time of this run.
    """

    task: str
    folder: Path
    metrics: Mapping[str, float]
    accuracy: float
    start_accuracy: float
    mean_average_precision: float | None
    start_mean_average_precision: float | None
    trained_parameters: int
    adapter_bytes: int
    epochs: int
    kept_epoch: int
    seconds: float

    @property
    def score(self) -> float:
        """By what a run is judged: mAP where there is one, and else accuracy."""
        found = self.mean_average_precision
        return self.accuracy if found is None else found

    @property
    def start_score(self) -> float:
        """The same of the start."""
        found = self.start_mean_average_precision
        return self.start_accuracy if found is None else found

    @property
    def more_figures(self) -> dict[str, float]:
        """Figures that are kept beside accuracy and loss, by name."""
        return {n: value for n, value in self.metrics.items() if n not in ("accuracy", "loss")}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport(Report):
    """How the training of an adapter went.

    Args:
        adapter: the adapter, as it was saved.
        calibrated_loss: on the validation images, in nats; see `EpochRecord`.
    """

    adapter: Adapter
    calibrated_loss: float


def recorded_settings(data: ImageData, digests: Digests) -> dict[str, str | int | float | None]:
    """Return what an adapter remembers of the data it was trained on, and of its digests."""
    return {
        **write_sources(list(map(str, list_given(data.source)))),
        "train_digest": digests.train,
        "val_digest": digests.val,
        "train_count": len(data.train),
        "val_count": len(data.val),
        "split_seed": data.split["seed"],
        "split_val_fraction": data.split["val_fraction"],
        "split_train_images": data.split["train_images"],
        **({"columns": write_columns(data.columns)} if data.columns else {}),
    }


def illustrate(adapter: Adapter, history: Sequence[EpochRecord], *, kept: int) -> dict[str, bytes]:
    """Return the log of a run, its curve, and a picture of the gates that it learned, by file."""
    log = "".join(json.dumps(record.to_json()) + "\n" for record in history)
    return {
        "training.jsonl": log.encode(),
        "training.png": draw_curve(
            history,
            kept=kept,
            title=f"{adapter.task} on {adapter.backbone.name}",
        ),
        **draw_gate_map(adapter),
    }


def draw_gate_map(adapter: Adapter) -> dict[str, bytes]:
    """Return the picture of an adapter's gates, by its file; nothing where it has none."""
    if not adapter.layout.sites:
        return {}
    title = f"Gates of {adapter.task}"
    return {"gates.png": draw_gates(adapter.layout, adapter.tensors, title=title)}
