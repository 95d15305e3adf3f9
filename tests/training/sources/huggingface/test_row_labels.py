"""Data sets of Hugging Face's where an image has any number of labels: lists, texts, 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatehub.errors import DataError
from gatehub.training.data import load_data
from gatehub.training.sources import Source, read_source, takes_columns
from tests.training.sources.huggingface.splits import datasets, encode, save

NAMES = ["dog", "cat", "red", "emu"]  # in an order of their own, and one without images
INDICES: list[list[int] | None] = [[1, 2], [], [1], [2, 0, 2], [0]]
EXPECTED = [("cat", "red"), (), ("cat",), ("dog", "red"), ("dog",)]


def make(count: int | None = None, /, **columns: tuple[Any, Sequence[Any]]) -> Any:
    """A split of images with other columns: their types and cells."""
    count = count or max((len(cells) for _, cells in columns.values()), default=1)
    rows = {"image": [{"bytes": encode(i), "path": None} for i in range(count)]}
    kinds = {name: kind for name, (kind, _) in columns.items()}
    return datasets.Dataset.from_dict(
        rows | {name: list(cells) for name, (_, cells) in columns.items()},
        features=datasets.Features({"image": datasets.Image(), **kinds}),
    )


def read(source: str, **columns: str) -> Source:
    return read_source(source, multi_label=True, columns=columns or None)


def sets(source: Source) -> list[tuple[str, ...]]:
    assert source.multi_label
    return [picture.labels for picture in source.pictures]


def whole(name: str) -> Any:
    return datasets.Value(name)


def classes() -> Any:
    return datasets.ClassLabel(names=NAMES)


WORDS = [[NAMES[i] for i in own] for own in INDICES if own is not None]
FLAGS = {
    name: (whole(kind), [number(name in own) for own in EXPECTED])
    for name, kind, number in (
        ("red", "int64", int),
        ("cat", "bool", bool),
        ("dog", "float32", float),
    )
}


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ({"labels": (datasets.List(classes()), INDICES)}, ("dog", "cat", "red")),
        ({"labels": (datasets.Sequence(classes()), INDICES)}, ("dog", "cat", "red")),
        ({"labels": (datasets.LargeList(classes()), INDICES)}, ("dog", "cat", "red")),
        ({"tags": (datasets.List(whole("string")), WORDS)}, None),
        ({"tags": (datasets.List(whole("large_string")), WORDS)}, None),
        (FLAGS, ("red", "cat", "dog")),
    ],
)
def test_every_layout_is_read_alike(
    tmp_path: Path, columns: Mapping[str, Any], order: tuple[str, ...] | None
) -> None:
    dataset = make(**{"note": (whole("string"), ["x y"] * 5), **columns})
    found = read(save(tmp_path / "pets", train=dataset))
    assert sets(found) == EXPECTED
    assert found.labels == order
    datasets.DatasetDict(train=dataset).save_to_disk(str(tmp_path / "saved"))
    assert sets(read(f"hf:{tmp_path / 'saved'}")) == EXPECTED


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        (["|".join(own) for own in EXPECTED], "separated by '|'"),
        ([", ".join(own) for own in EXPECTED], "separated by ','"),
        ([str(list(own)) for own in EXPECTED], None),
    ],
)
def test_a_column_of_text_that_is_named_is_read_as_that_of_a_table(
    tmp_path: Path, cells: list[str], note: str | None
) -> None:
    both = {"train": cells[:3], "test": cells[3:]}
    source = save(
        tmp_path / "pets", **{k: make(tags=(whole("string"), v)) for k, v in both.items()}
    )
    found = read(source, label="tags")
    assert sets(found) == EXPECTED
    assert any(note is None or note in told for told in found.notes)


def test_a_class_that_is_named_is_the_only_label(tmp_path: Path) -> None:
    kinds = {"label": (classes(), [1, 0, -1]), "tags": (datasets.List(classes()), [[0], [1], [2]])}
    source = save(tmp_path / "pets", train=make(**kinds))
    assert sets(read(source)) == [("dog",), ("cat",), ("red",)]
    named = read(source, label="label")
    assert sets(named) == [("cat",), ("dog",)]
    assert [part.names for part in named.left_out] == [("train/2",)]
    found = read_source(source)
    assert [picture.label for picture in found.pictures] == ["cat", "dog"]


def test_a_list_of_classes_goes_before_lists_of_texts(tmp_path: Path) -> None:
    kinds = {
        "words": (datasets.List(whole("string")), [["x"], ["y"]]),
        "labels": (datasets.List(classes()), [[0], [1, 2]]),
    }
    source = save(tmp_path / "pets", train=make(**kinds))
    assert sets(read(source)) == [("dog",), ("cat", "red")]
    assert sets(read(source, label="words")) == [("x",), ("y",)]


def test_what_fills_a_list_up_is_no_label_and_no_list_is_no_answer(tmp_path: Path) -> None:
    """None is not the same as an empty list: nobody looked."""
    cells = [[1, -1, -1], None, [], [0, 2, -1]]
    hidden = make(labels=(datasets.List(classes()), [[], []]))
    source = save(
        tmp_path / "pets", train=make(labels=(datasets.List(classes()), cells)), test=hidden
    )
    found = read(source)
    assert sets(found) == [("cat",), (), ("dog", "red")]
    assert [(part.why, part.names) for part in found.left_out] == [
        ("without labels", ("test/",)),
        ("without labels", ("train/1",)),
    ]


def test_columns_of_0_and_1_can_be_named(tmp_path: Path) -> None:
    flags = {**FLAGS, "width": (whole("int32"), [4, 5, 4, 5, 4]), "old": (whole("int8"), [1] * 5)}
    source = save(tmp_path / "pets", train=make(**flags))
    with pytest.raises(DataError, match="has 1 throughout in: old"):
        read(source)
    found = read(source, label="cat|dog")
    assert found.labels == ("cat", "dog")
    assert sets(found) == [tuple(sorted({*own} - {"red"})) for own in EXPECTED]
    assert sets(read(source, label="cat")) == [tuple({*own} & {"cat"}) for own in EXPECTED]
    with pytest.raises(DataError, match="row 0: 'width' is '4'; expected 0 or 1"):
        read(source, label="cat|width")
    with pytest.raises(DataError, match="expected 'none', a label, once among them"):
        read(source, label="cat|none")
    assert takes_columns(source, {"label": "cat|dog"}, multi_label=True)
    assert not takes_columns(source, {"label": "cat|dog"})
    assert not takes_columns(source, {"label": "cat|none"}, multi_label=True)
    assert takes_columns(source, {"label": "width", "path": "image"}, multi_label=True)


def test_splits_must_have_the_same_columns_of_0_and_1(tmp_path: Path) -> None:
    fewer = {name: FLAGS[name] for name in ("red", "cat")}
    splits = datasets.DatasetDict(train=make(**FLAGS), test=make(**fewer))
    splits.save_to_disk(str(tmp_path / "pets"))
    with pytest.raises(DataError, match=r"\(test\) has no column 'dog', which another split has"):
        read(f"hf:{tmp_path / 'pets'}")


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        ({"a": (datasets.List(whole("int64")), [[0, 1]])}, {}, "has no list of labels for each im"),
        ({"a": (whole("string"), ["x"])}, {}, r"its columns are 'image' \(Image\), 'a' \(string\)"),
        (
            {"a": (datasets.List(classes()), [[0]]), "b": (datasets.List(classes()), [[1]])},
            {},
            "has 2 columns of type List of ClassLabel: a, b; which holds the labels",
        ),
        (
            {"a": (datasets.List(whole("float32")), [[0.5]])},
            {"label": "a"},
            r"'a' \(List of float32\); expected 'a', the labels",
        ),
    ],
)
def test_what_holds_no_labels_is_refused(
    tmp_path: Path, columns: Any, named: Mapping[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(save(tmp_path / "pets", train=make(**columns)), **named)


@pytest.mark.parametrize("to_train", [True, False])
def test_lists_that_nobody_announced_name_the_option(tmp_path: Path, to_train: bool) -> None:
    source = save(tmp_path / "pets", train=make(tags=(datasets.List(classes()), INDICES)))
    hint = "add --multi-label" if to_train else "the adapter does not fit"
    for columns in (None, {"label": "tags"}):
        with pytest.raises(DataError) as caught:
            read_source(source, columns=columns, to_train=to_train)
        assert hint in str(caught.value.hint)


def test_a_task_of_lists_is_divided_for_training(tmp_path: Path) -> None:
    cells = [[0], [1], [2], []] * 3
    source = save(tmp_path / "pets", train=make(labels=(datasets.List(classes()), cells)))
    data = load_data(source, multi_label=True, val_fraction=0.5)
    assert data.labels == ("dog", "cat", "red")
    assert data.multi_label
    assert len(data.train) + len(data.val) == 12
