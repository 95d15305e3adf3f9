"""Data sets of Hugging Face's: columns by type, sides by the names of splits, images as stored."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatehub.errors import DataError, InputError, UnreadableImageError
from gatehub.training.data import load_data
from gatehub.training.examples import digest_images, make_examples
from gatehub.training.sources import read_source, takes_columns
from gatehub.training.sources.huggingface.loading import divide_name, load_splits
from gatehub.training.sources.huggingface.rows import find_rows
from tests.training.images import numbered, write_images
from tests.training.sources.huggingface.splits import datasets, encode, save

NAMES = ["dog", "cat", "emu"]  # in an order of their own, and one without images


def make_split(labels: Sequence[int | None], **columns: tuple[Any, list[Any]]) -> Any:
    """A split of single-coloured images, whose colour is their row."""
    rows: dict[str, Any] = {
        "image": [{"bytes": encode(i), "path": None} for i in range(len(labels))],
        "label": list(labels),
        **{name: values for name, (_, values) in columns.items()},
    }
    kinds = {name: kind for name, (kind, _) in columns.items()}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), **kinds}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_splits_are_sides_and_classes_keep_their_order(tmp_path: Path) -> None:
    source = save(
        tmp_path / "pets",
        train=make_split([0, 1] * 4),
        validation=make_split([1, 0]),
        test=make_split([0, 0, 1]),
    )
    data = load_data(source)
    assert data.labels == ("dog", "cat")
    assert [len(side) for side in (data.train, data.val, data.test)] == [8, 2, 3]
    assert data.val.names == ("validation/0", "validation/1")
    assert data.val.targets == (1, 0)
    assert data.extremes == ((4, 4), (4, 4))
    assert np.asarray(data.train.image(5))[0, 0].tolist() == [5, 0, 90]
    found = read_source(source)
    assert found.notes == (
        "Splits: train to train on, validation to validate on, test kept apart as the test.",
    )
    assert found.left_out == ()


def test_a_split_that_is_named_is_all_that_there_is(tmp_path: Path) -> None:
    source = save(tmp_path / "pets", train=make_split([0, 1] * 5), test=make_split([0, 1] * 2))
    data = load_data(f"{source}:test", val_fraction=0.5)
    assert (len(data.train), len(data.val), len(data.test)) == (2, 2, 0)
    assert {name.partition("/")[0] for name in data.train.names + data.val.names} == {"test"}
    with pytest.raises(DataError, match=r"has no split 'dev'; it has train, test"):
        read_source(f"{source}:dev")


def test_the_digest_is_that_of_the_same_files(tmp_path: Path) -> None:
    """So whoever evaluates on an export of the data is told that it was trained on."""
    source = save(tmp_path / "pets", train=make_split([0, 1] * 3))
    for number in range(6):
        file = tmp_path / "photos" / NAMES[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(number))
    stored, files = (
        make_examples(read_source(each).pictures, NAMES) for each in (source, tmp_path / "photos")
    )
    assert digest_images(stored, NAMES) == digest_images(files, NAMES)
    other = save(tmp_path / "other", train=make_split([0, 1, 0, 1, 0, 0]))
    others = make_examples(read_source(other).pictures, NAMES)
    assert digest_images(stored, NAMES) != digest_images(others, NAMES)


def test_images_in_files_of_their_own_are_found(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", *numbered("train/cat", 4), *numbered("train/dog", 4))
    data = load_data(f"hf:{tmp_path / 'photos'}", val_fraction=0.25)
    assert data.labels == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (6, 2)


def test_what_save_to_disk_wrote_is_read(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=make_split([0, 1] * 3), test=make_split([0, 1]))
    splits.save_to_disk(str(tmp_path / "both"))
    splits["train"].save_to_disk(str(tmp_path / "one"))
    assert len(read_source(f"hf:{tmp_path / 'both'}").pictures) == 8
    assert len(read_source(f"hf:{tmp_path / 'one'}").pictures) == 6


def test_columns_are_found_by_type_and_chosen_by_name(tmp_path: Path) -> None:
    more = [{"bytes": encode(100 + i), "path": None} for i in range(4)]
    columns = {
        "depth": (datasets.Image(), more),
        "coarse": (datasets.ClassLabel(names=["pet", "wild"]), [0, 1, 1, 0]),
        "word": (datasets.Value("string"), ["a", "b", "a", "b"]),
        "size": (datasets.Value("float32"), [1.0] * 4),
    }
    source = save(tmp_path / "pets", train=make_split([0, 1, 0, 1], **columns))
    with pytest.raises(DataError, match=r"2 columns of type Image: image, depth; which is the im"):
        read_source(source)
    image = {"path": "depth"}
    with pytest.raises(DataError, match="2 columns of type ClassLabel: label, coarse") as caught:
        read_source(source, columns=image)
    assert caught.value.hint == "Say it, such as --columns label=label."
    found = read_source(source, columns={**image, "label": "coarse"}).pictures
    assert [picture.label for picture in found] == ["pet", "wild", "wild", "pet"]
    assert found[1].image.read() == encode(101)  # type: ignore[union-attr]
    words = read_source(source, columns={**image, "label": "word"}).pictures
    assert [picture.label for picture in words] == ["a", "b", "a", "b"]
    for columns_given, told in (
        ({"path": "word", "label": "label"}, "expected 'word', the image, among them, of type Im"),
        ({"path": "image", "label": "none"}, "expected 'none', the class, among them"),
        ({"path": "image", "label": "size"}, r"'size' \(float32\); expected 'size'"),
        ({"path": "image", "split": "word"}, "A column of .* is named for the split"),
    ):
        with pytest.raises(DataError, match=told):
            read_source(source, columns=columns_given)
    assert takes_columns(source, {"path": "depth", "label": "coarse"})
    assert not takes_columns(source, {"path": "photo"})


def test_another_process_finds_the_rows(tmp_path: Path) -> None:
    test = make_split([0, 1] * 3).select([4, 5])
    source = save(tmp_path / "pets", train=make_split([0, 1, 0]), test=test)
    pictures = read_source(source).pictures
    places = [picture.image.place for picture in pictures]  # type: ignore[union-attr]
    found = find_rows(type(place)(*place) for place in places)
    assert [row.read() for row in found] == [encode(i) for i in (0, 1, 2, 4, 5)]


def test_a_data_set_of_something_else_is_refused(tmp_path: Path) -> None:
    plain = make_split([0, 1]).remove_columns(["image"])
    with pytest.raises(DataError, match=r"no column of type Image; its columns are 'label'"):
        read_source(save(tmp_path / "plain", train=plain))
    words = make_split([0, 1], kind=(datasets.Value("string"), ["a", "b"])).remove_columns("label")
    with pytest.raises(DataError, match="no column of type ClassLabel") as caught:
        read_source(save(tmp_path / "words", train=words))
    assert "--columns label=NAME" in str(caught.value.hint)


def test_rows_without_a_class_are_left_out_and_named(tmp_path: Path) -> None:
    source = save(
        tmp_path / "pets",
        train=make_split([0, 1, None, 0, 1, -1]),
        test=make_split([-1, -1]),
    )
    found = read_source(source)
    assert [picture.name for picture in found.pictures] == [f"train/{i}" for i in (0, 1, 3, 4)]
    assert {part.why: part.names for part in found.left_out} == {
        "without a class": ("train/2", "train/5"),
        "without labels": ("test/",),
    }
    assert {part.why: part.rows for part in found.left_out} == {
        "without a class": True,
        "without labels": False,
    }


def test_splits_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    both = {"train": make_split([0, 1]), "valid": make_split([0, 1]), "dev": make_split([0, 1])}
    saved = datasets.DatasetDict(both)
    saved.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match="has the splits train, valid, dev; expected one each"):
        read_source(f"hf:{tmp_path / 'two'}")
    del both["dev"]
    datasets.DatasetDict(both, unsupervised=make_split([0])).save_to_disk(str(tmp_path / "more"))
    (beside,) = read_source(f"hf:{tmp_path / 'more'}").left_out
    assert beside.names == ("unsupervised/",)


def test_an_image_that_is_none_is_told(tmp_path: Path) -> None:
    train = make_split([0, 1] * 3).to_dict()
    train["image"][2] = {"bytes": b"no image", "path": None}
    train["image"][3] = None
    features = make_split([0]).features
    broken = datasets.Dataset.from_dict(train, features=features)
    source = save(tmp_path / "pets", train=broken)
    with pytest.raises(UnreadableImageError, match=r"2 of the 6 images .*train/2, train/3"):
        load_data(source)
    data = load_data(source, skip_bad=True, val_fraction=0.5)
    assert data.skipped == ("train/2", "train/3")
    with pytest.raises(InputError, match="Row 3 has no image in the column 'image'"):
        read_source(source).pictures[3].image.read()  # type: ignore[union-attr]


def test_rows_can_be_sent_to_another_process(tmp_path: Path) -> None:
    source = save(tmp_path / "pets", train=make_split([0, 1] * 3))
    image = read_source(source).pictures[4].image
    assert pickle.loads(pickle.dumps(image)).read() == encode(4)


@pytest.mark.parametrize(
    ("source", "name", "split"),
    [
        ("hf:acme/birds", "acme/birds", None),
        ("hf:acme/birds:test", "acme/birds", "test"),
        ("hf:cifar10:train", "cifar10", "train"),
        (r"hf:C:\data\birds", r"C:\data\birds", None),
        ("hf:./a:b/c", "./a:b/c", None),
    ],
)
def test_a_split_stands_behind_the_name(source: str, name: str, split: str | None) -> None:
    assert divide_name(source) == (name, split)


def test_what_cannot_be_loaded_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    for source, told in (
        ("hf:", "names no data set"),
        (f"hf:{tmp_path / 'none'}", "is no folder here, and cannot be loaded as a data set"),
        (f"hf:{tmp_path / 'empty'}", "is a folder, but cannot be loaded as a data set"),
    ):
        with pytest.raises(DataError, match=re.escape(told)):
            read_source(source)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="read by their package 'datasets'") as caught:
        read_source("hf:acme/birds")
    assert caught.value.hint == "pip install 'gatehub[datasets]'"


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        (datasets.Value("binary"), bytes),
        (datasets.Value("large_binary"), bytes),
        (
            {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            lambda data: {"bytes": data, "path": None},
        ),
    ],
)
def test_files_in_a_column_of_bytes_are_images_where_they_are_named(
    tmp_path: Path, kind: Any, wrap: Callable[[bytes], Any]
) -> None:
    files = [wrap(encode(100 + i)) for i in range(4)]
    train = make_split([0, 1, 0, 1], photo=(kind, files)).remove_columns(["image"])
    source = save(tmp_path / "pets", train=train)
    with pytest.raises(DataError, match="no column of type Image") as caught:
        read_source(source)
    assert caught.value.hint is not None
    assert "If 'photo' holds encoded images" in caught.value.hint
    assert caught.value.hint.endswith("--columns path=photo.")
    data = load_data(source, columns={"path": "photo"}, val_fraction=0.5)
    assert sorted(int(np.asarray(data.train.image(i))[0, 0, 0]) % 2 for i in range(2)) == [0, 1]
    row = read_source(source, columns={"path": "photo"}).pictures[3].image
    assert row.read() == encode(103)  # type: ignore[union-attr]


def test_each_data_set_is_loaded_once_for_all_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "pets", train=make_split([0, 1] * 3), test=make_split([1, 0]))
    places = [picture.image.place for picture in read_source(source).pictures]  # type: ignore[union-attr]
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        return load_splits(name)

    monkeypatch.setattr("gatehub.training.sources.huggingface.rows.load_splits", load)
    assert len(list(find_rows(places))) == 8
    assert loaded == [source]


def test_a_file_of_a_row_may_vanish(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", "train/cat/0.png", "train/dog/0.png")
    image = read_source(f"hf:{photos}").pictures[0].image
    assert image.read() == (photos / "train/cat/0.png").read_bytes()  # type: ignore[union-attr]
    (photos / "train/cat/0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png' cannot be read: No such file"):
        image.read()  # type: ignore[union-attr]


@pytest.mark.parametrize("watched", [True, False])
def test_bars_are_shown_where_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    source = save(tmp_path / "pets", train=make_split([0, 1]))
    told: list[bool] = []
    monkeypatch.setattr(datasets, "disable_progress_bars", lambda: told.append(True))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    read_source(source)
    assert told == ([] if watched else [True])


def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    source = save(tmp_path / "pets:small", train=make_split([0, 1]))
    assert divide_name(source) == (str(tmp_path / "pets:small"), None)
    assert divide_name(f"{source}:train") == (str(tmp_path / "pets:small"), "train")
