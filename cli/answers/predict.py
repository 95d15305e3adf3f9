"""gatehub predict: what adapters say of images.

gatehub predict birds robin.jpg
gatehub predict birds photos/ --out answers.csv
gatehub predict birds weather --data photos/ --top-k 3
find photos -name '*.jpg' | gatehub predict birds -
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from gatehub._disk import replacing
from gatehub.cli._data import describe_reading
from gatehub.cli._errors import reports_errors
from gatehub.cli._options import (
    ADAPTER_HELP,
    BackboneOption,
    DeviceOption,
    HubOption,
    WeightsOption,
    find_adapters,
    open_backbone,
)
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.errors import DataError, GatehubError, UnreadableImageError

if TYPE_CHECKING:
    from gatehub.cli.answers._prediction import Answer, Answering, Task

_BATCH_SIZE = 16


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog="Examples: gatehub predict digits seven.png four.png; "
        "gatehub predict birds weather --data photos/ --out answers.csv"
    )(predict)


@reports_errors
def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|IMAGE",
            help=f"{ADAPTER_HELP} More adapters of the same backbone may follow, as folders. Then "
            "files, folders, globs, or - for paths on standard input, one a line.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="IMAGE",
            help="Images, as after FOLDER; may be repeated. All arguments are adapters then.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            min=1,
            help="How many classes to show for each image. \\[default: 1; of a multi-label "
            "adapter, every label that reaches its threshold]",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images that are in memory and run together.")
    ] = _BATCH_SIZE,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be used.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the answers to a file: .csv (path, task, rank, label, score, error) or "
            ".jsonl.",
        ),
    ] = None,
    hub: HubOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Classify images, with one adapter or with several over one pass of their backbone.

    Folders of networks that train --method finetune or scratch left do, too.

    Those that can be read are answered, though others cannot; the exit status is 1 then.
    """
    from gatehub.cli.answers._files import check_file
    from gatehub.cli.answers._networks import Networks, open_networks
    from gatehub.cli.answers._pictures import count_images, find_images
    from gatehub.cli.answers._prediction import answer_images
    from gatehub.cli.answers._writers import SUFFIXES, open_writer
    from gatehub.runtime.engine import Engine
    from gatehub.training.methods.trained_network import is_network

    output = Output(format)
    adapters, images = _divide(arguments, data)
    if out is not None:
        check_file(out, *SUFFIXES)
    engine: Answering
    tasks: Mapping[str, Task]
    if any(map(is_network, adapters)):
        if not all(map(is_network, adapters)):
            raise typer.BadParameter("networks and adapters answer in calls of their own.")
        networks = open_networks(adapters, backbone=backbone, weights=weights, device=device)
        tasks, engine = networks, Networks(networks)
    else:
        places, last = find_adapters(output, adapters, hub)
        served = Engine(open_backbone(last, backbone, weights, device))
        tasks = {task: served.load(task, place) for task, place in places.items()}
        engine = served
    total = count_images(images) if output.is_watched else None
    tally = _Tally(output)
    found = find_images(images, report=lambda left_out: describe_reading(output, (), left_out))
    with (
        _opened(out) as file,
        open_writer(output, tasks, file, out) as write,
        output.progress("classifying", beside_results=out is None) as advance,
    ):
        for answers in answer_images(
            engine, list(tasks), found, top_k=top_k, batch_size=batch_size
        ):
            write(tally.count(answers, strict=strict))
            advance(tally.images, total)
            if strict and tally.failures:
                break
    if out is not None:
        output.result(
            {"path": str(out), "images": tally.images, "failures": tally.failures},
            human=f"{out}: {tally.images - tally.failures} of {tally.images} images answered"
            + (", and stopped there." if strict and tally.failures else "."),
            quiet=str(out),
        )
    tally.end()


def _divide(arguments: Sequence[str], data: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the adapters and the images that were named."""
    from gatehub.adapter.folder import is_adapter
    from gatehub.training.methods.trained_network import is_network

    if data is not None:
        return list(arguments), list(data)
    first, *others = arguments
    adapters = [first, *takewhile(lambda name: is_adapter(Path(name)) or is_network(name), others)]
    images = list(arguments[len(adapters) :])
    if not images:
        raise typer.BadParameter("name images behind the adapter, or with --data.")
    return adapters, images


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO | None]:
    """Open the file for answers; what it has when the run is cut short is kept, too."""
    if out is None:
        yield None
        return
    ended: BaseException | None = None
    with replacing(out) as file:
        try:
            yield file
        except (KeyboardInterrupt, GatehubError) as error:
            ended = error
    if ended is not None:
        raise ended


class _Tally:
    """How many images there were, and which of them had no answer."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._first: GatehubError | None = None
        self.images = 0
        self.failures = 0

    def count(self, answers: Sequence[Answer], *, strict: bool) -> Sequence[Answer]:
        """Count some answers, and return them; if strict, up to the first that is none."""
        for place, answer in enumerate(answers, start=1):
            self.images += 1
            if answer.error is None:
                continue
            self.failures += 1
            if self._first is None:
                self._first = answer.error  # it is told at the end
                if strict:
                    return answers[:place]
            else:
                self._output.note(f"No answer: {answer.error.message}")
        return answers

    def end(self) -> None:
        """Raise what is to be said of images without an answer, if there are any."""
        if not self.images:
            raise DataError("Standard input names no image; expected one path on each line.")
        if self._first is not None and self.failures == 1:
            raise self._first
        if self._first is not None:
            raise UnreadableImageError(
                f"{self.failures} of the {self.images} images cannot be used. The first: "
                f"{self._first.message}",
                hint=self._first.hint,
            )
