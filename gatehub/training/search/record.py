"""What a search has tried, on disk between its runs: no pickle, whole or not at all.

A search keeps its state in the folder of a run's, "OUT.training":

    trials.json        its settings, and the runs that are done
    trial-N            the adapter of the Nth of them
    trial-N.training   the state of the one that is under way, as of any run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gatehub._disk import write_whole
from gatehub.adapter.card.tried import TriedRow
from gatehub.adapter.folder import ADAPTER_FILES
from gatehub.errors import ResumeError
from gatehub.gates.policy import NONE
from gatehub.training.checkpoint import TRIALS_FILE, has_checkpoint, remove_checkpoint
from gatehub.training.sources.products import HOLDER_FILE, LOCK_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The settings of one run of a search; see `attach_gates`.

    Args:
        gates: kind of the gates.
        norm: which normalisation values.
        start: first gated stage, or None.
        rate: of gates and normalisation values, as a multiple of those that are found.
    """

    gates: str
    norm: str
    start: str | None = None
    rate: float = 1.0

    @property
    def is_probe(self) -> bool:
        """Whether nothing but the head is learned."""
        return self.gates == NONE and self.norm == "frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of one run.

    Args:
        trial: its settings.
        accuracy: of what was saved, on all validation images; a fraction.
        start_accuracy: of the linear probe.
        mean_average_precision: of what was saved; None where an image has one label.
        start_mean_average_precision: of the linear probe.
        calibrated_loss: of what was saved, in nats.
        trained_parameters: how many numbers were learned.
        adapter_bytes: size of its file of tensors.
        epochs: passes over the training images.
        kept_epoch: which of them is kept; 0 is the linear probe.
        seconds: it took.
        diverged: its loss became infinite or NaN, so there is nothing to keep.
    """

    trial: Trial
    accuracy: float = 0.0
    start_accuracy: float = 0.0
    mean_average_precision: float | None = None
    start_mean_average_precision: float | None = None
    calibrated_loss: float = 0.0
    trained_parameters: int = 0
    adapter_bytes: int = 0
    epochs: int = 0
    kept_epoch: int = 0
    seconds: float = 0.0
    diverged: bool = False

    @property
    def score(self) -> float:
        """By what it is judged: mAP where there is one, and else accuracy."""
        found = self.mean_average_precision
        return self.accuracy if found is None else found

    @property
    def start_score(self) -> float:
        """The same of the linear probe."""
        found = self.start_mean_average_precision
        return self.start_accuracy if found is None else found

    def to_row(self) -> TriedRow:
        """Return what an adapter remembers: nothing that differs from machine to machine."""
        return TriedRow(
            **asdict(self.trial),
            score=self.score,
            calibrated_loss=self.calibrated_loss,
            trained_parameters=self.trained_parameters,
            adapter_bytes=self.adapter_bytes,
        )


class Search(Protocol):
    """What is tried next, and what is kept."""

    @property
    def name(self) -> str:
        """Such as "tune small"."""

    def settings(self) -> Mapping[str, object]:
        """Return what must be the same for a search to be continued."""

    def next_trial(self, tried: Sequence[Tried]) -> Trial | None:
        """Return the next run, by what came of the others; None where all is known."""

    def choose(self, tried: Sequence[Tried]) -> Tried:
        """Return the one that is kept."""


def trial_folder(work: Path, number: int) -> Path:
    """Return where the adapter of a run is saved; numbers count from 1."""
    return work / f"trial-{number}"


def write_trials(work: Path, settings: Mapping[str, object], tried: Sequence[Tried]) -> None:
    """Replace the record of a search; a kill leaves the old one or the new one."""
    value = {"settings": dict(settings), "tried": [asdict(one) for one in tried]}
    write_whole(work / TRIALS_FILE, json.dumps(value, indent=1).encode())


def read_trials(work: Path, settings: Mapping[str, object]) -> list[Tried]:
    """Read the record of a search; nothing tried where there is none.

    Raises:
        ResumeError: it is of a search with other settings, or cannot be read.
    """
    file = work / TRIALS_FILE
    if not file.is_file() and has_checkpoint(work):
        raise ResumeError(
            f"'{work}' holds an interrupted run, and a search for settings is asked for.",
            hint=f"Continue it with the settings that it had, or remove '{work}'.",
        )
    if not file.is_file():
        return []
    try:
        value = json.loads(file.read_bytes())
        before: dict[str, Any] = dict(value["settings"])
        tried = [Tried(**{**one, "trial": Trial(**one["trial"])}) for one in value["tried"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ResumeError(
            f"The record '{file}' cannot be read: {error}.",
            hint=f"Remove '{work}' and start again.",
        ) from error
    for name, now in json.loads(json.dumps(dict(settings))).items():
        if before.get(name) != now:
            raise ResumeError(
                f"The search in '{work}' has another {name} than is asked for now.",
                hint=f"Continue it with its own settings, or remove '{work}' and start again.",
            )
    return tried


def remove_trials(work: Path) -> None:
    """Remove a search's state, once its adapter is written; nothing else that lies there."""
    (work / TRIALS_FILE).unlink(missing_ok=True)
    for folder in work.glob("trial-*"):
        remove_trial(folder)


def remove_trial(folder: Path) -> None:
    """Remove one run's adapter or state; nothing else that lies in its folder."""
    remove_checkpoint(folder)
    for name in (*ADAPTER_FILES, LOCK_FILE, HOLDER_FILE):
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):  # it holds something
        folder.rmdir()
