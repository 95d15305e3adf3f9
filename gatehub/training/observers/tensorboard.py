"""A run as TensorBoard shows it.

A point stands at the number of steps that the model had behind it when the point was measured. So
the loss of the first step stands at 0, where the start is, and what is measured after an epoch of
N steps stands at N, with the loss of the step that comes next.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatehub._disk import naming
from gatehub.errors import AdapterExistsError, TrainingError
from gatehub.training.checkpoint import EpochRecord
from gatehub.training.observers.observer import Step
from gatehub.training.sources.products import LOG_PREFIX
from gatehub.training.start import Choices

_ENDING = ".gatehub"  # what tells our files from others'
_FORMAT = "brain.Event:2"


def log_folder(out: Path) -> Path:
    """Return where the run of an adapter is logged: beside it."""
    return out.with_name(f"{out.name}.tensorboard")


class TensorBoardLog:
    """An observer that writes a log.

    A run that goes on goes on in its log: what was written after its last whole epoch is void. A
    new run takes the place of an old one. Files that gatehub did not write stay.

    Args:
        folder: the log's; it is made when the run starts.

    Raises:
        TrainingError: the package tensorboard is not installed.
        AdapterExistsError: something else than a folder is there.
    """

    def __init__(self, folder: Path) -> None:
        check_tensorboard()
        if os.path.lexists(folder) and not folder.is_dir():
            raise AdapterExistsError(
                f"The run is to be logged in the folder '{folder}', but that is a file.",
                hint="Move it away, or choose another folder for the adapter.",
            )
        self._folder = folder
        self._done = 0
        self._file = folder  # until the start

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        """Begin the log, or go on in it."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        before = [path for path in self._folder.glob(f"{LOG_PREFIX}*{_ENDING}") if path.is_file()]
        goes_on = len(history) > 1 and before
        if not goes_on:
            for path in before:
                path.unlink()
        second, fraction = divmod(time.time_ns(), 10**9)
        place = f"{socket.gethostname()}.{os.getpid()}"
        self._file = self._folder / f"{LOG_PREFIX}{second:010d}.{place}.{fraction:09d}{_ENDING}"
        self._write(Event(wall_time=time.time(), file_version=_FORMAT))
        self._done = history[-1].epoch * steps_per_epoch
        if goes_on:
            session = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=self._done, session_log=session))
        # Of those that are in the log all but the last stay: it may not have come to be written.
        for record in history[-1:] if goes_on else history:
            self._log_epoch(record, record.epoch * steps_per_epoch)

    def on_step(self, step: Step) -> None:
        """Write its loss and its rates."""
        rates = {f"rate/{name}": rate for name, rate in step.rates.items()}
        self._log(step.done - 1, {"loss/step": step.loss, **rates})
        self._done = step.done

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """Write what was measured."""
        self._log_epoch(record, self._done)

    def _log_epoch(self, record: EpochRecord, step: int) -> None:
        values = {
            "loss/training": record.train_loss,
            "loss/validation": record.val_loss,
            "validation/accuracy": record.val_accuracy,
            "validation/recall": record.val_recall,
            "validation/mAP": record.val_mean_average_precision,
        }
        self._log(step, {name: value for name, value in values.items() if value is not None})

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))

    def _write(self, event: Any) -> None:
        """Append an event. Nothing is held open or back: a kill costs nothing that was told."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        with naming(self._folder), self._file.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())


def check_tensorboard() -> None:
    """Refuse to log where the package is missing that writes the log's format.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            "A log for TensorBoard needs the package tensorboard, which is not installed.",
            hint="pip install 'gatehub[tensorboard]'",
        ) from error
