"""Observers that end a run."""

from __future__ import annotations

from collections.abc import Sequence

from gatehub.training.checkpoint import EpochRecord
from gatehub.training.observers import Step
from gatehub.training.start import Choices


class CutOff:
    """An observer that interrupts a run, as Ctrl-C would.

    Args:
        after: after this epoch.
        in_next: or so many steps later.
    """

    def __init__(self, after: int, *, in_next: int = 0) -> None:
        self._after = after
        self._left = in_next
        self._epoch = 0

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        assert [record.epoch for record in history] == [0]
        assert steps_per_epoch >= 1

    def on_step(self, step: Step) -> None:
        assert 1 <= step.done <= step.total
        if self._epoch == self._after:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        assert record.epoch <= epochs
        self._epoch = record.epoch
        if record.epoch == self._after and self._left == 0:
            raise KeyboardInterrupt
