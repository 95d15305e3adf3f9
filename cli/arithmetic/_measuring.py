"""How good each form of an adapter is, for `gatehub compress`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gatehub.cli._output import Output

if TYPE_CHECKING:
    from gatehub.adapter import Adapter
    from gatehub.backbone import Backbone
    from gatehub.training.evaluation.selection import Selection
    from gatehub.training.objectives import Measured


def select(
    output: Output,
    adapter: Adapter,
    sources: Sequence[str],
    *,
    columns: Mapping[str, str] | None,
    skip_bad: bool,
) -> Selection:
    """Choose the images to measure on, and say which they are."""
    from gatehub.cli._data import describe_reading, name_skipped
    from gatehub.training.evaluation.selection import select_images

    with output.progress("checking images") as advance:
        selected = select_images(
            adapter, sources, columns=columns, skip_bad=skip_bad, progress=advance
        )
    describe_reading(output, selected.notes, selected.left_out)
    name_skipped(output, selected.skipped)
    output.note(
        f"Measuring on {len(selected.examples)} images ({selected.split}) of {', '.join(sources)}."
    )
    if selected.remark is not None:
        output.note(f"Note: {selected.remark}")
    return selected


def prepare_measure(
    backbone: Backbone, selected: Selection, workers: int | None
) -> Callable[[Adapter], Measured]:
    """Return what measures an adapter on the chosen images."""
    from gatehub.cli._data import choose_workers
    from gatehub.gates.fold import fold
    from gatehub.gates.kernel_memory import arrange_kernels
    from gatehub.training.batches import evaluation_batches
    from gatehub.training.evaluation import evaluate
    from gatehub.training.objectives import MULTI_LABEL, SINGLE_LABEL

    def measure(adapter: Adapter) -> Measured:
        model = fold(backbone, adapter)
        arrange_kernels(model)
        batches = evaluation_batches(
            selected.examples,
            adapter.preprocessing.transform(),
            workers=choose_workers(workers, selected.examples),
        )
        thresholds = adapter.problem.thresholds
        if thresholds is None:
            return evaluate(model, batches, objective=SINGLE_LABEL)
        return evaluate(model, batches, objective=MULTI_LABEL).with_thresholds(thresholds)

    return measure


def score(measured: Measured) -> float:
    """Return what forms are compared by: accuracy, or mAP where an image has several labels."""
    mean = measured.mean_average_precision
    return measured.accuracy if mean is None else mean


def name_score(measured: Measured) -> str:
    """Name it."""
    return "accuracy" if measured.mean_average_precision is None else "mAP"


def describe(measured: Measured) -> dict[str, float]:
    """Return the figures for JSON."""
    mean = measured.mean_average_precision
    found = {"accuracy": measured.accuracy}
    return found if mean is None else {**found, "mean_average_precision": mean}
