"""gatehub eval and predict: an adapter's accuracy and its answers.

gatehub eval birds --data photos/
gatehub predict birds robin.jpg
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gatehub.cli._data import choose_workers, read_data
from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    SOURCE_HELP,
    AdapterArgument,
    BackboneOption,
    DeviceOption,
    HubOption,
    SkipBadOption,
    WeightsOption,
    WorkersOption,
    find_adapter,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output, format_percent, make_table


class Split(str, Enum):
    """Which images are looked at."""

    val = "val"
    train = "train"
    all = "all"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("eval", epilog="Example: gatehub eval digits --data sklearn:digits")(evaluate)
    app.command(epilog="Example: gatehub predict digits seven.png four.png")(predict)


@reports_errors
def evaluate(
    folder: AdapterArgument,
    data: Annotated[str, typer.Option("--data", metavar="SRC", help=SOURCE_HELP)],
    split: Annotated[
        Split,
        typer.Option(
            "--split", help="val: the images that `train` held out, by the adapter's seed."
        ),
    ] = Split.val,
    skip_bad: SkipBadOption = False,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Measure an adapter's accuracy on labelled images."""
    from gatehub.adapter import Adapter
    from gatehub.gates.fold import fold
    from gatehub.training.batches import evaluation_batches
    from gatehub.training.evaluation import choose_examples, evaluate
    from gatehub.training.train import recorded_split

    output = Output(format)
    adapter = Adapter.load(find_adapter(output, folder, hub))
    model = fold(open_backbone(adapter, backbone, weights, device), adapter)
    images = read_data(output, data, **recorded_split(adapter), skip_bad=skip_bad)
    examples = choose_examples(images, adapter.labels, split.value)
    output.note(f"Evaluating '{adapter.task}' on {len(examples)} images ({split.value}) of {data}.")
    batches = evaluation_batches(
        examples, adapter.preprocessing.transform(), workers=choose_workers(workers, images)
    )
    with output.progress("evaluating") as advance:
        measured = evaluate(model, batches, progress=lambda done: advance(done, len(examples)))
    output.result(
        {"accuracy": measured.accuracy, "images": measured.images},
        human=f"{format_percent(measured.accuracy)} of {measured.images} images right.",
        quiet=f"{measured.accuracy:.6f}",
    )


@reports_errors
def predict(
    folder: AdapterArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes for each image.")] = 1,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Classify image files."""
    from gatehub.adapter import Adapter
    from gatehub.backbone.preprocessing import open_image
    from gatehub.runtime.engine import Engine

    output = Output(format)
    adapter = Adapter.load(find_adapter(output, folder, hub))
    pictures = [open_image(path) for path in images]
    engine = Engine(open_backbone(adapter, backbone, weights, device))
    engine.load(adapter.task, adapter)
    transform = adapter.preprocessing.transform()
    answers: list[tuple[str, list[tuple[str, float]]]] = []
    for path, picture in zip(images, pictures, strict=True):
        logits = engine.predict(adapter.task, transform(picture)[None])[0]
        scores, indices = logits.softmax(0).topk(min(top_k, len(adapter.labels)))
        labels = [adapter.labels[index] for index in indices.tolist()]
        answers.append((str(path), list(zip(labels, scores.tolist(), strict=True))))
    output.result(
        {
            "task": adapter.task,
            "images": [
                {
                    "image": image,
                    "predictions": [{"label": label, "score": score} for label, score in found],
                }
                for image, found in answers
            ],
        },
        human=make_table(
            ("image", "label", "score"),
            [
                (image if rank == 0 else "", label, f"{score:.4f}")
                for image, found in answers
                for rank, (label, score) in enumerate(found)
            ],
            left=2,
        ),
        quiet="\n".join(found[0][0] for _, found in answers),
    )
