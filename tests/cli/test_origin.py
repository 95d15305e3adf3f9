"""What `train --init-from` says of the labels that stay, come, and have no images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.cli._output import Format, Output
from gatehub.cli.training._origin import describe_origin
from gatehub.training.data import ImageData
from gatehub.training.start.origin import Origin
from tests.cli.conftest import Gatehub
from tests.tiny import make_trained
from tests.training.tasks import colour_data, light_data


@pytest.mark.parametrize(
    ("data", "thresholds", "told"),
    [
        (
            light_data(6, 6),
            [0.5, 0.5],
            ("of 2 labels; new labels: green, red.", "No images to train on have: rain. Whether"),
        ),
        (
            colour_data(6, 6),
            None,
            ("of 2 classes; new classes: green, red.", "No images to train on of: rain. These cl"),
        ),
    ],
)
def test_labels_that_stay_and_come_are_named(
    tiny_backbone: Backbone,
    capsys: pytest.CaptureFixture[str],
    data: ImageData,
    thresholds: list[float] | None,
    told: tuple[str, ...],
) -> None:
    model = make_trained(tiny_backbone, labels=("rain", "blue"))
    adapter = Adapter.from_model(model, task="weather", thresholds=thresholds)
    describe_origin(Output(Format.human), Origin(adapter=adapter, name="old"), data)
    shown = " ".join(capsys.readouterr().err.split())
    assert "Going on from old, the adapter 'weather'" in shown
    assert all(text in shown for text in told)
    whole = replace(data, labels=("blue", "green", "rain"))
    describe_origin(Output(Format.human), Origin(adapter=adapter, name="old"), whole)
    assert "No images to train on" not in capsys.readouterr().err


@pytest.mark.parametrize("several", [True, False])
def test_the_other_kind_of_adapter_is_refused_before_images_are_listed(
    gatehub: Gatehub, tiny_backbone: Backbone, tmp_path: Path, several: bool
) -> None:
    model = make_trained(tiny_backbone, labels=("a", "b"))
    adapter = Adapter.from_model(model, task="x", thresholds=[0.5, 0.5] if several else None)
    old = adapter.save(tmp_path / "old")
    options = ("--backbone", "demo", "--data", tmp_path / "no.csv", "--task", "x")
    more = () if several else ("--multi-label",)
    ran = gatehub("train", *options, "--out", tmp_path / "x", "--init-from", old, *more)
    assert ran.status == 1
    told = "Add --multi-label" if several else "Leave --multi-label"
    assert told in " ".join(ran.err.split())
