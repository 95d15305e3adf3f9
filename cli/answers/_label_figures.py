"""What `gatehub eval` shows where an image may have any number of labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from gatehub._text import shorten
from gatehub.cli._output import Output, format_percent, make_table

if TYPE_CHECKING:
    from gatehub.training.evaluation.label_figures import MultiLabelFigures
    from gatehub.training.evaluation.selection import Selection
    from gatehub.training.objectives import MultiLabelEvaluation

_LABEL_WIDTH = 30  # as in the table that `gatehub train` shows first


def show_label_figures(
    output: Output,
    selected: Selection,
    measured: MultiLabelEvaluation,
    figures: MultiLabelFigures,
) -> None:
    """Show how good an adapter is, as a whole and label by label."""
    value = {
        "problem": "multi-label",
        "accuracy": measured.accuracy,
        "accuracy_interval": list(figures.accuracy_interval),
        "images": measured.images,
        "split": selected.split,
        "trained": selected.trained,
        "mean_average_precision": figures.mean_average_precision,
        "micro_precision": figures.micro_precision,
        "micro_recall": figures.micro_recall,
        "micro_f1": figures.micro_f1,
        "macro_precision": figures.macro_precision,
        "macro_recall": figures.macro_recall,
        "macro_f1": figures.macro_f1,
        "loss": measured.loss,
        "labels": [asdict(found) for found in figures.labels],
    }
    rows = [
        (
            shorten(found.label, _LABEL_WIDTH),
            str(found.images),
            str(found.predicted),
            *map(_show, (found.precision, found.recall, found.f1, found.average_precision)),
            f"{found.threshold:.2f}",
        )
        for found in figures.labels
    ]
    means = (
        figures.macro_precision,
        figures.macro_recall,
        figures.macro_f1,
        figures.mean_average_precision,
    )
    whole = (figures.micro_precision, figures.micro_recall, figures.micro_f1)
    rows.append(("mean (macro)", "", "", *map(_show, means), ""))
    rows.append(("all together (micro)", "", "", *map(_show, whole), "", ""))
    columns = (
        *("label", "images", "predicted", "precision", "recall", "F1"),
        *("AP", "threshold"),
    )
    low, high = figures.accuracy_interval
    sure = f" (95 % interval {100 * low:.1f} to {format_percent(high)})" if low < high else ""
    output.result(
        value,
        human=[
            make_table(columns, rows),
            "",
            f"mAP {format_percent(figures.mean_average_precision)}, micro F1 "
            f"{format_percent(figures.micro_f1)}, macro F1 {format_percent(figures.macro_f1)}.",
            f"All labels right for {format_percent(measured.accuracy)} of {measured.images} "
            f"images{sure}.",
        ],
        quiet=f"{figures.mean_average_precision:.6f}",
    )


def _show(figure: float | None) -> str:
    return "-" if figure is None else format_percent(figure)
