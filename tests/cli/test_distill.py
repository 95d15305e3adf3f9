"""gatehub distill-to-gates, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatehub.adapter import verify_adapter
from gatehub.backbone import load_backbone
from gatehub.training.distillation.likeness import Likeness
from tests.cli.conftest import Gatehub
from tests.training.distillation.networks import LABELS, fine_tune, write_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was fine-tuned from the demo's backbone, and images."""
    folder = tmp_path_factory.mktemp("distill")
    fine_tune(load_backbone("demo"), folder / "colours", moved=0.2)
    write_images(folder / "images", count=20)
    return folder


def test_one_that_fails_stops_no_other(gatehub: Gatehub, place: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    options = ("--backbone", "demo", "--data", place / "images", "--out", tmp_path / "out")
    quick = ("--steps", 1, "--batch-size", 8, "--max-drop", 1, "--labels", labels)
    checkpoints = (tmp_path / "broken.safetensors", place / "colours")

    ran = gatehub("distill-to-gates", *checkpoints, *options, *quick, "--format", "json")

    assert ran.status == 1
    assert "1 of the 2 checkpoints became no adapters" in ran.err
    shown = json.loads(ran.out)
    assert [one["task"] for one in shown["adapters"]] == ["colours"]
    assert "not a valid safetensors file" in shown["failures"][0]["error"]
    made = shown["adapters"][0]
    assert [stage["stage"] for stage in made["stages"]] == [
        "least squares",
        "statistics",
        "training",
    ]
    assert made["images"] == 4
    assert made["accuracy"] is None
    assert 0 < made["adapter_bytes"] < 0.2 * made["checkpoint_bytes"]
    config = verify_adapter(tmp_path / "out" / "colours")
    assert config.labels == LABELS
    assert config.metrics["agreement"] == made["agreement"]


def test_a_poor_one_is_refused_with_what_it_came_to(
    gatehub: Gatehub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Likeness(agreement=0.5, logit_difference=1.0, divergence=2.0, accuracy=None)
    monkeypatch.setattr("gatehub.training.distillation.stages.compare", lambda *_: half)
    options = ("--backbone", "demo", "--data", place / "images", "--out", tmp_path / "out")
    ran = gatehub("distill-to-gates", place / "colours", *options, "--steps", 0)
    assert ran.status == 1
    assert "least squares" in ran.err
    assert "answers 50.0 % of the held-out images otherwise than its network" in ran.err
    assert "--max-drop" in ran.err
    assert not (tmp_path / "out").exists()


def test_weights_alone_are_fitted_and_said_to_be_unmeasured(
    gatehub: Gatehub, place: Path, tmp_path: Path
) -> None:
    options = (place / "colours", "--backbone", "demo", "--out", tmp_path / "out")
    ran = gatehub("distill-to-gates", *options)
    assert ran.status == 0, ran.err
    assert "not measured: no images were given (--data)" in ran.out
    again = gatehub("distill-to-gates", *options)
    assert (again.status, "already; it is left as it is" in again.err) == (1, True)
    assert gatehub("distill-to-gates", *options, "--force", "--max-drop", 5).status == 1  # points
