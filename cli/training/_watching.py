"""What a command says while a run trains, and where it ends early."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehub.cli._output import Advance, Output, format_bytes, format_percent
from gatehub.cli.training._recipe_options import LogTo

if TYPE_CHECKING:
    from rich.table import Table

    from gatehub.adapter import Adapter
    from gatehub.training.checkpoint import EpochRecord
    from gatehub.training.destination import Destination
    from gatehub.training.observers import Observer, Step
    from gatehub.training.report import Report
    from gatehub.training.start import Choices

# What learns at the gates' rate where there are none.
_LEARNED = {"finetune": "weights", "scratch": "weights", "lora": "updates"}


@contextmanager
def watch_training(
    output: Output, task: str, *, start: str = "linear probe", method: str = "gates"
) -> Iterator[_Watch]:
    """Show a run: a bar for its steps, a line for each epoch.

    Args:
        output: where to.
        task: the task that is trained.
        start: what the run starts as.
        method: how it is trained.
    """
    with output.progress(task) as advance:
        yield _Watch(output, task, advance, start, _LEARNED.get(method, "gates"))


def log_training(output: Output, shown: Observer, place: Destination, to: LogTo | None) -> Observer:
    """Return who watches a run: who shows it, and who writes it down where that is asked for."""
    from gatehub.training.observers import Observers
    from gatehub.training.observers.tensorboard import TensorBoardLog, log_folder

    if to is None:
        return shown
    folder = log_folder(place.folder)
    output.note(f"To watch it: tensorboard --logdir {shlex.quote(str(folder))}")
    return Observers(shown, TensorBoardLog(folder))


def show_stem(output: Output, task: str) -> Callable[[str], None]:
    """Return what says how often the layers before late gates are computed."""
    return lambda text: output.note(f"{task}: {text.replace('decoded_bytes', '--decoded-bytes')}")


@contextmanager
def saying_how_to_go_on(output: Output, place: Destination) -> Iterator[None]:
    """Name the option that continues a run, where one ends that can be continued."""
    from gatehub.errors import ResumeError
    from gatehub.training.checkpoint import has_checkpoint

    try:
        yield
    except ResumeError:
        raise
    except BaseException:
        if has_checkpoint(place.work):
            output.note("Every whole epoch is kept. To go on, give the same command with --resume.")
        raise


def show_report(
    output: Output,
    report: Report,
    *,
    out: Path,
    validated: int,
    begun_as: str,
    adapter: Adapter | None = None,
    tried: Sequence[dict[str, Any]] = (),
    table: Table | None = None,
) -> None:
    """Print what a run made.

    Args:
        output: where to.
        report: of the run.
        out: the adapter's folder, as it was given.
        validated: how many validation images there are.
        begun_as: what the run began as.
        adapter: what the run went on from with --then.
        tried: the runs that it was chosen from.
        table: of them.
    """
    if report.score < report.start_score:
        output.note(
            f"That is below the {begun_as}: lower --gate-rate or --head-rate, or do not insist on "
            "--keep last."
        )
    sentence = (
        f"{out}: {_describe_result(report, validated)} ({begun_as}: "
        f"{format_percent(report.start_score)}), epoch "
        f"{report.kept_epoch} of {report.epochs}, "
        f"{report.trained_parameters:,} numbers learned, "
        f"{format_bytes(report.adapter_bytes)}, {report.seconds:.0f} s."
    )
    human: list[str | Table] = [sentence]
    if table is not None:
        chosen = (
            f"The figure was chosen from {len(tried)}, by these images: on new ones expect less."
        )
        human = [table, "", sentence, chosen]
    output.result(
        {
            "task": report.task,
            "accuracy": report.accuracy,
            **report.more_figures,
            "trained_parameters": report.trained_parameters,
            "adapter_bytes": report.adapter_bytes,
            "epochs": report.epochs,
            "seconds": round(report.seconds, 2),
            **({} if adapter is None else {"adapter_accuracy": adapter.config.metrics["accuracy"]}),
            **({"tried": list(tried)} if tried else {}),
        },
        human=human,
        quiet=str(out),
    )


class _Watch:
    def __init__(
        self, output: Output, task: str, advance: Advance, start: str, learned: str
    ) -> None:
        self._output = output
        self._task = task
        self._start = start
        self._learned = learned
        self._advance = advance

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        self._output.note(f"{self._task}: starts as the {self._start}, {_describe(history[0])}.")
        learned = [
            f"{name} {rate:g}"
            for name, rate in (
                (self._learned, choices.gate_rate),
                ("normalisation values", choices.norm_rate),
                ("head", choices.head_rate),
            )
            if rate
        ]
        self._output.note(
            f"{self._task}: epochs {choices.epochs}; rates: {', '.join(learned) or 'none'}."
        )
        if choices.min_crop < 1:
            least = format_percent(choices.min_crop)
            self._output.note(f"{self._task}: random crops from {least} of an image up.")

    def on_step(self, step: Step) -> None:
        self._advance(step.done, step.total)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        self._output.note(
            f"{self._task}: epoch {record.epoch:>{len(str(epochs))}}/{epochs}  "
            f"loss {record.train_loss:.3f}  validation loss {record.val_loss:.3f}  "
            f"{_describe(record)}"
        )


def _describe(record: EpochRecord) -> str:
    """Return the figure by which people know how good an epoch is."""
    if record.val_mean_average_precision is not None:
        return f"mAP {format_percent(record.val_mean_average_precision)}"
    return f"accuracy {format_percent(record.val_accuracy)}"


def _describe_result(report: Report, images: int) -> str:
    """Say how good an adapter is on so many validation images."""
    if report.mean_average_precision is None:
        return f"{format_percent(report.accuracy)} of {images} validation images right"
    return f"mAP {format_percent(report.mean_average_precision)} on {images} validation images"
