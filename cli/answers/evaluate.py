"""gatehub eval: how good an adapter is on labelled images.

gatehub eval birds --data photos/
gatehub eval birds --data photos/ --split test --predictions answers.csv --confusion birds.png
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.cli._data import choose_workers, describe_reading, name_skipped
from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    SOURCE_HELP,
    AdapterArgument,
    BackboneOption,
    ColumnsOption,
    DeviceOption,
    HubOption,
    SkipBadOption,
    WeightsOption,
    WorkersOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.answers._files import check_file, open_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatehub.training.evaluation import Evaluation
    from gatehub.training.examples import Examples


class Split(str, Enum):
    """Which images are looked at."""

    all = "all"
    train = "train"
    val = "val"
    test = "test"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("eval", epilog="Example: gatehub eval digits --data sklearn:digits")(evaluate)


@reports_errors
def evaluate(
    folder: AdapterArgument,
    data: Annotated[str, typer.Option("--data", metavar="SRC", help=SOURCE_HELP)],
    columns: ColumnsOption = None,
    split: Annotated[
        Split | None,
        typer.Option(
            "--split",
            help="Which images of SRC. \\[default: all; of what the adapter was trained on, val]",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FILE.csv",
            help="Write a row for each image: path, label, predicted, score.",
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option("--confusion", metavar="FILE.png", help="Draw the confusion matrix."),
    ] = None,
    skip_bad: SkipBadOption = False,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Measure an adapter on labelled images: accuracy, figures of each class, confusions.

    All of SRC is measured, by none of the rules for data to train on. Only what the adapter was
    trained on, known by its name and its numbers of images, is divided as it was then.
    """
    from gatehub._disk import write_whole
    from gatehub.adapter import Adapter
    from gatehub.cli.answers._figures import show_figures
    from gatehub.gates.fold import fold
    from gatehub.gates.kernel_memory import arrange_kernels
    from gatehub.training.batches import evaluation_batches
    from gatehub.training.evaluation import evaluate
    from gatehub.training.evaluation.figures import measure_classes
    from gatehub.training.evaluation.picture import draw_confusion
    from gatehub.training.evaluation.selection import select_images

    output = Output(format)
    for file, suffix in ((predictions, ".csv"), (confusion, ".png")):
        if file is not None:
            check_file(file, suffix)
    adapter = Adapter.load(find_adapter(output, folder, hub))
    model = fold(open_backbone(adapter, backbone, weights, device), adapter)
    arrange_kernels(model)
    with output.progress("checking images") as advance:
        selected = select_images(
            adapter,
            data,
            split=None if split is None else split.value,
            columns=columns,
            skip_bad=skip_bad,
            progress=advance,
        )
    describe_reading(output, selected.notes, selected.left_out)
    name_skipped(output, selected.skipped)
    examples = selected.examples
    output.note(
        f"Evaluating '{adapter.task}' on {len(examples)} images ({selected.split}) of {data}."
    )
    if selected.remark is not None:
        output.note(f"Note: {selected.remark}")
    batches = evaluation_batches(
        examples, adapter.preprocessing.transform(), workers=choose_workers(workers, examples)
    )
    with output.progress("evaluating") as advance:
        measured = evaluate(model, batches, progress=lambda done: advance(done, len(examples)))
    figures = measure_classes(measured, adapter.labels)
    if predictions is not None:
        _write_predictions(predictions, examples, adapter.labels, measured)
    if confusion is not None:
        title = f"{adapter.task}: {measured.images} images ({selected.split}) of {Path(data).name}"
        write_whole(confusion, draw_confusion(figures.confusion, adapter.labels, title=title))
    show_figures(output, selected, measured, figures)


def _write_predictions(
    file: Path, examples: Examples, labels: Sequence[str], measured: Evaluation
) -> None:
    """Write what was said of each image, the score as the probability of what was predicted."""
    from gatehub._disk import replacing

    rows = zip(examples.names, measured.targets, measured.predicted, measured.scores, strict=True)
    with replacing(file) as stream:
        write = open_csv(stream, ("path", "label", "predicted", "score"))
        for name, target, predicted, score in rows:
            write((name, labels[target], labels[predicted], f"{score:.6g}"))
