"""Labels that every image has, where an image may have any number of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.errors import DataError
from gatehub.training.data import Listing, list_data
from tests.training.images import numbered, write_images


def listing(tmp_path: Path, *rows: str) -> Listing:
    names = numbered("x", len(rows))
    write_images(tmp_path, *names)
    lines = [f"{name},{row}\n" for name, row in zip(names, rows, strict=True)]
    (tmp_path / "t.csv").write_text("path,split,labels\n" + "".join(lines))
    columns = {} if any(row[0] != "," for row in rows) else {"split": ""}
    return list_data(tmp_path / "t.csv", columns=columns, multi_label=True)


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (("train,a|b", "train,b", "val,a|b", "val,b"), "on every image: b;"),
        (("train,a|b", "train,b", "val,a", "val,b"), "on every image to train on: b;"),
        (("train,a|b", "train,b", "val,a|b", "val,b", "test,a"), "on every image to train on: b;"),
        ((",a|b", ",b", ",a", ",b|a"), "on every image to train on: a, b;"),
    ],
)
def test_what_every_image_has_cannot_be_learned(
    tmp_path: Path, rows: tuple[str, ...], where: str
) -> None:
    with pytest.raises(DataError, match=where):
        listing(tmp_path, *rows)


def test_what_every_image_to_validate_on_has_is_said(tmp_path: Path) -> None:
    found = listing(tmp_path, "train,a|b", "train,b", "train,", "val,a|b", "val,b")
    assert [note for note in found.notes if "Every image to validate on has: b;" in note]
    found = listing(tmp_path, "train,a|b", "train,b", "train,", "val,a|b", "val,")
    assert not [note for note in found.notes if "Every image" in note]
