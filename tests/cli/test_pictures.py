"""eval and predict: one rule for all images, one image in memory, answers beside bad files."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gatehub.adapter import Adapter
from gatehub.backbone import load_backbone
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import attach_gates
from tests.backbone.files import gradient, turned
from tests.cli.conftest import Gatehub
from tests.tiny import disturb


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = load_backbone("demo")
    model = attach_gates(backbone, labels=["a", "b", "c"], gates="scale")
    disturb(model)
    made = Adapter.from_model(model, task="marks").with_probe(backbone)
    return made.save(tmp_path_factory.mktemp("adapter") / "marks")


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
    assert measured == {"accuracy": pytest.approx(1 / 3), "images": 15}
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
    ran = gatehub("eval", adapter, "--data", pictures, "--skip-bad", "--format", "json")
    assert ran.json["images"] == 2


def test_predict_answers_though_some_files_are_bad(
    gatehub: Gatehub, adapter: Path, pictures: Path
) -> None:
    (pictures / "bad.png").write_bytes(b"hello")
    files = [pictures / name for name in ("red.png", "bad.png", "none.png", "blue.png")]
    ran = gatehub("predict", adapter, *files, "--format", "json")
    assert ran.status == 1
    answers = json.loads(ran.out)["images"]
    assert [answer["image"] for answer in answers] == [str(file) for file in files]
    assert [sorted(answer) for answer in answers] == [
        *(["image", "predictions"], ["error", "image"]),
        *(["error", "image"], ["image", "predictions"]),
    ]
    assert "bad.png' cannot be decoded" in answers[1]["error"]
    assert "Error: 2 of the 4 images cannot be used. The first: " in ran.err
    quiet = gatehub("predict", adapter, *files, "--format", "quiet").out.split("\n")
    label = answers[0]["predictions"][0]["label"]
    assert quiet == [label, "", "", label, ""]
    human = gatehub("predict", adapter, *files[:2])
    assert human.status == 1
    assert "red.png" in human.out
    assert "bad.png' cannot be decoded" in human.err


def test_predict_without_any_answer_prints_none(
    gatehub: Gatehub, adapter: Path, tmp_path: Path
) -> None:
    ran = gatehub("predict", adapter, tmp_path / "a.png", tmp_path / "b.png", "--format", "json")
    assert (ran.status, ran.out) == (1, "")
    assert "Error: 2 of the 2 images cannot be used" in ran.err


def test_predict_holds_one_image_at_a_time(
    gatehub: Gatehub, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for file in files:
        Image.fromarray(noise).save(file)
    seen: list[weakref.ref[Image.Image]] = []
    most = 0
    original = Preprocessing.open

    def watch(self: Preprocessing, *args: Any, **options: Any) -> Image.Image:
        nonlocal most
        image = original(self, *args, **options)
        seen.append(weakref.ref(image))
        gc.collect()
        most = max(most, sum(found() is not None for found in seen))
        return image

    monkeypatch.setattr(Preprocessing, "open", watch)
    gatehub("predict", adapter, *files)
    assert (len(seen), most) == (8, 1)


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
