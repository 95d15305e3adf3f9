"""eval: what is shown, what is written, and that all of it says the same."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from tests.cli.answers.conftest import save_adapter
from tests.cli.conftest import Gatehub


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of three classes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    for label in "abc":
        (folder / label).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels // (1 + number % 4)).save(folder / label / f"{number}.png")
    return folder


def test_every_form_says_the_same(
    gatehub: Gatehub, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    table, picture = tmp_path / "answers.csv", tmp_path / "confusion.png"
    files = ("--predictions", table, "--confusion", picture)
    ran = gatehub("eval", adapter, "--data", photos, *files, "--format", "json")
    shown = ran.json
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "predicted", "score"]
    assert [row["path"] for row in rows] == [f"{c}/{n}.png" for c in "abc" for n in range(10)]
    assert all(row["path"][0] == row["label"] for row in rows)
    truth, said = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert (shown["images"], shown["split"], shown["trained"]) == (30, "all", None)
    assert all(type(found["images"]) is int for found in shown["classes"])
    assert shown["accuracy"] == sum(map(str.__eq__, truth, said)) / 30
    low, high = shown["accuracy_interval"]
    assert low < shown["accuracy"] < high
    matrix = confusion_matrix(truth, said, labels=list("abc"))
    assert shown["confusion"] == {"labels": list("abc"), "matrix": matrix.tolist()}
    for score, name in ((precision_score, "precision"), (recall_score, "recall"), (f1_score, "f1")):
        expected = score(truth, said, labels=list("abc"), average=None, zero_division=0)
        assert [found[name] or 0 for found in shown["classes"]] == pytest.approx(expected)
        assert shown[f"macro_{name}"] == pytest.approx(expected.mean())
    assert shown["top5_accuracy"] is None  # of three classes
    assert all(1 / 3 <= float(row["score"]) <= 1 for row in rows)
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    human = gatehub("eval", adapter, "--data", photos).out
    assert f"{100 * shown['accuracy']:.1f} % of 30 images right (95 % interval " in human
    for row, label in zip(matrix, "abc", strict=True):
        cells = [line.split() for line in human.splitlines() if line.startswith(label)]
        assert [label, *map(str, row)] in cells
    quiet = gatehub("eval", adapter, "--data", photos, "--format", "quiet")
    assert (quiet.out, quiet.err) == (f"{shown['accuracy']:.6f}\n", "")


@pytest.mark.parametrize("classes", [6, 40])
def test_tables_fit_a_terminal(gatehub: Gatehub, tmp_path: Path, classes: int) -> None:
    labels = [f"{'x' * 25}{number}" if number else "\u68a8[red]$" for number in range(classes)]
    adapter = save_adapter(tmp_path / "many", labels)
    for label in labels[:6]:
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40), (len(label) * 5, 9, 9)).save(tmp_path / "data" / label / "1.png")
    ran = gatehub("eval", adapter, "--data", tmp_path / "data")
    lines = ran.out.splitlines()
    assert max(map(cell_len, lines)) <= 100
    assert any(line.startswith("\u68a8[red]$ ") for line in lines)
    assert re.search("^is +taken for +images$", ran.out, re.MULTILINE)
    assert "Right among the first five " in ran.out
    assert ran.err.startswith("Evaluating 'many' on 6 images (all) of ")


def test_json_is_json_where_nothing_can_be_divided(
    gatehub: Gatehub, adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "b").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "b" / "1.png")
    ran = gatehub("eval", adapter, "--data", tmp_path / "data", "--format", "json")
    assert ran.status == 0, ran.err

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    shown = json.loads(ran.out, parse_constant=refuse)
    assert (shown["images"], shown["accuracy"] in (0, 1)) == (1, True)


def test_what_cannot_be_written_is_refused_first(
    gatehub: Gatehub, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    access = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and access(path, mode))
    for option, file, sentence in (
        ("--predictions", tmp_path / "a.txt", "does not end in .csv"),
        ("--confusion", tmp_path / "a.jpg", "does not end in .png"),
        ("--confusion", tmp_path / "none" / "a.png", "which is no folder"),
        ("--predictions", locked / "a.csv", "cannot be written: nothing can in"),
    ):
        wide = {"COLUMNS": "1000"}
        ran = gatehub("eval", "nowhere", "--data", photos, option, file, env=wide)
        assert ran.status == 2
        assert sentence in ran.err


def test_what_trained_it_is_said(gatehub: Gatehub, photos: Path, tmp_path: Path) -> None:
    training = {
        **{"data": "photos", "train_count": 24, "val_count": 6},
        **{"split_seed": 0, "split_val_fraction": 0.2},
    }
    adapter = save_adapter(tmp_path / "marks", ["a", "b", "c"], training=training)
    ran = gatehub("eval", adapter, "--data", photos, "--format", "json")
    assert (ran.json["images"], ran.json["split"], ran.json["trained"]) == (6, "val", 0)
    ran = gatehub("eval", adapter, "--data", photos, "--split", "all", "--format", "json")
    assert (ran.json["images"], ran.json["split"], ran.json["trained"]) == (30, "all", 24)
    assert "Note: 24 of these images trained 'marks'" in ran.err
    ran = gatehub("eval", adapter, "--data", photos, "--split", "test")
    assert ran.status == 1
    assert "has no test images; it has train (24), val (6)" in ran.err
