"""A run's log is TensorBoard's, read back by TensorBoard's own reader."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gatehub.backbone import Backbone
from gatehub.errors import AdapterExistsError, TrainingError
from gatehub.training.checkpoint import EpochRecord
from gatehub.training.observers import Observers, Step
from gatehub.training.observers.tensorboard import TensorBoardLog, log_folder
from gatehub.training.recipe import Recipe
from gatehub.training.sources.products import is_product
from gatehub.training.start import Choices
from gatehub.training.train import train_adapter
from tests.training.tasks import colour_data
from tests.training.watching import CutOff

RECIPE = Recipe(epochs=4, batch_size=16, gate_rate=0.01, seed=5)
STEPS = 3  # of an epoch
CHOICES = Choices(epochs=4, gate_rate=0.1, norm_rate=0.1, head_rate=0.1, min_crop=0.7)

Points = dict[str, dict[int, float]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    pytest.importorskip("tensorboard")
    return log_folder(tmp_path / "colours")


def train(backbone: Backbone, log: Path, *others: Any, **options: object) -> list[dict[str, Any]]:
    """Train with a log, and return what the adapter remembers of its epochs."""
    out = log.with_name("colours")
    observer = Observers(TensorBoardLog(log), *others)
    options = {"recipe": RECIPE, "task": "colours", "observer": observer, **options}
    report = train_adapter(backbone, colour_data(), out, **options)  # type: ignore[arg-type]
    return [
        json.loads(line) for line in (report.folder / "training.jsonl").read_text().split("\n")[:-1]
    ]


def read(folder: Path) -> Points:
    """Return the value at each step of each curve; no step may be there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: Points = {}
    for tag in events.Tags()["scalars"]:
        curve = [(event.step, event.value) for event in events.Scalars(tag)]
        found[tag] = dict(curve)
        assert len(found[tag]) == len(curve), tag
    return found


def record(epoch: int) -> EpochRecord:
    loss = None if epoch == 0 else 0.5
    return EpochRecord(
        epoch=epoch,
        train_loss=loss,
        val_loss=epoch,
        val_calibrated_loss=epoch,
        val_accuracy=0.5,
        val_recall=0.5,
    )


def test_what_is_logged_is_what_happened(tiny_backbone: Backbone, log: Path) -> None:
    history = train(tiny_backbone, log)
    found = read(log)
    assert found.keys() == {
        *("loss/step", "loss/training", "loss/validation"),
        *("validation/accuracy", "validation/recall"),
        *("rate/gates", "rate/norms", "rate/head"),
    }
    for tag, name in (
        ("loss/training", "train_loss"),
        ("loss/validation", "val_loss"),
        ("validation/accuracy", "val_accuracy"),
        ("validation/recall", "val_recall"),
    ):
        values = {STEPS * r["epoch"]: r[name] for r in history if r[name] is not None}
        assert found[tag] == pytest.approx(values)
    steps = 4 * STEPS
    rates = {step: 0.01 * RECIPE.rate_at(step, steps) for step in range(steps)}
    assert found["rate/gates"] == pytest.approx(rates)
    of_the_first = [found["loss/step"][step] for step in range(STEPS)]
    assert sum(of_the_first) / STEPS == pytest.approx(found["loss/training"][STEPS])


def test_a_run_that_goes_on_goes_on_in_its_log(
    tiny_backbone: Backbone, log: Path, tmp_path: Path
) -> None:
    whole = log_folder(tmp_path / "whole" / "colours")
    train(tiny_backbone, whole)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_backbone, log, CutOff(after=1, in_next=2))
    assert max(read(log)["loss/step"]) == STEPS + 1
    train(tiny_backbone, log, resume=True)
    assert len(list(log.iterdir())) == 2
    assert read(log) == read(whole)


def test_what_a_kill_kept_from_the_log_comes_later(log: Path) -> None:
    """The checkpoint of an epoch is written before its record."""
    cut = TensorBoardLog(log)
    cut.on_start(CHOICES, [record(0)], steps_per_epoch=1)
    cut.on_step(Step(done=1, total=4, loss=0.5, rates={}))
    with next(log.iterdir()).open("ab") as file:
        file.write(b"half an event")
    TensorBoardLog(log).on_start(CHOICES, [record(0), record(1)], steps_per_epoch=1)
    assert read(log)["loss/validation"] == {0: 0.0, 1: 1.0}
    assert read(log)["loss/step"] == {0: 0.5}


def test_a_log_that_comes_late_has_the_epochs_before(log: Path) -> None:
    TensorBoardLog(log).on_start(CHOICES, [record(0), record(1), record(2)], steps_per_epoch=3)
    assert read(log)["loss/validation"] == {0: 0.0, 3: 1.0, 6: 2.0}


def test_a_new_run_takes_the_place_of_the_old_one(log: Path) -> None:
    log.mkdir()
    others = log / "events.out.tfevents.1.machine"
    others.write_bytes(b"")
    for epoch in (0, 0):
        TensorBoardLog(log).on_start(CHOICES, [record(epoch)], steps_per_epoch=1)
    assert len(list(log.iterdir())) == 2
    assert others.exists()


def test_logs_are_never_data(log: Path) -> None:
    TensorBoardLog(log).on_start(CHOICES, [record(0)], steps_per_epoch=1)
    assert is_product([path.name for path in log.iterdir()])
    assert not is_product([])
    assert not is_product(["events.out.tfevents.1", "cat.png"])


def test_a_file_where_the_log_goes_is_refused(log: Path) -> None:
    log.write_text("mine")
    with pytest.raises(AdapterExistsError, match=r"colours\.tensorboard', but that is a file"):
        TensorBoardLog(log)


def test_a_full_disk_is_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = TensorBoardLog(log)
    observer.on_start(CHOICES, [record(0)], steps_per_epoch=1)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        observer.on_epoch(record(1), 4)
    assert caught.value.filename == str(log)


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match=r"not installed\. pip install 'gatehub\[tensorboard\]"):
        TensorBoardLog(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []
