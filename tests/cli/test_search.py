"""`train --tune` and `--start auto`: what is refused, what is shown."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from gatehub.cli._output import Format, Output
from gatehub.cli.training._search import AskedSearch, Tune, list_tried, tabulate
from gatehub.training.search import LongestStem, SearchReport, Stage, Trial, Tried, TuneSmall
from gatehub.training.start.origin import Form
from tests.cli.conftest import Gatehub
from tests.tiny import make_backbone
from tests.training.tasks import colour_data

TRAIN = ("train", "--backbone", "demo", "--data", "sklearn:digits", "--task", "digits")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-drop", "0.01"), "--max-drop is of --start auto"),
        (("--start", "auto", "--max-drop", "1"), "from 0 to below 1"),
        (("--start", "auto", "--tune", "small"), "--start auto and --tune do not go together"),
        (("--tune", "small", "--method", "linear"), "methods that train gates or norms"),
        (("--tune", "small", "--method", "finetune"), "methods that train gates or norms"),
        (("--tune", "small", "--lr-find"), "--tune and --lr-find do not go together"),
        (("--tune", "auto", "--init-from", "a"), "--tune and --init-from do not go together"),
    ],
)
def test_what_contradicts_a_search_is_refused_at_once(
    options: tuple[str, ...], said: str, gatehub: Gatehub, tmp_path: Path
) -> None:
    ran = gatehub(*TRAIN, "--out", tmp_path / "digits", *options)
    assert ran.status == 2
    words = " ".join(ran.err.replace("│", " ").split())
    assert said in words
    assert list(tmp_path.iterdir()) == []


def show(table: Any) -> list[str]:
    console = Console(width=100)
    with console.capture() as caught:
        console.print(table)
    return caught.get().splitlines()


def tried(trial: Trial, accuracy: float) -> Tried:
    return Tried(
        trial=trial, accuracy=accuracy, start_accuracy=0.7, calibrated_loss=0.25,
        trained_parameters=1_234_567, adapter_bytes=2_345_678, seconds=1234.0,
    )  # fmt: skip


def report(*runs: Tried, kept: int) -> SearchReport:
    return cast(SearchReport, SimpleNamespace(tried=runs, kept=kept))


def test_a_table_of_settings_is_at_most_100_columns_wide() -> None:
    runs = (
        tried(Trial(gates="lowrank:16", norm="affine", start="stages.2.blocks"), 0.9),
        Tried(trial=Trial(gates="auto", norm="frozen", rate=3.0), diverged=True),
    )
    search = TuneSmall(gates=None, norm=None, start=None, stages=(), rates=True)
    lines = show(tabulate(report(*runs, kept=0), search))
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert "90.0 %" in lines[1]
    assert "kept" in lines[1]
    assert "diverged" in lines[2]
    rows = list_tried(report(*runs, kept=0))
    assert [row["kept"] for row in rows] == [True, False]
    assert rows[1]["score"] is None


def test_a_table_of_stems_has_every_stage() -> None:
    stages = [Stage(name=f"blocks.{n}", shared=0.3 * n) for n in range(3)]
    stem = LongestStem(gates="auto", norm="affine", stages=stages, max_drop=0.01)
    runs = (
        tried(Trial(gates="auto", norm="affine"), 0.9),
        tried(Trial(gates="auto", norm="affine", start="blocks.2"), 0.895),
    )
    lines = show(tabulate(report(*runs, kept=1), stem))
    assert len(lines) == 5
    assert max(map(len, lines)) <= 100
    assert "not tried" in lines[2]
    assert "30.0 %" in lines[2]
    assert "+0.5" in lines[3]
    assert "kept" in lines[3]
    assert "head alone" in lines[4]
    assert "+20.0" in lines[4]


def test_too_few_images_tell_no_settings_apart(capsys: pytest.CaptureFixture[str]) -> None:
    asked = AskedSearch(tune=Tune.auto, max_drop=None, start=None, given={})
    data, backbone = colour_data(val=30), make_backbone()
    form = Form(gates="auto", norm="affine", start=None)
    plan = partial(asked.plan, Output(Format.human), backbone, form=form, rates=True)
    assert plan(data) is None
    assert "The 30 validation images are too few" in " ".join(capsys.readouterr().err.split())
    assert isinstance(plan(colour_data(val=210)), TuneSmall)


@pytest.mark.slow
def test_a_start_is_found_and_the_card_tells_how(gatehub: Gatehub, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    ran = gatehub(
        *TRAIN, "--out", out, "--start", "auto", "--max-drop", "0.9", "--epochs", "1",
        "--min-crop", "1", "--format", "json",
    )  # fmt: skip
    tried = ran.json["tried"]
    assert [row["kept"] for row in tried] == [False, True]  # the probe is within 90 points
    assert (tried[1]["gates"], tried[1]["norm"]) == ("none", "frozen")
    card = (out / "README.md").read_text("utf-8")
    assert "--start auto --max-drop 0.9" in card
    assert "--epochs 1" in card
