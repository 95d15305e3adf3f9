"""eval and predict: one rule for all images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gatehub.adapter import Adapter
from gatehub.backbone.images import ImageRules
from tests.backbone.files import gradient, turned
from tests.cli.conftest import Gatehub


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Files that show the same picture, but for what a viewer does not see."""
    picture = gradient(48, 40)
    layer = picture.convert("RGBA")
    for name, hidden in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        edge = layer.copy()
        edge.paste((*hidden, 0), (0, 0, 48, 10))
        edge.save(tmp_path / f"{name}.png")
    white = picture.copy()
    white.paste((255, 255, 255), (0, 0, 48, 10))
    white.save(tmp_path / "white.png")
    lying = white.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "lying.png", exif=turned(6))
    white.save(tmp_path / "white.tiff")
    return tmp_path


def ask(gatehub: Gatehub, adapter: Path, *files: Path) -> list[dict[str, Any]]:
    ran = gatehub("predict", adapter, *files, "--top-k", 3, "--format", "json")
    answers: list[dict[str, Any]] = ran.json["images"]
    return answers


def test_the_same_picture_has_the_same_answer(
    gatehub: Gatehub, adapter: Path, pictures: Path
) -> None:
    answers = ask(gatehub, adapter, *sorted(pictures.iterdir()))
    assert len(answers) == 5
    assert all(answer["predictions"] == answers[0]["predictions"] for answer in answers)


def test_an_older_adapter_answers_as_it_did(
    gatehub: Gatehub, adapter: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    older = tmp_path_factory.mktemp("older") / "marks"
    older.mkdir()
    for file in adapter.iterdir():
        (older / file.name).write_bytes(file.read_bytes())
    config = json.loads((older / "config.json").read_text("utf-8"))
    del config["preprocessing"]["image_rules"]
    (older / "config.json").write_text(json.dumps(config), "utf-8")
    seen = {}
    for name in ("red", "blue", "lying"):
        with Image.open(pictures / f"{name}.png") as image:
            image.convert("RGB").save(pictures / f"{name} as it was.png")
        was, now = ask(gatehub, older, pictures / f"{name} as it was.png", pictures / f"{name}.png")
        assert was["predictions"] == now["predictions"]
        seen[name] = now["predictions"]
    assert seen["red"] != seen["blue"]


def test_eval_sees_what_predict_sees(gatehub: Gatehub, adapter: Path, pictures: Path) -> None:
    label = ask(gatehub, adapter, pictures / "white.png")[0]["predictions"][0]["label"]
    data = pictures / "data"
    for side in ("train", "val"):
        for name in "abc":
            (data / side / name).mkdir(parents=True)
            for file in pictures.glob("*.*"):
                (data / side / name / file.name).write_bytes(file.read_bytes())
    measured = gatehub("eval", adapter, "--data", data, "--format", "json").json
    assert (measured["accuracy"], measured["images"]) == (pytest.approx(1 / 3), 30)
    assert label in "abc"


def test_eval_names_an_image_that_would_become_too_large(
    gatehub: Gatehub, adapter: Path, pictures: Path
) -> None:
    for side in ("train", "val"):
        for name in "ab":
            (pictures / side / name).mkdir(parents=True)
            gradient().save(pictures / side / name / "0.png")
    Image.new("1", (1, 180_000)).save(pictures / "val" / "a" / "line.png")
    ran = gatehub("eval", adapter, "--data", pictures)
    assert ran.status == 1
    assert "val/a/line.png. The first:" in ran.err
    assert "would be resized to 40 x 7200000" in ran.err
    assert "leave them out with --skip-bad." in ran.err
    ran = gatehub("eval", adapter, "--data", pictures, "--skip-bad", "--format", "json")
    assert ran.json["images"] == 4


def test_train_records_the_background(gatehub: Gatehub, pictures: Path, tmp_path: Path) -> None:
    for side in ("train", "val"):
        for name in "ab":
            (pictures / side / name).mkdir(parents=True)
            gradient().save(pictures / side / name / "0.png")
    options = ("--backbone", "demo", "--data", pictures, "--task", "t", "--epochs", 1)
    folder = tmp_path / "made"
    ran = gatehub("train", *options, "--out", folder, "--background", "#0a141e")
    assert ran.status == 0, ran.err
    rules = Adapter.load(folder).preprocessing.image_rules
    assert rules == ImageRules(background=(10, 20, 30))
