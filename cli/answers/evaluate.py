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
    AdapterArgument,
    BackboneOption,
    ColumnsOption,
    DataOption,
    DeviceOption,
    HubOption,
    SkipBadOption,
    WeightsOption,
    WorkersOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.answers._files import check_file

if TYPE_CHECKING:
    from torch import nn

    from gatehub.adapter import Adapter
    from gatehub.training.methods.trained_network import LoadedNetwork


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
    data: DataOption,
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
            help="Write a row for each image: path, label, predicted, score; of an adapter with "
            "several labels an image: path, labels, predicted (cat|red; JSON lists, if a label "
            "holds a separator or a blank), and each label's score.",
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

    A network that train --method finetune or scratch left, or another in timm's format whose
    config.json has label_names, is measured in the same way.

    All of SRC is measured, by none of the rules for data to train on. Only what the adapter was
    trained on, known by its name and its numbers of images, is divided as it was then.
    """
    from gatehub._disk import write_whole
    from gatehub.cli.answers._figures import show_figures
    from gatehub.cli.answers._label_figures import show_label_figures
    from gatehub.cli.answers._predictions import write_classes, write_label_sets
    from gatehub.gates.kernel_memory import arrange_kernels
    from gatehub.training.batches import evaluation_batches
    from gatehub.training.evaluation import evaluate
    from gatehub.training.evaluation.figures import measure_classes
    from gatehub.training.evaluation.label_figures import measure_labels
    from gatehub.training.evaluation.picture import draw_confusion
    from gatehub.training.evaluation.selection import select_images
    from gatehub.training.objectives import (
        MULTI_LABEL,
        SINGLE_LABEL,
        Evaluation,
        Measured,
        MultiLabelEvaluation,
        Objective,
    )
    from gatehub.training.sources import name_given

    output = Output(format)
    for file, suffix in ((predictions, ".csv"), (confusion, ".png")):
        if file is not None:
            check_file(file, suffix)
    adapter, model = _open(
        output, folder, hub=hub, backbone=backbone, weights=weights, device=device
    )
    if confusion is not None and adapter.problem.is_multi_label:
        raise typer.BadParameter(
            f"'{adapter.task}' gives an image any number of labels, so none is taken for another; "
            "there is no confusion matrix."
        )
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
        f"Evaluating '{adapter.task}' on {len(examples)} images ({selected.split}) of "
        f"{name_given(data)}."
    )
    if selected.remark is not None:
        output.note(f"Note: {selected.remark}")
    batches = evaluation_batches(
        examples, adapter.preprocessing.transform(), workers=choose_workers(workers, examples)
    )
    thresholds = adapter.problem.thresholds
    with output.progress("evaluating") as advance:
        objective: Objective[Measured] = SINGLE_LABEL if thresholds is None else MULTI_LABEL
        measured = evaluate(
            model,
            batches,
            objective=objective,
            progress=lambda done: advance(done, len(examples)),
        )
    if isinstance(measured, MultiLabelEvaluation):
        measured = measured.with_thresholds(thresholds or ())
        if predictions is not None:
            write_label_sets(predictions, examples.names, adapter.labels, measured)
        show_label_figures(output, selected, measured, measure_labels(measured, adapter.labels))
        return
    assert isinstance(measured, Evaluation)
    figures = measure_classes(measured, adapter.labels)
    if predictions is not None:
        write_classes(predictions, examples.names, adapter.labels, measured)
    if confusion is not None:
        names = ", ".join(Path(source).name for source in data)
        title = f"{adapter.task}: {measured.images} images ({selected.split}) of {names}"
        write_whole(confusion, draw_confusion(figures.confusion, adapter.labels, title=title))
    show_figures(output, selected, measured, figures)


def _open(
    output: Output,
    place: str,
    *,
    hub: str | None,
    backbone: str | None,
    weights: Path | None,
    device: str,
) -> tuple[Adapter | LoadedNetwork, nn.Module]:
    """Return what is measured, and the model that answers for it."""
    from gatehub.adapter import Adapter
    from gatehub.cli.answers._networks import open_network
    from gatehub.gates.fold import fold
    from gatehub.training.methods.trained_network import is_network

    if is_network(place):
        network = open_network(place, backbone=backbone, weights=weights, device=device)
        return network, network.model
    adapter = Adapter.load(find_adapter(output, place, hub))
    return adapter, fold(open_backbone(adapter, backbone, weights, device), adapter)
