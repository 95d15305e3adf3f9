"""Layouts of folders as people have them: read right, or refused in a sentence."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from gatehub.backbone.images import IMAGE_FORMATS
from gatehub.errors import DataError
from gatehub.training.destination import claim_destination
from gatehub.training.sources import Source, folders_of_images, read_source
from tests.training.images import numbered, write_images

CLASSES = ("cat", "dog")


def write_layout(root: Path, *folders: str) -> Path:
    """Write two pictures into each folder; `{}` stands for each class."""
    for folder in folders:
        names = [folder.format(label) for label in CLASSES] if "{}" in folder else [folder]
        write_images(root, *(f"{name}/{number}.png" for name in names for number in range(2)))
    return root


def sides(source: Source) -> dict[str, int]:
    """Count the pictures of each side, and hold that cat and dog are the classes."""
    assert {picture.label for picture in source.pictures} == set(CLASSES)
    return dict(Counter(str(picture.side) for picture in source.pictures))


def left_out(source: Source) -> dict[str, tuple[str, ...]]:
    return {part.why: part.names for part in source.left_out}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["Training/{}", "Testing/{}"], {"train": 4, "test": 4}),
        (["Train/{}", "Val/{}"], {"train": 4, "val": 4}),
        (["TRAIN/{}", "TEST/{}"], {"train": 4, "test": 4}),
        (["training_set/{}", "test_set/{}"], {"train": 4, "test": 4}),
        (["seg_train/seg_train/{}", "seg_test/seg_test/{}", "seg_pred"], {"train": 4, "test": 4}),
        (["train/{}", "validate/{}"], {"train": 4, "val": 4}),
        (["train/{}", "valid/{}", "test/{}"], {"train": 4, "val": 4, "test": 4}),
        (["train/{}", "validation/{}"], {"train": 4, "val": 4}),
        (["train/{}", "dev/{}"], {"train": 4, "val": 4}),
        (["train/{}", "test/{}", "pred"], {"train": 4, "test": 4}),
        (["train/{}", "test"], {"train": 4}),
        (["train/{}", "test/unknown"], {"train": 4}),
        (["train/{}"], {"train": 4}),
        (["train2017/{}", "val2017/{}"], {"train": 4, "val": 4}),
        (["dataset/train/{}", "dataset/val/{}"], {"train": 4, "val": 4}),
        (["archive/chest/Train/{}", "archive/chest/Val/{}"], {"train": 4, "val": 4}),
        (["chest/{}", "__MACOSX/chest/{}"], {"None": 4}),
        (["PetImages/{}"], {"None": 4}),
        (["{}/images"], {"None": 4}),
        (["{}"], {"None": 4}),
    ],
)
def test_layouts_that_people_have(
    tmp_path: Path, folders: list[str], expected: dict[str, int]
) -> None:
    assert sides(read_source(write_layout(tmp_path, *folders))) == expected


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["fold_a/{}", "fold_b/{}"], "holds fold_a, fold_b, and each of them holds the same folde"),
        (["Lernen/{}", "Pruefen/{}", "rest"], "each of them holds the same folders: cat, dog"),
        (["color/{}", "grey/{}", "grey/cow"], "pass one, such as .*/color"),
        (["train/{}", "holdout/{}"], "each of them holds the same folders: cat, dog"),
        (["{}/train", "{}/val"], r"Every class of .*\(train, val\), .*Turn the levels round"),
        (["train/{}", "plane"], "'train' holds folders .*may be a side of a split or a class"),
        (["val/{}", "plane"], "'val' holds folders"),
        (["train/{}", "Train/{}", "val/{}"], "more than one folder for train: Train, train"),
        (["train/{}", "val/{}", "dev/{}"], "more than one folder for val: dev, val"),
        (["a_train/{}", "a_val/{}", "b_train/{}", "b_val/{}"], "more than one split: a_train, a_v"),
        (["train", "test"], "train has no class folders; expected one folder of images for each"),
        (["train/{}", "val"], "val has no class folders"),
        (["train/{}", "val/cat", "val/cow"], "only in train: dog; only in val: cow"),
        (["train/{}", "test/cat", "test/cow"], "only in test: cow"),
    ],
)
def test_layouts_that_can_be_read_in_two_ways_are_refused(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(write_layout(tmp_path, *folders))


@pytest.mark.parametrize(
    "folders",
    [
        ["train", "plane"],
        ["freight_train/old", "freight_train/new", "passenger_train"],
        ["valid", "invalid"],
        ["test_tube", "bullet_train"],
        ["cat/day", "cat/night", "dog/day"],
    ],
)
def test_classes_may_have_such_names(tmp_path: Path, folders: list[str]) -> None:
    source = read_source(write_layout(tmp_path, *folders))
    assert {picture.label for picture in source.pictures} == {f.split("/")[0] for f in folders}
    assert {picture.side for picture in source.pictures} == {None}


def test_how_a_layout_was_understood_is_said(tmp_path: Path) -> None:
    write_layout(tmp_path, "deep/Training/{}", "deep/Testing/{}", "deep/pred")
    source = read_source(tmp_path)
    assert source.notes == (
        f"Further down: the images are in {tmp_path}/deep.",
        "Split by folders: deep/Training/ to train on, deep/Testing/ kept apart as the test.",
    )
    assert left_out(source) == {"beside the split": ("deep/pred/",)}


def test_a_test_folder_without_labels_is_named(tmp_path: Path) -> None:
    source = read_source(write_layout(tmp_path, "train/{}", "val/{}", "test"))
    assert left_out(source) == {"without class folders, so without labels": ("test/",)}
    (tmp_path / "test" / "all").mkdir()
    write_layout(tmp_path, "test/all")
    assert left_out(read_source(tmp_path))["without class folders, so without labels"] == ("test/",)


def test_what_other_programs_leave_is_named_and_no_class(tmp_path: Path) -> None:
    write_layout(tmp_path, "{}", "__MACOSX/cat", "cat/@eaDir/0.png", ".ipynb_checkpoints", "dog/.x")
    write_images(tmp_path, "cat/._0.png", "stray.png")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"\0")
    source = read_source(tmp_path)
    assert sides(source) == {"None": 4}
    assert left_out(source) == {
        "hidden or left behind by other programs": (
            *(".ipynb_checkpoints/", "__MACOSX/", "cat/._0.png", "cat/@eaDir/", "dog/.x/"),
        ),
        "in no class folder": ("stray.png",),
    }


def test_every_file_that_can_be_decoded_counts(tmp_path: Path) -> None:
    endings = {".jfif": "JPEG", ".jpe": "JPEG", ".JPG": "JPEG", "": "PNG", ".bak": "WEBP"}
    endings |= {".apng": "PNG", ".pnm": "PPM", ".image": "TIFF", ".jpg_large": "JPEG"}
    if "AVIF" in IMAGE_FORMATS:
        endings[".avif"] = "AVIF"
    write_layout(tmp_path, "{}")
    for ending, form in endings.items():
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / f"x{ending}", form)
    for name in ("notes.txt", "photo.heic", "empty", "clip.mp4"):
        (tmp_path / "dog" / name).write_bytes(b"" if name == "empty" else b"no image")
    source = read_source(tmp_path)
    found = {picture.name for picture in source.pictures if "x" in Path(picture.name).stem}
    assert found == {f"cat/x{ending}" for ending in endings}
    assert left_out(source) == {
        "not an image that can be decoded": (
            *("dog/clip.mp4", "dog/empty", "dog/notes.txt", "dog/photo.heic"),
        )
    }


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_layout(tmp_path, "{}")
    os.mkfifo(tmp_path / "dog" / "pipe")
    assert left_out(read_source(tmp_path)) == {"not an image that can be decoded": ("dog/pipe",)}


def test_a_folder_of_tables_beside_the_classes(tmp_path: Path) -> None:
    write_layout(tmp_path, "images/{}")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "train.txt").write_text("cat/0")
    with pytest.raises(DataError, match=r"meta holds no images.* classes are in .*/images, pass"):
        read_source(tmp_path)


def test_two_spellings_of_a_label_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_layout(tmp_path, f"train/{composed}", f"train/{decomposed}", "train/thé")
    write_layout(tmp_path, f"val/{decomposed}", "val/thé")
    pictures = read_source(tmp_path).pictures
    counts = Counter((picture.side, picture.label) for picture in pictures)
    assert counts[("train", composed)] == 4
    assert counts[("val", composed)] == 2
    assert {label for _, label in counts} == {composed, "thé"}
    assert all(Path(tmp_path / picture.name).is_file() for picture in pictures)


@pytest.mark.parametrize("place", ["birds", "cat/birds", "cat/deep/birds"])
def test_an_adapter_is_never_data(tmp_path: Path, adapter_folder: Path, place: str) -> None:
    write_layout(tmp_path / "data", "{}")
    write_images(adapter_folder, "training.png", "gates.png")
    (tmp_path / "data" / place).parent.mkdir(exist_ok=True, parents=True)
    adapter_folder.rename(tmp_path / "data" / place)
    source = read_source(tmp_path / "data")
    assert sides(source) == {"None": 4}
    assert left_out(source) == {"an adapter, or a training run's state": (f"{place}/",)}
    with pytest.raises(DataError, match="is an adapter, or a training run's state; expected im"):
        read_source(tmp_path / "data" / place)


@pytest.mark.parametrize("files", [["checkpoint.safetensors"], ["lock", "holder"]])
def test_an_interrupted_run_is_never_data(tmp_path: Path, files: list[str]) -> None:
    write_layout(tmp_path, "train/{}", "val/{}")
    state = tmp_path / "train" / "birds.training"
    state.mkdir()
    for file in files:
        (state / file).write_bytes(b"")
    source = read_source(tmp_path)
    assert sides(source) == {"train": 4, "val": 4}
    assert left_out(source) == {"an adapter, or a training run's state": ("train/birds.training/",)}


def test_a_run_beside_the_split_does_not_hide_it(tmp_path: Path) -> None:
    data = write_layout(tmp_path, "photos/Train/{}", "photos/Val/{}")
    with claim_destination(data / "out", task="pets", data=data):
        assert sides(read_source(data)) == {"train": 4, "val": 4}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["{}"], [".", "cat", "dog"]),
        (
            ["Train/{}", "Test/{}"],
            ["Test", "Test/cat", "Test/dog", "Train", "Train/cat", "Train/dog"],
        ),
        (["deep/{}"], ["deep", "deep/cat", "deep/dog"]),
    ],
)
def test_folders_of_images_are_those_that_count(
    tmp_path: Path, folders: list[str], expected: list[str]
) -> None:
    write_layout(tmp_path, *folders)
    found = folders_of_images(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found) == expected


def test_a_copy_of_the_data_inside_it_is_no_class(tmp_path: Path) -> None:
    names = (*numbered("cat", 2), *numbered("dog", 2))
    write_images(tmp_path, *names, *(f"copy/{name}" for name in names))
    with pytest.raises(
        DataError, match=r"'copy' .* \(cat, dog\): it looks like a copy of the data"
    ):
        read_source(str(tmp_path), seed=0, train_images=None)
