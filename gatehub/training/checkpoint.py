"""A training run's state between epochs, on disk: no pickle, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gatehub._disk import write_whole
from gatehub.errors import ResumeError

CHECKPOINT_FILE = "checkpoint.safetensors"
TRIALS_FILE = "trials.json"  # of a search; see `gatehub.training.search`
_KEY = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What is written down after an epoch, and before the first.

    Args:
        epoch: its number, from 1; 0 is the start.
        train_loss: mean over the steps, in nats, with label smoothing; None for the start.
        val_loss: mean over the validation images that were looked at, in nats.
        val_calibrated_loss: the same at the temperature at which it is least, and every class
            alike where the recipe says so; see `Evaluation.calibrated_loss`.
        val_accuracy: a fraction of them.
        val_recall: mean over the classes of the fraction that is found.
        val_mean_average_precision: mean over the labels, where an image may have any number of
            them; None where it has one.
    """

    epoch: int
    train_loss: float | None
    val_loss: float
    val_calibrated_loss: float
    val_accuracy: float
    val_recall: float
    val_mean_average_precision: float | None = None

    def to_json(self) -> dict[str, int | float | None]:
        """Return the fields that say something; the start has no training loss."""
        own = asdict(self)
        if self.val_mean_average_precision is None:
            del own["val_mean_average_precision"]
        return own


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a run stands after an epoch.

    Args:
        settings: what must be the same for a run to be continued.
        chosen: settings that were left to the run, and what it chose.
        history: one record for the start and one for each epoch that is done.
        tensors: the model's and the optimiser's, the start's and the best epoch's.
    """

    settings: Mapping[str, object]
    chosen: Mapping[str, Any]
    history: Sequence[EpochRecord]
    tensors: Mapping[str, Tensor]


def work_folder(out: Path) -> Path:
    """Return where a run keeps its state until its adapter is written: beside it."""
    if out.name in ("", ".."):  # such as "." or "a/.."
        out = Path(os.path.realpath(out))
    return out.with_name(f"{out.name}.training")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run, or a search, can be continued from a folder."""
    return any((folder / name).is_file() for name in (CHECKPOINT_FILE, TRIALS_FILE))


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a folder; a kill leaves the old one or the new one."""
    state = {
        "settings": dict(checkpoint.settings),
        "chosen": dict(checkpoint.chosen),
        "history": [record.to_json() for record in checkpoint.history],
    }
    data = safetensors.torch.save(dict(checkpoint.tensors), metadata={_KEY: json.dumps(state)})
    write_whole(folder / CHECKPOINT_FILE, data)


def read_checkpoint(folder: Path, settings: Mapping[str, object]) -> Checkpoint | None:
    """Read the checkpoint in a folder, or None if there is none.

    Raises:
        ResumeError: it is of a run with other settings, or cannot be read.
    """
    file = folder / CHECKPOINT_FILE
    if (folder / TRIALS_FILE).is_file():
        raise ResumeError(
            f"'{folder}' holds an interrupted search for settings, and a single run is asked for.",
            hint=f"Continue it with --tune or --start auto as before, or remove '{folder}'.",
        )
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            state = json.loads((opened.metadata() or {})[_KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        history = [EpochRecord(**record) for record in state["history"]]
        chosen = dict(state["chosen"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ResumeError(
            f"The checkpoint '{file}' cannot be read: {error}.",
            hint=f"Remove '{folder}' and start again.",
        ) from error
    for name, value in json.loads(json.dumps(dict(settings))).items():
        before = state["settings"].get(name)
        if before != value and name == "images":
            raise ResumeError(
                f"The run in '{folder}' was trained on other images: names, classes or "
                "contents are not what they were.",
                hint=f"Put them back as they were, or remove '{folder}' and start again.",
            )
        if before != value and name == "init_digest":
            raise ResumeError(
                f"The run in '{folder}' {_tell_origins(before, value)}.",
                hint=f"Continue it with the init_from that it had, or remove '{folder}'.",
            )
        if before != value:
            raise ResumeError(
                f"The run in '{folder}' has {name} = {_show(before)}, but {_show(value)} is asked "
                "for now.",
                hint=f"Continue it with its own settings, or remove '{folder}'.",
            )
    return Checkpoint(settings=settings, chosen=chosen, history=history, tensors=tensors)


def _tell_origins(before: object, now: object) -> str:
    if before is None:
        return "began anew, but an adapter to go on from is named now"
    if now is None:
        return "goes on from an adapter, but none is named now"
    return "goes on from another adapter than the one that is named now"


def _show(value: object) -> str:
    return "none given" if value is None else repr(value)


def remove_checkpoint(folder: Path) -> None:
    """Remove a run's state, once its adapter is written; nothing else that lies there."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
