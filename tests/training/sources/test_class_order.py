"""classes.txt orders the labels to train on, and must list every class exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.errors import DataError
from gatehub.training.data import load_data
from gatehub.training.sources import read_source
from tests.training.images import numbered, write_images

FOLDERS = {
    "plain": ("", ["{}"]),
    "split": ("", ["train/{}", "val/{}"]),
    "further down": ("", ["photos/2024/{}"]),
    "beside the classes": ("photos/2024", ["photos/2024/{}"]),
    "on the way": ("photos", ["photos/train/{}", "photos/val/{}"]),
    "table": ("", ["images/{}"]),
}


def write_source(root: Path, form: str, classes: bytes | str) -> Path:
    place, folders = FOLDERS[form]
    for folder in folders:
        for label in ("b", "é", "a c"):
            write_images(root, *numbered(folder.format(label), 2))
    content = classes.encode() if isinstance(classes, str) else classes
    (root / place / "classes.txt").write_bytes(content)
    if form != "table":
        return root
    paths = [path.relative_to(root).as_posix() for path in sorted(root.glob("images/*/*.png"))]
    rows = (f"{path},{path.split('/')[1]}\n" for path in paths)
    (root / "t.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    return root / "t.csv"


@pytest.mark.parametrize("form", FOLDERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_file_orders_the_labels(tmp_path: Path, form: str, encoding: str) -> None:
    # The second spelling of é, as a Mac writes it.
    source = write_source(tmp_path, form, "b\r\n\r\n a c\r\ne\u0301\r\n".encode(encoding))
    data = load_data(source)
    assert data.labels == ("b", "a c", "\u00e9")
    for examples in (data.train, data.val):
        parts = [name.split("/")[-2] for name in examples.names]
        assert [data.labels[target] for target in examples.targets] == parts
    found = read_source(source)
    assert found.left_out == ()
    assert found.notes[-1].startswith("The classes are in the order of ")


@pytest.mark.parametrize("form", ["plain", "table"])
def test_without_the_file_the_labels_are_sorted(tmp_path: Path, form: str) -> None:
    source = write_source(tmp_path, form, "")
    (tmp_path / "classes.txt").unlink()
    assert load_data(source).labels == ("a c", "b", "é")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("b\na c\n", r"classes\.txt lacks classes of which .* has images: é\."),
        ("b\na c\né\nd\n", r"lists classes of which .* has no images: d\..* once, one a line"),
        ("0 b\n1 a c\n2 é\n", "has no images: 0 b, 1 a c, 2 é"),
        ("", "lacks classes .*: a c, b, é"),
        ("b\né\na c\nb\n", "line 4: the class 'b' is on line 1 already"),
        (b"b\na c\n\xe9\n", "The list of classes .* is not UTF-8 text: line 3"),
    ],
)
@pytest.mark.parametrize("form", ["plain", "split", "table"])
def test_what_does_not_list_the_classes_is_refused(
    tmp_path: Path, form: str, classes: bytes | str, message: str
) -> None:
    source = write_source(tmp_path, form, classes)
    with pytest.raises(DataError, match=message):
        load_data(source)
    assert read_source(source, to_train=False).labels is None  # what is measured needs no order


def test_two_files_must_agree(tmp_path: Path) -> None:
    source = write_source(tmp_path, "on the way", "b\na c\né\n")
    (tmp_path / "classes.txt").write_text("b\na c\né\n", encoding="utf-8")
    assert load_data(source).labels == ("b", "a c", "é")
    (tmp_path / "classes.txt").write_text("a c\nb\né\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.txt list the classes in different orders"):
        load_data(source)
