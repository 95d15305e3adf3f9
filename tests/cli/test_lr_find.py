"""`gatehub train --lr-find`: a picture and what to type next, and no adapter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Gatehub, Ran
from tests.training.images import numbered, write_images


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_images(tmp_path / "data", *numbered("cat", 5), *numbered("dog", 5))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(gatehub: Gatehub, out: str, *flags: str) -> Ran:
    train = ("train", "--backbone", "demo", "--data", "data", "--task", "pets", "--out", out)
    return gatehub(*train, "--lr-find", *flags)


def test_a_picture_is_all_that_is_left(gatehub: Gatehub, here: Path) -> None:
    ran = find(gatehub, "pets", "--format", "json")
    assert ran.json["picture"] == "pets.lr-find.png"
    assert len(ran.json["rates"]) == len(ran.json["losses"]) > 20
    assert sorted(os.listdir()) == ["data", "pets.lr-find.png"]
    with Image.open("pets.lr-find.png") as picture:
        assert picture.width == 1120


@pytest.mark.slow
def test_the_picture_is_the_same_again(gatehub: Gatehub, here: Path) -> None:
    ran = find(gatehub, "pets", "--format", "json")
    said = find(gatehub, "rates.png")
    assert f"trains the gates at {ran.json['gate_rate']:g}" in said.out
    assert (here / "rates.png").read_bytes() == (here / "pets.lr-find.png").read_bytes()


@pytest.mark.parametrize(
    ("out", "flags", "sentence"),
    [
        ("pets", ["--resume"], "no adapter is trained, so --resume means nothing"),
        ("pets", ["--log-to", "tensorboard"], "so --log-to means nothing"),
        ("pets", ["--devices", "2"], "so --devices means nothing"),
        ("pets", ["--method", "linear"], "nothing but the head would be learned"),
        ("pets", ["--gates", "none", "--norm", "frozen"], "nothing but the head would be learned"),
        ("pets", ["--epochs", "0"], "(--lr-find) tries rates of gates and normalisation values"),
        ("data/cat/a.png", [], "lies among the images of 'data'"),
        (".", [], "'.' is the current folder"),
        ("data/pets", [], "lies among the images of 'data'"),
        ("folder.png", [], "'folder.png', which is a folder"),
        ("data/cat/0.png/x", [], "is a file, so 'data/cat/0.png/x' cannot be made"),
    ],
)
def test_what_it_cannot_do_is_refused(
    gatehub: Gatehub,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    flags: list[str],
    sentence: str,
) -> None:
    (here / "folder.png").mkdir()
    monkeypatch.setattr("gatehub.training.observers.tensorboard.check_tensorboard", lambda: None)
    monkeypatch.setattr("gatehub.training.data.list_data", None)  # calling it would be an error
    ran = find(gatehub, out, *flags)
    assert (ran.status, ran.out) == (1, "")
    assert sentence in " ".join(ran.err.split())
    assert sorted(os.listdir()) == ["data", "folder.png"]
