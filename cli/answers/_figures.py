"""What `gatehub eval` shows: the figures of each class, who is taken for whom, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.cells import cell_len

from gatehub.cli._output import Output, format_percent, make_table

if TYPE_CHECKING:
    from rich.table import Table

    from gatehub.training.evaluation import Evaluation
    from gatehub.training.evaluation.figures import Figures
    from gatehub.training.evaluation.selection import Selection

_GAP = 2
_ROOM = 100
_MOST_CONFUSIONS = 10


def show_figures(
    output: Output, selected: Selection, measured: Evaluation, figures: Figures
) -> None:
    """Show how good an adapter is, as a whole and class by class."""
    labels = [found.label for found in figures.classes]
    value = {
        "accuracy": measured.accuracy,
        "accuracy_interval": list(figures.accuracy_interval),
        "images": measured.images,
        "split": selected.split,
        "trained": selected.trained,
        "top5_accuracy": figures.top5_accuracy,
        "macro_precision": figures.macro_precision,
        "macro_recall": figures.macro_recall,
        "macro_f1": figures.macro_f1,
        "calibration_error": figures.calibration_error,
        "loss": measured.loss,
        "classes": [asdict(found) for found in figures.classes],
        "confusion": {"labels": labels, "matrix": figures.confusion.tolist()},
    }
    human = [_tabulate_classes(figures), "", *_show_confusions(figures, labels, output.width)]
    output.result(
        value,
        human=[*human, "", *_summarise(measured, figures)],
        quiet=f"{measured.accuracy:.6f}",
    )


def _summarise(measured: Evaluation, figures: Figures) -> list[str]:
    low, high = figures.accuracy_interval
    sure = f" (95 % interval {100 * low:.1f} to {format_percent(high)})" if low < high else ""
    rest = [f"calibration error {format_percent(figures.calibration_error)}"]
    if figures.top5_accuracy is not None:
        rest.insert(0, f"right among the first five {format_percent(figures.top5_accuracy)}")
    line = ", ".join(rest)
    return [
        f"{format_percent(measured.accuracy)} of {measured.images} images right{sure}.",
        f"{line[0].upper()}{line[1:]}.",
    ]


def _tabulate_classes(figures: Figures) -> Table:
    """Return a row for each class that has images or was answered."""
    rows = [
        (
            found.label,
            str(found.images),
            *(
                "-" if figure is None else format_percent(figure)
                for figure in (found.precision, found.recall, found.f1)
            ),
        )
        for found in figures.classes
        if found.images or found.predicted
    ]
    means = (figures.macro_precision, figures.macro_recall, figures.macro_f1)
    rows.append(("mean", "", *map(format_percent, means)))
    return make_table(("class", "images", "precision", "recall", "F1"), rows)


def _show_confusions(figures: Figures, labels: Sequence[str], width: int) -> list[str | Table]:
    """Return the confusion matrix where it fits, and else the most frequent confusions."""
    matrix = figures.confusion
    seen = [i for i, found in enumerate(figures.classes) if found.images or found.predicted]
    names = [labels[i] for i in seen]
    columns = [
        max(cell_len(name), *(len(str(matrix[row, i])) for row in seen))
        for i, name in zip(seen, names, strict=True)
    ]
    first = max(map(cell_len, ("is \\ taken for", *names)))
    if first + sum(_GAP + column for column in columns) <= min(width, _ROOM):
        rows = [(labels[row], *(str(matrix[row, i]) for i in seen)) for row in seen]
        return [make_table(("is \\ taken for", *names), rows)]
    confused = sorted(
        ((int(matrix[row, i]), labels[row], labels[i]) for row in seen for i in seen if row != i),
        key=lambda found: -found[0],
    )
    rows = [(one, other, str(count)) for count, one, other in confused[:_MOST_CONFUSIONS] if count]
    if not rows:
        return ["No image was taken for another class."]
    return [make_table(("is", "taken for", "images"), rows, left=2)]
