"""gatehub eval and predict: an adapter's accuracy and its answers.

gatehub eval birds --data photos/
gatehub predict birds robin.jpg
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    test = "test"
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
            "--split",
            help="val: the images that `train` held out, by the adapter's seed; test: those of "
            "the test folder, which `train` leaves alone.",
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
    images = read_data(
        output,
        data,
        **recorded_split(adapter),
        skip_bad=skip_bad,
        preprocessing=adapter.preprocessing,
    )
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
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="How many classes to show for each image.")
    ] = 1,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Classify image files.

    Those that can be read are answered, though others cannot; the exit status is 1 then.
    """
    from gatehub.adapter import Adapter
    from gatehub.errors import InputError, UnreadableImageError
    from gatehub.runtime.engine import Engine

    output = Output(format)
    adapter = Adapter.load(find_adapter(output, folder, hub))
    engine = Engine(open_backbone(adapter, backbone, weights, device))
    engine.load(adapter.task, adapter)
    transform = adapter.preprocessing.transform()
    answers: list[_Answer] = []
    errors: list[InputError] = []
    # One at a time: a folder of photographs does not fit in memory.
    for path in images:
        try:
            image = transform(path)
        except InputError as error:
            errors.append(error)
            answers.append(_Answer(str(path), error=error.message))
            continue
        logits = engine.predict(adapter.task, image[None])[0]
        scores, indices = logits.softmax(0).topk(min(top_k, len(adapter.labels)))
        labels = [adapter.labels[index] for index in indices.tolist()]
        answers.append(_Answer(str(path), list(zip(labels, scores.tolist(), strict=True))))
    if len(errors) < len(images):
        _show_answers(output, adapter.task, answers)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UnreadableImageError(
            f"{len(errors)} of the {len(images)} images cannot be used. The first: "
            f"{errors[0].message}",
            hint=errors[0].hint,
        )


@dataclass(frozen=True)
class _Answer:
    """What is said of one image: its best labels with their scores, or why it has none."""

    image: str
    found: Sequence[tuple[str, float]] = ()
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        predictions = [{"label": label, "score": score} for label, score in self.found]
        return {"image": self.image, "predictions": predictions}


def _show_answers(output: Output, task: str, answers: Sequence[_Answer]) -> None:
    output.result(
        {"task": task, "images": [answer.to_json() for answer in answers]},
        human=make_table(
            ("image", "label", "score"),
            [
                (answer.image if rank == 0 else "", label, score)
                for answer in answers
                for rank, (label, score) in enumerate(
                    [(label, f"{score:.4f}") for label, score in answer.found] or [("-", "-")]
                )
            ],
            left=2,
        ),
        # A line for each image, empty where there is no answer.
        quiet="\n".join(answer.found[0][0] if answer.found else "" for answer in answers),
    )
