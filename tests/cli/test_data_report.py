"""The opening lines of `train`: what was understood of a folder as people have them."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len

from gatehub.backbone.images import IMAGE_FORMATS
from gatehub.cli._data import show_classes
from gatehub.cli._output import Format, Output
from gatehub.training.data import load_data
from tests.cli.conftest import Gatehub
from tests.training.images import numbered, write_images

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def write_image(
    path: Path, colour: tuple[int, int, int], form: str, size: tuple[int, int] = (12, 10)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, form)


def write_untidy_folder(root: Path, adapter: Path) -> Path:
    """Write what goes wrong in other people's folders, all of it in one."""
    train, test = root / "dataset" / "Training", root / "dataset" / "Testing"
    composed, decomposed = (unicodedata.normalize(form, "vert-é") for form in ("NFC", "NFD"))
    for number in range(40):
        write_image(train / "blue" / f"{number}.JPG", BLUE, "JPEG")
    for number, ending in enumerate([".jfif", ".jpe", "", ".jpeg"]):
        write_image(train / "red" / f"{number}{ending}", RED, "JPEG")
    if "AVIF" in IMAGE_FORMATS:
        write_image(train / "red" / "0.avif", RED, "AVIF")
    for name in (composed, decomposed):
        for number in range(2):
            write_image(train / name / f"{len(name)}-{number}.png", GREEN, "PNG", (320, 200))
    for label, colour in (("blue", BLUE), ("red", RED), (decomposed, GREEN)):
        write_image(test / label / "0.png", colour, "PNG")
    write_image(root / "dataset" / "pred" / "1.png", RED, "PNG")
    write_image(root / "__MACOSX" / "dataset" / "blue" / "1.png", RED, "PNG")
    write_image(train / "blue" / "@eaDir" / "0.JPG" / "THUMB.jpg", BLUE, "JPEG")
    write_image(train / ".ipynb_checkpoints" / "0.png", RED, "PNG")
    write_image(train / "stray.png", RED, "PNG")
    (train / "blue" / "notes.txt").write_text("mostly sky")
    (train / "red" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    shutil.copytree(adapter, train / "old-adapter")
    (train / "killed.training").mkdir()
    (train / "killed.training" / "checkpoint.safetensors").write_bytes(b"\0")
    return root


def test_a_folder_with_everything_in_it_trains_and_is_explained(
    gatehub: Gatehub, adapter_folder: Path, tmp_path: Path
) -> None:
    data, out = write_untidy_folder(tmp_path / "data", adapter_folder), tmp_path / "out"
    options = ("--backbone", "demo", "--data", data, "--task", "t", "--epochs", 1, "--seed", 3)
    ran = gatehub("train", *options, "--out", out, "--format", "json")
    assert ran.json.keys() >= {"task", "accuracy"}
    assert json.loads((out / "config.json").read_text("utf-8"))["labels"] == [
        *("blue", "red", "vert-é"),
    ]
    lines = ran.err.splitlines()
    said = " ".join(ran.err.split())
    for sentence in (
        "Further down: the images are in ",
        "dataset/Training/ to train on, dataset/Testing/ kept apart as the test.",
        "Validation: 20 % of the images to train on, held out by seed 3.",
        "hidden or left behind by other programs: __MACOSX/, dataset/Training/.ipynb_checkpoints/, "
        "dataset/Training/blue/@eaDir/.",
        "an adapter, or a training run's state: dataset/Training/killed.training/, "
        "dataset/Training/old-adapter/.",
        "Left out (1: .png 1), in no class folder: dataset/Training/stray.png.",
        "Left out (1), beside the split: dataset/pred/.",
        "(2: .txt 1, .heic 1), not an image that can be decoded: dataset/Training/blue/notes.txt, ",
        "The smallest image has 12 x 10 pixels, the largest 320 x 200.",
        "whoever always answers 'blue' is right for ",
    ):
        assert sentence in said, ran.err
    table = lines.index(next(line for line in lines if line.startswith("class ")))
    assert lines[table].split() == ["class", "train", "val", "test"]
    assert [line.split()[0] for line in lines[table + 1 : table + 4]] == ["blue", "red", "vert-é"]
    assert all(line.split()[3] == "1" for line in lines[table + 1 : table + 4])
    assert max(cell_len(line) for line in lines) <= 100

    measured = gatehub("eval", out, "--data", data, "--split", "test", "--format", "json").json
    assert measured["images"] == 3
    assert gatehub("eval", out, "--data", data, "--split", "all", "--format", "json").json[
        "images"
    ] == measured["images"] + 48 + ("AVIF" in IMAGE_FORMATS)


def test_a_table_of_a_spreadsheet_trains_in_the_order_of_its_classes(
    gatehub: Gatehub, tmp_path: Path
) -> None:
    rows = ["Bild;Art;fold"]
    for label, colour in (("blau", BLUE), ("rot", RED)):
        for number in range(5):
            write_image(tmp_path / "fotos" / label / f"{number}.png", colour, "PNG")
            rows.append(f"fotos\\{label}\\{number}.png;{label};{number}")
    table, out = tmp_path / "t.csv", tmp_path / "out"
    table.write_text("\r\n".join(rows), encoding="utf-16")
    (tmp_path / "classes.txt").write_text("rot\nblau\n")
    options = ("--backbone", "demo", "--data", table, "--task", "t", "--epochs", 1, "--out", out)
    ran = gatehub("train", *options)
    assert ran.status == 1
    assert "the columns are Bild, Art, fold; expected path and label" in ran.err
    assert "Hint: Name them: --columns path=COLUMN,label=COLUMN." in ran.err
    named = ("--columns", "path=Bild,label=Art")
    ran = gatehub("train", *options, *named)
    assert ran.status == 0, ran.err
    said = " ".join(ran.err.split())
    assert "Columns of t.csv: 'Bild' is the path, 'Art' is the label." in said
    assert "The classes are in the order of " in said
    assert json.loads((out / "config.json").read_text("utf-8"))["labels"] == ["rot", "blau"]
    (tmp_path / "classes.txt").write_text("others\n")
    measured = gatehub("eval", out, "--data", table, *named, "--format", "json").json
    assert (measured["images"], measured["split"]) == (2, "val")


def test_many_classes_with_long_names_fit_on_a_screen(gatehub: Gatehub, tmp_path: Path) -> None:
    for number in range(14):
        label = f"{number:02} {'類' * 70}"
        for side in ("train", "val"):
            write_image(tmp_path / "data" / side / label / "0.png", RED, "PNG")
    write_image(tmp_path / "data" / "train" / label / "1.png", RED, "PNG")
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", tmp_path / "data", "--task", "t"),
        *("--out", tmp_path / "out", "--epochs", 1),
    )
    assert ran.status == 0, ran.err
    lines = ran.err.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("class "))
    assert lines[table + 11] == "and 4 more classes"  # a line for each class
    assert "All images have 12 x 10 pixels." in lines
    assert "2.0 to 1." in ran.err
    assert max(cell_len(line) for line in lines if not line.startswith("Training ")) <= 100


def test_eval_names_a_split_that_is_not_there(gatehub: Gatehub, tmp_path: Path) -> None:
    for side in ("train", "val"):
        for label in "ab":
            write_image(tmp_path / "data" / side / label / "0.png", RED, "PNG")
    options = ("--data", tmp_path / "data", "--out", tmp_path / "out", "--task", "t")
    assert gatehub("train", "--backbone", "demo", *options, "--epochs", 1).status == 0
    ran = gatehub("eval", tmp_path / "out", "--data", tmp_path / "data", "--split", "test")
    assert ran.status == 1
    assert "data has no test images; it has train (2), val (2)." in ran.err


@pytest.mark.parametrize("folders", [["fold1", "fold2"], ["Eins", "Zwei"]])
def test_folders_that_hold_the_same_folders_are_refused(
    gatehub: Gatehub, tmp_path: Path, folders: list[str]
) -> None:
    for folder in folders:
        for label in "ab":
            write_image(tmp_path / "data" / folder / label / "0.png", RED, "PNG")
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", tmp_path / "data", "--task", "t"),
        *("--out", tmp_path / "out"),
    )
    assert ran.status == 1
    assert f"holds {', '.join(folders)}, and each of them holds the same folders: a, b." in ran.err
    assert "Hint: For sides of a split, call them train and val;" in ran.err


@pytest.mark.parametrize(("rare", "told"), [(4, True), (5, False)])
def test_a_large_imbalance_is_told_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rare: int, told: bool
) -> None:
    photos = write_images(tmp_path, *numbered("common", 40), *numbered("rare", rare))
    show_classes(Output(Format.human), load_data(photos, val_fraction=0.25))
    shown = " ".join(capsys.readouterr().err.split())
    assert "'common' has" in shown
    assert ("That is a large imbalance: whoever always answers 'common' is right for" in shown) is (
        told
    )
    assert ("With --class-weights balanced every class counts alike." in shown) is told
