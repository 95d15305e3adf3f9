"""A search as a run: what is shared, what is kept, and how it goes on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.adapter.card.tried import read_tried
from gatehub.backbone import Backbone
from gatehub.errors import DivergenceError, ResumeError
from gatehub.training.observers import Observer
from gatehub.training.recipe import Recipe
from gatehub.training.search import SearchReport, Trial, Tried, run_search, runs
from gatehub.training.start import beginning
from gatehub.training.train import train_adapter
from tests.training.tasks import colour_data

RECIPE = Recipe(epochs=1, batch_size=16, min_crop=1.0, keep="last")
TRIALS = (
    Trial(gates="scale", norm="affine"),
    Trial(gates="scale", norm="frozen", start="layer4"),
    Trial(gates="scale", norm="frozen", rate=3.0),
)


@dataclass(frozen=True)
class Listed:
    """Trials one after another, of which the second is kept."""

    trials: Sequence[Trial] = TRIALS
    name: str = "tune small"

    def settings(self) -> Mapping[str, object]:
        return {"trials": [str(trial) for trial in self.trials]}

    def next_trial(self, tried: Sequence[Tried]) -> Trial | None:
        return self.trials[len(tried)] if len(tried) < len(self.trials) else None

    def choose(self, tried: Sequence[Tried]) -> Tried:
        return tried[1]


class Stop:
    """Interrupts a run after its first epoch."""

    def on_start(self, *arguments: object, **named: object) -> None: ...
    def on_step(self, *arguments: object) -> None: ...
    def on_epoch(self, *arguments: object) -> None:
        raise KeyboardInterrupt


def search(
    backbone: Backbone, out: Path, *, stop_at: int | None = None, resume: bool = False
) -> SearchReport:
    def watch(number: int, trial: Trial) -> AbstractContextManager[Observer | None]:
        return nullcontext(Stop() if number == stop_at else None)  # type: ignore[arg-type]

    return run_search(
        backbone,
        colour_data(),
        out,
        task="colours",
        search=Listed(),
        recipe=RECIPE,
        watching=watch,
        resume=resume,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(
    tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchReport, dict[str, bytes]]:
    out = tmp_path_factory.mktemp("whole") / "colours"
    counted, fit = [], beginning.fit_head
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "fit_head", lambda *a, **k: (counted.append(1), fit(*a, **k))[1])
        report = search(tiny_backbone, out)
    assert len(counted) == 2  # the probe and the one that is held back, for all of the runs
    assert not out.with_name("colours.training").exists()
    return report, contents(out)


def test_the_chosen_run_is_kept_with_all_that_was_tried(
    whole: tuple[SearchReport, dict[str, bytes]],
) -> None:
    report, files = whole
    assert [one.trial for one in report.tried] == list(TRIALS)
    assert report.kept == 1
    assert report.adapter.layout.start == "layer4"
    assert report.trained_parameters == report.tried[1].trained_parameters
    training = json.loads(files["config.json"])["training"]
    rows = read_tried(training)
    assert [row.rate for row in rows] == [1.0, 1.0, 3.0]
    assert rows[1].adapter_bytes == report.adapter_bytes
    assert rows[1].score == report.accuracy
    assert b"## Chosen from 3 runs" in files["README.md"]
    assert b"--tune small" in files["README.md"]
    assert b"--start" not in files["README.md"]


def test_the_adapter_is_that_of_its_settings_alone(
    whole: tuple[SearchReport, dict[str, bytes]], tiny_backbone: Backbone, tmp_path: Path
) -> None:
    train_adapter(
        tiny_backbone,
        colour_data(),
        tmp_path / "colours",
        task="colours",
        recipe=RECIPE,
        gates="scale",
        norm="frozen",
        start="layer4",
    )
    assert (tmp_path / "colours" / "gates.safetensors").read_bytes() == whole[1][
        "gates.safetensors"
    ]


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_search_that_is_cut_off_ends_as_a_whole_one(
    stop_at: int,
    whole: tuple[SearchReport, dict[str, bytes]],
    tiny_backbone: Backbone,
    tmp_path: Path,
) -> None:
    out = tmp_path / "colours"
    with pytest.raises(KeyboardInterrupt):
        search(tiny_backbone, out, stop_at=stop_at)
    assert not out.exists()
    with pytest.raises(ResumeError, match="holds an interrupted run"):
        search(tiny_backbone, out)
    search(tiny_backbone, out, resume=True)
    assert contents(out) == whole[1]
    assert not out.with_name("colours.training").exists()


def test_a_search_and_a_run_are_not_gone_on_with_as_each_other(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    out, data = tmp_path / "colours", colour_data()
    with pytest.raises(KeyboardInterrupt):
        search(tiny_backbone, out, stop_at=1)
    with pytest.raises(ResumeError, match="holds an interrupted search"):
        train_adapter(tiny_backbone, data, out, task="colours", recipe=RECIPE, resume=True)
    with pytest.raises(ResumeError, match="has another averaging"):
        run_search(
            tiny_backbone, data, out, task="colours", search=Listed(),
            recipe=Recipe(epochs=1, batch_size=16, min_crop=1.0, keep="last", averaging=0.5),
            resume=True,
        )  # fmt: skip
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        train_adapter(
            tiny_backbone, data, other, task="colours", recipe=RECIPE, observer=Stop()  # type: ignore[arg-type]
        )  # fmt: skip
    with pytest.raises(ResumeError, match="holds an interrupted run, and a search"):
        search(tiny_backbone, other, resume=True)


def test_a_higher_rate_may_diverge(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = runs.train_adapter

    def diverge(*arguments: object, **named: object) -> object:
        if named["known_start"].rate == 3.0:  # type: ignore[attr-defined]
            raise DivergenceError("The loss became nan.")
        return train(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "train_adapter", diverge)
    report = search(tiny_backbone, tmp_path / "colours")
    assert [one.diverged for one in report.tried] == [False, False, True]
    assert len(read_tried(Adapter.load(report.folder).config.training)) == 2
