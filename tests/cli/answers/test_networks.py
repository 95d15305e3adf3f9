"""Networks of tasks of their own, measured and asked as adapters are."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from gatehub.backbone import load_backbone
from tests.cli.conftest import Gatehub
from tests.training.distillation.networks import LABELS, fine_tune, write_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was fine-tuned from the demo's backbone, and images of its classes."""
    folder = tmp_path_factory.mktemp("networks")
    fine_tune(load_backbone("demo"), folder / "net", moved=0.2)
    write_images(folder / "images", count=12, classes=LABELS)
    return folder


def test_its_answers_are_those_of_timms_own_model(gatehub: Gatehub, place: Path) -> None:
    model = timm.create_model(f"local-dir:{place / 'net'}", pretrained=True).eval()
    transform = load_backbone("demo").preprocessing.transform()
    files = sorted((place / "images").rglob("*.png"))
    with torch.no_grad():
        logits = model(torch.stack([transform(file) for file in files]))
    expected = {str(f): LABELS[i] for f, i in zip(files, logits.argmax(1), strict=True)}
    right = [Path(file).parent.name == label for file, label in expected.items()]

    shown = gatehub("eval", place / "net", "--data", place / "images", "--format", "json").json
    ran = gatehub("predict", place / "net", place / "images", "--format", "json")

    assert (shown["images"], shown["split"]) == (12, "all")
    assert shown["accuracy"] == pytest.approx(sum(right) / len(right))
    answers = ran.json["images"]
    assert {a["image"]: a["predictions"][0]["label"] for a in answers} == expected
    best = {a["image"]: a["predictions"][0]["score"] for a in answers}
    scores = logits.softmax(1).amax(1)
    assert [best[str(file)] for file in files] == pytest.approx(scores.tolist(), abs=1e-4)


def test_what_makes_no_sense_of_a_network_is_said(
    gatehub: Gatehub, place: Path, tmp_path: Path
) -> None:
    data = ("--data", place / "images")
    ran = gatehub("eval", place / "net", *data, "--backbone", "demo")
    assert ran.status == 2
    assert "leave --backbone and" in ran.err
    info = {"labels": ["one", "two"]}
    fine_tune(load_backbone("demo"), tmp_path / "two", info=info)
    ran = gatehub("eval", tmp_path / "two", *data)
    assert ran.status == 1
    assert "answers with 3 logits, and 2 labels are named" in ran.err
    (tmp_path / "two" / "gatehub.json").write_text("[", encoding="utf-8")
    assert "gatehub.json' cannot be read" in gatehub("eval", tmp_path / "two", *data).err
