"""What a training run tells on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gatehub.training.checkpoint import EpochRecord
from gatehub.training.start import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is known after a step.

    Args:
        done: how many steps of all epochs are done, this one included.
        total: how many there will be.
        loss: of the step's images before their step, in nats, with label smoothing.
        rates: the learning rate of each group that learns: of "gates", "norms" and "head".
    """

    done: int
    total: int
    loss: float
    rates: Mapping[str, float]


class Observer(Protocol):
    """Who wants to know how a run goes."""

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        """Everything that was left to the run is chosen, and the first step comes next.

        Args:
            choices: what the recipe had left open.
            history: a record for the start, and where a run goes on, one for each epoch that is
                done.
            steps_per_epoch: how many there are.
        """

    def on_step(self, step: Step) -> None:
        """A step is done."""

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch is done and its checkpoint written."""


class Observers:
    """Several observers as one.

    Args:
        observers: who is told, in this order.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.on_start(choices, history, steps_per_epoch=steps_per_epoch)

    def on_step(self, step: Step) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.on_step(step)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.on_epoch(record, epochs)
