"""A run's place: one run at a time, freed however a run ends, and nothing of others' touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import AdapterExistsError, ConfigError, GatehubError, TrainingError
from gatehub.training.checkpoint import EpochRecord, work_folder
from gatehub.training.destination import claim_destination
from gatehub.training.observers import Step
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices
from gatehub.training.train import train_adapter
from tests.source_tree import ROOT
from tests.training.tasks import colour_data

RECIPE = Recipe(epochs=2, batch_size=16)

HOLD = """
import sys
from gatehub.training.destination import claim_destination

with claim_destination(sys.argv[1], task="pets"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Then:
    """An observer that does something after each epoch."""

    def __init__(self, act: object) -> None:
        self._act = act

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        assert history[0].epoch == 0

    def on_step(self, step: Step) -> None: ...

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        self._act()  # type: ignore[operator]


def test_a_place_is_one_runs_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "pets"
    with claim_destination(out, task="pets") as place:
        assert place.work.is_dir()
        with (
            pytest.raises(TrainingError, match=rf"Another run .*\(process {os.getpid()} on "),
            claim_destination(out, task="pets", resume=True, force=True),
        ):
            pass
        refused: list[str] = []

        def second() -> None:
            try:
                with claim_destination(out, task="pets"):
                    pass
            except TrainingError as error:
                refused.append(error.message)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert len(refused) == 1
        with claim_destination(place, task="pets") as same:
            assert same is place
        with claim_destination(tmp_path / "deep" / "cars", task="cars"):
            pass
    assert list(tmp_path.iterdir()) == []
    with claim_destination(out, task="pets"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_frees_its_place(tmp_path: Path) -> None:
    out = tmp_path / "pets"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(TrainingError, match=rf"Another run .*\(process {process.pid} on "),
            claim_destination(out, task="pets"),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    assert work_folder(out).is_dir()
    with claim_destination(out, task="pets"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_while_the_first_learns(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    out, refused = tmp_path / "colours", []

    def again() -> None:
        with pytest.raises(TrainingError) as caught:
            train_adapter(tiny_backbone, colour_data(), out, task="colours", resume=True)
        refused.append(caught.value.message)

    first = train_adapter(
        tiny_backbone, colour_data(), out, task="colours", recipe=RECIPE, observer=Then(again)
    )
    assert len(refused) == 2
    assert all(message.startswith("Another run trains into ") for message in refused)
    assert Adapter.load(out).digest == first.adapter.digest
    assert list(tmp_path.iterdir()) == [out]


def test_another_tasks_adapter_needs_force(
    tiny_backbone: Backbone, adapter_folder: Path, tmp_path: Path
) -> None:
    def train(**options: object) -> str:
        report = train_adapter(
            tiny_backbone,
            colour_data(),
            adapter_folder,
            task="colours",
            recipe=RECIPE,
            **options,  # type: ignore[arg-type]
        )
        return report.adapter.task

    with pytest.raises(AdapterExistsError, match=r"task 'birds'; expected one of 'colours'.*--fo"):
        train()
    assert Adapter.load(adapter_folder).task == "birds"
    assert train(force=True) == "colours"
    assert train() == "colours"
    assert [path.name for path in tmp_path.iterdir()] == ["birds"]


def test_an_adapter_that_came_while_a_run_learned_is_kept(
    tiny_backbone: Backbone, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = {"task": "colours", "recipe": RECIPE}
    with pytest.raises(AdapterExistsError, match="task 'birds'"):
        train_adapter(
            tiny_backbone,
            colour_data(),
            out,
            observer=Then(lambda: tiny_adapter.save(out)),
            **options,  # type: ignore[arg-type]
        )
    assert Adapter.load(out).task == "birds"
    # What was learned is there still.
    seen: list[int] = []
    train_adapter(
        tiny_backbone,
        colour_data(),
        out,
        resume=True,
        force=True,
        observer=Then(lambda: seen.append(1)),
        **options,  # type: ignore[arg-type]
    )
    assert seen == []
    assert Adapter.load(out).task == "colours"


def test_what_a_run_did_not_write_is_not_removed(tiny_backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "pets"
    holiday = work_folder(out) / "holiday.jpg"
    holiday.parent.mkdir()
    holiday.write_text("the sea")
    with pytest.raises(AdapterExistsError, match=r"'holiday\.jpg' is there.*Move it away"):
        train_adapter(tiny_backbone, colour_data(), out, task="pets", resume=True)
    hidden = holiday.rename(holiday.with_name(".holiday.jpg"))
    train_adapter(tiny_backbone, colour_data(), out, task="pets", recipe=RECIPE)
    assert hidden.read_text() == "the sea"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": 3}, "task is 3; expected a string"),
        ({"task": "../x"}, "not a valid task name"),
        ({"gates": "lowrank:0"}, "not a gate kind"),
        ({"gates": 3}, "gates is 3; expected a string"),
        ({"norm": "batch"}, "Normalisation mode is 'batch'"),
        ({"start": 2}, "start is 2; expected a string"),
        ({"start": "layer9"}, "has no stage 'layer9'"),
        ({"dtype": "int2"}, "Gates are stored as"),
        ({"workers": -1}, "workers is -1; expected 0 or more"),
        ({"decoded_bytes": 1e9}, "decoded_bytes is 1000000000.0; expected 0 or more"),
        ({"workers": 1.5}, r"workers is 1\.5"),
    ],
)
def test_a_bad_argument_is_refused_before_training(
    tiny_backbone: Backbone, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    arguments = {"task": "colours", "recipe": RECIPE, **options}
    with pytest.raises(GatehubError, match=message):
        train_adapter(
            tiny_backbone,
            colour_data(),
            tmp_path / "deep" / "out",
            observer=Then(lambda: pytest.fail("it trained")),
            **arguments,  # type: ignore[arg-type]
        )
    assert list(tmp_path.iterdir()) == []


def test_what_no_adapter_could_store_is_refused_before_training(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    for data in (
        replace(colour_data(), labels=("blue", "green\n", "red")),
        replace(colour_data(), source="photos\x07"),
        replace(colour_data(), source="photos\udcff"),
    ):
        with pytest.raises(ConfigError, match=r"expected (one|a) line of text"):
            train_adapter(
                tiny_backbone,
                data,
                tmp_path / "out",
                task="colours",
                observer=Then(lambda: pytest.fail("it trained")),
            )
    assert list(tmp_path.iterdir()) == []
